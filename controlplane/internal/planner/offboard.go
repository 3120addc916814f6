package planner

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// offboard plans the way back from the ledger alone: what the MSP caused is
// undone where it still stands as Reeve left it, what the client caused is
// handed over, and what cannot come back is listed.
func (p *plan) offboard() error {
	for _, alias := range p.aliases {
		v := p.views[alias]
		if len(v.entries) == 0 {
			continue
		}
		if !v.complete() {
			p.find(FindingHeld, alias, alias, "",
				"Nothing is taken back on "+alias+" after an incomplete snapshot; see what its reading left out and make the plan again.")
			continue
		}
		u := &undoing{plan: p, v: v, removed: map[string][]string{}, deleted: map[string]bool{}, leaving: map[string]string{}}
		u.run()
	}
	if n := len(p.changes); n > 0 {
		p.find(FindingResidue, "", ResidueTimestamps, "", fmt.Sprintf(
			"The directories note the time and the author of %d changes; that cannot be taken back.", n))
	}
	return nil
}

// ResidueTimestamps is the object of the finding that every offboarding has: the
// directories' own notes of who changed what when. It is not part of any
// observed state.
const ResidueTimestamps = "timestamps"

// undoing is the offboarding of one connector.
type undoing struct {
	*plan
	v *view
	// deleted objects, removed memberships of each member (changes), and the
	// deletions by anchor.
	deleted map[string]bool
	removed map[string][]string
	leaving map[string]string
	claims  []*claim
	// back is the entry that a claim of a name undoes.
	back map[*claim]*Entry
	// kept are objects that Reeve made and that cannot go: they are disabled and
	// otherwise left whole.
	kept map[string]bool
}

// layers are the entries of one item: what the client caused lies below.
type layers struct{ client, msp *Entry }

func (u *undoing) run() {
	u.back, u.kept = map[*claim]*Entry{}, map[string]bool{}
	anchors := keysOf(u.v.entries)
	for _, anchor := range anchors {
		if e := u.v.itemEntry(anchor, ItemExists); e != nil && !isTrue(e.Before) && u.undone(e) && u.v.anchors[anchor] != nil {
			u.deleted[anchor] = u.allowed(anchor, connectorv1.OperationKind_OPERATION_KIND_DELETE, "was made by Reeve and stays")
			u.kept[anchor] = !u.deleted[anchor]
		}
	}
	for _, anchor := range anchors {
		if u.v.anchors[anchor] != nil && !u.deleted[anchor] {
			u.members(anchor)
		}
	}
	for _, anchor := range anchors {
		obj := u.v.anchors[anchor]
		switch {
		case obj == nil:
			u.vanished(anchor)
		case u.deleted[anchor]:
			u.delete(obj)
		default:
			u.items(obj)
		}
	}
	granted := u.v.grant(u.claims, u.leaving)
	for _, c := range u.claims {
		if granted[c.key] != c {
			u.residue(c.from, u.back[c], "keeps the name that Reeve gave it, because its former name "+c.w.name.Text()+" is taken by another object")
		}
	}
	u.v.settle(u.claims, granted, func(c *claim, after []string) string {
		return u.rename(u.v, c.from, c.w.name, func(op *connectorv1.Operation) *planv1.Change {
			return u.undo(c.from, u.back[c], op)
		}, c.moveFirst, backName, after)
	})
}

// undone decides by cause, or by the role's own rule where it has one.
func (u *undoing) undone(e *Entry) bool {
	if e.Cause == planv1.Cause_CAUSE_CLIENT {
		return slices.Contains(u.in.Rules.Offboarding.Undo, e.Rule)
	}
	return !slices.Contains(u.in.Rules.Offboarding.HandOver, e.Rule)
}

// target returns the entry that shows now, and the one whose Before is to be
// restored; nil when the item stays.
func (u *undoing) target(l layers) (top, to *Entry) {
	top = l.client
	if l.msp != nil {
		top = l.msp
	}
	if !u.undone(top) {
		return top, nil
	}
	if top == l.msp && l.client != nil && u.undone(l.client) {
		return top, l.client
	}
	return top, top
}

func (u *undoing) layersOf(anchor string) map[itemKey]layers {
	out := map[itemKey]layers{}
	for _, e := range u.v.entries[anchor] {
		l := out[e.key()]
		if e.Cause == planv1.Cause_CAUSE_CLIENT {
			l.client = e
		} else {
			l.msp = e
		}
		out[e.key()] = l
	}
	return out
}

func sortedItems(m map[itemKey]layers) []itemKey {
	keys := make([]itemKey, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b itemKey) int {
		return CompareEntries(
			Entry{Anchor: a.anchor, Item: a.item, Attribute: a.attribute, Value: a.value, Member: a.member},
			Entry{Anchor: b.anchor, Item: b.item, Attribute: b.attribute, Value: b.value, Member: b.member})
	})
	return keys
}

