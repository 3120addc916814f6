package siege

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// effect changes the directory, or says why it will not.
func (d *fakeDirectory) effect(op *connectorv1.Operation) string {
	if create := op.GetCreate(); create != nil {
		return d.create(op.GetObject().GetType(), create)
	}
	old := d.find(op.GetObject())
	if old == nil {
		return "no such object"
	}
	e := old.copy()
	d.entries[e.anchor] = e
	switch act := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		for _, delta := range act.Update.GetDeltas() {
			if said := d.delta(e, delta); said != "" {
				return said
			}
		}
	case *connectorv1.Operation_Rename:
		return d.place(old, e, append(dn{nameOf(&connectorv1.Name{Components: []*connectorv1.Component{act.Rename.GetTo()}})[0]}, e.name[1:]...))
	case *connectorv1.Operation_Move:
		return d.place(old, e, append(dn{e.name[0]}, nameOf(&connectorv1.Name{Components: act.Move.GetTo()})...))
	case *connectorv1.Operation_Enable:
		e.enabled = true
	case *connectorv1.Operation_Disable:
		e.enabled = false
	case *connectorv1.Operation_Delete:
		delete(d.entries, e.anchor)
	case *connectorv1.Operation_AddMember:
		key := d.memberKey(e.typ, act.AddMember.GetMember())
		if key == "" {
			return "no such member"
		}
		if !slices.Contains(e.members, key) {
			e.members = append(e.members, key)
		}
	case *connectorv1.Operation_RemoveMember:
		key := d.memberKey(e.typ, act.RemoveMember.GetMember())
		e.members = slices.DeleteFunc(e.members, func(m string) bool { return m == key })
	case *connectorv1.Operation_SetCredential:
		e.password = string(act.SetCredential.GetSecret())
	case *connectorv1.Operation_RevokeCredential:
		e.password = ""
	}
	return ""
}

func (d *fakeDirectory) memberKey(group string, ref *connectorv1.ObjectRef) string {
	m := d.find(ref)
	if m == nil {
		return ""
	}
	for _, key := range m.keys() {
		if strings.HasPrefix(key, typeOf(group).GetMemberKey()) {
			return key
		}
	}
	return ""
}

func (d *fakeDirectory) create(typ string, create *connectorv1.Create) string {
	d.next++
	e := &entry{anchor: fmt.Sprintf("%s-new-%d", typ, d.next), typ: typ, attributes: map[string][]string{}}
	for _, a := range create.GetAttributes() {
		t := typeOf(typ).AttributeType(a.GetName())
		if t == nil {
			return "no such attribute"
		}
		for _, v := range a.GetValues() {
			e.attributes[t.GetName()] = append(e.attributes[t.GetName()], string(v))
		}
	}
	for _, ref := range create.GetMembers() {
		key := d.memberKey(typ, ref)
		if key == "" {
			return "no such member"
		}
		e.members = append(e.members, key)
	}
	if said := d.place(nil, e, nameOf(create.GetName())); said != "" {
		return said
	}
	d.entries[e.anchor] = e
	return ""
}

// place gives e a name, as the directory does: it must be free, and its own
// component's values become attributes in the place of those of the old one.
func (d *fakeDirectory) place(old, e *entry, name dn) string {
	if len(name) == 0 || len(name[0]) == 0 {
		return "no name"
	}
	naming := false
	for _, level := range name {
		for _, p := range level {
			if prepared(p.value) == "" || p.typ == "" {
				return "empty part of a name"
			}
		}
	}
	key := name.key()
	for anchor, other := range d.entries {
		if anchor != e.anchor && other.key() == key {
			return "the name is taken"
		}
	}
	if old != nil {
		for anchor, other := range d.entries {
			if anchor != e.anchor && len(other.name) > len(old.name) && strings.HasSuffix(other.key(), ","+old.key()) {
				return "it has others below it"
			}
		}
		for _, p := range old.name[0] {
			at := typeOf(e.typ).AttributeType(p.typ).GetName()
			e.attributes[at] = slices.DeleteFunc(e.attributes[at], func(v string) bool { return prepared(v) == prepared(p.value) })
			if len(e.attributes[at]) == 0 {
				delete(e.attributes, at)
			}
		}
	}
	for _, p := range name[0] {
		t := typeOf(e.typ).AttributeType(p.typ)
		if t == nil {
			return "no such attribute"
		}
		naming = naming || t.GetName() == typeOf(e.typ).GetNamingAttribute()
		if !slices.ContainsFunc(e.attributes[t.GetName()], func(v string) bool { return prepared(v) == prepared(p.value) }) {
			e.attributes[t.GetName()] = append(e.attributes[t.GetName()], p.value)
		}
	}
	if !naming {
		return "it is not named by " + typeOf(e.typ).GetNamingAttribute()
	}
	e.name = name
	return ""
}

func (d *fakeDirectory) delta(e *entry, delta *connectorv1.ValueDelta) string {
	t := typeOf(e.typ).AttributeType(delta.GetAttribute())
	if t == nil {
		return "no such attribute"
	}
	values := e.attributes[t.GetName()]
	var remove, add []string
	for _, v := range delta.GetRemove() {
		remove = append(remove, string(v))
	}
	for _, v := range delta.GetAdd() {
		add = append(add, string(v))
	}
	for _, ref := range delta.GetAddRefs() {
		if key := d.memberKey("group", ref); key != "" {
			add = append(add, key)
		}
	}
	for _, ref := range delta.GetRemoveRefs() {
		remove = append(remove, d.memberKey("group", ref))
	}
	values = slices.DeleteFunc(values, func(v string) bool {
		return slices.ContainsFunc(remove, func(r string) bool { return same(t, r, v) })
	})
	for _, v := range add {
		if !slices.ContainsFunc(values, func(have string) bool { return same(t, have, v) }) {
			values = append(values, v)
		}
	}
	if len(values) > 1 && !t.GetMultiValued() {
		return "it has one value only"
	}
	if e.attributes[t.GetName()] = values; len(values) == 0 {
		delete(e.attributes, t.GetName())
	}
	return ""
}

func same(t *connectorv1.AttributeType, a, b string) bool {
	if t.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE {
		return strings.EqualFold(strings.Join(strings.Fields(a), " "), strings.Join(strings.Fields(b), " "))
	}
	if x, err := strconv.Atoi(a); err == nil && t.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_INTEGER {
		y, err := strconv.Atoi(b)
		return err == nil && x == y
	}
	return a == b
}
