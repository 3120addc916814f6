package rehearsal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Codes of the problems a rehearsal finds.
const (
	// CodePlan: no plan can be made from the inputs.
	CodePlan = "REHEARSAL_PLAN"
	// CodeChange: a change cannot take effect.
	CodeChange = "REHEARSAL_CHANGE"
	// CodeUnsettled: planning again after the plan still finds changes.
	CodeUnsettled = "REHEARSAL_UNSETTLED"
	// CodeRoundTrip: offboarding leaves something that it does not list.
	CodeRoundTrip = "REHEARSAL_ROUND_TRIP"
)

// Rehearse runs the plan of the input and the offboarding derived from it on a
// twin of the input's connectors.
//
// The verdict is FAILED when a change cannot take effect, when planning again is
// not empty, or when offboarding leaves anything but the state before, what the
// client caused, and what the residue list names; the problems say which. It is
// RESIDUE when the list names something that an observation could see, else
// ROUND_TRIP. The time in the result is the input's AsOf.
func Rehearse(in planner.Input) (*planv1.Rehearsal, []*connectorv1.Problem) {
	r := &rehearsal{result: &planv1.Rehearsal{At: timestamppb.New(in.AsOf), Verdict: planv1.Rehearsal_VERDICT_FAILED}}
	if r.run(in) && len(r.problems) == 0 {
		r.result.Verdict = planv1.Rehearsal_VERDICT_ROUND_TRIP
		if r.visible {
			r.result.Verdict = planv1.Rehearsal_VERDICT_RESIDUE
		}
	}
	return r.result, r.problems
}

type rehearsal struct {
	result   *planv1.Rehearsal
	problems []*connectorv1.Problem
	// visible is true when residue shows in observed state or in a credential.
	visible bool
}

func (r *rehearsal) run(in planner.Input) bool {
	twin := NewTwin(in.Connectors)
	r.result.Before = twin.Digest()
	after, forward, ok := r.leg(twin, in)
	r.result.ForwardChanges = uint32(len(forward))
	r.result.After = twin.Digest()
	if !ok {
		return false
	}
	back := after
	back.Purpose = planv1.Purpose_PURPOSE_OFFBOARD
	back.Connectors = whole(back.Connectors)
	out, err := planner.Plan(back)
	if err != nil {
		return r.fail(CodePlan, "the offboarding", err.Error(), "correct the inputs that the message names")
	}
	declared := r.residue(out.Findings)
	_, backward, ok := r.leg(twin, back)
	r.result.BackwardChanges = uint32(len(backward))
	r.result.Restored = twin.Digest()
	if in.Purpose == planv1.Purpose_PURPOSE_OFFBOARD || !ok {
		return ok
	}
	want, contested, err := expected(in, forward)
	if err != nil {
		return r.fail(CodePlan, "the offboarding without this plan", err.Error(), "correct the inputs that the message names")
	}
	r.compare(want, twin, declared, contested)
	return true
}

// leg plans, runs the plan and plans again, which must find nothing.
func (r *rehearsal) leg(twin *Twin, in planner.Input) (planner.Input, []Applied, bool) {
	out, err := planner.Plan(in)
	if err != nil {
		return in, nil, r.fail(CodePlan, in.Purpose.String(), err.Error(), "correct the inputs that the message names")
	}
	in, applied := twin.Run(in, out)
	for _, a := range applied {
		if !a.Succeeded() {
			r.fail(CodeChange, a.Change.GetDisplay(), a.Receipt.GetProblem().GetCode()+": "+a.Receipt.GetProblem().GetSaid(),
				"see what the directory holds there, or change the mapping, so that "+a.Change.GetOperation().Kind().Word()+" can succeed")
		}
	}
	again, err := planner.Plan(in)
	if err != nil {
		return in, applied, r.fail(CodePlan, in.Purpose.String()+" again", err.Error(), "correct the inputs that the message names")
	}
	for _, a := range again.Agents {
		for _, c := range a.Changes {
			r.fail(CodeUnsettled, c.GetDisplay(), "planning again still finds "+c.GetOperation().Kind().Word()+" by rule "+c.GetRule(),
				"look for two rules that want different things, or a matching rule that does not fit the directory")
		}
	}
	return in, applied, true
}

