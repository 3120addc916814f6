package executor

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// observed is what a survey says of one operation.
type observed struct {
	// object is what the operation is about; of a create, what bears the name.
	// It is nil if it is known not to exist.
	object *connectorv1.Object
	member *connectorv1.Object
	// target is who bears the name that a rename or move leads to.
	target *connectorv1.Object
	// problem is set when something could not be read, so that nothing follows.
	problem *connectorv1.Problem
}

func memberRef(op *connectorv1.Operation) *connectorv1.ObjectRef {
	if m := op.GetAddMember(); m != nil {
		return m.GetMember()
	}
	return op.GetRemoveMember().GetMember()
}

func observe(op *connectorv1.Operation, s *admission.Survey) observed {
	var o observed
	read := func(ref *connectorv1.ObjectRef) *connectorv1.Object {
		if ref == nil {
			return nil
		}
		result := s.Result(ref)
		object := s.Object(ref)
		if object == nil && result.GetAbsent() == nil && o.problem == nil {
			if o.problem = result.GetProblem(); o.problem == nil {
				o.problem = problem("CONNECTOR_BUG", "the connector answered with another object than was asked for, or not at all", "report it to its author")
			}
		}
		return object
	}
	if op.GetCreate() != nil {
		o.object = read(s.Target(op))
	} else {
		o.object = read(op.GetObject())
		o.target = read(s.Target(op))
	}
	o.member = read(memberRef(op))
	for _, d := range op.GetUpdate().GetDeltas() {
		for _, ref := range append(slices.Clone(d.GetAddRefs()), d.GetRemoveRefs()...) {
			read(ref)
		}
	}
	return o
}

func (o observed) anchor(known string) string {
	if a := o.object.GetAnchor(); a != "" {
		return a
	}
	return known
}

// holds reports whether the operation's effect is there. Credentials cannot be
// read, so theirs never is.
func (o observed) holds(op *connectorv1.Operation, t *connectorv1.ObjectType, s *admission.Survey) bool {
	if op.GetDelete() != nil {
		return o.object == nil
	}
	if o.object == nil {
		return false
	}
	switch action := op.GetAction().(type) {
	case *connectorv1.Operation_Create:
		return createHolds(o.object, action.Create, t, s)
	case *connectorv1.Operation_Update:
		return !slices.ContainsFunc(action.Update.GetDeltas(), func(d *connectorv1.ValueDelta) bool { return !deltaHolds(o.object, d, t, s) })
	case *connectorv1.Operation_Rename, *connectorv1.Operation_Move:
		return o.object.GetName().Key(s.Rule()) == guardrails.NameAfter(o.object, op).Key(s.Rule())
	case *connectorv1.Operation_Enable:
		return o.object.GetEnablement() == connectorv1.Enablement_ENABLEMENT_ENABLED
	case *connectorv1.Operation_Disable:
		return o.object.GetEnablement() == connectorv1.Enablement_ENABLEMENT_DISABLED
	case *connectorv1.Operation_AddMember:
		return isMember(o.object, o.member, t)
	case *connectorv1.Operation_RemoveMember:
		return !isMember(o.object, o.member, t)
	}
	return false
}

func createHolds(o *connectorv1.Object, create *connectorv1.Create, t *connectorv1.ObjectType, s *admission.Survey) bool {
	for _, a := range create.GetAttributes() {
		declared := t.AttributeType(a.GetName())
		have := o.Attribute(a.GetName())
		for _, v := range a.GetValues() {
			if !connectorv1.HasValue(declared.GetRule(), have, v) {
				return false
			}
		}
	}
	return !slices.ContainsFunc(create.GetMembers(), func(ref *connectorv1.ObjectRef) bool { return !isMember(o, s.Object(ref), t) })
}

func deltaHolds(o *connectorv1.Object, d *connectorv1.ValueDelta, t *connectorv1.ObjectType, s *admission.Survey) bool {
	rule := t.AttributeType(d.GetAttribute()).GetRule()
	have := o.Attribute(d.GetAttribute())
	has := func(v []byte) bool { return connectorv1.HasValue(rule, have, v) }
	refers := func(ref *connectorv1.ObjectRef) bool { return refersTo(have, s.Object(ref)) }
	for _, v := range d.GetAdd() {
		if !has(v) {
			return false
		}
	}
	for _, v := range d.GetRemove() {
		// A value that is added again under another spelling stays.
		if has(v) && !connectorv1.HasValue(rule, d.GetAdd(), v) {
			return false
		}
	}
	return !slices.ContainsFunc(d.GetAddRefs(), func(r *connectorv1.ObjectRef) bool { return !refers(r) }) && !slices.ContainsFunc(d.GetRemoveRefs(), refers)
}

