package root

import (
	"errors"
	"strings"
	"testing"
)

func TestParseRequest(t *testing.T) {
	const good = `{"trust_domain":"msp.example","ca_roots":["x"],"plan_keys":[{"id":"a","public":"b"}],"checkpoint_keys":[{"name":"n","id":"a","public":"b"}]}`
	r, err := ParseRequest([]byte(good))
	if err != nil || r.TrustDomain != "msp.example" || len(r.PlanKeys) != 1 || r.CheckpointKeys[0].Name != "n" {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, text := range map[string]string{
		"unknown member":  strings.Replace(good, `"ca_roots"`, `"more":1,"ca_roots"`, 1),
		"repeated member": strings.Replace(good, `"ca_roots"`, `"trust_domain":"other.example","ca_roots"`, 1),
		"no trust domain": `{}`,
		"a second value":  good + good,
	} {
		if _, err := ParseRequest([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
