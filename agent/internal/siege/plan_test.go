package siege

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// plan makes the changes of one order.
func (a *attacker) plan(lawful bool) []*planv1.Change {
	var out []*planv1.Change
	a.made = nil
	level := uint32(0)
	if !lawful && chance(a.r, 55) {
		if chance(a.r, 60) {
			return a.probe()
		}
		if out = a.walk(level); len(out) > 0 {
			return out
		}
	}
	for want, tries := 1+a.r.IntN(3), 0; len(out) < want && tries < 40; tries++ {
		operation := one(a.r, append(slices.Concat(accounts, teams), "add_member", "add_member", "create"))
		if a.part(lawful) {
			// What some rule lists.
			if s := one(a.r, a.g.scope); len(s.operations) > 0 {
				operation = one(a.r, s.operations)
			}
		}
		a.n++
		c := a.change(a.operation(lawful, operation), level)
		if lawful && !a.works(c, out) && tries < 39 {
			continue
		}
		out = append(out, c)
		if chance(a.r, 50) || len(a.made) > 0 {
			level++
		}
		if create := c.GetOperation().GetCreate(); create != nil {
			a.made = append(a.made, madeBy{c.GetOperation().GetObject().GetType(), c.GetId()})
			level++
		}
	}
	if !lawful && chance(a.r, 40) {
		out = append(out, a.walk(level)...)
	}
	return out
}

// works reports whether a change can be part of a lawful plan.
func (a *attacker) works(c *planv1.Change, with []*planv1.Change) bool {
	if end := c.GetEndsAt(); end != nil && (end.AsTime().Before(a.now) || end.AsTime().Year() > 2200) {
		return false
	}
	if slices.ContainsFunc(with, func(o *planv1.Change) bool { return o.GetId() == c.GetId() }) {
		return false
	}
	before := *a.trial
	before.dir, before.oracle = a.trial.dir.clone(), a.trial.oracle.clone()
	before.oracle.plans = maps.Clone(a.trial.oracle.plans)
	if a.trial.harmless(c) {
		return true
	}
	*a.trial = before
	return false
}

func (a *attacker) change(op *connectorv1.Operation, level uint32) *planv1.Change {
	a.n++
	c := &planv1.Change{Id: fmt.Sprintf("c%d", a.n), Connector: "dir", Level: level, Operation: op, Cause: planv1.Cause_CAUSE_MSP, Identity: "i"}
	if !chance(a.r, 95) {
		c.Id = fmt.Sprintf("c%d", a.r.IntN(a.n)) // one that was used before, maybe
	}
	if op.GetAddMember() != nil && chance(a.r, 50) {
		c.Grant = fmt.Sprintf("grant-%d", a.r.IntN(5))
		hours := []time.Duration{1, 2, 7, 8, 9, 24 * 365, -1, 24 * 365 * 250}
		c.EndsAt = timestamppb.New(a.now.Add(hours[a.r.IntN(5+a.r.IntN(4))] * time.Hour))
	}
	return c
}

// tempting are values that some rails keep out.
var tempting = [][2]string{
	{"mail", "x@evil.example"}, {"mail", "x@fabrikam.example.evil.example"}, {"mail", "much-too-long-a-name-for-mail@fabrikam.example"}, {"description", "no"}, {"title", "Boss"},
	{"gidNumber", "0"}, {"gidNumber", "100"}, {"gidNumber", "300"}, {"uidNumber", "0"}, {"uidNumber", "-0"}, {"uidNumber", "4294967296"}, {"uidNumber", "0x0"},
	{"vault", "x"}, {"loginShell", "/bin/sh"}, {"sshPublicKey", "k"}, {"memberOf", "x"}, {"cn", "much too long a name"}, {"cn", "new\nx"}, {"employeeType", "c"}, {"EmployeeType", "A"},
}

