package planner

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// createAttributes are the values that a new account is made with: all that
// policy decides, but references, which are written once both ends exist, what
// another cause than the account's asks for, and what the name already says.
func createAttributes(t *target) []*connectorv1.Attribute {
	var out []*connectorv1.Attribute
	for _, a := range t.want.Attributes {
		declared := t.view.types[t.typ].AttributeType(a.Name)
		if !writable(declared) || a.Authority == policy.Observe || len(a.Values) == 0 ||
			declared.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE || apart(t.want, &a, declared) {
			continue
		}
		values := distinct(declared.GetRule(), a.Values)
		if named := leafValues(t.name, a.Name); len(named) > 0 {
			if !declared.GetMultiValued() {
				continue
			}
			values = without(declared.GetRule(), values, named)
		}
		if n := slices.IndexFunc(out, func(x *connectorv1.Attribute) bool { return x.GetName() == declared.GetName() }); n >= 0 {
			// The MSP's values of a required attribute, beside the client's.
			if declared.GetMultiValued() {
				out[n].Values = distinctBytes(declared.GetRule(), slices.Concat(out[n].Values, values))
			}
			continue
		}
		if len(values) == 0 || len(values) > 1 && !declared.GetMultiValued() {
			continue
		}
		out = append(out, &connectorv1.Attribute{Name: declared.GetName(), Values: values})
	}
	slices.SortFunc(out, func(a, b *connectorv1.Attribute) int { return strings.Compare(a.GetName(), b.GetName()) })
	return out
}

// apart reports whether an attribute is written by a change of its own, because
// its cause is not the account's. What no account can be without goes with it.
func apart(a *policy.Account, attribute *policy.DesiredAttribute, t *connectorv1.AttributeType) bool {
	return attribute.Cause != "" && attribute.Cause != a.Cause && !t.GetRequired()
}

func writable(t *connectorv1.AttributeType) bool {
	return t != nil && !t.GetReadOnly() && !t.GetSecret()
}

// delta is one attribute's difference and what must still hold when it is
// written.
type delta struct {
	*connectorv1.ValueDelta
	// additive is the attribute's authority.
	additive  bool
	expect    *connectorv1.Assertion
	dependsOn []string
	// freed is true when a reference to be removed is to an object that this plan
	// deletes, and that may have to go before what is added can come.
	freed bool
	// reason where it is not the account's.
	reason reason
}

// reason is why a delta is written; deltas of one reason are one change. Empty, it
// is the account's.
type reason struct{ cause, rule string }

// batch are the deltas of one reason: those to write at once and those whose
// targets the plan creates; split when the first must come before the second.
type batch struct {
	now, later []delta
	split      bool
}

// attributes plans the values of one account. Values whose targets this plan
// creates wait in a change of their own, so that nothing else waits with them.
func (p *plan) attributes(w *wanted) {
	if w.leaving || p.leavers[w.identity] {
		// A leaver's source record may be gone; its values say nothing.
		return
	}
	var deltas []delta
	seen := map[string]bool{}
	for i, a := range w.want.Attributes {
		declared := w.view.types[w.typ].AttributeType(a.Name)
		hold := func(sentence string) {
			p.find(FindingHeld, w.want.Connector, w.label(), w.identity, "Attribute "+strconv.Quote(a.Name)+" "+sentence)
		}
		switch {
		case a.Authority == policy.Observe:
			continue
		case !writable(declared):
			hold("cannot be written: the connector does not declare it as writable on this type. Change the mapping.")
			continue
		case seen[declared.GetName()]:
			if a.Authority != policy.Additive {
				hold("is mapped twice; the first mapping counts.")
			}
			continue
		}
		seen[declared.GetName()] = true
		if a.Authority == policy.Additive {
			deltas = append(deltas, p.beside(w, asks(w.want.Attributes[i:], a.Name), declared, hold)...)
			continue
		}
		reference := declared.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE
		own := apart(w.want, &a, declared)
		if w.obj == nil && !reference && !own || w.obj != nil && a.Authority == policy.Initial {
			if w.obj == nil && len(a.Values) > 1 && !declared.GetMultiValued() {
				hold("takes one value and policy gives several; change the mapping.")
			}
			continue
		}
		d, ok := delta{}, false
		if reference {
			d, ok = p.referenceDelta(w, &a, declared, hold)
		} else {
			d, ok = w.valueDelta(&a, declared, hold)
		}
		if !ok {
			continue
		}
		if own {
			d.reason = reason{a.Cause, a.Rule}
		}
		deltas = append(deltas, d)
	}
	p.write(w, deltas)
}

