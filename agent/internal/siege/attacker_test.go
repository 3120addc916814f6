package siege

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// attacker holds every key of the control plane and makes plans: lawful ones, so
// that the agent works, and all others.
type attacker struct {
	r     *rand.Rand
	g     *rails
	world *fakeDirectory
	msp   *admissiontest.MSP
	now   time.Time
	n     int
	made  []madeBy // creates of the plan in work
	trial *trial   // of a lawful plan
}

type madeBy struct{ typ, change string }

func (a *attacker) anchors(types ...string) []string {
	var out []string
	for _, anchor := range slices.Sorted(maps.Keys(a.world.entries)) {
		if slices.Contains(types, a.world.entries[anchor].typ) {
			out = append(out, anchor)
		}
	}
	return out
}

// part says whether a part of a plan is lawful: of a lawful plan every part is, of
// another one most are, so that what is wrong stands alone.
func (a *attacker) part(lawful bool) bool { return lawful || chance(a.r, 85) }

// target is an object: one that a rule holds (lawful), any other, or one that the
// plan makes.
func (a *attacker) target(lawful bool, operation string, types ...string) *connectorv1.ObjectRef {
	var within []string
	all := a.anchors(types...)
	o := &oracle{g: a.g}
	for _, anchor := range all {
		e := a.world.entries[anchor]
		if operation == "" && o.reach(e.typ, e.name) || operation != "" && o.may(operation, e.typ, e.name, &a.now) {
			within = append(within, anchor)
		}
	}
	if len(a.made) > 0 && chance(a.r, 30) {
		if m := one(a.r, a.made); slices.Contains(types, m.typ) {
			return &connectorv1.ObjectRef{Type: m.typ, Change: m.change}
		}
	}
	if lawful && len(within) > 0 {
		all = within
	}
	if len(all) == 0 {
		return &connectorv1.ObjectRef{Type: types[0], Anchor: "nobody"}
	}
	e := a.world.entries[one(a.r, all)]
	ref := &connectorv1.ObjectRef{Type: e.typ, Anchor: e.anchor}
	if !lawful && chance(a.r, 4) {
		switch a.r.IntN(4) {
		case 0:
			ref.Type = one(a.r, []string{"person", "group", "posix", "PERSON", ""})
		case 1:
			ref.Anchor, ref.Name = "", e.name.wire()
		case 2:
			ref.Name = e.name.wire()
		case 3:
			ref.Change = "c0"
		}
	}
	return ref
}

var leaves = []string{"new1", "new2", "x1", "late", "soon", "ceo", "board", "p1", "g1", "svc-x", "root", "Late", "p77", "pnew", "sh1", "reserved", "reserved", "RESERVED", "svc-y"}

// spoiled writes a value as somebody would who wants to be taken for another.
func (a *attacker) spoiled(v string) string {
	switch a.r.IntN(14) {
	case 0:
		return strings.ToUpper(v)
	case 1:
		return " " + v + "  "
	case 2:
		return strings.Replace(v, "", " ", 2)
	case 3: // full width
		return strings.Map(func(r rune) rune {
			if r > ' ' && r < 0x7f {
				return r + 0xfee0
			}
			return r
		}, v)
	case 4:
		return v[:1] + "\u200b" + v[1:]
	case 5:
		return v[:1] + "\u00ad" + v[1:]
	case 6:
		return strings.ReplaceAll(strings.ReplaceAll(v, "s", "ſ"), "k", "K")
	case 7:
		return v + ",ou=admins"
	case 8:
		return v + `\2cou=people`
	case 9:
		return v + "\u0301"
	case 10:
		return v + "\x00"
	case 11:
		return ""
	case 12:
		return "*"
	default:
		return v + "+uid=ceo"
	}
}