func (r *rehearsal) fail(code, object, said, remedy string) bool {
	r.problems = append(r.problems, &connectorv1.Problem{
		Code: code, Object: object, Tried: "rehearse the plan on the twin", Said: said, Remedy: remedy, Severity: connectorv1.Severity_SEVERITY_ERROR,
	})
	return false
}

// place is an object as findings name it.
type place struct{ connector, object string }

// residue lists what offboarding leaves, and returns the objects it is about.
func (r *rehearsal) residue(findings []planner.Finding) map[place]bool {
	declared := map[place]bool{}
	for _, f := range findings {
		if f.Kind != planner.FindingResidue && f.Kind != planner.FindingDiverged {
			continue
		}
		declared[place{f.Connector, f.Object}] = true
		line := f.Sentence
		if f.Object != planner.ResidueTimestamps {
			line = f.Connector + ": " + f.Object + ": " + f.Sentence
			r.visible = true
		}
		r.result.Residue = append(r.result.Residue, line)
	}
	slices.Sort(r.result.Residue)
	r.result.Residue = slices.Compact(r.result.Residue)
	return declared
}

// whole marks the twin's snapshots as complete: the twin knows all of itself.
func whole(connectors []planner.Connector) []planner.Connector {
	connectors = slices.Clone(connectors)
	for i := range connectors {
		if connectors[i].Snapshot != nil {
			connectors[i].Snapshot = proto.CloneOf(connectors[i].Snapshot)
			connectors[i].Snapshot.Complete = true
		}
	}
	return connectors
}

// expected is what should be left: the tenant offboarded as it stood before the
// plan, and then only what the client caused in it. The objects returned beside
// are in the way of each other's names: which of them has which is not compared.
func expected(in planner.Input, forward []Applied) (*Twin, map[place]bool, error) {
	twin := NewTwin(whole(in.Connectors))
	back := in
	back.Purpose, back.Connectors = planv1.Purpose_PURPOSE_OFFBOARD, whole(in.Connectors)
	out, err := planner.Plan(back)
	if err != nil {
		return nil, nil, fmt.Errorf("plan the offboarding of the state before: %w", err)
	}
	twin.Run(back, out)
	names := map[place]*connectorv1.Name{}
	contested := map[place]bool{}
	// What could not come back even before the plan may do so after it.
	for _, f := range out.Findings {
		if f.Kind == planner.FindingResidue && twin.directories[f.Connector] != nil {
			for anchor, o := range twin.directories[f.Connector].objects {
				contested[place{f.Connector, anchor}] = contested[place{f.Connector, anchor}] || o.GetName().Text() == f.Object
			}
		}
	}
	for _, a := range forward {
		c, op := a.Change, a.Change.GetOperation()
		switch {
		case handedOver(in, c) && (op.GetRename() != nil || op.GetMove() != nil):
			names[place{c.GetConnector(), a.Receipt.GetAnchor()}] = a.Receipt.GetAfter().GetName()
		case handedOver(in, c):
			if r := twin.impose(c); op.GetCreate() != nil && r.GetProblem() != nil {
				d := twin.directories[c.GetConnector()]
				contested[place{c.GetConnector(), a.Receipt.GetAnchor()}] = true
				contested[place{c.GetConnector(), d.names[op.GetCreate().GetName().Key(d.conn.CaseRule)]}] = true
			}
		case a.Receipt.GetResult() == auditv1.Receipt_RESULT_ALREADY && op.GetAddMember() != nil:
			// The client's reason for the membership gave way to one of the MSP's.
			c := proto.CloneOf(c)
			c.Operation.Action = &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: c.Operation.GetAddMember().GetMember()}}
			twin.impose(c)
		case op.GetUpdate() != nil && len(c.GetAdditive()) > 0:
			// So too for values.
			twin.impose(twin.passedOn(a))
		}
	}
	// Only where the objects end counts, not the way there.
	for _, p := range slices.SortedFunc(maps.Keys(names), func(a, b place) int { return strings.Compare(a.connector+"\x00"+a.object, b.connector+"\x00"+b.object) }) {
		name, d := names[p], twin.directories[p.connector]
		o := d.objects[p.object]
		if o == nil {
			continue
		}
		if d.free(&connectorv1.Object{Anchor: p.object, Name: name}) != nil {
			contested[p] = true
			contested[place{p.connector, d.names[name.Key(d.conn.CaseRule)]}] = true
			continue
		}
		d.rename(o, name)
	}
	return twin, contested, nil
}

