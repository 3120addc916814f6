package ldap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// bench is a server, an instance and its objects by display name.
type bench struct {
	testing.TB
	server  *slapd.Server
	i       *Instance
	objects map[string]*connectorv1.Object
}

func newBench(t testing.TB, o slapd.Options, changes map[string]any) *bench {
	t.Helper()
	s := slapd.Start(t, o)
	i := openInstance(t, s, changes)
	objects, _ := observe(t, i)
	return &bench{t, s, i, objects}
}

func user(n int) string { return fmt.Sprintf("uid=user%04d,%s", n, peopleBase) }

func (b *bench) ref(display string) *connectorv1.ObjectRef {
	b.Helper()
	o := b.objects[display]
	if o == nil {
		b.Fatalf("no object %s", display)
	}
	return &connectorv1.ObjectRef{Type: o.GetType(), Anchor: o.GetAnchor()}
}

func (b *bench) add(group, member string) *connectorv1.Operation {
	b.Helper()
	return &connectorv1.Operation{Object: b.ref(group), Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: b.ref(member)}}}
}

func (b *bench) drop(group, member string) *connectorv1.Operation {
	b.Helper()
	return &connectorv1.Operation{Object: b.ref(group), Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: b.ref(member)}}}
}

func (b *bench) update(display string, deltas ...*connectorv1.ValueDelta) *connectorv1.Operation {
	b.Helper()
	return &connectorv1.Operation{Object: b.ref(display), Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: deltas}}}
}

func deltaOf(attribute, remove, add string) *connectorv1.ValueDelta {
	d := &connectorv1.ValueDelta{Attribute: attribute}
	for _, v := range strings.Fields(remove) {
		d.Remove = append(d.Remove, []byte(v))
	}
	for _, v := range strings.Fields(add) {
		d.Add = append(d.Add, []byte(v))
	}
	return d
}

// apply gives ids and returns results in order.
func (b *bench) apply(ops ...*connectorv1.Operation) []*connectorv1.ApplyResult {
	b.Helper()
	for n, op := range ops {
		op.Id = fmt.Sprint(n)
	}
	results := b.i.Apply(b.Context(), ops)
	for n, r := range results {
		if r.GetOperationId() != fmt.Sprint(n) {
			b.Fatalf("result %d answers operation %q", n, r.GetOperationId())
		}
		if p := r.GetProblem(); (p == nil) != (r.GetOutcome() == connectorv1.Outcome_OUTCOME_DONE) || p != nil && (p.GetCode() == "" || p.GetObject() == "" || p.GetRemedy() == "") {
			b.Errorf("result %d: %v", n, r)
		}
	}
	return results
}

func (b *bench) want(outcome connectorv1.Outcome, ops ...*connectorv1.Operation) []*connectorv1.ApplyResult {
	b.Helper()
	results := b.apply(ops...)
	for n, r := range results {
		if r.GetOutcome() != outcome {
			b.Errorf("%s of operation %d: want %s, got %v", ops[n].Kind().Word(), n, outcome, r)
		}
	}
	return results
}

