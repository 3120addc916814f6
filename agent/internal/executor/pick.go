package executor

import (
	"maps"
	"slices"

	"github.com/reevehq/reeve/agent/internal/admission"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// pick chooses the next batch: changes of one connector whose dependencies are
// settled and that do not touch one object twice, but for memberships of one
// group. What is under way counts as a part of it. A group that becomes another's
// member goes alone, since it changes what the next membership grants.
func (r *run) pick(todo []*planv1.Change) []*planv1.Change {
	var out []*planv1.Change
	touched, alias := map[string]bool{}, "" // object -> by memberships only
	if f := r.flight; f != nil {
		if f.alone {
			return nil
		}
		touched, alias = maps.Clone(f.touched), f.alias
	}
	for _, c := range todo {
		if alias != "" && c.GetConnector() != alias || !r.ready(c) || r.under(c.GetId()) {
			continue
		}
		object, memberships := object(c), memberships(c)
		if only, taken := touched[object]; taken && !(only && memberships) {
			continue
		}
		if r.nesting(c) {
			if len(out) == 0 && r.flight == nil {
				return []*planv1.Change{c}
			}
			continue
		}
		touched[object], alias = memberships, c.GetConnector()
		if out = append(out, c); len(out) == MaxBatch {
			break
		}
	}
	return out
}

// byGroup puts memberships of one group where the first of them stands: together
// they can become one request.
func byGroup(changes []*planv1.Change) []*planv1.Change {
	first := map[string]int{}
	at := func(n int, c *planv1.Change) int {
		if !memberships(c) {
			return n
		}
		key := c.GetConnector() + "\x00" + object(c)
		if _, known := first[key]; !known {
			first[key] = n
		}
		return first[key]
	}
	places := make(map[*planv1.Change]int, len(changes))
	for n, c := range changes {
		places[c] = at(n, c)
	}
	out := slices.Clone(changes)
	slices.SortStableFunc(out, func(a, b *planv1.Change) int { return places[a] - places[b] })
	return out
}

func memberships(c *planv1.Change) bool {
	return c.GetOperation().GetAddMember() != nil || c.GetOperation().GetRemoveMember() != nil
}

// object is what a change is about, or the name that it creates.
func object(c *planv1.Change) string {
	op := c.GetOperation()
	if op.GetCreate() != nil {
		return op.GetObject().GetType() + "\x00new\x00" + op.GetCreate().GetName().Key(connectorv1.CaseRule_CASE_RULE_IGNORE)
	}
	return op.GetObject().GetType() + "\x00" + op.GetObject().GetAnchor() + "\x00" + op.GetObject().GetChange()
}

func (r *run) ready(c *planv1.Change) bool {
	for _, id := range admission.Dependencies(c) {
		if _, done := r.settled[id]; !done {
			return false
		}
	}
	return true
}

func (r *run) nesting(c *planv1.Change) bool {
	member := c.GetOperation().GetAddMember().GetMember()
	if member == nil {
		return false
	}
	for _, t := range r.e.o.Connectors[c.GetConnector()].Directory.Types() {
		if t.GetName() == member.GetType() {
			return t.GetKind() == connectorv1.Kind_KIND_GROUP
		}
	}
	return false
}
