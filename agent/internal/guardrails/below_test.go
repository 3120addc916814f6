package guardrails

import (
	"fmt"
	"slices"
	"testing"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestWhatLiesBelowIsProtectedToo: who is protected is not deleted, renamed or
// moved together with what they lie under, in whatever case it is written.
func TestWhatLiesBelowIsProtectedToo(t *testing.T) {
	g := &Guardrails{
		Alias: "dir",
		Scope: []ScopeRule{{
			Rule: "people", Types: []string{"person"}, Base: NewName(dn(t, "ou=people,dc=fabrikam,dc=example")),
			Operations: []string{"delete", "rename", "move"},
		}},
		Protected: []Protected{{Name: NewName(dn(t, "uid=ceo,uid=HOST"+people))}},
	}
	checker := g.Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
	host, other := person(t, "host"), person(t, "other")
	for name, act := range map[string]func(o *connectorv1.Object) Subject{
		"delete": del,
		"rename": func(o *connectorv1.Object) Subject { return renaming(o, "elsewhere") },
		"move": func(o *connectorv1.Object) Subject {
			return moving(t, o, "ou=north,ou=people,dc=fabrikam,dc=example")
		},
	} {
		if got := checker.Check(act(other), now); len(got) > 0 {
			t.Errorf("%s of what holds nobody protected: %v", name, got)
		}
		got := checker.Check(act(host), now)
		if !slices.ContainsFunc(got, func(r Refusal) bool { return r.Rule == "dir/protected[0]" }) {
			t.Errorf("%s of what holds the protected: %v", name, got)
		}
	}
}

// TestAboveIsFollowedToTheTop: a group's groups count, and theirs, though nothing
// names who is at the bottom.
func TestAboveIsFollowedToTheTop(t *testing.T) {
	bottom := share(t, "bottom")
	g := NewGroups([]*connectorv1.Object{share(t, "top", "dn:third"), bottom, share(t, "second", "dn:bottom"), share(t, "third", "dn:second"), share(t, "beside", "dn:x")})
	var names []string
	for _, o := range g.Above(bottom) {
		names = append(names, o.GetAnchor())
	}
	slices.Sort(names)
	if got := fmt.Sprint(names); got != "[anchor-second anchor-third anchor-top]" {
		t.Errorf("above the bottom: %s", got)
	}
}
