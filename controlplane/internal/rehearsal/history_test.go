package rehearsal

import (
	"fmt"
	"slices"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"pgregory.net/rapid"
)

// step lets one thing happen: in policy, to a person, in time, or behind
// Reeve's back.
func (w *world) step() {
	t := w.t
	p := rapid.SampledFrom(w.people).Draw(t, "person")
	switch rapid.SampledFrom([]string{"mover", "mover", "leaver", "suspended", "back", "retired", "grant", "grant", "revoke", "time", "no account", "outside", "outside", "outside"}).Draw(t, "step") {
	case "mover":
		w.drawAccount(p, rapid.SampledFrom(w.in.Connectors).Draw(t, "connector").Alias)
	case "leaver":
		p.state = policy.StateLeaver
	case "suspended":
		p.state, p.retired = policy.StateSuspended, false
	case "back":
		p.state, p.retired = policy.StateActive, false
	case "retired":
		p.state, p.retired = policy.StateLeaver, true
	case "grant":
		w.grant(p)
	case "revoke":
		if len(p.grants) > 0 {
			p.grants = slices.Delete(slices.Clone(p.grants), 0, 1)
		}
	case "time":
		w.in.AsOf = w.in.AsOf.Add(time.Hour)
	case "no account":
		delete(p.accounts, rapid.SampledFrom(w.in.Connectors).Draw(t, "connector").Alias)
	case "outside":
		w.outside()
	}
}

func (w *world) grant(p *person) {
	if len(w.in.Entitlements) == 0 {
		return
	}
	t := w.t
	e := rapid.SampledFrom(w.in.Entitlements).Draw(t, "entitlement")
	g := policy.Entitled{Entitlement: e.ID, Connector: e.Connector, Purpose: "normal", Rule: "base/role",
		Cause: rapid.SampledFrom([]string{"msp", "client"}).Draw(t, "reason's cause")}
	if rapid.Bool().Draw(t, "timed") {
		g.Grant, g.Rule = fmt.Sprintf("g%d", len(p.grants)), ""
		g.End = w.in.AsOf.Add(time.Duration(rapid.IntRange(1, 3).Draw(t, "hours")) * time.Hour)
	}
	p.grants = append(slices.Clone(p.grants), g)
}

// outside edits the directory with the directory's own tools.
func (w *world) outside() {
	t := w.t
	conn := rapid.SampledFrom(w.twin.Connectors()).Draw(t, "outside connector")
	if len(conn.Objects) == 0 {
		return
	}
	o := rapid.SampledFrom(conn.Objects).Draw(t, "outside object")
	op := &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: o.GetType(), Anchor: o.GetAnchor()}}
	if o.GetType() == "team" {
		op = w.outsideTeam(conn, o, op)
	} else {
		op = w.outsidePerson(conn, o, op)
	}
	r := Applied{&planv1.Change{Id: "outside", Connector: conn.Alias, Operation: op}, nil}
	r.Receipt = w.twin.Apply(r.Change)
	// What was so already nobody can see: it is no edit.
	if r.Receipt.GetResult() == auditv1.Receipt_RESULT_APPLIED {
		w.shadow.do(op, r.Receipt)
	}
}

func (w *world) outsideTeam(conn planner.Connector, o *connectorv1.Object, op *connectorv1.Operation) *connectorv1.Operation {
	t := w.t
	m := rapid.SampledFrom(conn.Objects).Draw(t, "outside member")
	ref := &connectorv1.ObjectRef{Type: m.GetType(), Anchor: m.GetAnchor()}
	switch rapid.IntRange(0, 4).Draw(t, "team edit") {
	case 0:
		op.Action = &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("cn", "renamed "+o.GetAnchor())}}
	case 1, 2:
		op.Action = &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: ref}}
	default:
		op.Action = &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: ref}}
	}
	return op
}

