package planner

import (
	"slices"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// beside plans values that stand beside those of others: each cause adds its own,
// takes over those whose cause is gone, and what nothing asks for any more goes.
func (p *plan) beside(w *wanted, asks []policy.DesiredAttribute, t *connectorv1.AttributeType, hold func(string)) []delta {
	reference := t.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE
	refs := map[string]*connectorv1.ObjectRef{}
	want := make([][][]byte, len(asks))
	var all [][]byte
	for i, a := range asks {
		values := distinct(t.GetRule(), a.Values)
		if reference {
			var ok bool
			if values, ok = p.refer(w, a.Refs, refs, hold); !ok {
				return nil
			}
		}
		want[i] = without(t.GetRule(), values, all)
		all = append(all, want[i]...)
	}
	if !t.GetMultiValued() && len(all) > 1 {
		hold("takes one value and policy gives several; change the mapping.")
		return nil
	}
	var have, named [][]byte
	if w.obj != nil {
		have = w.view.values(w.obj, t.GetName())
		named = leafValues(w.obj.GetName(), t.GetName())
	}
	named = append(named, leafValues(w.name, t.GetName())...)
	if !t.GetMultiValued() && (len(named) > 0 || !w.mayWrite(t, have)) {
		return nil
	}
	var out []delta
	for i, a := range asks {
		if w.obj == nil && !reference && !apart(w.want, &a, t) {
			continue // it is created with them
		}
		d := delta{ValueDelta: &connectorv1.ValueDelta{Attribute: t.GetName()}, additive: true, expect: w.unsetBefore(t, have)}
		if a.Cause != "" && a.Cause != w.want.Cause {
			d.reason = reason{a.Cause, a.Rule}
		}
		for _, v := range without(t.GetRule(), want[i], named) {
			there := only(t.GetRule(), have, v)
			switch {
			case len(there) > 0 && !w.takesOver(&a, t, v):
			case reference:
				d.giveRef(refs[string(v)])
			case len(there) > 0:
				d.Add = append(d.Add, there...) // as it is written there
			default:
				d.Add = append(d.Add, v)
			}
		}
		if len(d.GetAdd())+len(d.GetAddRefs()) > 0 {
			out = append(out, d)
		}
	}
	if w.obj == nil {
		return out
	}
	if !t.GetMultiValued() && len(out) > 0 {
		return out[0].inPlaceOf(w.view, t, have, all, hold)
	}
	spent := p.spent(w.view, w.obj, t, append(all, named...), hold)
	for i := range spent {
		if spent[i].reason.cause == w.want.Cause {
			spent[i].reason = reason{}
		}
		at := slices.IndexFunc(out, func(d delta) bool { return d.reason == spent[i].reason })
		if at < 0 {
			out = append(out, spent[i])
			continue
		}
		out[at].Remove, out[at].RemoveRefs, out[at].freed = spent[i].GetRemove(), spent[i].GetRemoveRefs(), spent[i].freed
	}
	return out
}

// inPlaceOf makes the delta, which gives a single value, take what is there, if it
// is another one.
func (d delta) inPlaceOf(v *view, t *connectorv1.AttributeType, have, want [][]byte, hold func(string)) []delta {
	for _, value := range without(t.GetRule(), have, want) {
		if t.GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			d.Remove = append(d.Remove, value)
		} else if !d.takeRef(v, value, hold) {
			return nil
		}
	}
	return []delta{d}
}

// mayWrite decides whether a single value that stands beside nothing may be
// written: an unset one, or Reeve's own.
func (w *wanted) mayWrite(t *connectorv1.AttributeType, have [][]byte) bool {
	if len(have) == 0 {
		return true
	}
	e := w.view.valueEntry(w.obj.GetAnchor(), t, have[0])
	return e.spendable() && connectorv1.SameValues(t.GetRule(), e.Last, have)
}

func (w *wanted) unsetBefore(t *connectorv1.AttributeType, have [][]byte) *connectorv1.Assertion {
	if t.GetMultiValued() || w.obj == nil {
		return nil
	}
	return expectUnset(t, have)
}

