package planner

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// items undoes what Reeve did to an object that it did not make, or that is
// handed over.
func (u *undoing) items(obj *connectorv1.Object) {
	items := u.layersOf(obj.GetAnchor())
	restore := map[string]*connectorv1.ValueDelta{}
	undoes := map[string]*Entry{}
	handed := 0
	identity := ""
	keys := sortedItems(items)
	slices.SortStableFunc(keys, func(a, b itemKey) int { return cmp.Compare(u.place(items[a]), u.place(items[b])) })
	for _, key := range keys {
		if key.item == ItemMember || u.kept[obj.GetAnchor()] && key.item != ItemEnabled {
			continue
		}
		top, to := u.target(items[key])
		if to == nil {
			handed++
			identity = top.Identity
			continue
		}
		now, _ := u.v.observed(obj, *top)
		stands := !top.Diverged && u.v.sameAsLast(obj, *top, now)
		back := sameOctets(now, to.Before)
		switch {
		case key.item == ItemCredential:
			u.residue(obj, top, "had its credential "+top.state()+" by Reeve; the former one is unknown and does not come back")
		case key.item == ItemExists || back:
		case !stands:
			u.diverged(obj, top, strings.TrimSpace(key.attribute+" "+string(key.item))+" was changed by others after Reeve and is left as it is.")
		case key.item == ItemName:
			u.claim(obj, top, to)
		case key.item == ItemEnabled:
			u.enablement(obj, top, isTrue(to.Before))
		case key.item == ItemAttribute:
			if restore[key.attribute] == nil {
				restore[key.attribute] = &connectorv1.ValueDelta{}
				undoes[key.attribute] = top
			}
			u.restore(obj, restore[key.attribute], top, now, to.Before)
		}
	}
	for _, name := range keysOf(restore) {
		u.update(obj, name, restore[name], undoes[name])
	}
	u.handOver(obj, identity, handed, "item")
}

// place is where the value that comes back stood.
func (u *undoing) place(l layers) int {
	if _, to := u.target(l); to != nil {
		return to.Place
	}
	return 0
}

// restore adds to a delta what brings one item from now to before.
func (u *undoing) restore(obj *connectorv1.Object, d *connectorv1.ValueDelta, e *Entry, now, before [][]byte) {
	t := u.v.types[obj.GetType()].AttributeType(e.Attribute)
	d.Attribute = e.Attribute
	if t.GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
		d.Remove = append(d.Remove, now...)
		d.Add = append(d.Add, before...)
		return
	}
	for _, list := range []struct {
		values [][]byte
		refs   *[]*connectorv1.ObjectRef
	}{{now, &d.RemoveRefs}, {before, &d.AddRefs}} {
		for _, v := range list.values {
			anchor, known := strings.CutPrefix(string(v), anchorPrefix)
			target := u.v.anchors[anchor]
			if !known || target == nil || u.deleted[anchor] && list.refs == &d.AddRefs {
				u.residue(obj, e, "is not given back a value of "+e.Attribute+": what it named is not observed any more")
				continue
			}
			*list.refs = append(*list.refs, refTo(target))
		}
	}
}

func (u *undoing) update(obj *connectorv1.Object, name string, d *connectorv1.ValueDelta, e *Entry) {
	if len(d.GetRemove())+len(d.GetAdd())+len(d.GetRemoveRefs())+len(d.GetAddRefs()) == 0 {
		return
	}
	if !u.allowed(obj.GetAnchor(), connectorv1.OperationKind_OPERATION_KIND_UPDATE, "keeps the values of "+name+" that Reeve wrote") {
		return
	}
	op := &connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{d}}}}
	t := u.v.types[obj.GetType()].AttributeType(name)
	if t != nil && !t.GetMultiValued() && len(d.GetRemove())+len(d.GetRemoveRefs()) == 0 {
		op.Expect = []*connectorv1.Assertion{{Attribute: name}}
	}
	c := u.undo(obj, e, op)
	if len(d.GetAdd())+len(d.GetAddRefs()) == 0 {
		c.Removal = planv1.Removal_REMOVAL_VALUE
	}
	u.add(c, backValues)
}

func (u *undoing) enablement(obj *connectorv1.Object, e *Entry, on bool) {
	if on {
		if u.allowed(obj.GetAnchor(), connectorv1.OperationKind_OPERATION_KIND_ENABLE, "stays disabled") {
			u.add(u.undo(obj, e, &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}), backEnable)
		}
		return
	}
	if u.allowed(obj.GetAnchor(), connectorv1.OperationKind_OPERATION_KIND_DISABLE, "stays enabled") {
		c := u.undo(obj, e, &connectorv1.Operation{Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}})
		c.Removal = planv1.Removal_REMOVAL_DISABLE
		u.add(c, backTake)
	}
}