// passedOn is the change that takes what was there and what the applied change adds
// all the same: values whose cause it takes over.
func (t *Twin) passedOn(a Applied) *planv1.Change {
	c := proto.CloneOf(a.Change)
	before := &connectorv1.Object{Attributes: a.Receipt.GetBefore().GetAttributes()}
	d := t.directories[c.GetConnector()]
	for _, delta := range c.GetOperation().GetUpdate().GetDeltas() {
		was := before.Attribute(delta.GetAttribute())
		declared := d.types[c.GetOperation().GetObject().GetType()].AttributeType(delta.GetAttribute())
		delta.Remove = slices.DeleteFunc(delta.GetAdd(), func(v []byte) bool { return !connectorv1.HasValue(declared.GetRule(), was, v) })
		delta.RemoveRefs = slices.DeleteFunc(delta.GetAddRefs(), func(ref *connectorv1.ObjectRef) bool {
			return !slices.ContainsFunc(was, func(key []byte) bool { return d.resolve(string(key)) == ref.GetAnchor() })
		})
		delta.Add, delta.AddRefs = nil, nil
	}
	update := c.GetOperation().GetUpdate()
	update.Deltas = slices.DeleteFunc(update.GetDeltas(), func(d *connectorv1.ValueDelta) bool { return len(d.GetRemove())+len(d.GetRemoveRefs()) == 0 })
	return c
}

func handedOver(in planner.Input, c *planv1.Change) bool {
	if c.GetCause() == planv1.Cause_CAUSE_CLIENT {
		return !slices.Contains(in.Rules.Offboarding.Undo, c.GetRule())
	}
	return slices.Contains(in.Rules.Offboarding.HandOver, c.GetRule())
}

// impose applies a change whatever the base: what it removes may be absent and
// what it sets replaces what is there.
func (t *Twin) impose(c *planv1.Change) *auditv1.Receipt {
	c = proto.CloneOf(c)
	c.Operation.Expect = nil
	if o := t.Object(c.GetConnector(), t.anchor(c.GetOperation().GetObject())); o != nil {
		d := t.directories[c.GetConnector()]
		for _, delta := range c.GetOperation().GetUpdate().GetDeltas() {
			a := d.types[o.GetType()].AttributeType(delta.GetAttribute())
			// What only the MSP's part of the plan makes is not there to be named.
			delta.AddRefs = slices.DeleteFunc(delta.GetAddRefs(), func(ref *connectorv1.ObjectRef) bool { return d.objects[t.anchor(ref)] == nil })
			have := o.Attribute(delta.GetAttribute())
			switch {
			case a.GetMultiValued():
				delta.Remove = slices.DeleteFunc(delta.GetRemove(), func(v []byte) bool { return !connectorv1.HasValue(a.GetRule(), have, v) })
				delta.RemoveRefs = slices.DeleteFunc(delta.GetRemoveRefs(), func(ref *connectorv1.ObjectRef) bool {
					target := d.objects[t.anchor(ref)]
					return target == nil || !connectorv1.HasValue(a.GetRule(), have, []byte(d.referenceKey(target)))
				})
			case a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE:
				delta.RemoveRefs = nil
				for _, v := range have {
					if anchor := d.resolve(string(v)); anchor != "" {
						delta.RemoveRefs = append(delta.RemoveRefs, &connectorv1.ObjectRef{Anchor: anchor})
					}
				}
			default:
				delta.Remove = have
			}
		}
	}
	return t.Apply(c)
}

