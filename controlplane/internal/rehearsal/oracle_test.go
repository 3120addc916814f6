package rehearsal

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// shadow is the oracle: the tenant's directories as they would be had the MSP
// never come. It starts as they were and takes only what the client caused and
// what others did. It knows no ledger, no keys and no plan: members and
// references are anchors, values are strings.
type shadow struct{ objects map[string]*shade }

type shade struct {
	name    string
	enabled string
	values  map[string][]string
	refs    map[string][]string
	members map[string]bool
}

func newShadow(connectors []planner.Connector) *shadow {
	s := &shadow{objects: map[string]*shade{}}
	for _, c := range connectors {
		owner := map[string]string{}
		for _, o := range c.Objects {
			for _, k := range o.GetKeys() {
				if _, twice := owner[k]; twice {
					owner[k] = "ambiguous"
				} else {
					owner[k] = o.GetAnchor()
				}
			}
		}
		for _, o := range c.Objects {
			x := &shade{name: o.GetName().Text(), enabled: o.GetEnablement().String(), values: map[string][]string{}, refs: map[string][]string{}, members: map[string]bool{}}
			for _, a := range o.GetAttributes() {
				for _, v := range a.GetValues() {
					switch a.GetName() {
					case "uid", "cn":
						// Follows the name.
					case "manager", "sees":
						x.refs[a.GetName()] = append(x.refs[a.GetName()], owner[string(v)])
					default:
						x.values[a.GetName()] = append(x.values[a.GetName()], string(v))
					}
				}
			}
			for _, k := range o.GetMembers() {
				x.members[owner[k]] = true
			}
			s.objects[o.GetAnchor()] = x
		}
	}
	return s
}

// see takes one change that took effect into the oracle if it was the client's.
// resolve finds the anchor behind a link key.
func (s *shadow) see(a Applied, resolve func(key string) string) {
	op := a.Change.GetOperation()
	switch {
	case !a.Succeeded():
	case a.Change.GetCause() == planv1.Cause_CAUSE_CLIENT:
		s.do(op, a.Receipt)
	case op.GetUpdate() != nil:
		// So too for a value beside others.
		s.passOn(a, resolve)
	case op.GetAddMember() != nil && a.Receipt.GetResult() == auditv1.Receipt_RESULT_ALREADY:
		// The client no longer asks for it; that the MSP does is the MSP's.
		if x := s.objects[a.Receipt.GetAnchor()]; x != nil {
			delete(x.members, a.Receipt.GetMember())
		}
	}
}

// passOn takes from the client's the values that were there and that the MSP adds:
// nobody of the client's asks for them any more.
func (s *shadow) passOn(a Applied, resolve func(string) string) {
	x := s.objects[a.Receipt.GetAnchor()]
	if x == nil {
		return
	}
	for _, d := range a.Change.GetOperation().GetUpdate().GetDeltas() {
		declared := personType().AttributeType(d.GetAttribute())
		before := (&connectorv1.Object{Attributes: a.Receipt.GetBefore().GetAttributes()}).Attribute(d.GetAttribute())
		took := &connectorv1.ValueDelta{Attribute: d.GetAttribute()}
		for _, v := range d.GetAdd() {
			if connectorv1.HasValue(declared.GetRule(), before, v) {
				took.Remove = append(took.Remove, v)
			}
		}
		for _, ref := range d.GetAddRefs() {
			if slices.ContainsFunc(before, func(key []byte) bool { return resolve(string(key)) == anchorOf(ref) }) {
				took.RemoveRefs = append(took.RemoveRefs, ref)
			}
		}
		if len(took.GetRemove())+len(took.GetRemoveRefs()) > 0 {
			x.delta(took)
		}
	}
}