func (u *undoing) claim(obj *connectorv1.Object, top, to *Entry) {
	rule := u.v.conn.CaseRule
	now, then := obj.GetName(), to.BeforeName
	kind := connectorv1.OperationKind_OPERATION_KIND_RENAME
	if now.Leaf().Key(rule) == then.Leaf().Key(rule) {
		kind = connectorv1.OperationKind_OPERATION_KIND_MOVE
	}
	if !u.allowed(obj.GetAnchor(), kind, "keeps the name that Reeve gave it") {
		return
	}
	c := &claim{key: then.Key(rule), from: obj, w: &wanted{target: &target{view: u.v, obj: obj, name: then}}}
	u.claims = append(u.claims, c)
	u.back[c] = top
}

// vanished says what the ledger knows of an object that is no more: one that
// others deleted is not made anew, one that Reeve deleted cannot be.
func (u *undoing) vanished(anchor string) {
	e := u.v.itemEntry(anchor, ItemExists)
	if e == nil || !isTrue(e.Before) {
		u.unseen(anchor)
		return
	}
	name := e.BeforeName.Text()
	if u.undone(e) {
		u.find(FindingResidue, u.v.conn.Alias, name, e.Identity, "The object "+name+" was deleted and cannot be made again as it was; restore it from a backup if it is needed.")
		return
	}
	u.find(FindingHandedOver, u.v.conn.Alias, name, e.Identity, "The object "+name+" was deleted by the client's cause and stays so.")
}

// unseen lists what Reeve did to an object that no snapshot shows any more: if
// it was not deleted but hidden from the agent, all that still stands there.
func (u *undoing) unseen(anchor string) {
	var what []string
	var last *Entry
	for _, e := range u.v.entries[anchor] {
		if !u.undone(e) {
			continue
		}
		last = e
		what = append(what, strings.TrimSpace(e.Attribute+" "+string(e.Item)))
	}
	if last == nil {
		return
	}
	slices.Sort(what)
	name := u.v.lastName(anchor).Text()
	if name == "" {
		name = last.Type + " " + anchor
	}
	u.find(FindingResidue, u.v.conn.Alias, name, last.Identity, "The object "+name+" with anchor "+anchor+
		" is not observed any more: deleted, or out of the agent's sight. Where it still is, it keeps what the MSP caused: "+
		strings.Join(slices.Compact(what), ", ")+".")
}

// undo starts a change that takes an entry back.
func (u *undoing) undo(obj *connectorv1.Object, e *Entry, op *connectorv1.Operation) *planv1.Change {
	c := u.on(u.v, obj, op)
	c.Cause, c.Identity, c.Rule, c.Grant, c.Undoes = e.Cause, e.Identity, e.Rule, e.Grant, e.Change
	c.Reason = "offboarding takes back what the MSP caused"
	return c
}

// allowed reports whether the object's type declares an operation, and lists
// what stays where it does not.
func (u *undoing) allowed(anchor string, kind connectorv1.OperationKind, stays string) bool {
	obj := u.v.anchors[anchor]
	if u.v.types[obj.GetType()].Allows(kind) {
		return true
	}
	u.find(FindingResidue, u.v.conn.Alias, obj.GetName().Text(), "", fmt.Sprintf(
		"The object %s: the connector cannot %s objects of type %s; do it by hand.", stays, kind.Word(), obj.GetType()))
	return false
}

func (u *undoing) residue(obj *connectorv1.Object, e *Entry, what string) {
	u.find(FindingResidue, u.v.conn.Alias, obj.GetName().Text(), e.Identity, "The object "+what+".")
}

func (u *undoing) diverged(obj *connectorv1.Object, e *Entry, sentence string) {
	u.find(FindingDiverged, u.v.conn.Alias, obj.GetName().Text(), e.Identity, sentence)
}

func (u *undoing) handOver(obj *connectorv1.Object, identity string, count int, what string) {
	if count == 0 {
		return
	}
	sentence := "1 " + what + " that the client caused stays as it is."
	if count > 1 {
		sentence = fmt.Sprintf("%d %ss that the client caused stay as they are.", count, what)
	}
	u.find(FindingHandedOver, u.v.conn.Alias, obj.GetName().Text(), identity, sentence)
}