// asks are the mappings of one additive attribute, one a cause.
func asks(list []policy.DesiredAttribute, name string) []policy.DesiredAttribute {
	return slices.DeleteFunc(slices.Clone(list), func(a policy.DesiredAttribute) bool {
		return !strings.EqualFold(a.Name, name) || a.Authority != policy.Additive
	})
}

// write makes changes of an account's deltas, those of one reason together.
func (p *plan) write(w *wanted, deltas []delta) {
	batches := map[reason]*batch{}
	for _, d := range deltas {
		b := batches[d.reason]
		if b == nil {
			b = &batch{}
			batches[d.reason] = b
		}
		declared := w.view.types[w.typ].AttributeType(d.GetAttribute())
		switch {
		case len(d.dependsOn) > 0 && d.freed:
			first := d
			first.ValueDelta = &connectorv1.ValueDelta{Attribute: d.GetAttribute(), RemoveRefs: d.GetRemoveRefs()}
			first.expect, first.dependsOn = nil, nil
			d.RemoveRefs = nil
			if !declared.GetMultiValued() {
				d.expect = expectUnset(declared, nil)
			}
			b.now, b.later, b.split = append(b.now, first), append(b.later, d), true
		case len(d.dependsOn) > 0:
			b.later = append(b.later, d)
		default:
			b.now = append(b.now, d)
		}
	}
	for _, b := range batches {
		first := p.update(w.target, w.identity, b.now, "")
		if !b.split {
			first = ""
		}
		p.update(w.target, w.identity, b.later, first)
	}
}

func (p *plan) update(t *target, identity string, deltas []delta, after string) string {
	if len(deltas) == 0 {
		return ""
	}
	slices.SortFunc(deltas, func(a, b delta) int { return strings.Compare(a.GetAttribute(), b.GetAttribute()) })
	op := &connectorv1.Operation{}
	update := &connectorv1.Update{}
	depends := []string{t.create, after}
	removal := planv1.Removal_REMOVAL_VALUE
	var additive []string
	for _, d := range deltas {
		update.Deltas = append(update.Deltas, d.ValueDelta)
		if d.expect != nil {
			op.Expect = append(op.Expect, d.expect)
		}
		if d.additive {
			additive = append(additive, d.GetAttribute())
		}
		if len(d.GetAdd())+len(d.GetAddRefs()) > 0 {
			removal = planv1.Removal_REMOVAL_UNSPECIFIED
		}
		depends = append(depends, d.dependsOn...)
	}
	op.Action = &connectorv1.Operation_Update{Update: update}
	c := p.of(t, identity, op)
	c.Removal, c.Additive = removal, additive
	if r := deltas[0].reason; r.cause != "" {
		cause, err := causeOf(r.cause)
		if err != nil && p.failed == nil {
			p.failed = err
		}
		c.Cause, c.Rule = cause, r.rule
	}
	return p.add(c, levelValues, depends...).GetId()
}

// valueDelta compares an account's values with those that policy enforces, or that
// another cause than the account's gives a new one.
func (w *wanted) valueDelta(a *policy.DesiredAttribute, t *connectorv1.AttributeType, hold func(string)) (delta, bool) {
	rule := t.GetRule()
	want, have := distinct(rule, a.Values), w.obj.Attribute(t.GetName())
	d := &connectorv1.ValueDelta{Attribute: t.GetName()}
	if !t.GetMultiValued() {
		if len(want) > 1 {
			hold("takes one value and policy gives several; change the mapping.")
			return delta{}, false
		}
		if len(leafValues(w.obj.GetName(), t.GetName())) > 0 || connectorv1.SameValues(rule, want, have) || len(want) == 0 && !w.mayEmpty(t, hold) {
			return delta{}, false
		}
		d.Remove, d.Add = have, want
		return delta{ValueDelta: d, expect: expectUnset(t, have)}, true
	}
	named := append(leafValues(w.obj.GetName(), t.GetName()), leafValues(w.name, t.GetName())...)
	d.Add = without(rule, without(rule, want, have), named)
	d.Remove = without(rule, have, append(slices.Clone(want), named...))
	if !w.view.complete() {
		d.Remove = nil
	}
	if len(d.Remove) == len(have) && len(d.Add) == 0 && len(have) > 0 && t.GetRequired() {
		hold("cannot be left without a value; fill it in the source.")
		return delta{}, false
	}
	return delta{ValueDelta: d}, len(d.Add)+len(d.Remove) > 0
}