// takesOver reports that a value which is there was added by Reeve for another
// cause or under another authority, so that adding it, which changes nothing, makes
// the ledger say so. What the client enforced does not become the MSP's.
func (w *wanted) takesOver(a *policy.DesiredAttribute, t *connectorv1.AttributeType, v []byte) bool {
	e := w.view.valueEntry(w.obj.GetAnchor(), t, v)
	cause := w.cause
	if a.Cause != "" {
		cause, _ = causeOf(a.Cause)
	}
	if e.spendable() && e.Cause == cause {
		return !e.Additive
	}
	return e.spendable() && (cause == planv1.Cause_CAUSE_CLIENT || e.Additive)
}

// spendable reports that Reeve added the value and that it is Reeve's still.
func (e *Entry) spendable() bool {
	return e != nil && !e.Diverged && len(e.Before) == 0 && len(e.Last) > 0
}

// spent are the values of an attribute that Reeve added and that are not among
// those to keep, one delta for each cause and rule that added them.
func (p *plan) spent(v *view, obj *connectorv1.Object, t *connectorv1.AttributeType, keep [][]byte, hold func(string)) []delta {
	if !v.complete() {
		return nil
	}
	have := v.values(obj, t.GetName())
	var out []delta
	left := len(have)
	for _, value := range without(t.GetRule(), have, keep) {
		e := v.valueEntry(obj.GetAnchor(), t, value)
		if !e.spendable() {
			continue
		}
		left--
		why := reason{causeWord(e.Cause), e.Rule}
		at := slices.IndexFunc(out, func(d delta) bool { return d.reason == why })
		if at < 0 {
			at = len(out)
			out = append(out, delta{ValueDelta: &connectorv1.ValueDelta{Attribute: t.GetName()}, additive: true, reason: why})
		}
		if t.GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			out[at].Remove = append(out[at].Remove, value)
		} else if !out[at].takeRef(v, value, hold) {
			return nil
		}
	}
	if left == 0 && len(out) > 0 && len(keep) == 0 && t.GetRequired() {
		hold("cannot be left without a value; fill it in the source.")
		return nil
	}
	return out
}

// unasked takes the values that Reeve added beside others' to attributes which
// policy does not map any more for the account: the role that asked is gone.
func (p *plan) unasked(v *view) {
	if v.idle() != "" {
		return
	}
	for _, l := range v.linked {
		anchor, obj := l.Anchor, v.anchors[l.Anchor]
		if obj == nil || p.unjudged[l.Identity] || p.leavers[l.Identity] {
			continue
		}
		t := p.targets[targetKey{v.conn.Alias, l.Identity, l.Purpose}]
		if t == nil {
			t = &target{view: v, obj: obj, typ: obj.GetType(), want: &policy.Account{}}
		}
		if t.leaving {
			continue
		}
		mapped := map[string]bool{}
		for _, a := range t.want.Attributes {
			mapped[connectorv1.FoldCase(a.Name)] = true
		}
		for _, name := range v.additive(anchor) {
			declared := v.types[obj.GetType()].AttributeType(name)
			if mapped[connectorv1.FoldCase(name)] || !writable(declared) {
				continue
			}
			hold := func(sentence string) {
				p.find(FindingHeld, v.conn.Alias, obj.GetName().Text(), l.Identity, "Attribute "+strconv.Quote(name)+" "+sentence)
			}
			for _, d := range p.spent(v, obj, declared, leafValues(obj.GetName(), name), hold) {
				p.update(t, l.Identity, []delta{d}, "")
			}
		}
	}
}

// additive are the attributes of an object to which Reeve added values beside
// those of others, sorted.
func (v *view) additive(anchor string) []string {
	var names []string
	for _, e := range v.entries[anchor] {
		if e.Item == ItemAttribute && e.Additive {
			names = append(names, e.Attribute)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// valueEntry is the ledger's topmost entry of one value.
func (v *view) valueEntry(anchor string, t *connectorv1.AttributeType, value []byte) *Entry {
	canonical := ""
	if t.GetMultiValued() {
		canonical = string(connectorv1.Canonical(t.GetRule(), value))
	}
	return v.entry(anchor, func(e *Entry) bool {
		return e.Item == ItemAttribute && strings.EqualFold(e.Attribute, t.GetName()) && e.Value == canonical
	})
}