func refersTo(values [][]byte, o *connectorv1.Object) bool {
	return slices.ContainsFunc(o.GetKeys(), func(key string) bool {
		return slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(v, []byte(key)) })
	})
}

func isMember(group, member *connectorv1.Object, t *connectorv1.ObjectType) bool {
	return slices.ContainsFunc(member.GetKeys(), func(key string) bool {
		return strings.HasPrefix(key, t.GetMemberKey()) && slices.Contains(group.GetMembers(), key)
	})
}

// conflict says how the base state differs from what the change was planned on.
func (o observed) conflict(op *connectorv1.Operation, t *connectorv1.ObjectType, s *admission.Survey) *connectorv1.Problem {
	const again = "observe and plan again"
	if op.GetCreate() != nil {
		if o.object != nil {
			return problem("ALREADY_EXISTS", "the name "+o.object.GetName().Text()+" is taken", "adopt the object or choose another name")
		}
		return nil
	}
	for _, e := range op.GetExpect() {
		if !connectorv1.SameValues(t.AttributeType(e.GetAttribute()).GetRule(), o.object.Attribute(e.GetAttribute()), e.GetValues()) {
			return problem("CONFLICT", fmt.Sprintf("%s of %s is not what the plan was made on", e.GetAttribute(), o.object.GetName().Text()), again)
		}
	}
	if o.target != nil && o.target.GetAnchor() != o.object.GetAnchor() {
		return problem("ALREADY_EXISTS", "the name "+o.target.GetName().Text()+" is taken", "choose another name")
	}
	for _, d := range op.GetUpdate().GetDeltas() {
		declared := t.AttributeType(d.GetAttribute())
		have := o.object.Attribute(d.GetAttribute())
		left := len(have) + len(d.GetAdd()) + len(d.GetAddRefs()) - len(d.GetRemove()) - len(d.GetRemoveRefs())
		for _, v := range d.GetRemove() {
			if !connectorv1.HasValue(declared.GetRule(), have, v) {
				return problem("CONFLICT", fmt.Sprintf("a value of %s of %s that was to go is not there", d.GetAttribute(), o.object.GetName().Text()), again)
			}
		}
		for _, ref := range d.GetRemoveRefs() {
			if !refersTo(have, s.Object(ref)) {
				return problem("CONFLICT", fmt.Sprintf("a reference in %s of %s that was to go is not there", d.GetAttribute(), o.object.GetName().Text()), again)
			}
		}
		for _, v := range d.GetAdd() {
			if connectorv1.HasValue(declared.GetRule(), have, v) {
				left--
			}
		}
		if !declared.GetMultiValued() && left > 1 {
			return problem("CONFLICT", fmt.Sprintf("%s of %s has another value already", d.GetAttribute(), o.object.GetName().Text()), again)
		}
	}
	return nil
}

// touched is the part of the object that the operation can have changed. Secret
// attributes are never in an object; should a connector break that, they are left
// out here.
func (o observed) touched(op *connectorv1.Operation, t *connectorv1.ObjectType, s *admission.Survey) *auditv1.Touched {
	if o.object == nil {
		return &auditv1.Touched{}
	}
	out := &auditv1.Touched{Exists: true, Name: proto.CloneOf(o.object.GetName())}
	keep := func(name string) {
		for _, a := range o.object.GetAttributes() {
			declared := t.AttributeType(a.GetName())
			if (name == "" || strings.EqualFold(a.GetName(), name)) && declared != nil && !declared.GetSecret() {
				out.Attributes = append(out.Attributes, proto.CloneOf(a))
			}
		}
	}
	switch action := op.GetAction().(type) {
	case *connectorv1.Operation_Create, *connectorv1.Operation_Delete:
		keep("")
		out.Enablement, out.Keys = o.object.GetEnablement(), slices.Clone(o.object.GetKeys())
	case *connectorv1.Operation_Update:
		for _, d := range action.Update.GetDeltas() {
			keep(d.GetAttribute())
		}
	case *connectorv1.Operation_Rename, *connectorv1.Operation_Move:
		out.Keys = slices.Clone(o.object.GetKeys())
	case *connectorv1.Operation_Enable, *connectorv1.Operation_Disable:
		out.Enablement = o.object.GetEnablement()
	case *connectorv1.Operation_AddMember, *connectorv1.Operation_RemoveMember:
		out.Member = isMember(o.object, o.member, t)
	}
	return out
}
