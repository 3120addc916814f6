package guardrails

import (
	"slices"
	"strings"
	"testing"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// A name that a group lists already is a membership of it: the group's rule must
// let it gain members, whatever else it allows, and must take one without an end.
func TestANameGivenIsAMembershipWithoutEnd(t *testing.T) {
	for operations, want := range map[string]bool{
		"[add_member]": true, "[create, rename]": false, "[add_member], require_end: true": false, "[add_member], max_grant: 8h": false,
	} {
		c := checkerOf(t, strings.Replace(tight, "[create, add_member, remove_member]", operations, 1))
		s := creating("person", &connectorv1.Create{Name: dn(t, "uid=late"+people)})
		s.Named = []*connectorv1.Object{share(t, "s")}
		r := renaming(person(t, "anna"), "late")
		r.Named = s.Named
		for _, s := range []Subject{s, r} {
			if got := len(c.Check(s, now)) == 0; got != want {
				t.Errorf("%s: allowed %v: %v", operations, got, c.Check(s, now))
			}
		}
	}
}

// With a part that a rename leaves out, the directory takes a value from the object.
func TestARenameTakesNoValueThatIsNotListed(t *testing.T) {
	o := person(t, "a")
	o.Name = dn(t, "uid=a+description=b+mail=a@evil.example"+people)
	to := func(leaf string) Subject {
		return on(o, &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: dn(t, leaf).Leaf()}}})
	}
	refused(t, checkerOf(t, tight), to("uid=a+mail=a@evil.example"), "description is not listed")
	if r := checkerOf(t, tight).Check(to("uid=b+description=b"), now); len(r) > 0 {
		t.Errorf("a listed value may not go: %v", r)
	}
}

// What a directory takes for the protected name is protected, and so is the name
// of a stale member.
func TestNamesAreDeniedAsDirectoriesPrepareThem(t *testing.T) {
	c := checkerOf(t, tight+"protected: [{name: 'uid=Jürgen,ou=people,dc=fabrikam,dc=example'}]\n")
	sudo := &connectorv1.Object{Type: "group", Anchor: "s", Name: dn(t, "cn=sudo,dc=fabrikam,dc=example"), Members: []string{"uid:bob"}}
	g := NewGroups([]*connectorv1.Object{sudo})
	create := func(value string) Subject {
		name := &connectorv1.Name{Components: append([]*connectorv1.Component{connectorv1.NewComponent("uid", value)}, dn(t, "ou=people,dc=fabrikam,dc=example").GetComponents()...)}
		s := creating("person", &connectorv1.Create{Name: name})
		s.Named = g.Naming(name, nil)
		return s
	}
	for _, value := range []string{"Jürgen", "JU\u0308RGEN", "ｊürgen", "jü\u00adrgen", "\u200bjürgen", " jürgen "} {
		refused(t, c, create(value), "is protected")
	}
	for _, value := range []string{"ｂｏｂ", "b\u200bob", "BOB"} {
		refused(t, c, create(value), "sudo")
	}
	many := create("bob")
	leaf := many.Change.GetOperation().GetCreate().GetName().Leaf()
	leaf.Parts = append(leaf.Parts, &connectorv1.Part{Type: "mail", Value: "x@fabrikam.example"})
	many.Named = g.Naming(many.Change.GetOperation().GetCreate().GetName(), nil)
	refused(t, c, many, "sudo") // beside another part it is the same name to the group
	if r := c.Check(create("jurgen"), now); len(r) > 0 {
		t.Errorf("another name is refused: %v", r)
	}
}

// A protected subject is known by what it is now, whatever its key and name.
func TestProtectedSubjectsAreFollowedIntoGroups(t *testing.T) {
	text := strings.ReplaceAll(tight, "[create, add_member, remove_member]", "[delete, add_member, remove_member]")
	text = strings.Replace(text, "[create, update, rename, move]", "[rename, delete]", 1)
	c := checkerOf(t, text+"protected: [{name: 'uid=ceo,ou=people,dc=fabrikam,dc=example'}, {anchor: anchor-cfo}]\n")
	board := share(t, "board", "dn:renamed")
	if r := c.Check(del(board), now); len(r) > 0 {
		t.Fatalf("refused before anybody is known: %v", r)
	}
	renamed := person(t, "renamed")
	c.Guard([]*connectorv1.Object{renamed})
	refused(t, c, del(board), "protected member")
	outer := on(share(t, "outer"), &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{}}})
	outer.Member = board
	refused(t, c, outer, "protected member")
	renamed.Name = dn(t, "uid=renamed,uid=anna"+people)
	refused(t, c, del(person(t, "anna")), "lies under")
	refused(t, c, renaming(person(t, "anna"), "bert"), "lies under")
	pins := map[string]string{"anchor-ceo": c.g.Protected[0].Pin(), "anchor-was": "another name"}
	if got := c.g.Anchors(pins); !slices.Equal(got, []string{"anchor-ceo", "anchor-cfo"}) {
		t.Errorf("anchors of the protected: %v", got)
	}
}

// Who loses something through a group within the group is counted, a circle of
// groups once.
func TestLosersAreCountedThroughEveryGroup(t *testing.T) {
	inner := share(t, "inner", "dn:a", "dn:b", "dn:c", "dn:nested")
	nested := share(t, "nested", "dn:inner", "dn:d")
	g := NewGroups([]*connectorv1.Object{inner, nested})
	if got := g.Below(nested); !slices.Equal(got, []string{"dn:a", "dn:b", "dn:c", "dn:d"}) {
		t.Fatalf("below: %v", got)
	}
	c := checkerOf(t, tight+"budgets: {plan: {losing_access: 3}}\n")
	s := on(share(t, "outer", "dn:nested"), &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{}}})
	s.Member, s.Losers = nested, g.Below(nested)
	if len(c.Budget(Charges(s), nil)) != 1 {
		t.Error("four who lose something through two groups are within a budget of three")
	}
	g.Put(share(t, "inner"))
	if got := g.Below(nested); !slices.Equal(got, []string{"dn:d", "dn:inner"}) {
		t.Errorf("below an emptied group: %v", got)
	}
}
