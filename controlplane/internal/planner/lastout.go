package planner

import planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"

// lastOut picks the removal that waits, of those from a group that may not be
// empty, and the addition it waits for; none when there is none. A new account
// may itself be waiting for the name of one that is deleted, which waits for its
// removals: no two changes may wait for each other.
func (p *plan) lastOut(g *governed, joining []*planv1.Change) (last, first *planv1.Change) {
	for _, add := range joining {
		for i := len(g.removes) - 1; i >= 0; i-- {
			last = g.removes[i]
			if !p.waitsFor(add.GetId(), last, map[string]bool{}) {
				return last, add
			}
		}
	}
	return g.removes[len(g.removes)-1], nil
}

// waitsFor reports whether a change cannot run before the removal has, counting
// that a deletion waits for the memberships of what it deletes.
func (p *plan) waitsFor(id string, removal *planv1.Change, seen map[string]bool) bool {
	c := p.changes[id]
	if c == nil || seen[id] {
		return false
	}
	seen[id] = true
	if id == removal.GetId() {
		return true
	}
	for _, d := range c.GetDependsOn() {
		if p.waitsFor(d, removal, seen) {
			return true
		}
	}
	if c.GetOperation().GetDelete() == nil {
		return false
	}
	anchor := c.GetOperation().GetObject().GetAnchor()
	for other, o := range p.changes {
		m := o.GetOperation().GetRemoveMember().GetMember()
		if o.GetConnector() == c.GetConnector() && m.GetAnchor() == anchor && p.waitsFor(other, removal, seen) {
			return true
		}
	}
	return false
}
