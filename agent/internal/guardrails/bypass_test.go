package guardrails

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const tight = `
scope:
  - {rule: people, types: [person], base: "ou=people,dc=fabrikam,dc=example", operations: [create, update, rename, move]}
  - {rule: shares, types: [group], base: "ou=shares,ou=groups,dc=fabrikam,dc=example", operations: [create, add_member, remove_member]}
  - {rule: admins, types: [group], base: "ou=admins,ou=groups,dc=fabrikam,dc=example", operations: [add_member]}
attributes:
  - {name: mail, suffix: "@fabrikam.example"}
  - {name: uidNumber}
  - {name: manager, one_of: ["dn:uid=lead,ou=people,dc=fabrikam,dc=example"]}
client_signature: {rules: [admins], operations: [add_member]}
`

func checkerOf(t testing.TB, text string) *Checker {
	t.Helper()
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		t.Fatal(err)
	}
	g, err := Parse("ldap", node.Content[0])
	if err != nil {
		t.Fatal(err)
	}
	with := append(types[0].GetAttributes(), &connectorv1.AttributeType{Name: "manager", Rule: connectorv1.MatchingRule_MATCHING_RULE_REFERENCE})
	person := &connectorv1.ObjectType{Name: "person", Kind: types[0].GetKind(), NamingAttribute: "uid", Attributes: with}
	return g.Checker([]*connectorv1.ObjectType{person, types[1]}, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
}

func refused(t *testing.T, c *Checker, s Subject, part string) {
	t.Helper()
	for _, r := range c.Check(s, now) {
		if strings.Contains(r.Sentence, part) {
			return
		}
	}
	t.Errorf("want a refusal that speaks of %q, got %v", part, c.Check(s, now))
}

// A directory writes the parts of a name into the object as attributes, so a name
// must not carry what may not be written.
func TestANameCarriesNoAttributePastTheLimits(t *testing.T) {
	c := checkerOf(t, tight)
	create := func(leaf string) Subject {
		return creating("person", &connectorv1.Create{Name: dn(t, leaf+people)})
	}
	for leaf, part := range map[string]string{
		"uid=x+loginShell=/bin/sh":    "loginShell",
		"uid=x+uidNumber=0":           "uidNumber may become 0",
		"uid=x+userPassword=secret":   "userPassword",
		"uid=x+sudoUser=ALL":          "sudoUser",
		"userid=x":                    "userid",
		"uid=x+mail=x@evil.example":   "mail",
		"uid=svc-x+uid=administrator": "two parts",
	} {
		refused(t, c, create(leaf), part)
		rename := on(person(t, "anna"), &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: dn(t, leaf).Leaf()}}})
		refused(t, c, rename, part)
	}
	if r := c.Check(create("uid=x+mail=x@fabrikam.example"), now); len(r) > 0 {
		t.Errorf("a listed attribute in the name is refused: %v", r)
	}
	adopted := person(t, "a")
	adopted.Name = dn(t, "uid=a+description=b"+people)
	if r := c.Check(on(adopted, &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: dn(t, "uid=z+description=b").Leaf()}}}), now); len(r) > 0 {
		t.Errorf("a part that the name had before is refused: %v", r)
	}
}