// values reads an attribute from outside.
func (b *bench) values(dn, attribute string) []string {
	b.Helper()
	r, err := root(b, b.server).Search(ldapv3.NewSearchRequest(dn, ldapv3.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", []string{attribute}, nil))
	if err != nil {
		b.Fatal(err)
	}
	out := r.Entries[0].GetAttributeValues(attribute)
	slices.Sort(out)
	return out
}

func (b *bench) meddle(dn string, changes ...ldapv3.Change) {
	b.Helper()
	if err := root(b, b.server).Modify(&ldapv3.ModifyRequest{DN: dn, Changes: changes}); err != nil {
		b.Fatal(err)
	}
}

const (
	done     = connectorv1.Outcome_OUTCOME_DONE
	conflict = connectorv1.Outcome_OUTCOME_CONFLICT
	refused  = connectorv1.Outcome_OUTCOME_REFUSED
	unknown  = connectorv1.Outcome_OUTCOME_UNKNOWN
)

const staff, crew, unix = "cn=staff," + groupsBase, "cn=crew," + groupsBase, "cn=unix," + groupsBase

func groups() string {
	return ldif(staff, "objectClass", "groupOfNames", "cn", "staff", "member", user(0), "member", user(1)) +
		ldif(crew, "objectClass", "groupOfUniqueNames", "cn", "crew", "uniqueMember", user(0)) +
		ldif(unix, "objectClass", "posixGroup", "cn", "unix", "gidNumber", "7", "memberUid", "user0000")
}

func TestMembersOfOneGroup(t *testing.T) {
	for _, permissive := range []bool{true, false} {
		t.Run(fmt.Sprintf("permissive modify %v", permissive), func(t *testing.T) {
			b := newBench(t, slapd.Options{LDIF: estate(120) + groups(), ACL: leastPrivilege}, nil)
			if !permissive {
				b.forget(oidPermissiveModify)
			}
			var ops []*connectorv1.Operation
			for n := range 95 {
				ops = append(ops, b.add(staff, user(n))) // two are members already
			}
			ops = append(ops, b.drop(staff, user(110))) // never was one
			b.want(done, ops...)
			gone := &connectorv1.Operation{Object: b.ref(staff), Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{
				Member: &connectorv1.ObjectRef{Type: "inetOrgPerson", Anchor: "00000000-0000-4000-8000-000000000000"}}}}
			results := b.apply(b.add(staff, user(95)), gone, b.drop(staff, user(0)))
			if results[0].GetOutcome() != done || results[1].GetOutcome() != conflict || results[2].GetOutcome() != done {
				t.Errorf("one bad member spoils the others: %v", results)
			}
			var want []string
			for n := 1; n <= 95; n++ {
				want = append(want, user(n))
			}
			if got := b.values(staff, "member"); !slices.Equal(got, want) {
				t.Errorf("members are %q", got)
			}
		})
	}
}

// forget makes the writing connection's server one without the control.
func (b *bench) forget(controls ...string) {
	b.Helper()
	s, err := b.i.writing.get(b.Context(), b.i)
	if err != nil {
		b.Fatal(err)
	}
	s.server.controls = slices.DeleteFunc(s.server.controls, func(c string) bool { return slices.Contains(controls, c) })
	b.i.writing.put(s, b.i)
}

func TestLastMember(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: leastPrivilege, Overlays: []string{"memberof", "refint"}}, nil)
	before := state(t, b.server)
	for group, member := range map[string]string{staff: "member", crew: "uniqueMember"} {
		drops := []*connectorv1.Operation{b.drop(group, user(0))}
		if group == staff {
			drops = append(drops, b.drop(group, user(1)))
		}
		b.want(done, drops...)
		if got := b.values(group, member); !slices.Equal(got, []string{defaultPlaceholder}) {
			t.Errorf("%s is kept by %q", group, got)
		}
		objects, _ := observe(t, b.i)
		if got := objects[group].GetMembers(); len(got) != 0 {
			t.Errorf("%s is empty and shows %q", group, got)
		}
		b.want(done, b.add(group, user(0)))
		if group == staff {
			b.want(done, b.add(group, user(1)))
		}
	}
	if after := state(t, b.server); after != before {
		t.Errorf("there and back left a trace:\n%s\nwas\n%s", after, before)
	}
	b.want(done, b.drop(unix, user(0)))
	if got := b.values(unix, "memberUid"); len(got) != 0 {
		t.Errorf("memberUid is %q", got)
	}
	b.want(done, b.add(unix, user(3)))
	if got := b.values(unix, "memberUid"); !slices.Equal(got, []string{"user0003"}) {
		t.Errorf("memberUid is %q", got)
	}
}

func TestLastMemberWithoutPlaceholderStays(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: leastPrivilege}, map[string]any{"empty_member": "none"})
	b.want(refused, b.drop(crew, user(0)))
	for _, typ := range b.i.Types() {
		if want := strings.HasPrefix(typ.GetName(), "groupOf"); typ.GetNeedsMember() != want {
			t.Errorf("%s: needs_member is %v", typ.GetName(), typ.GetNeedsMember())
		}
	}
}

