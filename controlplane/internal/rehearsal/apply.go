package rehearsal

import (
	"slices"
	"strings"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
)

// Apply carries out one change on the twin as the connector's declared types
// allow, and returns the receipt an agent would send: CONFLICT when a base value
// does not hold, REFUSED when the directory could not do it, ALREADY when it was
// so. Nothing is changed unless the result is APPLIED. Order and dependencies are
// the caller's (see Run).
func (t *Twin) Apply(c *planv1.Change) *auditv1.Receipt {
	op := c.GetOperation()
	r := &auditv1.Receipt{
		Change: c.GetId(), Connector: c.GetConnector(), Cause: c.GetCause(), Grant: c.GetGrant(),
		Operation: op.Kind(), Type: op.GetObject().GetType(), Result: auditv1.Receipt_RESULT_REFUSED,
	}
	d := t.directories[c.GetConnector()]
	if d == nil {
		return refused(r, "NO_CONNECTOR", c.GetConnector(), "the twin has no such connector")
	}
	typ := d.types[r.GetType()]
	if !typ.Allows(op.Kind()) {
		return refused(r, "NOT_DECLARED", r.GetType(), "the connector does not declare "+op.Kind().Word()+" for this type")
	}
	if op.GetCreate() != nil {
		return t.create(d, typ, op, r)
	}
	o := d.objects[t.anchor(op.GetObject())]
	if o == nil {
		return refused(r, "NO_OBJECT", c.GetDisplay(), "the object does not exist")
	}
	r.Anchor = o.GetAnchor()
	for _, e := range op.GetExpect() {
		if !connectorv1.SameValues(typ.AttributeType(e.GetAttribute()).GetRule(), o.Attribute(e.GetAttribute()), e.GetValues()) {
			r.Result = auditv1.Receipt_RESULT_CONFLICT
			r.Problem = &connectorv1.Problem{Code: "CONFLICT", Object: c.GetDisplay(), Said: "attribute " + e.GetAttribute() + " is not what the plan saw"}
			return r
		}
	}
	member := t.member(op)
	r.Member = member
	r.Before = d.touched(o, op, member)
	if op.GetAddMember() != nil || op.GetRemoveMember() != nil {
		return d.membership(typ, o, member, op.GetAddMember() != nil, r)
	}
	next := proto.CloneOf(o)
	if problem := t.effect(d, typ, next, op); problem != nil {
		if problem.GetCode() == "CONFLICT" {
			r.Result = auditv1.Receipt_RESULT_CONFLICT
		}
		r.Problem = problem
		return r
	}
	r.Result = auditv1.Receipt_RESULT_APPLIED
	switch {
	case op.GetDelete() != nil:
		d.delete(o)
		r.After = &auditv1.Touched{}
		return r
	case op.GetRename() != nil, op.GetMove() != nil:
		if proto.Equal(o.GetName(), next.GetName()) {
			r.Result = auditv1.Receipt_RESULT_ALREADY
		} else {
			d.rename(o, next.GetName())
		}
	default:
		if proto.Equal(o, next) && op.GetSetCredential() == nil && op.GetRevokeCredential() == nil {
			r.Result = auditv1.Receipt_RESULT_ALREADY
		}
		d.put(next)
		o = next
	}
	r.After = d.touched(o, op, member)
	return r
}

// effect works out the object's next state, or why there is none.
func (t *Twin) effect(d *directory, typ *connectorv1.ObjectType, o *connectorv1.Object, op *connectorv1.Operation) *connectorv1.Problem {
	switch a := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		return t.update(d, typ, o, a.Update)
	case *connectorv1.Operation_Rename:
		o.Name = &connectorv1.Name{Components: append([]*connectorv1.Component{a.Rename.GetTo()}, o.GetName().Parent().GetComponents()...)}
		return d.free(o)
	case *connectorv1.Operation_Move:
		o.Name = &connectorv1.Name{Components: append([]*connectorv1.Component{o.GetName().Leaf()}, a.Move.GetTo()...)}
		return d.free(o)
	case *connectorv1.Operation_Enable:
		o.Enablement = connectorv1.Enablement_ENABLEMENT_ENABLED
	case *connectorv1.Operation_Disable:
		o.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
	}
	return nil
}

