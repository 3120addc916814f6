package executor

import (
	"slices"
	"testing"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestAStaleBaseIsNotSent: the agent holds base values against what it read
// itself, so that a connector which cannot assert them changes nothing either.
func TestAStaleBaseIsNotSent(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	anna := account("anna")
	anna.Attributes = map[string][]string{"displayName": {"Anna B"}, "mail": {"a@fabrikam.example"}}
	b.put(anna)
	ref := anchored("account", "a-anna")
	expecting := func(id, attribute, before, after string) {
		c := update(id, 0, ref, attribute, nil, []string{after})
		c.Operation.Expect = []*connectorv1.Assertion{{Attribute: attribute, Values: [][]byte{[]byte(before)}}}
		order := b.carriedOut(c)
		if got := b.results()[order+"/"+id]; got != conflict {
			t.Errorf("%s: got %v, want a conflict", id, got)
		}
		if slices.ContainsFunc(b.fake.applied, func(ids []string) bool { return slices.Contains(ids, id) }) {
			t.Errorf("%s: it was sent", id)
		}
	}
	expecting("mail", "mail", "old@fabrikam.example", "new@fabrikam.example")
	expecting("name", "displayName", "Anna A", "Anna C")
}