func (a *attacker) level(lawful bool, typ string) []pair {
	naming := typeOf(typ).GetNamingAttribute()
	leaf := one(a.r, leaves)
	if !lawful && a.part(false) {
		// Only the value is not what it seems.
		if chance(a.r, 60) {
			leaf = a.spoiled(leaf)
		}
		return []pair{{naming, leaf}}
	}
	if lawful {
		leaf = fmt.Sprintf("%s%d", one(a.r, []string{"p1", "new", "new", "svc-x", "g1", "sh"}), a.n)
		if chance(a.r, 30) {
			leaf = one(a.r, []string{"late", "late", "soon", "x1", "g7", "svc-y", "reserved", "Reserved"})
		}
		return []pair{{naming, leaf}}
	}
	if chance(a.r, 30) {
		leaf = a.spoiled(leaf)
	}
	level := []pair{{naming, leaf}}
	if chance(a.r, 25) {
		level = append(level, one(a.r, []pair{{"uid", "ceo"}, {"description", "ok: x"}, {"loginShell", "/bin/sh"}, {"mail", "x@evil.example"}, {"mail", "x@fabrikam.example"},
			{"uidNumber", "0"}, {"userPassword", "x"}, {"UID", "svc-1"}, {"cn", "g1"}, {"title", "clerk"}, {"", "x"}, {"gidNumber", "100"}}))
	}
	if chance(a.r, 8) {
		level[0].typ = one(a.r, []string{"UID", "CN", "userid", "0.9.2342.19200300.100.1.1", "commonName", "uid ", ""})
	}
	return level
}

// above is a place, or something that reads like it.
func (a *attacker) above(lawful bool, operation, typ string) dn {
	if lawful {
		o := &oracle{g: a.g}
		for range 8 {
			if p := one(a.r, places); o.may(operation, typ, p.leaf(typeOf(typ).GetNamingAttribute(), "p1"), &a.now) {
				return p
			}
		}
	}
	p := slices.Clone(one(a.r, places))
	switch a.r.IntN(12) {
	case 0:
		p[0] = []pair{{p[0][0].typ, a.spoiled(p[0][0].value)}}
	case 1:
		p = p[1:]
	case 2:
		p = append(dn{{{"ou", "people"}, {"ou", "shares"}}}, p...)
	case 3:
		p = append(dn{{}}, p...)
	case 4:
		p[len(p)-1] = []pair{{"DC", "EXAMPLE "}}
	case 5:
		p = ou(p, "people")
	case 6:
		p = slices.Concat(dn{{{"uid", "p1"}}}, people)
	case 7:
		p[0] = []pair{{"organizationalUnitName", p[0][0].value}}
	}
	return p
}

func (a *attacker) values(lawful bool) []string {
	if lawful {
		return []string{one(a.r, []string{"x@fabrikam.example", "ok: fine", "Clerk", "100", "a", "4711", "new"})}
	}
	return one(a.r, [][]string{{"x@evil.example"}, {"x@fabrikam.example\n"}, {"x@fabrikam.example", "y@evil.example"}, {"0"}, {"00"}, {"-0"}, {"4294967296"}, {" 0"}, {"+0"}, {"100"}, {"/bin/sh"},
		{"clerk"}, {"LEAD"}, {"ok: x"}, {"OK: x"}, {"a"}, {"A"}, {"\xff\xfe"}, {strings.Repeat("ä", 31)}, {"new\nx"}, {"g1"}, {"dn:uid=p1," + people.key()}, {}})
}

var names = []string{"mail", "description", "title", "cn", "uid", "uidNumber", "gidNumber", "employeeType", "loginShell", "sshPublicKey", "memberOf", "userPassword", "vault", "manager", "managedBy",
	"MAIL", "Description", "mail;lang-en", "loginshell", "LOGINSHELL;x", "objectClass", "UIDNUMBER", "mail ", ""}

var good = map[string]string{"mail": "x@fabrikam.example", "description": "ok: fine", "title": "Clerk", "cn": "new", "uidNumber": "4711", "gidNumber": "100", "employeeType": "a"}

func (a *attacker) given(lawful bool) (name string, values [][]byte) {
	name = one(a.r, names)
	texts := a.values(lawful)
	if lawful {
		name = one(a.r, slices.Sorted(maps.Keys(good)))
		texts = []string{good[name]}
		if name == "mail" || name == "description" {
			texts[0] = one(a.r, []string{"ok: a", "ok: b"}) + texts[0]
		}
	}
	for _, v := range texts {
		values = append(values, []byte(v))
	}
	return name, values
}

