package ldap

import (
	"context"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// delta is a ValueDelta with references resolved.
type delta struct {
	attribute   *connectorv1.AttributeType
	remove, add []string
}

// update sends all deltas as one modify. Deleting the old value and adding the
// new one in the same request asserts the base.
func (b *batch) update(ctx context.Context, t *target) error {
	deltas, p := b.deltas(ctx, t)
	if p != nil {
		return p
	}
	err := b.sendDeltas(ctx, t, deltas, nil)
	switch resultCode(err) {
	case ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultAttributeOrValueExists, ldap.LDAPResultConstraintViolation:
		return b.updateRest(ctx, t, deltas, err)
	case ldap.LDAPResultInappropriateMatching:
		// The schema could not be read before and an attribute has no equality
		// rule: its values cannot be named one by one.
		return b.updateWhole(ctx, t, deltas)
	}
	return err
}

func (b *batch) deltas(ctx context.Context, t *target) ([]delta, *sdk.Problem) {
	var out []delta
	for _, d := range t.op.GetUpdate().GetDeltas() {
		declared := t.t.byName[strings.ToLower(d.GetAttribute())]
		if declared == nil || declared.GetSecret() || declared.GetReadOnly() {
			return nil, sdk.NewProblem(sdk.CodeReadOnly, displayDN(t.entry.DN), "write "+d.GetAttribute(), "leave it out of the mapping: it is not declared as writable")
		}
		one := delta{attribute: declared}
		for _, side := range []struct {
			to     *[]string
			values [][]byte
			refs   []*connectorv1.ObjectRef
		}{{&one.remove, d.GetRemove(), d.GetRemoveRefs()}, {&one.add, d.GetAdd(), d.GetAddRefs()}} {
			values, p := b.rawValues(ctx, declared, side.values)
			if p != nil {
				return nil, p
			}
			for _, ref := range side.refs {
				dn, _, p := b.dn(ref)
				if p != nil {
					return nil, p
				}
				values = append(values, dn)
			}
			*side.to = values
		}
		out = append(out, one)
	}
	return out, nil
}

// sendDeltas sends what is to change. Attributes without an equality rule, and
// those in whole, are replaced by what they come to.
func (b *batch) sendDeltas(ctx context.Context, t *target, deltas []delta, whole map[string]bool) error {
	sent := *t
	for _, oldFirst := range []bool{false, true} {
		changes, err := b.modification(&sent, deltas, whole, oldFirst)
		if err != nil || len(changes) == 0 {
			return err
		}
		err = b.modify(ctx, &sent, changes)
		if oldFirst || resultCode(err) != ldap.LDAPResultConstraintViolation || !slices.ContainsFunc(deltas, delta.replacesOne) {
			return err
		}
		// RFC 4511 4.6 lets the steps of a modify break the schema on the way; this
		// server looks at each.
	}
	return nil
}

// modification is what one request carries. It marks the target as one that must
// not have changed where that is what makes a step safe.
func (b *batch) modification(t *target, deltas []delta, whole map[string]bool, oldFirst bool) ([]ldap.Change, error) {
	var changes []ldap.Change
	for _, d := range deltas {
		name, key := d.attribute.GetName(), strings.ToLower(d.attribute.GetName())
		if t.t.unmatched[key] || whole[key] {
			values, p := b.replaced(t, d)
			if p != nil {
				return nil, conflictError{p}
			}
			// Only an unchanged entry makes replacing safe.
			t.atomic = true
			changes = append(changes, change(ldap.ReplaceAttribute, name, values...))
			continue
		}
		changes = append(changes, d.changes(oldFirst)...)
	}
	return changes, nil
}

// replacesOne reports a delta that puts a value in the place of an attribute's
// only one.
func (d delta) replacesOne() bool {
	return !d.attribute.GetMultiValued() && len(d.add) > 0 && len(d.remove) > 0
}

// changes adds before it removes where it can: an attribute that never stands
// empty keeps its place in the entry, and so in the dumps people compare. Of a
// value that only changes its spelling the old one must go first, and of an
// attribute of one value where the server wants it so.
func (d delta) changes(oldFirst bool) []ldap.Change {
	var add, remove []ldap.Change
	// One by one: OpenLDAP sorts the values of one change, and those that are given
	// back should stand as they stood.
	for _, v := range d.add {
		add = append(add, change(ldap.AddAttribute, d.attribute.GetName(), v))
	}
	if len(d.remove) > 0 {
		remove = []ldap.Change{change(ldap.DeleteAttribute, d.attribute.GetName(), d.remove...)}
	}
	respelled := slices.ContainsFunc(d.add, func(v string) bool {
		return connectorv1.HasValue(d.attribute.GetRule(), toBytes(d.remove), []byte(v))
	})
	if respelled || oldFirst && !d.attribute.GetMultiValued() || d.attribute.GetRule() == reference {
		return append(remove, add...)
	}
	return append(add, remove...)
}

// replaced computes all values of an attribute after the delta.
func (b *batch) replaced(t *target, d delta) ([]string, *sdk.Problem) {
	have := t.entry.GetEqualFoldAttributeValues(d.attribute.GetName())
	left, _ := b.rest(t.entry, d)
	if len(left.remove) < len(d.remove) && len(left.add) > 0 {
		return nil, b.baseChanged(t, d)
	}
	out := slices.DeleteFunc(slices.Clone(have), func(v string) bool { return slices.Contains(left.remove, v) })
	return append(out, left.add...), nil
}

func (b *batch) baseChanged(t *target, d delta) *sdk.Problem {
	return sdk.NewProblem(sdk.CodeConflict, displayDN(t.entry.DN), "change "+d.attribute.GetName(),
		"the value to replace is not there any more: read again and plan again")
}

// rest is what of a delta the entry does not have yet.
func (b *batch) rest(e *ldap.Entry, d delta) (delta, bool) {
	have := e.GetEqualFoldRawAttributeValues(d.attribute.GetName())
	rule, canonical := d.attribute.GetRule(), func(v [][]byte) [][]byte { return v }
	if rule == reference {
		rule, canonical = exact, dnKeys
	}
	has := func(v string) bool {
		return connectorv1.HasValue(rule, canonical(have), canonical([][]byte{[]byte(v)})[0])
	}
	left := delta{attribute: d.attribute}
	for _, v := range d.remove {
		if has(v) {
			left.remove = append(left.remove, v)
		}
	}
	for _, v := range d.add {
		if !has(v) || slices.ContainsFunc(left.remove, func(r string) bool {
			return connectorv1.HasValue(rule, canonical([][]byte{[]byte(r)}), canonical([][]byte{[]byte(v)})[0])
		}) {
			left.add = append(left.add, v)
		}
	}
	return left, len(left.remove)+len(left.add) > 0
}

// reread returns the target with the deltas' attributes as they are now.
func (b *batch) reread(ctx context.Context, t *target, deltas []delta) (*target, error) {
	attributes := []string{versionAttribute}
	for _, d := range deltas {
		attributes = append(attributes, d.attribute.GetName())
	}
	f, err := b.find(ctx, &b.writing, b.bases(), []string{t.id}, attributes)
	if err != nil {
		return nil, err
	}
	if f.entries[t.id] == nil {
		return nil, errStale
	}
	now := *t
	now.entry, now.atomic = f.entries[t.id], true
	return &now, nil
}

// updateRest decides what a refused modify means: that all is as wanted
// already, that a part is, or that the base changed.
func (b *batch) updateRest(ctx context.Context, t *target, deltas []delta, refused error) error {
	now, err := b.reread(ctx, t, deltas)
	if err != nil {
		return err
	}
	var left []delta
	smaller := false
	for _, d := range deltas {
		rest, any := b.rest(now.entry, d)
		have := len(now.entry.GetEqualFoldRawAttributeValues(d.attribute.GetName()))
		switch {
		case !any:
		case len(rest.add) > 0 && len(rest.remove) < len(d.remove),
			len(rest.add) > 0 && !d.attribute.GetMultiValued() && have > len(rest.remove):
			return conflictError{b.baseChanged(t, d)}
		}
		smaller = smaller || len(rest.remove)+len(rest.add) < len(d.remove)+len(d.add)
		if any {
			left = append(left, rest)
		}
	}
	switch {
	case len(left) == 0:
		return nil
	case !smaller:
		return refused
	}
	return b.sendDeltas(ctx, now, left, nil)
}

// updateWhole replaces every attribute of the deltas.
func (b *batch) updateWhole(ctx context.Context, t *target, deltas []delta) error {
	now, err := b.reread(ctx, t, deltas)
	if err != nil {
		return err
	}
	whole := map[string]bool{}
	for _, d := range deltas {
		whole[strings.ToLower(d.attribute.GetName())] = true
	}
	return b.sendDeltas(ctx, now, deltas, whole)
}