func TestUpdateAssertsItsBase(t *testing.T) {
	for _, c := range []struct {
		name, have string // values of description before
		delta      *connectorv1.ValueDelta
		want       connectorv1.Outcome
		after      string
	}{
		{"replace", "old", deltaOf("description", "old", "new"), done, "new"},
		{"replace, other case", "OLD", deltaOf("description", "old", "new"), done, "new"},
		{"only case changes", "old", deltaOf("description", "old", "OLD"), done, "OLD"},
		{"done already", "new", deltaOf("description", "old", "new"), done, "new"},
		{"somebody else was faster", "other", deltaOf("description", "old", "new"), conflict, "other"},
		{"value beside it stays", "old other", deltaOf("description", "old", "new"), done, "new other"},
		{"add what is there in part", "a", deltaOf("description", "", "a b"), done, "a b"},
		{"remove what is there in part", "a x", deltaOf("description", "a b", ""), done, "x"},
		{"single value set meanwhile", "x", deltaOf("displayName", "", "new"), conflict, "x"},
	} {
		for _, asserts := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, assertion control %v", c.name, asserts), func(t *testing.T) {
				attribute := c.delta.GetAttribute()
				var values []string
				for _, v := range strings.Fields(c.have) {
					values = append(values, attribute, v)
				}
				b := newBench(t, slapd.Options{LDIF: skeleton() + person(user(0), "user0000", "U", values...), ACL: leastPrivilege}, nil)
				if !asserts {
					b.forget(oidAssertion)
				}
				b.want(c.want, b.update(user(0), c.delta))
				want := strings.Fields(c.after)
				slices.Sort(want)
				if got := b.values(user(0), attribute); !slices.Equal(got, want) {
					t.Errorf("%s is %q, want %q", attribute, got, want)
				}
			})
		}
	}
}

func TestExpectMustHold(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5) + groups(), ACL: leastPrivilege}, nil)
	for _, c := range []struct {
		expect *connectorv1.Assertion
		want   connectorv1.Outcome
	}{
		{&connectorv1.Assertion{Attribute: "title"}, done},
		{&connectorv1.Assertion{Attribute: "mail", Values: [][]byte{[]byte("USER0001@example.com")}}, done},
		{&connectorv1.Assertion{Attribute: "mail"}, conflict},
		{&connectorv1.Assertion{Attribute: "mail", Values: [][]byte{[]byte("user0001@example.com"), []byte("more@example.com")}}, conflict},
	} {
		op := b.update(user(1), deltaOf("title", "", "Chief"))
		op.Expect = []*connectorv1.Assertion{c.expect}
		b.want(c.want, op)
		if got := len(b.values(user(1), "title")); (got == 1) != (c.want == done) {
			t.Errorf("%v: %d titles", c.expect, got)
		}
		if c.want == done {
			b.want(done, b.update(user(1), deltaOf("title", "Chief", "")))
		}
	}
}

// The entry at a DN can become another one between look-up and effect.
func TestAnchorIsAssertedWithTheEffect(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5), ACL: leastPrivilege}, nil)
	op := b.update(user(1), deltaOf("title", "", "Chief"))
	op.Id = "1"
	batch := &batch{Instance: b.i}
	var err error
	if batch.targets, err = b.i.find(t.Context(), &b.i.writing, b.i.bases(), anchorsOf([]*connectorv1.Operation{op}), b.i.targetAttributes([]*connectorv1.Operation{op})); err != nil {
		t.Fatal(err)
	}
	c := root(t, b.server)
	for _, r := range []*ldapv3.ModifyDNRequest{
		ldapv3.NewModifyDNRequest(user(1), "uid=moved", true, ""), ldapv3.NewModifyDNRequest(user(2), "uid=user0001", true, ""),
	} {
		if err := c.ModifyDN(r); err != nil {
			t.Fatal(err)
		}
	}
	if r := batch.single(t.Context(), b.i.types[0], op); r.GetOutcome() != done {
		t.Fatalf("%v", r)
	}
	if got := b.values("uid=moved,"+peopleBase, "title"); len(got) != 1 || len(b.values(user(1), "title")) != 0 {
		t.Error("the effect followed the name, not the anchor")
	}
}

// A server takes along what lies below an entry that gets another name: such an
// entry keeps the one it has.
func TestNothingIsTakenAlong(t *testing.T) {
	const device = "cn=phone,"
	b := newBench(t, slapd.Options{LDIF: estate(5) + ldif(device+user(1), "objectClass", "device", "cn", "phone"), ACL: leastPrivilege}, nil)
	rename := func(dn, to string) *connectorv1.Operation {
		return &connectorv1.Operation{Object: b.ref(dn), Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("uid", to)}}}
	}
	if r := b.want(refused, rename(user(1), "other")); r[0].GetProblem().GetCode() != sdk.CodeNotAllowed {
		t.Errorf("%v", r)
	}
	if got := b.values(device+user(1), "cn"); len(got) != 1 {
		t.Errorf("%q", got)
	}
	b.want(done, rename(user(2), "another"))
	if got := b.values("uid=another,"+peopleBase, "uid"); !slices.Equal(got, []string{"another"}) {
		t.Errorf("%q", got)
	}
}