func (a *attacker) operation(lawful bool, operation string) *connectorv1.Operation {
	types := []string{"person", "group", "posix"}
	if lawful && (slices.Contains([]string{"enable", "disable"}, operation) || strings.Contains(operation, "credential")) {
		types = types[:1]
	}
	if strings.Contains(operation, "member") {
		types = types[1:]
	}
	op := &connectorv1.Operation{}
	if operation == "create" {
		return a.create(a.part(lawful), one(a.r, types))
	}
	op.Object = a.target(a.part(lawful), operation, types...)
	typ := op.GetObject().GetType()
	if typeOf(typ) == nil {
		typ = "person"
	}
	switch operation {
	case "update":
		op.Action = &connectorv1.Operation_Update{Update: a.update(a.part(lawful))}
		if chance(a.r, 20) {
			op.Expect = append(op.Expect, &connectorv1.Assertion{Attribute: op.GetUpdate().GetDeltas()[0].GetAttribute()})
		}
	case "rename":
		op.Action = &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: wireLevel(a.level(a.part(lawful), typ))}}
	case "move":
		op.Action = &connectorv1.Operation_Move{Move: &connectorv1.Move{To: a.above(a.part(lawful), operation, typ).wire().GetComponents()}}
	case "enable":
		op.Action = &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}
	case "disable":
		op.Action = &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}
	case "delete":
		op.Action = &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}
	case "add_member":
		m := a.target(a.part(lawful), "", "person", "person", "group")
		op.Action = &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: m}}
	case "remove_member":
		m := a.target(a.part(lawful), "", "person", "person", "group")
		if e := a.world.entries[op.GetObject().GetAnchor()]; e != nil && len(e.members) > 0 {
			if there := has(a.world.entries, one(a.r, e.members)); len(there) > 0 {
				m = &connectorv1.ObjectRef{Type: there[0].typ, Anchor: there[0].anchor}
			}
		}
		op.Action = &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: m}}
	case "set_credential":
		s := &connectorv1.SetCredential{Kind: "password", Recipient: "it"}
		if !lawful && chance(a.r, 10) {
			s.Secret = []byte("chosen")
		}
		op.Action = &connectorv1.Operation_SetCredential{SetCredential: s}
	default:
		op.Action = &connectorv1.Operation_RevokeCredential{RevokeCredential: &connectorv1.RevokeCredential{Kind: "password"}}
	}
	return op
}

func (a *attacker) create(lawful bool, typ string) *connectorv1.Operation {
	c := &connectorv1.Create{Name: append(dn{a.level(a.part(lawful), typ)}, a.above(a.part(lawful), "create", typ)...).wire()}
	if !lawful && chance(a.r, 3) {
		c.Name.Components = append(c.Name.Components, &connectorv1.Component{})
	}
	for range a.r.IntN(3) {
		name, values := a.given(a.part(lawful))
		c.Attributes = append(c.Attributes, &connectorv1.Attribute{Name: name, Values: values})
	}
	if !lawful && chance(a.r, 20) {
		c.Attributes = append(c.Attributes, &connectorv1.Attribute{Name: typeOf(typ).GetNamingAttribute(), Values: [][]byte{[]byte(one(a.r, leaves))}})
	}
	if typ != "person" && chance(a.r, 35) {
		for range 1 + a.r.IntN(3) {
			c.Members = append(c.Members, a.target(a.part(lawful), "", "person", "group"))
		}
	}
	return &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: typ}, Action: &connectorv1.Operation_Create{Create: c}}
}

func (a *attacker) update(lawful bool) *connectorv1.Update {
	u := &connectorv1.Update{}
	for range 1 + a.r.IntN(2) {
		name, values := a.given(a.part(lawful))
		d := &connectorv1.ValueDelta{Attribute: name, Add: values}
		if strings.EqualFold(name, "manager") && chance(a.r, 80) {
			d.Add, d.AddRefs = nil, []*connectorv1.ObjectRef{a.target(false, "", "person")}
		}
		if chance(a.r, 30) {
			d.Remove = [][]byte{[]byte(one(a.r, []string{"Clerk", "kept by hand", "ok: fine", "p1@fabrikam.example", "100", "a", "4711"}))}
			if chance(a.r, 50) {
				d.Add = nil
			}
		}
		u.Deltas = append(u.Deltas, d)
	}
	return u
}
