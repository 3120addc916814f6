package connectortest

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func (m *memory) Apply(ctx context.Context, operations []*connectorv1.Operation) []*connectorv1.ApplyResult {
	m.mu.Lock()
	defer m.mu.Unlock()
	results := make([]*connectorv1.ApplyResult, len(operations))
	for i, op := range operations {
		results[i] = m.applyOne(ctx, op)
	}
	return results
}

func (m *memory) applyOne(ctx context.Context, op *connectorv1.Operation) *connectorv1.ApplyResult {
	if err := m.wait(ctx); err != nil {
		return sdk.Unknown(op, sdk.AsProblem(err, m.alias, op.Kind().Word()))
	}
	m.applied++
	switch {
	case m.settings.Lie == "panic":
		panic("memory was told to panic")
	case m.settings.Lie == "done":
		return sdk.Done(op)
	case m.settings.FailAfter > 0 && m.applied > m.settings.FailAfter:
		return sdk.Unknown(op, sdk.NewProblem(sdk.CodeUnreachable, m.alias, op.Kind().Word(), "memory was told to fail"))
	}
	if err := m.load(); err != nil {
		return sdk.Refused(op, sdk.AsProblem(err, m.alias, op.Kind().Word()))
	}
	next := m.state.clone()
	changed, result := m.change(&next, op)
	if !changed {
		return result
	}
	next.Revision++
	for i := range next.Objects {
		if next.Objects[i].Revision < 0 {
			next.Objects[i].Revision = next.Revision
		}
	}
	if err := next.Write(m.settings.State); err != nil {
		return sdk.Unknown(op, sdk.NewProblem(sdk.CodeServerError, m.alias, op.Kind().Word(), "see that the state file can be written").WithCause(err))
	}
	m.state = next
	close(m.changed)
	m.changed = make(chan struct{})
	return result
}

// change computes the operation's effect in s; objects it touches get revision
// -1.
func (m *memory) change(s *MemoryState, op *connectorv1.Operation) (bool, *connectorv1.ApplyResult) {
	if op.GetCreate() != nil {
		return m.create(s, op)
	}
	o := s.find(op.GetObject())
	if o == nil {
		if op.GetDelete() != nil {
			return false, sdk.Done(op)
		}
		return false, sdk.Refused(op, sdk.NewProblem(sdk.CodeNotFound, m.alias+": "+op.GetObject().GetAnchor(), op.Kind().Word(), "observe again: it is gone"))
	}
	after := cloneObject(*o)
	p := m.effect(s, &after, op)
	if p != nil {
		return false, sdk.Refused(op, p)
	}
	if op.GetDelete() == nil && sameObject(o, &after) {
		return false, sdk.Done(op)
	}
	for _, e := range op.GetExpect() {
		if !connectorv1.SameValues(ruleOf(o.Type, e.GetAttribute()), o.object().Attribute(e.GetAttribute()), e.GetValues()) {
			return false, sdk.Conflict(op, sdk.NewProblem(sdk.CodeConflict, m.alias+": "+o.name().Text(), op.Kind().Word(), "plan again").
				WithSaid(e.GetAttribute()+" has another value"))
		}
	}
	if op.GetDelete() != nil {
		anchor := o.Anchor
		s.Gone = append(s.Gone, MemoryGone{Anchor: anchor, Revision: s.Revision + 1})
		s.Objects = slices.DeleteFunc(s.Objects, func(x MemoryObject) bool { return x.Anchor == anchor })
		for i := range s.Objects {
			if at := slices.Index(s.Objects[i].Members, anchor); at >= 0 {
				s.Objects[i] = cloneObject(s.Objects[i])
				s.Objects[i].Members = slices.Delete(s.Objects[i].Members, at, at+1)
				s.Objects[i].Revision = -1
			}
		}
		return true, sdk.Done(op)
	}
	after.Revision = -1
	*o = after
	return true, sdk.Done(op)
}

func ruleOf(typeName, attribute string) connectorv1.MatchingRule {
	for _, t := range memoryTypes() {
		if t.GetName() == typeName {
			return t.AttributeType(attribute).GetRule()
		}
	}
	return connectorv1.MatchingRule_MATCHING_RULE_EXACT
}