// membership changes a group in place: groups are large and change often.
func (d *directory) membership(typ *connectorv1.ObjectType, group *connectorv1.Object, member string, add bool, r *auditv1.Receipt) *auditv1.Receipt {
	m := d.objects[member]
	if m == nil {
		return refused(r, "NO_OBJECT", group.GetName().Text(), "the member does not exist")
	}
	r.Result = auditv1.Receipt_RESULT_ALREADY
	if d.isMember(group, m) != add {
		if key := keyOf(m, typ.GetMemberKey()); add && key == "" {
			return refused(r, "NO_MEMBER_KEY", group.GetName().Text(), "the member has no name of the kind that this group holds")
		} else if add {
			d.addMember(group, key)
		} else {
			var at []int
			for _, k := range m.GetKeys() {
				if i, found := slices.BinarySearch(group.GetMembers(), k); found {
					at = append(at, i)
				}
			}
			if len(at) == len(group.GetMembers()) && typ.GetNeedsMember() {
				return refused(r, "NEEDS_MEMBER", group.GetName().Text(), "the group cannot be without a member")
			}
			slices.Sort(at)
			for _, i := range slices.Backward(slices.Compact(at)) {
				group.Members = slices.Delete(group.GetMembers(), i, i+1)
			}
		}
		r.Result = auditv1.Receipt_RESULT_APPLIED
	}
	r.After = proto.CloneOf(r.GetBefore())
	r.After.Member = add
	return r
}

func (t *Twin) update(d *directory, typ *connectorv1.ObjectType, o *connectorv1.Object, u *connectorv1.Update) *connectorv1.Problem {
	for _, delta := range u.GetDeltas() {
		a := typ.AttributeType(delta.GetAttribute())
		if a == nil || a.GetReadOnly() || a.GetSecret() {
			return problem("NOT_WRITABLE", o, "attribute "+delta.GetAttribute()+" cannot be written")
		}
		removed, added := delta.GetRemove(), delta.GetAdd()
		if a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			for _, list := range []struct {
				refs []*connectorv1.ObjectRef
				keys *[][]byte
			}{{delta.GetRemoveRefs(), &removed}, {delta.GetAddRefs(), &added}} {
				for _, ref := range list.refs {
					target := d.objects[t.anchor(ref)]
					if target == nil {
						return problem("NO_OBJECT", o, "what attribute "+a.GetName()+" should name does not exist")
					}
					*list.keys = append(*list.keys, []byte(d.referenceKey(target)))
				}
			}
		}
		values := slices.Clone(o.Attribute(a.GetName()))
		for _, v := range removed {
			if !connectorv1.HasValue(a.GetRule(), values, v) {
				return problem("CONFLICT", o, "attribute "+a.GetName()+" does not have the value to remove")
			}
			values = remove(a, values, v)
		}
		for _, v := range added {
			if !connectorv1.HasValue(a.GetRule(), values, v) {
				values = append(values, v)
			}
		}
		if len(values) > 1 && !a.GetMultiValued() {
			return problem("CONFLICT", o, "attribute "+a.GetName()+" takes one value and has another")
		}
		if len(values) == 0 && a.GetRequired() {
			return problem("REQUIRED", o, "attribute "+a.GetName()+" cannot be without a value")
		}
		setValues(o, a, values)
	}
	return nil
}

func (t *Twin) create(d *directory, typ *connectorv1.ObjectType, op *connectorv1.Operation, r *auditv1.Receipt) *auditv1.Receipt {
	c := op.GetCreate()
	o := &connectorv1.Object{Type: typ.GetName(), Anchor: "twin:" + r.GetChange(), Name: c.GetName(), Display: c.GetName().Text()}
	if p := d.free(o); p != nil {
		r.Problem = p
		return r
	}
	r.Before = &auditv1.Touched{}
	for _, given := range c.GetAttributes() {
		a := typ.AttributeType(given.GetName())
		if a == nil || a.GetReadOnly() || a.GetSecret() || len(given.GetValues()) > 1 && !a.GetMultiValued() {
			return refused(r, "NOT_WRITABLE", o.GetDisplay(), "attribute "+given.GetName()+" cannot be given these values")
		}
		setValues(o, a, given.GetValues())
	}
	d.nameValues(o, nil, c.GetName().Leaf())
	for _, a := range typ.GetAttributes() {
		if a.GetRequired() && !a.GetSecret() && len(o.Attribute(a.GetName())) == 0 {
			return refused(r, "REQUIRED", o.GetDisplay(), "attribute "+a.GetName()+" needs a value")
		}
	}
	for _, ref := range c.GetMembers() {
		m := d.objects[t.anchor(ref)]
		if m == nil {
			return refused(r, "NO_OBJECT", o.GetDisplay(), "a member does not exist")
		}
		d.addMember(o, keyOf(m, typ.GetMemberKey()))
	}
	if typ.GetNeedsMember() && len(o.GetMembers()) == 0 {
		return refused(r, "NEEDS_MEMBER", o.GetDisplay(), "the group cannot be without a member")
	}
	if typ.Allows(connectorv1.OperationKind_OPERATION_KIND_ENABLE) {
		o.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
	}
	o.Keys = d.keysFor(o)
	d.put(o)
	t.made[r.GetChange()] = o.GetAnchor()
	r.Result, r.Anchor, r.After = auditv1.Receipt_RESULT_APPLIED, o.GetAnchor(), d.touched(o, op, "")
	return r
}