// Whoever gets a name that a group lists already is that group's member.
func TestANameOfAStaleMemberIsAMembership(t *testing.T) {
	c := checkerOf(t, tight)
	domain := &connectorv1.Object{Type: "group", Anchor: "d", Name: dn(t, "cn=domain admins,dc=fabrikam,dc=example"),
		Keys: []string{"dn:cn=domain admins"}, Members: []string{"dn:uid=old" + people, "dn:uid=anna" + people, "dn:cn=inner"}}
	sudo := &connectorv1.Object{Type: "group", Anchor: "s", Name: dn(t, "cn=sudo,dc=fabrikam,dc=example"), Members: []string{"uid:bob", "uid:a=b"}}
	inner := &connectorv1.Object{Type: "group", Anchor: "i", Name: dn(t, "cn=inner"+shares), Keys: []string{"dn:cn=inner"}, Members: []string{"dn:uid=late" + people}}
	open := &connectorv1.Object{Type: "group", Anchor: "o", Name: dn(t, "cn=open"+shares), Members: []string{"dn:uid=new" + people}}
	g := NewGroups([]*connectorv1.Object{domain, sudo, inner, open})
	create := func(leaf string) Subject {
		s := creating("person", &connectorv1.Create{Name: dn(t, leaf)})
		s.Named = g.Naming(s.Change.GetOperation().GetCreate().GetName(), nil)
		return s
	}
	for leaf, part := range map[string]string{
		"uid=old" + people:  "domain admins",
		"uid=OLD" + people:  "domain admins",
		"uid=bob" + people:  "sudo",
		`uid=a\=b` + people: "sudo",
		"uid=late" + people: "domain admins",
		"uid=old,organizationalUnitName=people,dc=fabrikam,dc=example": "domain admins",
	} {
		refused(t, c, create(leaf), part)
	}
	if r := c.Check(create("uid=new"+people), now); len(r) > 0 {
		t.Errorf("a group that may gain members keeps a name from being given: %v", r)
	}
	anna := person(t, "anna")
	anna.Keys = []string{"dn:uid=anna" + people}
	s := renaming(anna, "old")
	s.Named = g.Naming(NameAfter(anna, s.Change.GetOperation()), anna.GetKeys())
	refused(t, c, s, "domain admins")
	s = renaming(anna, "Anna")
	if s.Named = g.Naming(NameAfter(anna, s.Change.GetOperation()), anna.GetKeys()); len(c.Check(s, now)) > 0 {
		t.Errorf("a member cannot change the case of its name: %v", c.Check(s, now))
	}
}

func TestReferencesDoNotPassValueLimits(t *testing.T) {
	s := on(person(t, "anna"), &connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{
		{Attribute: "manager", AddRefs: []*connectorv1.ObjectRef{{Type: "person", Anchor: "x"}}}}}}})
	refused(t, checkerOf(t, tight), s, "manager refers to other objects")
}

func TestNumbersThatWrapToRootAreDangerous(t *testing.T) {
	c := checkerOf(t, tight)
	for _, v := range []string{"0", "00", "-0", "4294967296", "4294967295", "8589934592", "0x0", " 0 ", ""} {
		refused(t, c, updating(person(t, "anna"), "uidNumber", v), "uidNumber may become 0")
	}
	if r := c.Check(updating(person(t, "anna"), "uidNumber", "1001"), now); len(r) > 0 {
		t.Error(r)
	}
}

func TestOptionsDoNotHideADangerousAttribute(t *testing.T) {
	if !DangerousAttribute("userCertificate;binary") || !DangerousAttribute("LOGINSHELL;lang-en") {
		t.Error("an option hides a dangerous attribute")
	}
}

// Ids of changes are the plan's: a day's budget that counted them once each would
// count a hundred plans with the same ids as one.
func TestADaysBudgetCountsChangesOfEveryPlan(t *testing.T) {
	c := checkerOf(t, tight+"budgets: {day: {create: 3, add_member: 2}}\n")
	charges := Charges(creating("person", &connectorv1.Create{Name: dn(t, "uid=x"+people)}))
	earlier := append(append(charges, charges...), charges...)
	if len(c.Budget(charges, earlier)) != 1 {
		t.Error("a fourth create of one id is within a budget of three")
	}
	three := creating("group", &connectorv1.Create{Name: dn(t, "cn=g"+shares), Members: []*connectorv1.ObjectRef{{}, {}, {}}})
	if len(c.Budget(Charges(three), nil)) != 1 {
		t.Error("three first members of a new group are within a budget of two added members")
	}
}

func TestWhoLosesThroughANestedGroupIsCounted(t *testing.T) {
	c := checkerOf(t, tight+"budgets: {plan: {losing_access: 2}}\n")
	nested := share(t, "nested", "dn:a", "dn:b", "dn:c")
	s := on(share(t, "outer", "dn:nested"), &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{}}})
	s.Member = nested
	if len(c.Budget(Charges(s), nil)) != 1 {
		t.Error("taking a group of three out of another counts as one person")
	}
}

