package leave

import (
	"bytes"
	"cmp"
	"maps"
	"slices"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// object is what Reeve did to one object, over all receipts.
type object struct {
	connector, typ, anchor string
	// label is the newest name seen, for people.
	label string
	// created and deleted are set by whose cause; zero is neither.
	created, deleted planv1.Cause
	// credential is set once a credential was set or revoked.
	credential bool
	// first are the values before Reeve's first touch, last what it wrote last.
	values  map[valueKey]*value
	members map[string]*presence
	name    *names
	enabled *enablement
}

type valueKey struct{ attribute, canonical string }

type value struct {
	presence
	raw []byte
}

// presence is whether a value or a member was there before the first touch, and
// whether it was after the last; cause is the last one's.
type presence struct {
	first, last bool
	cause       planv1.Cause
}

type names struct {
	first, last *connectorv1.Name
	cause       planv1.Cause
}

type enablement struct {
	first, last connectorv1.Enablement
	cause       planv1.Cause
}

// ledger folds receipts, oldest first, into what was done to each object, in the
// order of first touch.
func ledger(receipts []*auditv1.Receipt, rule func(connector, typ, attribute string) connectorv1.MatchingRule) []*object {
	byKey := map[[2]string]*object{}
	var out []*object
	for _, r := range receipts {
		key := [2]string{r.GetConnector(), r.GetAnchor()}
		o := byKey[key]
		if r.GetResult() == auditv1.Receipt_RESULT_ALREADY && o != nil {
			o.passOn(r)
		}
		if r.GetResult() != auditv1.Receipt_RESULT_APPLIED || r.GetAnchor() == "" {
			continue
		}
		if o == nil {
			o = &object{connector: r.GetConnector(), typ: r.GetType(), anchor: r.GetAnchor(), values: map[valueKey]*value{}, members: map[string]*presence{}}
			byKey[key] = o
			out = append(out, o)
		}
		o.fold(r, rule)
	}
	return out
}

func (o *object) fold(r *auditv1.Receipt, rule func(connector, typ, attribute string) connectorv1.MatchingRule) {
	for _, t := range []*auditv1.Touched{r.GetBefore(), r.GetAfter()} {
		if len(t.GetName().GetComponents()) > 0 {
			o.label = t.GetName().Text()
		}
	}
	before, after, cause := r.GetBefore(), r.GetAfter(), r.GetCause()
	switch r.GetOperation() {
	case connectorv1.OperationKind_OPERATION_KIND_CREATE:
		o.created, o.deleted = cause, 0
	case connectorv1.OperationKind_OPERATION_KIND_DELETE:
		o.deleted = cause
	case connectorv1.OperationKind_OPERATION_KIND_UPDATE:
		o.foldValues(before, after, cause, rule)
	case connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE:
		if o.name == nil {
			o.name = &names{first: before.GetName()}
		}
		o.name.last, o.name.cause = after.GetName(), cause
		// The naming attribute follows the name, there and back.
	case connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE:
		if o.enabled == nil {
			o.enabled = &enablement{first: before.GetEnablement()}
		}
		o.enabled.last, o.enabled.cause = after.GetEnablement(), cause
	case connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER:
		m := o.members[r.GetMember()]
		if m == nil {
			m = &presence{first: before.GetMember()}
			o.members[r.GetMember()] = m
		}
		m.last, m.cause = after.GetMember(), cause
	case connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL, connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL:
		o.credential = true
	}
}

// passOn gives a membership that Reeve made the cause of a later add, which found
// it there: the reason for it is that one's now.
func (o *object) passOn(r *auditv1.Receipt) {
	m := o.members[r.GetMember()]
	if r.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER && m != nil && m.last && !m.first {
		m.cause = r.GetCause()
	}
}

func (o *object) foldValues(before, after *auditv1.Touched, cause planv1.Cause, rule func(connector, typ, attribute string) connectorv1.MatchingRule) {
	note := func(attributes []*connectorv1.Attribute, then func(k valueKey, raw []byte)) map[valueKey]bool {
		seen := map[valueKey]bool{}
		for _, a := range attributes {
			matching := rule(o.connector, o.typ, a.GetName())
			for _, v := range a.GetValues() {
				k := valueKey{a.GetName(), string(connectorv1.Canonical(matching, v))}
				seen[k] = true
				then(k, v)
			}
		}
		return seen
	}
	raws := map[valueKey][]byte{}
	// The old spelling is the one to go back to.
	is := note(after.GetAttributes(), func(k valueKey, raw []byte) { raws[k] = raw })
	was := note(before.GetAttributes(), func(k valueKey, raw []byte) { raws[k] = raw })
	for k, raw := range raws {
		if was[k] == is[k] {
			continue
		}
		v := o.values[k]
		if v == nil {
			v = &value{presence: presence{first: was[k]}, raw: raw}
			o.values[k] = v
		}
		v.last, v.cause = is[k], cause
	}
}

// undoValues returns the deltas that put the MSP's values back, and says of each
// that others changed meanwhile.
func (o *object) undoValues(now *connectorv1.Object, typ *connectorv1.ObjectType) (deltas []*connectorv1.ValueDelta, diverged []string) {
	byAttribute := map[string]*connectorv1.ValueDelta{}
	keys := slices.SortedFunc(maps.Keys(o.values), func(a, b valueKey) int {
		return cmp.Or(cmp.Compare(a.attribute, b.attribute), cmp.Compare(a.canonical, b.canonical))
	})
	for _, k := range keys {
		v := o.values[k]
		if v.cause != planv1.Cause_CAUSE_MSP || v.first == v.last {
			continue
		}
		matching := typ.AttributeType(k.attribute).GetRule()
		present := connectorv1.HasValue(matching, now.Attribute(k.attribute), v.raw)
		if present != v.last {
			if present != v.first {
				diverged = append(diverged, k.attribute)
			}
			continue
		}
		d := byAttribute[k.attribute]
		if d == nil {
			d = &connectorv1.ValueDelta{Attribute: k.attribute}
			byAttribute[k.attribute] = d
			deltas = append(deltas, d)
		}
		if v.last {
			d.Remove = append(d.Remove, spelling(matching, now.Attribute(k.attribute), v.raw))
		} else {
			d.Add = append(d.Add, v.raw)
		}
	}
	// A single value that others replaced is theirs: adding ours beside it would
	// be refused or, worse, not.
	deltas = slices.DeleteFunc(deltas, func(d *connectorv1.ValueDelta) bool {
		declared := typ.AttributeType(d.GetAttribute())
		left := len(now.Attribute(d.GetAttribute())) - len(d.GetRemove()) + len(d.GetAdd())
		if declared != nil && !declared.GetMultiValued() && left > 1 {
			diverged = append(diverged, d.GetAttribute())
			return true
		}
		return false
	})
	slices.Sort(diverged)
	return deltas, slices.Compact(diverged)
}

// spelling is the value as the directory holds it now.
func spelling(rule connectorv1.MatchingRule, values [][]byte, like []byte) []byte {
	want := connectorv1.Canonical(rule, like)
	for _, v := range values {
		if bytes.Equal(connectorv1.Canonical(rule, v), want) {
			return v
		}
	}
	return like
}