// delete takes an object away and its name out of what refers to it.
func (d *directory) delete(o *connectorv1.Object) {
	delete(d.objects, o.GetAnchor())
	delete(d.names, o.GetName().Key(d.conn.CaseRule))
	for _, k := range o.GetKeys() {
		if len(d.owners[k]) == 1 {
			d.replace(k, "")
		}
		delete(d.owners[k], o.GetAnchor())
	}
}

func (d *directory) free(o *connectorv1.Object) *connectorv1.Problem {
	if have, taken := d.names[o.GetName().Key(d.conn.CaseRule)]; taken && have != o.GetAnchor() {
		return problem("NAME_TAKEN", o, "another object has this name")
	}
	return nil
}

func (d *directory) isMember(group, o *connectorv1.Object) bool {
	return slices.ContainsFunc(o.GetKeys(), func(k string) bool {
		_, found := slices.BinarySearch(group.GetMembers(), k)
		return found
	})
}

// referenceKey is the key by which attributes name an object.
func (d *directory) referenceKey(o *connectorv1.Object) string {
	if k := keyOf(o, nameKey); k != "" {
		return k
	}
	return keyOf(o, "")
}

func keyOf(o *connectorv1.Object, prefix string) string {
	for _, k := range o.GetKeys() {
		if strings.HasPrefix(k, prefix) {
			return k
		}
	}
	return ""
}

// anchor resolves a reference to an observed object or to what a change made.
func (t *Twin) anchor(ref *connectorv1.ObjectRef) string {
	if ref.GetChange() != "" {
		return t.made[ref.GetChange()]
	}
	return ref.GetAnchor()
}

func (t *Twin) member(op *connectorv1.Operation) string {
	if a := op.GetAddMember(); a != nil {
		return t.anchor(a.GetMember())
	}
	return t.anchor(op.GetRemoveMember().GetMember())
}

// touched is the part of an object that the operation can touch.
func (d *directory) touched(o *connectorv1.Object, op *connectorv1.Operation, member string) *auditv1.Touched {
	t := &auditv1.Touched{Exists: true, Name: o.GetName(), Enablement: o.GetEnablement(), Keys: o.GetKeys()}
	if m := d.objects[member]; m != nil {
		t.Member = d.isMember(o, m)
	}
	var names []string
	for _, a := range op.GetCreate().GetAttributes() {
		names = append(names, a.GetName())
	}
	for _, delta := range op.GetUpdate().GetDeltas() {
		names = append(names, delta.GetAttribute())
	}
	for _, name := range names {
		if values := o.Attribute(name); len(values) > 0 {
			t.Attributes = append(t.Attributes, &connectorv1.Attribute{Name: name, Values: values})
		}
	}
	return t
}

func refused(r *auditv1.Receipt, code, object, said string) *auditv1.Receipt {
	r.Result = auditv1.Receipt_RESULT_REFUSED
	r.Problem = &connectorv1.Problem{Code: code, Object: object, Said: said, Severity: connectorv1.Severity_SEVERITY_ERROR}
	return r
}

func problem(code string, o *connectorv1.Object, said string) *connectorv1.Problem {
	return &connectorv1.Problem{Code: code, Object: o.GetName().Text(), Said: said, Severity: connectorv1.Severity_SEVERITY_ERROR}
}