// probe is one change that is lawful but for one thing, so that nothing else is in
// its way.
func (a *attacker) probe() []*planv1.Change {
	typ := one(a.r, []string{"person", "person", "group", "posix"})
	tempt := one(a.r, tempting)
	named := func() []pair {
		leaf := one(a.r, []string{"late", "late", "soon", "x1", "reserved", "reserved", "ceo"})
		switch a.r.IntN(4) {
		case 0:
			leaf = a.spoiled(leaf)
		case 1, 2: // as only the directory reads it
			leaf = one(a.r, []string{strings.Replace(leaf, "e", "\uff45", 1), leaf[:1] + "\u00ad" + leaf[1:], leaf + "\u200b"})
		}
		level := []pair{{typeOf(typ).GetNamingAttribute(), leaf}}
		if chance(a.r, 25) {
			level = append(level, one(a.r, []pair{{"description", "ok: x"}, {"mail", "x@fabrikam.example"}, {"title", "Clerk"}}))
		}
		return level
	}
	var op *connectorv1.Operation
	switch a.r.IntN(7) {
	case 0, 1:
		d := &connectorv1.ValueDelta{Attribute: tempt[0], Add: [][]byte{[]byte(tempt[1])}}
		op = &connectorv1.Operation{Object: a.target(true, "update", typ), Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{d}}}}
		if e := a.world.entries[op.GetObject().GetAnchor()]; e != nil {
			for _, v := range e.attributes[tempt[0]] {
				d.Remove = append(d.Remove, []byte(v))
			}
		}
	case 2:
		op = a.create(true, typ)
		op.GetCreate().Attributes = []*connectorv1.Attribute{{Name: tempt[0], Values: [][]byte{[]byte(tempt[1])}}}
	case 3, 4, 5:
		op = &connectorv1.Operation{Object: a.target(true, "rename", typ), Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: wireLevel(named())}}}
		if chance(a.r, 60) {
			name := append(dn{named()}, a.above(true, "create", typ)...)
			op = &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: typ}, Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: name.wire()}}}
		}
	default:
		typ = "group"
		op = a.create(true, typ)
		op.GetCreate().Attributes = nil
		for range 1 + a.r.IntN(4) {
			op.GetCreate().Members = append(op.GetCreate().Members, a.target(true, "", "person"))
		}
	}
	return []*planv1.Change{a.change(op, 0)}
}

// walk leads one object or group over several levels: what is lawful step by step
// must stay within at every step.
func (a *attacker) walk(level uint32) []*planv1.Change {
	ref := a.target(true, one(a.r, []string{"rename", "move", "create", "add_member"}), "person", "group", "posix")
	if chance(a.r, 50) {
		ref = a.target(true, "move", "person")
	}
	typ := ref.GetType()
	if typeOf(typ) == nil {
		return nil
	}
	var out []*planv1.Change
	step := func(op *connectorv1.Operation) {
		op.Object = ref
		level++
		out = append(out, a.change(op, level))
	}
	rename := func(level []pair) {
		step(&connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: wireLevel(level)}}})
	}
	move := func(to dn) {
		step(&connectorv1.Operation{Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: to.wire().GetComponents()}}})
	}
	naming := typeOf(typ).GetNamingAttribute()
	switch a.r.IntN(6) {
	default: // to another place under another name, in two steps
		move(one(a.r, []dn{north, one(a.r, places)}))
		rename([]pair{{naming, one(a.r, []string{fmt.Sprintf("svc-%d", a.n), one(a.r, leaves)})}})
	case 1:
		rename([]pair{{naming, one(a.r, []string{"svc-y", "g7", "ceo", "late"})}})
		move(one(a.r, places))
		step(&connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}})
	case 2: // a group into a group into a group, then somebody into the first
		inner, outer := a.target(true, "add_member", "group"), a.target(true, "add_member", "group")
		add := func(g, m *connectorv1.ObjectRef) {
			level++
			out = append(out, a.change(&connectorv1.Operation{Object: g, Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: m}}}, level))
		}
		add(outer, inner)
		add(inner, a.target(true, "", "person", "group"))
		ref = inner
		rename([]pair{{"cn", one(a.r, []string{"soon", "x1", "g7"})}})
	case 3: // away and back
		e := a.world.entries[ref.GetAnchor()]
		move(one(a.r, places))
		step(&connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: a.update(false)}})
		if e != nil {
			move(e.name[1:])
		}
	}
	return out
}

// edits spoils the order itself, now and then.
func (a *attacker) edits(changes []*planv1.Change) admissiontest.Edits {
	e := admissiontest.Edits{}
	switch a.r.IntN(60) {
	case 0:
		e.Order = func(o *planv1.Order) { o.Agent = "dc2" }
	case 1:
		e.Order = func(o *planv1.Order) { o.Epoch = 2 }
	case 2:
		e.Order = func(o *planv1.Order) { o.Expires = o.GetNotBefore() }
	case 3:
		e.Order = func(o *planv1.Order) { o.Sequence = 1 }
	case 4, 5, 6:
		e.Order = func(o *planv1.Order) { o.Superseded = []string{one(a.r, changes).GetId(), "c1"} }
	case 7:
		e.Manifest = func(m *planv1.Manifest) { m.Audiences = nil }
	}
	return e
}
