package guardrails

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	now   = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	types = []*connectorv1.ObjectType{
		{Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Attributes: []*connectorv1.AttributeType{
			{Name: "description"}, {Name: "loginShell"}, {Name: "mail", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE},
			{Name: "power", Dangerous: true}, {Name: "uid"}, {Name: "uidNumber"}, {Name: "userPassword", Secret: true},
		}},
		{Name: "group", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", MemberKey: "dn:", Attributes: []*connectorv1.AttributeType{{Name: "description"}}},
	}
)

func dn(t testing.TB, text string) *connectorv1.Name {
	t.Helper()
	n, err := ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

const people, shares = ",ou=people,dc=fabrikam,dc=example", ",ou=shares,ou=groups,dc=fabrikam,dc=example"

func person(t testing.TB, uid string) *connectorv1.Object {
	return &connectorv1.Object{Type: "person", Anchor: "anchor-" + uid, Name: dn(t, "uid="+uid+people), Keys: []string{"dn:" + uid}}
}

func share(t testing.TB, cn string, members ...string) *connectorv1.Object {
	return &connectorv1.Object{Type: "group", Anchor: "anchor-" + cn, Name: dn(t, "cn="+cn+shares), Keys: []string{"dn:" + cn}, Members: members}
}

func on(o *connectorv1.Object, op *connectorv1.Operation) Subject {
	op.Object = &connectorv1.ObjectRef{Type: o.GetType(), Anchor: o.GetAnchor()}
	return Subject{Change: &planv1.Change{Id: "c", Operation: op}, Object: o}
}

func creating(typ string, create *connectorv1.Create) Subject {
	return Subject{Change: &planv1.Change{Id: "c", Operation: &connectorv1.Operation{
		Object: &connectorv1.ObjectRef{Type: typ}, Action: &connectorv1.Operation_Create{Create: create},
	}}}
}

func updating(o *connectorv1.Object, attribute, value string) Subject {
	return on(o, &connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{{Attribute: attribute, Add: [][]byte{[]byte(value)}}}}}})
}

func adding(group, member *connectorv1.Object, end time.Duration, above ...*connectorv1.Object) Subject {
	s := on(group, &connectorv1.Operation{Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{}}})
	s.Member, s.Above, s.AboveKnown = member, above, true
	if end != 0 {
		s.Change.EndsAt = timestamppb.New(now.Add(end))
	}
	return s
}

func renaming(o *connectorv1.Object, to string) Subject {
	return on(o, &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("uid", to)}}})
}

func moving(t testing.TB, o *connectorv1.Object, to string) Subject {
	return on(o, &connectorv1.Operation{Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: dn(t, to).GetComponents()}}})
}

func del(o *connectorv1.Object) Subject {
	return on(o, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}})
}

func password(o *connectorv1.Object, here bool) Subject {
	s := on(o, &connectorv1.Operation{Action: &connectorv1.Operation_SetCredential{SetCredential: &connectorv1.SetCredential{}}})
	s.CreatedHere = here
	return s
}