func (m *memory) create(s *MemoryState, op *connectorv1.Operation) (bool, *connectorv1.ApplyResult) {
	o := MemoryObject{Type: op.GetObject().GetType(), Attributes: map[string][]string{}, Revision: -1}
	o.Disabled = o.Type == "account"
	if p := o.takeName(op.GetCreate().GetName()); p != nil {
		return false, sdk.Refused(op, p)
	}
	for _, a := range op.GetCreate().GetAttributes() {
		for _, v := range a.GetValues() {
			o.Attributes[a.GetName()] = append(o.Attributes[a.GetName()], string(v))
		}
	}
	for _, ref := range op.GetCreate().GetMembers() {
		member := s.find(ref)
		if member == nil {
			return false, sdk.Refused(op, sdk.NewProblem(sdk.CodeNotFound, m.alias, "add a member", "create the member first"))
		}
		o.Members = append(o.Members, member.Anchor)
	}
	slices.Sort(o.Members)
	if there := s.find(&connectorv1.ObjectRef{Type: o.Type, Name: o.name()}); there != nil {
		o.Anchor = there.Anchor
		// The state of enablement is not part of the create.
		o.Disabled, o.Password = there.Disabled, there.Password
		if sameObject(there, &o) {
			return false, sdk.Done(op)
		}
		return false, sdk.Refused(op, sdk.NewProblem(sdk.CodeAlreadyExists, m.alias+": "+o.name().Text(), "create", "adopt it, or choose another name"))
	}
	s.Next++
	o.Anchor = fmt.Sprintf("%s-%d", o.Type, s.Next)
	s.Objects = append(s.Objects, o)
	return true, sdk.Done(op)
}

func (m *memory) effect(s *MemoryState, o *MemoryObject, op *connectorv1.Operation) *sdk.Problem {
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		for _, d := range act.Update.GetDeltas() {
			rule := ruleOf(o.Type, d.GetAttribute())
			values := slices.DeleteFunc(o.Attributes[d.GetAttribute()], func(v string) bool {
				return connectorv1.HasValue(rule, d.GetRemove(), []byte(v))
			})
			for _, add := range d.GetAdd() {
				if !slices.ContainsFunc(values, func(v string) bool {
					return bytes.Equal(connectorv1.Canonical(rule, []byte(v)), connectorv1.Canonical(rule, add))
				}) {
					values = append(values, string(add))
				}
			}
			if t := memoryAttribute(o.Type, d.GetAttribute()); len(values) > 1 && !t.GetMultiValued() {
				return sdk.NewProblem(sdk.CodeConflict, m.alias+": "+o.name().Text(), "update "+d.GetAttribute(), "remove the present value in the same change")
			}
			if len(values) == 0 {
				delete(o.Attributes, d.GetAttribute())
			} else {
				o.Attributes[d.GetAttribute()] = values
			}
		}
	case *connectorv1.Operation_Rename:
		return m.place(s, o, &connectorv1.Name{Components: []*connectorv1.Component{act.Rename.GetTo(), o.name().Components[1]}})
	case *connectorv1.Operation_Move:
		return m.place(s, o, &connectorv1.Name{Components: append([]*connectorv1.Component{o.name().Leaf()}, act.Move.GetTo()...)})
	case *connectorv1.Operation_Enable:
		o.Disabled = false
	case *connectorv1.Operation_Disable:
		o.Disabled = true
	case *connectorv1.Operation_SetCredential:
		o.Password = string(act.SetCredential.GetSecret())
	case *connectorv1.Operation_RevokeCredential:
		o.Password = ""
	case *connectorv1.Operation_AddMember:
		member := s.find(act.AddMember.GetMember())
		if member == nil {
			return sdk.NewProblem(sdk.CodeNotFound, m.alias, "add a member", "create the member first")
		}
		o.Members = append(o.Members, member.Anchor)
		slices.Sort(o.Members)
		o.Members = slices.Compact(o.Members)
	case *connectorv1.Operation_RemoveMember:
		if member := s.find(act.RemoveMember.GetMember()); member != nil {
			o.Members = slices.DeleteFunc(o.Members, func(a string) bool { return a == member.Anchor })
		}
	}
	return nil
}

func memoryAttribute(typeName, name string) *connectorv1.AttributeType {
	for _, t := range memoryTypes() {
		if t.GetName() == typeName {
			return t.AttributeType(name)
		}
	}
	return nil
}

func (m *memory) place(s *MemoryState, o *MemoryObject, to *connectorv1.Name) *sdk.Problem {
	if p := o.takeName(to); p != nil {
		return p
	}
	if there := s.find(&connectorv1.ObjectRef{Type: o.Type, Name: to}); there != nil && there.Anchor != o.Anchor {
		return sdk.NewProblem(sdk.CodeAlreadyExists, m.alias+": "+to.Text(), "rename", "choose another name")
	}
	return nil
}