func TestReferences(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(5), ACL: leastPrivilege}, nil)
	two := "cn=Ola Nordmann+uid=ola," + peopleBase
	b.want(done, b.update(two, &connectorv1.ValueDelta{Attribute: "manager",
		RemoveRefs: []*connectorv1.ObjectRef{b.ref(`cn=Berg\, Anna,` + peopleBase)}, AddRefs: []*connectorv1.ObjectRef{b.ref(user(1))}}))
	if got := b.values(two, "manager"); !slices.Equal(got, []string{user(1)}) {
		t.Errorf("manager is %q", got)
	}
	// The ledger knows the value it found as a link key.
	back := b.update(two, &connectorv1.ValueDelta{Attribute: "manager", Remove: [][]byte{[]byte("dn:" + user(1))}, Add: [][]byte{[]byte(`dn:cn=berg\, anna,` + peopleBase)}})
	b.want(done, back)
	if got := b.values(two, "manager"); len(got) != 1 || !strings.Contains(got[0], `cn=Berg\2C Anna`) && !strings.Contains(got[0], `cn=Berg\, Anna`) {
		t.Errorf("manager is %q", got)
	}
	b.want(refused, b.update(two, &connectorv1.ValueDelta{Attribute: "manager", Add: [][]byte{[]byte("Anna Berg")}}))
}

func TestCreateOfATakenName(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: estate(2), ACL: leastPrivilege}, nil)
	op := func(mail string) *connectorv1.Operation {
		return &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "inetOrgPerson"}, Action: &connectorv1.Operation_Create{
			Create: below(t, peopleBase, "uid", "kari", "cn", "Kari", "sn", "N", "mail", mail)}}
	}
	b.want(done, op("kari@example.com"))
	b.want(done, op("KARI@example.com"))
	if r := b.want(conflict, op("other@example.com")); r[0].GetProblem().GetCode() != sdk.CodeAlreadyExists {
		t.Errorf("%v", r)
	}
	b.meddle("uid=kari,"+peopleBase, change(ldapv3.AddAttribute, "title", "Chief"))
	b.want(conflict, op("kari@example.com"))
	homeless := &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "inetOrgPerson"}, Action: &connectorv1.Operation_Create{
		Create: below(t, "ou=nowhere,"+peopleBase, "uid", "kari", "cn", "Kari", "sn", "N")}}
	if r := b.want(refused, homeless); r[0].GetProblem().GetCode() != sdk.CodeNotFound {
		t.Errorf("%v", r)
	}
}

// Dumps are compared by the byte: what goes there and back keeps its place.
func TestThereAndBackKeepsTheOrderInTheDump(t *testing.T) {
	b := newBench(t, slapd.Options{LDIF: skeleton() + awkward() + groups() + person(user(0), "user0000", "U", "title", "old", "displayName", "before", "description", "e", "description", "d") +
		person(user(1), "user0001", "U"), ACL: leastPrivilege}, nil)
	stamped := func() string {
		dump, err := b.server.Dump()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Join(slices.DeleteFunc(strings.Split(string(dump), "\n"), func(l string) bool {
			return strings.HasPrefix(l, "entryCSN:") || strings.HasPrefix(l, "modif") || strings.HasPrefix(l, "contextCSN:")
		}), "\n")
	}
	before := stamped()
	b.want(done, b.update(user(0), deltaOf("title", "old", "new"), deltaOf("mail", "", "m@example.com"), deltaOf("description", "", "f")))
	b.want(done, b.update(user(0), deltaOf("title", "new", "old"), deltaOf("mail", "m@example.com", ""), deltaOf("description", "f", "")))
	// Several values, which stood in no order of letters.
	b.want(done, b.update(user(0), deltaOf("description", "e d", "g")))
	b.want(done, b.update(user(0), deltaOf("description", "g", "e d")))
	// Of one value only; the entry has more behind it.
	b.want(done, b.update(user(0), deltaOf("displayName", "before", "after")))
	b.want(done, b.update(user(0), deltaOf("displayName", "after", "before")))
	b.want(done, b.drop(crew, user(0)))
	b.want(done, b.add(crew, user(0)))
	b.want(done, b.add(staff, `cn=Berg\, Anna,`+peopleBase))
	b.want(done, b.drop(staff, `cn=Berg\, Anna,`+peopleBase))
	if after := stamped(); after != before {
		t.Errorf("the dump differs:\n%s\nwas\n%s", after, before)
	}
}
