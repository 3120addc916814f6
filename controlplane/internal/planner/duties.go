package planner

import (
	"slices"
	"strconv"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// keepDutiesApart drops one of two entitlements nobody may hold together: the
// newer. What is held already is older than what is not; between two of the same
// age a role comes before a grant, and the first of the pair before the second.
func (p *plan) keepDutiesApart() {
	for i := range p.in.Desired {
		d := &p.in.Desired[i]
		for _, pair := range p.in.Rules.Separation {
			first, second := p.reasons(d, pair[0]), p.reasons(d, pair[1])
			if len(first) == 0 || len(second) == 0 || pair[0] == pair[1] {
				continue
			}
			keep, drop := pair[0], pair[1]
			heldFirst, heldSecond := p.held(d, first), p.held(d, second)
			switch {
			case heldFirst != heldSecond:
				if heldSecond {
					keep, drop = drop, keep
				}
			case onlyGrants(first) && !onlyGrants(second):
				keep, drop = drop, keep
			}
			d.Entitlements = slices.DeleteFunc(slices.Clone(d.Entitlements), func(e policy.Entitled) bool { return e.Entitlement == drop })
			connector := ""
			if e := p.entitlements[drop]; e != nil {
				connector = e.Connector
			}
			p.find(FindingConflictOfDuty, connector, drop, d.Subject,
				"Entitlement "+strconv.Quote(drop)+" is left out because nobody may hold it together with "+strconv.Quote(keep)+
					"; end the one, or change the rule that separates them.")
		}
	}
}

// reasons are those for an entitlement that have not ended.
func (p *plan) reasons(d *policy.Desired, entitlement string) []policy.Entitled {
	var out []policy.Entitled
	for _, e := range d.Entitlements {
		if e.Entitlement == entitlement && !p.ended(e) {
			out = append(out, e)
		}
	}
	return out
}

func (p *plan) ended(e policy.Entitled) bool { return !e.End.IsZero() && !e.End.After(p.in.AsOf) }

func onlyGrants(reasons []policy.Entitled) bool {
	return !slices.ContainsFunc(reasons, func(e policy.Entitled) bool { return e.Grant == "" })
}

// held reports whether the identity is in the entitlement's group now.
func (p *plan) held(d *policy.Desired, reasons []policy.Entitled) bool {
	return slices.ContainsFunc(reasons, func(e policy.Entitled) bool {
		ent := p.entitlements[e.Entitlement]
		if ent == nil || p.views[ent.Connector] == nil {
			return false
		}
		v := p.views[ent.Connector]
		t, group := p.targets[targetKey{ent.Connector, d.Subject, e.Purpose}], v.group(ent)
		return t != nil && t.obj != nil && group != nil && v.isMember(group, t.obj)
	})
}
