package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

func TestDiff(t *testing.T) {
	old := mustCompile(t, small, nil)
	holders := []policy.Holder{
		{Subject: person(map[string]string{"login": "zoe"})},
		{Subject: person(map[string]string{"login": "anna", "title": "boss"})},
		{Subject: person(map[string]string{"login": "an\x00na"})},
	}
	for i, id := range []string{"id-z", "id-a", "id-n"} {
		holders[i].Subject.ID = id
	}
	if same := policy.Diff(old, old, holders[:2], noon); len(same) != 0 {
		t.Errorf("a program differs from itself: %v", same)
	}
	changed := strings.NewReplacer(
		// Everybody loses users; the group behind editors is another one.
		"    entitlements: [app/users]\n  - id: team", "    entitlements: [app/editors]\n  - id: team",
		`when: 'identity.attr("login") != ""'`, `when: 'identity.attr("login") != "" && identity.attr("login") != "zoe"'`,
		`value: 'identity.attr("title")'`, `value: 'identity.attr("title").upper()'`,
	).Replace(small)
	var got []string
	for _, d := range policy.Diff(old, mustCompile(t, changed, nil), holders, noon) {
		line := fmt.Sprintf("%s %s %s %s", d.Subject, d.Kind, d.What, d.Object)
		if len(d.Before)+len(d.After) > 0 && d.Kind != policy.Unknown {
			line += fmt.Sprintf(" %v->%v", d.Before, d.After)
		}
		got = append(got, line)
	}
	want := []string{
		"id-a changes attribute title [enforce boss]->[enforce BOSS]",
		"id-a gains entitlement app/editors",
		"id-a loses entitlement app/users",
		"id-n unknown  ",
		"id-z loses account uid=zoe,ou=people,dc=example",
		"id-z loses entitlement app/users",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// The same entitlement for another group takes the one and gives the other.
func TestDiffOfAnEntitlementThatMoved(t *testing.T) {
	old, moved := mustCompile(t, small, nil), mustCompile(t, with(t, `"users " + params.site`, `"domain admins"`), nil)
	differences := policy.Diff(old, moved, []policy.Holder{{Subject: person(map[string]string{"login": "anna"})}}, noon)
	if len(differences) != 2 || differences[0].Kind != policy.Gains || differences[1].Kind != policy.Loses || differences[0].Object != "app/users" {
		t.Errorf("got %+v", differences)
	}
}
