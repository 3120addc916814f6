package agentv1_test

import (
	"bytes"
	"encoding/hex"
	"testing"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// TestBindingsGolden: keys sign these bytes, so an agent of two versions ago and
// the control plane must build them alike.
func TestBindingsGolden(t *testing.T) {
	exporter := bytes.Repeat([]byte{1}, 32)
	for name, c := range map[string]struct {
		got  []byte
		want string
	}{
		"enrolment":      {agentv1.EnrollmentBinding(exporter, []byte("csr")), "ebba5897455c6db408e2b7dbd07696c177446f6770695e9eebc5e9655d292444"},
		"renewal":        {agentv1.RenewalBinding(exporter, nil, []byte("csr"), 7), "360f31245e2cd0715e0a271625b646a1cda653302a695b36e3f4bf51be5c3e09"},
		"re-attestation": {agentv1.RenewalBinding(exporter, []byte("challenge"), []byte("csr"), 7), "c266700a1c8ab8ecc9397f7395e7ef70a7db01920afea7bd577e6642b8a98009"},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s binds\n%s\nwant\n%s", name, got, c.want)
		}
	}
}

// TestBindingsKeepTheirPartsApart: what stands at the end of one part cannot be
// moved to the beginning of the next.
func TestBindingsKeepTheirPartsApart(t *testing.T) {
	seen := map[string]string{}
	for name, got := range map[string][]byte{
		"ab|c":            agentv1.EnrollmentBinding([]byte("ab"), []byte("c")),
		"a|bc":            agentv1.EnrollmentBinding([]byte("a"), []byte("bc")),
		"renew ab||c|1":   agentv1.RenewalBinding([]byte("ab"), nil, []byte("c"), 1),
		"renew a|b|c|1":   agentv1.RenewalBinding([]byte("a"), []byte("b"), []byte("c"), 1),
		"renew a|b|c|2":   agentv1.RenewalBinding([]byte("a"), []byte("b"), []byte("c"), 2),
		"renew a||bc|1":   agentv1.RenewalBinding([]byte("a"), nil, []byte("bc"), 1),
		"renew a|bc||1":   agentv1.RenewalBinding([]byte("a"), []byte("bc"), nil, 1),
		"renew |ab|c|256": agentv1.RenewalBinding(nil, []byte("ab"), []byte("c"), 256),
	} {
		if other, taken := seen[string(got)]; taken {
			t.Errorf("%s and %s bind the same", name, other)
		}
		seen[string(got)] = name
	}
}
