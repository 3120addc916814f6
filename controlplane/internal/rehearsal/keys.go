package rehearsal

import (
	"maps"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

const nameKey = "dn:"

func prefixOf(key string) string {
	before, _, found := strings.Cut(key, ":")
	if !found {
		return ""
	}
	return before + ":"
}

// keysFor returns the link keys that an object has by its name: the whole name
// under "dn:", and for other prefixes the part or attribute of that type, or the
// naming value where neither is there.
func (d *directory) keysFor(o *connectorv1.Object) []string {
	var keys []string
	for _, prefix := range d.prefixes[o.GetType()] {
		keys = append(keys, prefix+d.keyValue(o, prefix))
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (d *directory) keyValue(o *connectorv1.Object, prefix string) string {
	value := ""
	switch typ := strings.TrimSuffix(prefix, ":"); {
	case prefix == nameKey:
		value = o.GetName().Text()
	case len(leafValues(o.GetName().Leaf(), typ)) > 0:
		value = leafValues(o.GetName().Leaf(), typ)[0]
	case len(o.Attribute(typ)) > 0:
		value = string(o.Attribute(typ)[0])
	case len(o.GetName().Leaf().GetParts()) > 0:
		value = o.GetName().Leaf().GetParts()[0].GetValue()
	}
	if d.conn.CaseRule == connectorv1.CaseRule_CASE_RULE_IGNORE {
		return connectorv1.FoldCase(value)
	}
	return value
}

func leafValues(c *connectorv1.Component, typ string) []string {
	var out []string
	for _, p := range c.GetParts() {
		if strings.EqualFold(p.GetType(), typ) {
			out = append(out, p.GetValue())
		}
	}
	return out
}

// rename gives an object another name, with the naming values and link keys that
// follow from it, and lets what refers to it follow.
func (d *directory) rename(o *connectorv1.Object, to *connectorv1.Name) {
	from := o.GetName()
	d.former[o.GetAnchor()+"\x00"+from.Text()] = appearance{o.GetKeys(), o.GetDisplay()}
	delete(d.names, from.Key(d.conn.CaseRule))
	derived := map[string]string{}
	for _, k := range o.GetKeys() {
		derived[k] = prefixOf(k) + d.keyValue(o, prefixOf(k))
	}
	d.nameValues(o, from.Leaf(), to.Leaf())
	o.Name = to
	d.names[to.Key(d.conn.CaseRule)] = o.GetAnchor()
	next := appearance{display: to.Text()}
	follow := map[string]string{}
	for _, k := range o.GetKeys() {
		n := prefixOf(k) + d.keyValue(o, prefixOf(k))
		if prefixOf(k) != nameKey && derived[k] != k {
			// This key never came from the name.
			n = k
		}
		follow[k] = n
		next.keys = append(next.keys, n)
	}
	if before, known := d.former[o.GetAnchor()+"\x00"+to.Text()]; known && len(before.keys) == len(o.GetKeys()) {
		next = before
		for _, k := range o.GetKeys() {
			for _, n := range before.keys {
				if prefixOf(n) == prefixOf(k) {
					follow[k] = n
				}
			}
		}
	}
	slices.Sort(next.keys)
	next.keys = slices.Compact(next.keys)
	for k, n := range follow {
		if k != n && len(d.owners[k]) == 1 {
			d.replace(k, n)
		}
	}
	for _, k := range o.GetKeys() {
		delete(d.owners[k], o.GetAnchor())
	}
	o.Keys, o.Display = next.keys, next.display
	for _, k := range o.Keys {
		note(d.owners, k, o.GetAnchor())
	}
}

// nameValues takes the old component's values out of the attributes and puts the
// new one's in, as deleteoldrdn does (RFC 4511 4.9).
func (d *directory) nameValues(o *connectorv1.Object, from, to *connectorv1.Component) {
	t := d.types[o.GetType()]
	for _, p := range from.GetParts() {
		if a := t.AttributeType(p.GetType()); a != nil && !a.GetSecret() {
			setValues(o, a, remove(a, o.Attribute(a.GetName()), []byte(p.GetValue())))
		}
	}
	for _, p := range to.GetParts() {
		if a := t.AttributeType(p.GetType()); a != nil && !a.GetSecret() {
			setValues(o, a, append(remove(a, o.Attribute(a.GetName()), []byte(p.GetValue())), []byte(p.GetValue())))
		}
	}
}

// replace exchanges a link key wherever it is named; an empty one takes it away,
// but for the last member of a group that needs one.
func (d *directory) replace(key, with string) {
	for _, anchor := range slices.Sorted(maps.Keys(d.holders[key])) {
		o := d.objects[anchor]
		if o == nil {
			continue
		}
		t := d.types[o.GetType()]
		if i, found := slices.BinarySearch(o.GetMembers(), key); found && (with != "" || len(o.GetMembers()) > 1 || !t.GetNeedsMember()) {
			o.Members = slices.Delete(slices.Clone(o.GetMembers()), i, i+1)
			if with != "" {
				d.addMember(o, with)
			}
		}
		for _, a := range t.GetAttributes() {
			if a.GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
				continue
			}
			values := o.Attribute(a.GetName())
			left := remove(a, values, []byte(key))
			if len(left) == len(values) {
				continue
			}
			if with != "" {
				left = append(left, []byte(with))
				note(d.holders, with, anchor)
			}
			setValues(o, a, left)
		}
	}
}

func (d *directory) addMember(group *connectorv1.Object, key string) {
	i, found := slices.BinarySearch(group.GetMembers(), key)
	if !found {
		group.Members = slices.Insert(group.GetMembers(), i, key)
	}
	note(d.holders, key, group.GetAnchor())
}

// setValues gives an attribute its values, keeping attributes sorted and those
// without values absent.
func setValues(o *connectorv1.Object, t *connectorv1.AttributeType, values [][]byte) {
	i := slices.IndexFunc(o.GetAttributes(), func(a *connectorv1.Attribute) bool { return strings.EqualFold(a.GetName(), t.GetName()) })
	switch {
	case i >= 0 && len(values) == 0:
		o.Attributes = slices.Delete(slices.Clone(o.GetAttributes()), i, i+1)
	case i >= 0:
		o.Attributes[i].Values = values
	case len(values) > 0:
		o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: t.GetName(), Values: values})
		slices.SortFunc(o.Attributes, func(a, b *connectorv1.Attribute) int { return strings.Compare(a.GetName(), b.GetName()) })
	}
}

// remove returns the values without those that are v under the attribute's rule.
func remove(t *connectorv1.AttributeType, values [][]byte, v []byte) [][]byte {
	return slices.DeleteFunc(slices.Clone(values), func(have []byte) bool {
		return connectorv1.HasValue(t.GetRule(), [][]byte{v}, have)
	})
}