// members undoes the memberships of one group.
func (u *undoing) members(anchor string) {
	group := u.v.anchors[anchor]
	g := &governed{group: group}
	items := u.layersOf(anchor)
	handed := 0
	for _, key := range sortedItems(items) {
		if key.item != ItemMember {
			continue
		}
		member := u.v.anchors[key.member]
		top, to := u.target(items[key])
		if to != nil {
			for _, k := range u.v.lingering(group, *top) {
				u.residue(group, top, "keeps the member name "+strconv.Quote(k)+" that Reeve wrote: its account was renamed or deleted outside of Reeve; take it out by hand")
			}
		}
		if member == nil {
			continue
		}
		in := u.v.isMember(group, member)
		// An account that goes is taken out by name, so that no group is left with
		// a member that does not exist.
		goes := u.deleted[key.member]
		switch {
		case in && (goes || to != nil && !isTrue(to.Before)):
			if u.allowed(anchor, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER, "keeps member "+member.GetName().Text()) {
				c := u.undo(group, top, &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: refTo(member)}}})
				c.Display, c.Removal = member.GetName().Text(), planv1.Removal_REMOVAL_MEMBERSHIP
				c = u.add(c, backTake)
				g.removes = append(g.removes, c)
				u.removed[key.member] = append(u.removed[key.member], c.GetId())
			}
		case goes:
		case to == nil:
			handed++
		case !in && isTrue(to.Before) && !isTrue(top.Last):
			if u.allowed(anchor, connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, "lacks its former member "+member.GetName().Text()) {
				c := u.undo(group, top, &connectorv1.Operation{Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: refTo(member)}}})
				c.Display = member.GetName().Text()
				g.adds = append(g.adds, u.add(c, backMembers))
			}
		case in != isTrue(top.Last) && in != isTrue(to.Before):
			u.diverged(group, top, "The membership of "+member.GetName().Text()+" was changed by others and is left as it is.")
		}
	}
	u.handOver(group, "", handed, "membership")
	u.keepOne(u.v, g)
	if g.stuck != "" {
		u.removed[g.stuck] = slices.DeleteFunc(u.removed[g.stuck], func(id string) bool { return u.changes[id] == nil })
		if u.deleted[g.stuck] {
			delete(u.deleted, g.stuck)
			u.kept[g.stuck] = true
			u.find(FindingResidue, u.v.conn.Alias, u.v.anchors[g.stuck].GetName().Text(), "",
				"The object was made by Reeve and stays, because group "+group.GetName().Text()+" cannot be without it; add another member there.")
		}
	}
}

// delete takes back a creation and lists what goes with it.
func (u *undoing) delete(obj *connectorv1.Object) {
	e := u.v.itemEntry(obj.GetAnchor(), ItemExists)
	c := u.undo(obj, e, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}})
	c.Removal = planv1.Removal_REMOVAL_DELETE
	u.leaving[obj.GetAnchor()] = u.add(c, backDelete, u.removed[obj.GetAnchor()]...).GetId()
	if others := u.foreign(obj); len(others) > 0 {
		u.residue(obj, e, "is deleted because the MSP made it, and with it goes what others gave it: "+strings.Join(others, ", "))
	}
}

// foreign lists what an object that Reeve made holds that Reeve did not write.
func (u *undoing) foreign(obj *connectorv1.Object) []string {
	var out []string
	t := u.v.types[obj.GetType()]
	for _, a := range obj.GetAttributes() {
		declared := t.AttributeType(a.GetName())
		var own [][]byte
		for _, e := range u.v.entries[obj.GetAnchor()] {
			if e.Item == ItemAttribute && strings.EqualFold(e.Attribute, a.GetName()) {
				own = append(own, e.Last...)
			}
		}
		own = append(own, leafValues(obj.GetName(), a.GetName())...)
		if len(without(declared.GetRule(), u.v.values(obj, a.GetName()), own)) == 0 {
			continue
		}
		if declared.GetReadOnly() {
			out = append(out, "the directory's own "+a.GetName())
		} else {
			out = append(out, "values of "+a.GetName())
		}
	}
	for _, anchor := range u.v.groupsOf(obj) {
		if u.v.memberEntry(anchor, obj.GetAnchor()) == nil {
			out = append(out, "membership in "+u.v.anchors[anchor].GetName().Text())
		}
	}
	return out
}

// groupsOf returns the anchors of the groups that name the object, sorted.
func (v *view) groupsOf(obj *connectorv1.Object) []string {
	if v.groups == nil {
		v.groups = map[string][]string{}
		for _, group := range v.conn.Objects {
			for _, k := range group.GetMembers() {
				v.groups[k] = append(v.groups[k], group.GetAnchor())
			}
		}
	}
	var out []string
	for _, k := range obj.GetKeys() {
		out = append(out, v.groups[k]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
