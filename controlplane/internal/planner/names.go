package planner

import (
	"slices"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// claim is one object's wish for a name.
type claim struct {
	key string
	// from is the object that has another name now, nil for a new one.
	from *connectorv1.Object
	w    *wanted
	// moveFirst is true when the way to the name leads over the new place and the
	// old component, because the other way is taken.
	moveFirst bool
	// needs must have their names before this one, after are deletions that free
	// what it takes.
	needs []*claim
	after []string
}

// settleNames decides who gets which name, plans deletions, creations and
// renames, and returns the accounts that exist or will.
func (p *plan) settleNames(v *view, list []*wanted) []*wanted {
	leaving := map[string]string{}
	var claims []*claim
	for _, w := range list {
		switch {
		case w.obj == nil:
			claims = append(claims, &claim{key: w.name.Key(v.conn.CaseRule), w: w})
		case w.want.Delete:
			if id := p.delete(w); id != "" {
				leaving[w.obj.GetAnchor()] = id
			}
		case p.renames(w):
			claims = append(claims, &claim{key: w.name.Key(v.conn.CaseRule), from: w.obj, w: w})
		}
	}
	granted := v.grant(claims, leaving)
	lost := map[*wanted]bool{}
	for _, c := range claims {
		if granted[c.key] == c {
			continue
		}
		p.find(FindingCollision, v.conn.Alias, c.w.name.Text(), c.w.identity,
			"The name is taken by, or wanted for, another object; no other is made up for it. Decide the case, or change the name in the source.")
		if c.from == nil {
			lost[c.w] = true
			delete(p.targets, targetKey{v.conn.Alias, c.w.identity, c.w.want.Purpose})
		}
	}
	v.settle(claims, granted, func(c *claim, after []string) string {
		if c.from == nil {
			p.create(c.w, after...)
			return c.w.target.create
		}
		return p.rename(v, c.w.obj, c.w.name, func(op *connectorv1.Operation) *planv1.Change {
			return p.of(c.w.target, c.w.identity, op)
		}, c.moveFirst, levelName, after)
	})
	return slices.DeleteFunc(slices.Clone(list), func(w *wanted) bool { return lost[w] })
}

// settle carries out the granted claims. A name is free only after whoever has it
// has gone, so carry is told the changes to wait for.
func (v *view) settle(claims []*claim, granted map[string]*claim, carry func(c *claim, after []string) string) {
	settled := map[*claim]string{}
	var settle func(c *claim) string
	settle = func(c *claim) string {
		if id, done := settled[c]; done {
			return id
		}
		after := slices.Clone(c.after)
		for _, need := range c.needs {
			after = append(after, settle(need))
		}
		settled[c] = carry(c, after)
		return settled[c]
	}
	for _, c := range claims {
		if granted[c.key] == c {
			settle(c)
		}
	}
}

// grant returns the claims that hold, by name: one that is alone and whose name
// is free or becomes so. A circle of objects that want each other's names holds
// nothing.
func (v *view) grant(claims []*claim, leaving map[string]string) map[string]*claim {
	ways := ways{view: v, leaving: leaving, moving: map[string]*claim{}, wanted: map[string]int{}, passing: map[string]*claim{}}
	granted := map[string]*claim{}
	for _, c := range claims {
		granted[c.key] = c
		ways.wanted[c.key]++
		if c.from != nil {
			ways.moving[c.from.GetAnchor()] = c
		}
	}
	for _, c := range claims {
		if ways.wanted[c.key] > 1 || !ways.find(c) {
			delete(granted, c.key)
		}
	}
	const open, yes, no = 1, 2, 3
	state := map[*claim]int{}
	var holds func(c *claim) bool
	holds = func(c *claim) bool {
		if state[c] == open || granted[c.key] != c {
			return false
		}
		if state[c] == 0 {
			state[c] = open
			all := true
			for _, need := range c.needs {
				all = holds(need) && all
			}
			state[c] = no
			if all {
				state[c] = yes
			}
		}
		return state[c] == yes
	}
	var refused []string
	for _, c := range claims {
		if granted[c.key] == c && !holds(c) {
			refused = append(refused, c.key)
		}
	}
	for _, key := range refused {
		delete(granted, key)
	}
	return granted
}

// ways finds how objects come to their names.
type ways struct {
	*view
	leaving map[string]string
	moving  map[string]*claim
	// wanted counts the claims of a name; passing is who goes over one that is
	// only on the way.
	wanted  map[string]int
	passing map[string]*claim
}

// free reports whether a name is nobody's or becomes so, and what must come
// first.
func (w *ways) free(key string, c *claim) (need *claim, after string, ok bool) {
	holder := w.names.last(key)
	if holder == nil || holder == c.from {
		return nil, "", true
	}
	if after = w.leaving[holder.GetAnchor()]; after != "" {
		return nil, after, true
	}
	need = w.moving[holder.GetAnchor()]
	return need, "", need != nil
}

// find notes what a claim waits for. Where component and place both change there
// is a name between, over the old place or over the new one.
func (w *ways) find(c *claim) bool {
	need, after, ok := w.free(c.key, c)
	if !ok {
		return false
	}
	c.waits(need, after)
	if c.from == nil {
		return true
	}
	rule, now, to := w.conn.CaseRule, c.from.GetName(), c.w.name
	if now.Leaf().Key(rule) == to.Leaf().Key(rule) || now.Parent().Key(rule) == to.Parent().Key(rule) {
		return true
	}
	between := func(leaf *connectorv1.Component, parent *connectorv1.Name) string {
		return (&connectorv1.Name{Components: append([]*connectorv1.Component{leaf}, parent.GetComponents()...)}).Key(rule)
	}
	over := []string{between(to.Leaf(), now.Parent()), between(now.Leaf(), to.Parent())}
	for _, mayWait := range []bool{false, true} {
		for i, key := range over {
			need, after, ok := w.free(key, c)
			waits := need != nil || after != "" || w.passing[key] != nil
			if !ok || w.wanted[key] > 0 || waits && !mayWait {
				continue
			}
			c.waits(need, after)
			c.waits(w.passing[key], "")
			w.passing[key] = c
			c.moveFirst = i == 1
			return true
		}
	}
	return false
}

func (c *claim) waits(need *claim, after string) {
	if need != nil {
		c.needs = append(c.needs, need)
	}
	if after != "" {
		c.after = append(c.after, after)
	}
}

// renames reports whether the account's name should and may change. Reeve names
// what it made; an adopted object keeps its name unless policy enforces its
// naming attribute.
func (p *plan) renames(w *wanted) bool {
	v, rule := w.view, w.view.conn.CaseRule
	now := w.obj.GetName().Key(rule)
	if now == w.name.Key(rule) || p.leavers[w.identity] {
		return false
	}
	t := v.types[w.typ]
	enforced := slices.ContainsFunc(w.want.Attributes, func(a policy.DesiredAttribute) bool {
		return a.Authority == policy.Enforce && connectorv1.FoldCase(a.Name) == connectorv1.FoldCase(t.GetNamingAttribute())
	})
	if !v.created(w.obj.GetAnchor()) && !enforced {
		return false
	}
	last := v.lastName(w.obj.GetAnchor())
	sameLeaf := w.obj.GetName().Leaf().Key(rule) == w.name.Leaf().Key(rule)
	sameParent := w.obj.GetName().Parent().Key(rule) == w.name.Parent().Key(rule)
	switch {
	case last != nil && last.Key(rule) != now:
		p.find(FindingDiverged, v.conn.Alias, w.label(), w.identity,
			"The object was renamed outside of Reeve and keeps that name; rename it back, or correct the source.")
		return false
	case !sameLeaf && !t.Allows(connectorv1.OperationKind_OPERATION_KIND_RENAME),
		!sameParent && !t.Allows(connectorv1.OperationKind_OPERATION_KIND_MOVE):
		p.find(FindingHeld, v.conn.Alias, w.label(), w.identity,
			"The object should be named "+w.name.Text()+" and the connector cannot rename or move it; do it by hand.")
		return false
	}
	return true
}

// lastName is the name that Reeve gave the object last, nil when it gave none.
func (v *view) lastName(anchor string) *connectorv1.Name {
	if e := v.itemEntry(anchor, ItemName); e != nil {
		return e.LastName
	}
	if e := v.itemEntry(anchor, ItemExists); e != nil {
		return e.LastName
	}
	return nil
}

// rename plans the one or two operations to a name and returns the last one's
// id.
func (p *plan) rename(v *view, obj *connectorv1.Object, to *connectorv1.Name,
	start func(*connectorv1.Operation) *planv1.Change, moveFirst bool, level uint32, after []string) string {
	rule := v.conn.CaseRule
	renameOp := &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: to.Leaf()}}}
	moveOp := &connectorv1.Operation{Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: to.Parent().GetComponents()}}}
	if obj.GetName().Parent().Key(rule) == to.Parent().Key(rule) {
		return p.add(start(renameOp), level, after...).GetId()
	}
	if obj.GetName().Leaf().Key(rule) == to.Leaf().Key(rule) {
		return p.add(start(moveOp), level, after...).GetId()
	}
	first, second := renameOp, moveOp
	if moveFirst {
		first, second = moveOp, renameOp
	}
	id := p.add(start(first), level, after...).GetId()
	return p.add(start(second), level, id).GetId()
}

// delete plans the end of an account whose retention has passed and returns the
// change's id, empty when the object stays. What Reeve did not make and the
// client did not ask to go cannot be given back, so it stays.
func (p *plan) delete(w *wanted) string {
	v, t := w.view, w.view.types[w.typ]
	reason := ""
	switch {
	case !v.complete():
		reason = "the last snapshot is incomplete"
	case !v.created(w.obj.GetAnchor()) && w.cause == planv1.Cause_CAUSE_MSP:
		reason = "Reeve did not make it; delete it by hand"
	case !t.Allows(connectorv1.OperationKind_OPERATION_KIND_DELETE):
		reason = "the connector cannot delete objects of its type; delete it by hand"
	}
	if reason != "" {
		p.find(FindingHeld, v.conn.Alias, w.label(), w.identity, "Its retention has passed and it is kept: "+reason+".")
		return ""
	}
	c := p.of(w.target, w.identity, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}})
	c.Removal = planv1.Removal_REMOVAL_DELETE
	p.loses(p.add(c, levelDelete), w.identity)
	w.leaving, v.leaving[w.obj.GetAnchor()] = true, true
	return c.GetId()
}