func TestCheck(t *testing.T) {
	anna, ceo := person(t, "anna"), person(t, "ceo")
	outside := &connectorv1.Object{Type: "person", Anchor: "x", Name: dn(t, "uid=x,ou=servers,dc=fabrikam,dc=example")}
	deep := &connectorv1.Object{Type: "person", Anchor: "y", Name: dn(t, "uid=y,ou=sub,ou=people,dc=fabrikam,dc=example")}
	renamedCEO := person(t, "harmless")
	renamedCEO.Anchor = "anchor-ceo"
	domain := &connectorv1.Object{Type: "group", Anchor: "d", Name: dn(t, "cn=domain admins,dc=fabrikam,dc=example"), Keys: []string{"dn:d"}}
	create := func(name string, attributes ...*connectorv1.Attribute) Subject {
		return creating("person", &connectorv1.Create{Name: dn(t, name), Attributes: attributes})
	}
	attribute := func(name, value string) *connectorv1.Attribute {
		return &connectorv1.Attribute{Name: name, Values: [][]byte{[]byte(value)}}
	}
	unread := adding(share(t, "s"), anna, time.Hour)
	unread.AboveKnown = false
	nobody := adding(share(t, "s"), nil, time.Hour)
	missing := del(anna)
	missing.Object = nil
	for name, c := range map[string]struct {
		s    Subject
		rule string // empty: allowed
	}{
		"update":                       {updating(anna, "mail", "a@fabrikam.example"), ""},
		"update in other case":         {updating(anna, "MAIL", "a@fabrikam.example"), ""},
		"value outside limits":         {updating(anna, "mail", "a@evil.example"), "attributes"},
		"value too long":               {updating(anna, "mail", strings.Repeat("a", 100)+"@fabrikam.example"), "attributes"},
		"attribute not listed":         {updating(anna, "uidNumber", "1000"), "attributes"},
		"secret attribute":             {updating(anna, "userPassword", "x"), "attributes"},
		"unknown attribute":            {updating(anna, "shoeSize", "43"), "attributes"},
		"dangerous by name":            {updating(anna, "loginShell", "/bin/sh"), "dangerous"},
		"dangerous by declaration":     {updating(anna, "power", "1"), "dangerous"},
		"uid 0":                        {updating(anna, "uidNumber", "+00"), "dangerous"},
		"uid that is no number":        {updating(anna, "uidNumber", "0x0"), "dangerous"},
		"out of scope":                 {updating(outside, "description", "x"), "scope"},
		"too deep":                     {updating(deep, "description", "x"), "scope"},
		"not read":                     {missing, "scope"},
		"protected by name":            {updating(ceo, "description", "x"), "protected[0]"},
		"protected under another name": {updating(renamedCEO, "description", "x"), "protected[0]"},
		"create":                       {create("uid=new"+people, attribute("uid", "new"), attribute("description", "x")), ""},
		"create with a bad value":      {create("uid=new"+people, attribute("mail", "a@evil.example")), "attributes"},
		"create with another uid":      {create("uid=new"+people, attribute("uid", "root")), "attributes"},
		"create elsewhere":             {create("uid=new,dc=fabrikam,dc=example"), "scope"},
		"create as the protected":      {create("uid=CEO" + people), "protected[0]"},
		"rename":                       {renaming(anna, "anne"), ""},
		"rename to the protected":      {renaming(anna, "ceo"), "protected[0]"},
		"move out":                     {moving(t, anna, "ou=servers,dc=fabrikam,dc=example"), "scope"},
		"move in":                      {moving(t, outside, "ou=people,dc=fabrikam,dc=example"), "scope"},
		"delete":                       {del(anna), ""},
		"delete a group":               {del(share(t, "s")), "file-shares"},
		"timed member":                 {adding(share(t, "s"), anna, time.Hour), ""},
		"lasting member":               {adding(share(t, "s"), anna, 0), "file-shares"},
		"too long":                     {adding(share(t, "s"), anna, 9*time.Hour), "file-shares"},
		"member out of scope":          {adding(share(t, "s"), outside, time.Hour), "scope"},
		"member protected":             {adding(share(t, "s"), ceo, time.Hour), "protected[0]"},
		"member not read":              {nobody, "scope"},
		"nested within reach":          {adding(share(t, "s"), anna, time.Hour, share(t, "upper")), ""},
		"nested beyond reach":          {adding(share(t, "s"), anna, time.Hour, share(t, "upper"), domain), "scope"},
		"nesting not read":             {unread, "scope"},
		"password on its own account":  {password(anna, true), ""},
		"password on another account":  {password(anna, false), "credentials"},
	} {
		t.Run(name, func(t *testing.T) {
			checker := parse(t, example).Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, map[string]string{"anchor-ceo": Protected{Name: NewName(dn(t, "uid=ceo"+people))}.Pin(), "anchor-anna": "a name that is on the list no more"})
			got := checker.Check(c.s, now)
			if c.rule == "" {
				if len(got) != 0 {
					t.Fatalf("refused: %+v", got)
				}
				return
			}
			if !slices.ContainsFunc(got, func(r Refusal) bool { return r.Rule == "corp/"+c.rule && r.Change == "c" && r.Sentence != "" }) {
				t.Fatalf("want a refusal by %s, got %+v", c.rule, got)
			}
		})
	}
}

func TestNothingIsAllowedByDefault(t *testing.T) {
	anna := person(t, "anna")
	for _, g := range []*Guardrails{nil, {Alias: "corp"}} {
		checker := g.Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
		for _, s := range []Subject{del(anna), updating(anna, "description", "x"), renaming(anna, "b"), password(anna, true), adding(share(t, "s"), anna, time.Hour)} {
			if len(checker.Check(s, now)) == 0 {
				t.Errorf("%v is allowed", s.Change.GetOperation().Kind())
			}
		}
	}
}

func TestAbove(t *testing.T) {
	a, b, c := share(t, "a"), share(t, "b", "dn:a"), share(t, "c", "dn:b", "dn:c", "dn:a")
	g := NewGroups([]*connectorv1.Object{a, b, c, share(t, "d", "dn:x")})
	var names []string
	for _, o := range g.Above(a) {
		names = append(names, o.GetAnchor())
	}
	slices.Sort(names)
	if got := fmt.Sprint(names); got != "[anchor-b anchor-c]" {
		t.Fatalf("above a: %s", got)
	}
	if got := g.Above(c); len(got) != 1 || got[0] != c {
		t.Fatalf("a circle is followed: %v", got)
	}
}

