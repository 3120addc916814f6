package planner

import (
	"fmt"
	"slices"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// loss is who loses access by a change, for the budget of its kind.
type loss struct {
	person string
	kind   planv1.Removal
}

// loses counts a change against its kind's budget.
func (p *plan) loses(c *planv1.Change, person string) {
	p.losses[c.GetId()] = loss{person, c.GetRemoval()}
}

// keepBudgets holds back removals of a kind that more people would feel than its
// budget lets pass. Everything else in the plan goes on, except what needs a held
// removal first.
func (p *plan) keepBudgets() {
	budgets := p.in.Rules.Budgets
	for _, b := range []struct {
		kind   planv1.Removal
		budget policy.Budget
		lose   string
		remedy string
	}{
		{planv1.Removal_REMOVAL_DISABLE, budgets.Disable, "be disabled", "disable"},
		{planv1.Removal_REMOVAL_DELETE, budgets.Delete, "be deleted", "delete"},
		{planv1.Removal_REMOVAL_MEMBERSHIP, budgets.Membership, "lose memberships", "membership"},
	} {
		var ids []string
		people := map[string]bool{}
		for _, id := range keysOf(p.losses) {
			if l := p.losses[id]; l.kind == b.kind && p.changes[id] != nil {
				ids = append(ids, id)
				people[l.person] = true
			}
		}
		if len(people) <= b.budget.Floor || len(people)*100 <= b.budget.Percent*p.managed {
			continue
		}
		p.find(FindingHeld, "", b.remedy, "", fmt.Sprintf(
			"%d of %d managed people would %s, more than the budget of %d percent and at least %d; these %d changes are left out. "+
				"See that the source is right; if it is, raise the %s budget in the policy's safety rules for this plan.",
			len(people), p.managed, b.lose, b.budget.Percent, b.budget.Floor, len(ids), b.remedy))
		dependents := p.drop(ids)
		for _, id := range dependents {
			c := p.changes[id]
			p.find(FindingHeld, c.GetConnector(), c.GetDisplay(), c.GetIdentity(),
				"This change needs a removal that the "+b.remedy+" budget holds back; it goes on together with it.")
		}
		for _, id := range dependents {
			delete(p.changes, id)
		}
		dropped := append(slices.Clone(ids), dependents...)
		for _, id := range dropped {
			delete(p.losses, id)
		}
	}
}