// compare reports every object that offboarding left otherwise than expected and
// did not declare.
func (r *rehearsal) compare(want, got *Twin, declared, contested map[place]bool) {
	for alias, w := range want.directories {
		g := got.directories[alias]
		exempt := map[string]bool{}
		anchors := map[string]bool{}
		for _, d := range []*directory{w, g} {
			for anchor, o := range d.objects {
				anchors[anchor] = true
				exempt[anchor] = exempt[anchor] || contested[place{alias, anchor}] || declared[place{alias, o.GetName().Text()}]
			}
		}
		for _, anchor := range slices.Sorted(maps.Keys(anchors)) {
			before, left := w.objects[anchor], g.objects[anchor]
			if exempt[anchor] {
				continue
			}
			const remedy = "do not approve this plan; report it with the plan's number"
			switch {
			case left == nil:
				r.fail(CodeRoundTrip, before.GetName().Text(), "the object is missing after offboarding", remedy)
			case before == nil:
				r.fail(CodeRoundTrip, left.GetName().Text(), "the object is left after offboarding", remedy)
			default:
				if parts := differences(w.comparable(before, exempt), g.comparable(left, exempt)); len(parts) > 0 {
					r.fail(CodeRoundTrip, before.GetName().Text(), "the object differs after offboarding in "+strings.Join(parts, ", "), remedy)
				}
			}
		}
	}
	slices.SortFunc(r.problems, func(a, b *connectorv1.Problem) int {
		return strings.Compare(a.GetCode()+a.GetObject()+a.GetSaid(), b.GetCode()+b.GetObject()+b.GetSaid())
	})
}

// comparable is an object with the others it names by anchor, but for those that
// are exempt: they stay, or have another name, wherever they are named.
func (d *directory) comparable(o *connectorv1.Object, exempt map[string]bool) *connectorv1.Object {
	o = proto.CloneOf(o)
	var members []string
	for _, k := range o.GetMembers() {
		if anchor := d.resolve(k); anchor == "" {
			members = append(members, k)
		} else if !exempt[anchor] {
			members = append(members, "anchor:"+anchor)
		}
	}
	slices.Sort(members)
	o.Members = members
	for _, a := range d.types[o.GetType()].GetAttributes() {
		if a.GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			continue
		}
		var values [][]byte
		for _, k := range o.Attribute(a.GetName()) {
			if anchor := d.resolve(string(k)); anchor == "" {
				values = append(values, k)
			} else if !exempt[anchor] {
				values = append(values, []byte("anchor:"+anchor))
			}
		}
		setValues(o, a, values)
	}
	return o
}

// differences names the parts in which two states of an object differ; values
// are not shown.
func differences(a, b *connectorv1.Object) []string {
	var out []string
	if a.GetName().Text() != b.GetName().Text() {
		out = append(out, "name")
	}
	if a.GetEnablement() != b.GetEnablement() {
		out = append(out, "enablement")
	}
	if !slices.Equal(a.GetMembers(), b.GetMembers()) {
		out = append(out, "members")
	}
	if !slices.Equal(a.GetKeys(), b.GetKeys()) {
		out = append(out, "link keys")
	}
	names := map[string]bool{}
	for _, o := range []*connectorv1.Object{a, b} {
		for _, attr := range o.GetAttributes() {
			names[attr.GetName()] = true
		}
	}
	for name := range names {
		if !connectorv1.SameValues(connectorv1.MatchingRule_MATCHING_RULE_EXACT, a.Attribute(name), b.Attribute(name)) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