// referenceDelta is valueDelta for attributes that name other objects; a new
// account gets its initial ones so too.
func (p *plan) referenceDelta(w *wanted, a *policy.DesiredAttribute, t *connectorv1.AttributeType, hold func(string)) (delta, bool) {
	out := delta{ValueDelta: &connectorv1.ValueDelta{Attribute: t.GetName()}}
	add := map[string]*connectorv1.ObjectRef{}
	want, ok := p.refer(w, a.Refs, add, hold)
	if !ok {
		return delta{}, false
	}
	var have [][]byte
	if w.obj != nil {
		have = w.view.values(w.obj, t.GetName())
	}
	if !t.GetMultiValued() && len(want) > 1 {
		hold("takes one value and policy gives several; change the mapping.")
		return delta{}, false
	}
	remove := have
	if !t.GetMultiValued() {
		if connectorv1.SameValues(t.GetRule(), want, have) || len(want) == 0 && !w.mayEmpty(t, hold) {
			return delta{}, false
		}
		out.expect = expectUnset(t, have)
	} else if !w.view.complete() {
		remove = nil
	}
	for _, v := range without(t.GetRule(), remove, want) {
		if !out.takeRef(w.view, v, hold) {
			return delta{}, false
		}
	}
	for _, v := range without(t.GetRule(), want, have) {
		out.giveRef(add[string(v)])
	}
	return out, len(out.AddRefs)+len(out.RemoveRefs) > 0
}

// refer returns how the ledger remembers references to identities' accounts, and
// puts what to write for each into refs.
func (p *plan) refer(w *wanted, identities []string, refs map[string]*connectorv1.ObjectRef, hold func(string)) ([][]byte, bool) {
	var out [][]byte
	for _, identity := range identities {
		to := p.targetOf(w.view, identity, w.want.Purpose)
		if to == nil {
			to = p.targetOf(w.view, identity, "normal")
		}
		if to == nil || to.leaving || to.obj == nil && to.create == "" {
			hold("names identity " + strconv.Quote(identity) + ", who has no account here yet; it is written once there is one.")
			return nil, false
		}
		value := to.create
		if to.obj != nil {
			value = string(anchorValue(to.obj.GetAnchor()))
		}
		out = append(out, []byte(value))
		refs[value] = to.ref()
	}
	return distinctBytes(connectorv1.MatchingRule_MATCHING_RULE_EXACT, out), true
}

func (d *delta) takeRef(v *view, value []byte, hold func(string)) bool {
	anchor, known := strings.CutPrefix(string(value), anchorPrefix)
	if !known {
		hold("holds a reference to an object that is not observed, which cannot be taken away; remove it by hand.")
		return false
	}
	d.freed = d.freed || v.leaving[anchor]
	d.RemoveRefs = append(d.RemoveRefs, &connectorv1.ObjectRef{Type: v.anchors[anchor].GetType(), Anchor: anchor})
	return true
}

func (d *delta) giveRef(ref *connectorv1.ObjectRef) {
	d.AddRefs = append(d.AddRefs, ref)
	if ref.GetChange() != "" {
		d.dependsOn = append(d.dependsOn, ref.GetChange())
	}
}

// mayEmpty refuses to take the only value of an attribute where one is needed,
// or where the snapshot is no ground to take anything.
func (w *wanted) mayEmpty(t *connectorv1.AttributeType, hold func(string)) bool {
	if t.GetRequired() {
		hold("cannot be left without a value; fill it in the source.")
		return false
	}
	return w.view.complete()
}

// expectUnset asserts what adding a first value does not assert by itself.
func expectUnset(t *connectorv1.AttributeType, have [][]byte) *connectorv1.Assertion {
	if len(have) > 0 {
		return nil
	}
	return &connectorv1.Assertion{Attribute: t.GetName()}
}

// leafValues are the values that the object's own component gives an attribute.
// They change by rename only.
func leafValues(n *connectorv1.Name, attribute string) [][]byte {
	var out [][]byte
	for _, part := range n.Leaf().GetParts() {
		if strings.EqualFold(part.GetType(), attribute) {
			out = append(out, []byte(part.GetValue()))
		}
	}
	return out
}

func distinct(rule connectorv1.MatchingRule, values []string) [][]byte {
	list := make([][]byte, len(values))
	for i, v := range values {
		list[i] = []byte(v)
	}
	return distinctBytes(rule, list)
}

// distinctBytes drops values that are the same under the rule and sorts.
func distinctBytes(rule connectorv1.MatchingRule, values [][]byte) [][]byte {
	var out [][]byte
	for _, v := range values {
		if !connectorv1.HasValue(rule, out, v) {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}

// without returns the values that are not among others under the rule, sorted.
func without(rule connectorv1.MatchingRule, values, others [][]byte) [][]byte {
	var out [][]byte
	for _, v := range values {
		if !connectorv1.HasValue(rule, others, v) {
			out = append(out, v)
		}
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}