func (w *world) outsidePerson(conn planner.Connector, o *connectorv1.Object, op *connectorv1.Operation) *connectorv1.Operation {
	t := w.t
	switch rapid.SampledFrom([]string{"enable", "disable", "delete", "rename", "value", "value", "value", "reference"}).Draw(t, "person edit") {
	case "enable":
		op.Action = &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}
	case "disable":
		op.Action = &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}
	case "delete":
		op.Action = &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}
	case "rename":
		op.Action = &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("uid", rapid.SampledFrom(logins).Draw(t, "new login"))}}
		if len(w.units[conn.Alias]) == 1 || conn.CaseRule == connectorv1.CaseRule_CASE_RULE_UNSPECIFIED {
			break
		}
	case "value":
		a := personType().AttributeType(rapid.SampledFrom([]string{"floor", "mail", "note", "phone", "sn", "title"}).Draw(t, "outside attribute"))
		d := &connectorv1.ValueDelta{Attribute: a.GetName()}
		v := []byte(words1(t, "outside value", a.GetName()))
		have := o.Attribute(a.GetName())
		switch {
		case !a.GetMultiValued():
			d.Remove = have
			if a.GetRequired() || rapid.IntRange(0, 3).Draw(t, "clear") > 0 {
				d.Add = [][]byte{v}
			}
			if connectorv1.SameValues(a.GetRule(), d.Remove, d.Add) {
				d.Remove, d.Add = nil, nil
			}
		case len(have) > 0 && rapid.Bool().Draw(t, "take"):
			d.Remove = have[:1]
		default:
			d.Add = [][]byte{v}
		}
		if len(d.Add)+len(d.Remove) == 0 {
			op.Action = &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}
			if o.GetEnablement() == connectorv1.Enablement_ENABLEMENT_DISABLED {
				op.Action = &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}
			}
			break
		}
		op.Action = &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{d}}}
	case "reference":
		op.Action = &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{w.outsideReference(conn, o)}}}
	}
	return op
}

func (w *world) outsideReference(conn planner.Connector, o *connectorv1.Object) *connectorv1.ValueDelta {
	t := w.t
	to := rapid.SampledFrom(conn.Objects).Draw(t, "outside target")
	ref := &connectorv1.ObjectRef{Type: to.GetType(), Anchor: to.GetAnchor()}
	if rapid.Bool().Draw(t, "multi") {
		return &connectorv1.ValueDelta{Attribute: "sees", AddRefs: []*connectorv1.ObjectRef{ref}}
	}
	d := &connectorv1.ValueDelta{Attribute: "manager", AddRefs: []*connectorv1.ObjectRef{ref}}
	for _, v := range o.Attribute("manager") {
		anchor := w.twin.directories[conn.Alias].resolve(string(v))
		if anchor == to.GetAnchor() {
			d.AddRefs = nil
		}
		d.RemoveRefs = append(d.RemoveRefs, &connectorv1.ObjectRef{Type: "person", Anchor: anchor})
	}
	return d
}

// observe is a complete snapshot of the twin: it settles the ledger.
func (w *world) observe() {
	w.in.Connectors = w.twin.Connectors()
	for _, c := range w.in.Connectors {
		w.in.Ledger = planner.Settle(w.in.Ledger, c)
	}
	w.desire()
}

// plan plans, or ends the test.
func (w *world) plan() planner.Output {
	out, err := planner.Plan(w.in)
	if err != nil {
		w.t.Fatalf("plan: %v", err)
	}
	return out
}

// run carries the plan out: every change must take effect, planning again must be
// empty, and the oracle sees what happened.
func (w *world) run() []Applied {
	out := w.plan()
	in, applied := w.twin.Run(w.in, out)
	for _, a := range applied {
		if !a.Succeeded() {
			w.t.Fatalf("change does not take effect: %v\n%v\n%v", a.Receipt.GetProblem(), a.Change, applied)
		}
		if w.in.Purpose != planv1.Purpose_PURPOSE_OFFBOARD {
			w.shadow.see(a, w.twin.directories[a.Change.GetConnector()].resolve)
		}
	}
	w.in = in
	if again := w.plan(); len(again.Agents) > 0 {
		w.t.Fatalf("planning again finds changes: %v\nafter %v", again.Agents, out.Agents)
	}
	return applied
}