func (s *shadow) do(op *connectorv1.Operation, r *auditv1.Receipt) {
	if c := op.GetCreate(); c != nil {
		x := &shade{name: c.GetName().Text(), enabled: r.GetAfter().GetEnablement().String(), values: map[string][]string{}, refs: map[string][]string{}, members: map[string]bool{}}
		for _, a := range c.GetAttributes() {
			for _, v := range a.GetValues() {
				if a.GetName() != "uid" {
					x.values[a.GetName()] = append(x.values[a.GetName()], string(v))
				}
			}
		}
		s.objects[r.GetAnchor()] = x
		return
	}
	x := s.objects[r.GetAnchor()]
	if x == nil {
		return
	}
	switch a := op.GetAction().(type) {
	case *connectorv1.Operation_Enable:
		x.enabled = connectorv1.Enablement_ENABLEMENT_ENABLED.String()
	case *connectorv1.Operation_Disable:
		x.enabled = connectorv1.Enablement_ENABLEMENT_DISABLED.String()
	case *connectorv1.Operation_Rename, *connectorv1.Operation_Move:
		x.name = r.GetAfter().GetName().Text()
	case *connectorv1.Operation_AddMember:
		x.members[r.GetMember()] = true
	case *connectorv1.Operation_RemoveMember:
		delete(x.members, r.GetMember())
	case *connectorv1.Operation_Delete:
		delete(s.objects, r.GetAnchor())
		for _, other := range s.objects {
			delete(other.members, r.GetAnchor())
			for name, refs := range other.refs {
				other.refs[name] = slices.DeleteFunc(refs, func(ref string) bool { return ref == r.GetAnchor() })
			}
		}
	case *connectorv1.Operation_Update:
		for _, d := range a.Update.GetDeltas() {
			x.delta(d)
		}
	}
}

func (x *shade) delta(d *connectorv1.ValueDelta) {
	name := d.GetAttribute()
	if name == "uid" {
		return
	}
	declared := personType().AttributeType(name)
	same := func(a, b string) bool {
		return connectorv1.SameValues(declared.GetRule(), [][]byte{[]byte(a)}, [][]byte{[]byte(b)})
	}
	to, removed, added := x.values, toStrings(d.GetRemove()), toStrings(d.GetAdd())
	if declared.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
		to, removed, added = x.refs, nil, nil
		for _, r := range d.GetRemoveRefs() {
			removed = append(removed, anchorOf(r))
		}
		for _, r := range d.GetAddRefs() {
			added = append(added, anchorOf(r))
		}
	}
	if !declared.GetMultiValued() {
		to[name] = added
		return
	}
	have := slices.DeleteFunc(slices.Clone(to[name]), func(v string) bool {
		return slices.ContainsFunc(removed, func(r string) bool { return same(v, r) })
	})
	for _, v := range added {
		// Of two writings of one value the later stands.
		have = append(slices.DeleteFunc(have, func(h string) bool { return same(h, v) }), v)
	}
	to[name] = have
}

// anchorOf knows how the twin names what a change made.
func anchorOf(r *connectorv1.ObjectRef) string {
	if r.GetChange() != "" {
		return "twin:" + r.GetChange()
	}
	return r.GetAnchor()
}

func toStrings(list [][]byte) []string {
	var out []string
	for _, v := range list {
		out = append(out, string(v))
	}
	return out
}

// anyone reports whether the group has a member that exists.
func (s *shadow) anyone(group *shade) bool {
	for m := range group.members {
		if s.objects[m] != nil {
			return true
		}
	}
	return false
}

// lines prints the state, one line an object; what names an object that is not
// there is left out.
func (s *shadow) lines() map[string]string {
	out := map[string]string{}
	for anchor, x := range s.objects {
		var parts []string
		for name, values := range x.values {
			if len(values) > 0 {
				parts = append(parts, fmt.Sprintf("%s=%q", name, slices.Sorted(slices.Values(values))))
			}
		}
		for name, refs := range x.refs {
			refs = slices.DeleteFunc(slices.Clone(refs), func(r string) bool { return s.objects[r] == nil })
			if len(refs) > 0 {
				parts = append(parts, fmt.Sprintf("%s=%q", name, slices.Compact(slices.Sorted(slices.Values(refs)))))
			}
		}
		slices.Sort(parts)
		members := slices.DeleteFunc(slices.Sorted(maps.Keys(x.members)), func(m string) bool { return s.objects[m] == nil })
		out[anchor] = fmt.Sprintf("%s %s [%s] %q", x.name, x.enabled, strings.Join(parts, " "), members)
	}
	return out
}