func TestBudgetsCountPeople(t *testing.T) {
	checker := parse(t, "budgets: {plan: {losing_access: 2, create: 1}, day: {losing_access: 3}}").Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
	charge := func(subjects ...Subject) []Charge {
		var out []Charge
		for _, s := range subjects {
			out = append(out, Charges(s)...)
		}
		return out
	}
	removing := func(group string, m *connectorv1.Object) Subject {
		s := on(share(t, group), &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{}}})
		s.Member = m
		return s
	}
	a, b, c := person(t, "a"), person(t, "b"), person(t, "c")
	ok := charge(removing("x", a), removing("y", a), removing("z", a), del(a), del(b))
	if got := checker.Budget(ok, nil); len(got) != 0 {
		t.Errorf("two people are within: %+v", got)
	}
	if got := checker.Budget(append(ok, charge(del(c))...), nil); len(got) != 1 || !got[0].Budget {
		t.Errorf("three people are not: %+v", got)
	}
	if got := checker.Budget(charge(del(share(t, "g", "dn:a", "dn:b", "dn:c"))), nil); len(got) != 1 {
		t.Errorf("deleting a group takes it from its members: %+v", got)
	}
	earlier := charge(del(person(t, "d")), del(person(t, "e")))
	if got := checker.Budget(charge(del(a), del(b)), earlier); len(got) != 1 || !strings.Contains(got[0].Rule, "day") {
		t.Errorf("four people in a day: %+v", got)
	}
	if got := checker.Budget(charge(del(a), del(person(t, "d"))), earlier); len(got) != 0 {
		t.Errorf("three people in a day: %+v", got)
	}
}

func TestNeedsSignature(t *testing.T) {
	checker := parse(t, strings.Replace(example, "dangerous: true", "dangerous: true", 1)).Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
	anna := person(t, "anna")
	for want, s := range map[string]Subject{
		"corp/client_signature.operations":        del(anna),
		"corp/client_signature.rules.file-shares": adding(share(t, "s"), anna, time.Hour),
		"corp/client_signature.dangerous":         updating(anna, "loginShell", "/bin/sh"),
		"":                                        updating(anna, "mail", "x"),
	} {
		if got := checker.NeedsSignature(s); got != want {
			t.Errorf("%v: %q, want %q", s.Change.GetOperation().Kind(), got, want)
		}
	}
	if checker.Approves("somebody") || !checker.Approves("it-lead") {
		t.Error("approvers are not those named")
	}
}

// An oracle that knows nothing of names but text: it compares folded strings and
// counts commas.
func oracle(base string, depth *int, pattern, name string) bool {
	name, base = strings.ToLower(name), strings.ToLower(base)
	rest := name
	levels := 0
	for rest != base {
		_, after, found := strings.Cut(rest, ",")
		levels++
		if !found {
			if base != "" {
				return false
			}
			break
		}
		rest = after
	}
	if depth == nil && levels == 0 || depth != nil && (levels > *depth || levels == 0 && *depth != 0) {
		return false
	}
	leaf, _, _ := strings.Cut(name, ",")
	typ, value, _ := strings.Cut(leaf, "=")
	return pattern == "" || typ == "uid" && like(strings.ToLower(pattern), value)
}

// like is a glob the slow way.
func like(pattern, value string) bool {
	if pattern == "" {
		return value == ""
	}
	if pattern[0] == '*' {
		return like(pattern[1:], value) || value != "" && like(pattern, value[1:])
	}
	return value != "" && (pattern[0] == '?' || pattern[0] == value[0]) && like(pattern[1:], value[1:])
}

func TestScopeAgreesWithADumbOracle(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		part := rapid.StringMatching(`(uid|ou|OU|dc)=[abAB]{1,2}`)
		name := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(rt, "name"), ",")
		base := strings.Join(rapid.SliceOfN(part, 0, 3).Draw(rt, "base"), ",")
		if rapid.Bool().Draw(rt, "below") {
			// Random bases rarely fit: take the name's own tail.
			pieces := strings.Split(name, ",")
			base = strings.Join(pieces[rapid.IntRange(0, len(pieces)).Draw(rt, "cut"):], ",")
		}
		r := ScopeRule{Types: []string{"person"}, Base: NewName(dn(t, base))}
		if rapid.Bool().Draw(rt, "bounded") {
			d := rapid.IntRange(0, 3).Draw(rt, "depth")
			r.Depth = &d
		}
		pattern := ""
		if rapid.Bool().Draw(rt, "matched") {
			pattern = rapid.StringMatching(`[ab*?]{1,4}`).Draw(rt, "glob")
			r.Match = &Match{Part: "uid", Glob: pattern}
		}
		got := r.holds(dn(t, name), "person", connectorv1.CaseRule_CASE_RULE_IGNORE)
		if want := oracle(base, r.Depth, pattern, name); got != want {
			rt.Fatalf("%q under %q, glob %q, depth %v: %v, want %v", name, base, pattern, r.Depth, got, want)
		}
	})
}