func TestASignatureIsNeededForWhatAGroupHandsOn(t *testing.T) {
	c := checkerOf(t, strings.Replace(tight, ", operations: [add_member]}\n", "}\n", 1))
	c.g.ClientSignature.Operations = nil
	admins := &connectorv1.Object{Type: "group", Anchor: "a", Name: dn(t, "cn=a,ou=admins,ou=groups,dc=fabrikam,dc=example")}
	if c.NeedsSignature(adding(share(t, "s"), person(t, "anna"), time.Hour, admins)) == "" {
		t.Error("who is added to a group within a group that needs a signature needs none")
	}
	made := creating("person", &connectorv1.Create{Name: dn(t, "uid=x"+people)})
	made.Named = []*connectorv1.Object{admins}
	if c.NeedsSignature(made) == "" {
		t.Error("a name that such a group lists already needs none")
	}
	c = checkerOf(t, tight)
	with := creating("group", &connectorv1.Create{Name: dn(t, "cn=g"+shares), Members: []*connectorv1.ObjectRef{{}}})
	if c.NeedsSignature(with) == "" {
		t.Error("first members of a new group need no signature where added ones do")
	}
	c.g.ClientSignature = ClientSignature{Dangerous: true}
	if c.NeedsSignature(Subject{Change: &planv1.Change{Operation: &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "person"},
		Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: dn(t, "uid=x+loginShell=/bin/sh"+people)}}}}}) == "" {
		t.Error("a dangerous attribute in the name needs no signature")
	}
}

// Who is protected does not lose with a group what it could not lose alone.
func TestAGroupWithAProtectedMemberStays(t *testing.T) {
	c := checkerOf(t, strings.ReplaceAll(tight, "[create, add_member, remove_member]", "[delete, add_member, remove_member]")+
		"protected: [{name: 'uid=ceo,ou=people,dc=fabrikam,dc=example'}, {anchor: anchor-cfo}]\n")
	for _, key := range []string{"dn:uid=ceo" + people, "dn:uid=CEO" + people, "uid:ceo", "id:anchor-cfo"} {
		refused(t, c, del(share(t, "board", "dn:uid=anna"+people, key)), "protected member")
		nested := on(share(t, "outer"), &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{}}})
		nested.Member = share(t, "board", key)
		refused(t, c, nested, "protected member")
	}
	if r := c.Check(del(share(t, "board", "dn:uid=anna"+people)), now); len(r) > 0 {
		t.Error(r)
	}
}

func TestGroupsFollowWhatIsPut(t *testing.T) {
	outer, inner := share(t, "outer"), share(t, "inner")
	g := NewGroups([]*connectorv1.Object{outer, inner})
	if len(g.Above(inner)) != 0 {
		t.Fatal("above a group that is in none")
	}
	g.Put(share(t, "outer", inner.GetKeys()...))
	if above := g.Above(inner); len(above) != 1 || above[0].GetAnchor() != outer.GetAnchor() {
		t.Fatalf("above %v", above)
	}
	g.Put(outer)
	if len(g.Above(inner)) != 0 {
		t.Fatal("above a group that was taken out")
	}
}

// The number of a group is a membership of it, whatever scope rules say of groups.
func TestAnAccountsGroupNumberIsLimited(t *testing.T) {
	for rule, want := range map[string]bool{
		"attributes: [{name: gidNumber}]":                                 true,
		"attributes: [{name: gidNumber, one_of: ['100']}]":                false,
		"attributes: [{name: gidNumber}]\ndangerous: [gidNumber]":         false,
		"attributes: [{name: gidNumber}, {name: gidNumber, prefix: '1'}]": true,
	} {
		c := checkerOf(t, "scope: [{rule: people, types: [person], base: '', operations: [update]}]\n"+rule)
		c.types["person"].Attributes = append(slices.Clone(c.types["person"].Attributes), &connectorv1.AttributeType{Name: "gidNumber"})
		if got := len(c.Check(updating(person(t, "anna"), "gidNumber", "100"), now)) > 0; got != want {
			t.Errorf("%s: refused %v", rule, got)
		}
	}
}
