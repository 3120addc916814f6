package policy

import "time"

// Rules are the parts of a bundle that hold for the whole plan and not for one
// identity.
type Rules struct {
	// Budgets by kind of removal.
	Budgets Budgets
	Leaver  LeaverRule
	// Separation lists pairs of entitlements nobody may hold together.
	Separation [][2]string
	// SelfApprove is the number of people a plan of only unprivileged lifecycle
	// changes may touch and still approve itself; 0 means never.
	SelfApprove int
	// Tiers above one operator's approval.
	Tiers Tiers
	// Offboarding says where it departs from the causes of changes.
	Offboarding OffboardingRule
}

// Tiers say which plans need more than one operator.
type Tiers struct {
	TwoOperators, Client Tier
}

// Tier is needed by a plan that any of its parts describes.
type Tier struct {
	// People is reached when the plan touches more than this many; 0 means
	// that no number does.
	People int
	// Privileged is true when any privileged entitlement is enough.
	Privileged bool
	// Offboarding is true when any offboarding is enough.
	Offboarding bool
}

// Needed reports whether a plan of that description needs the tier.
func (t Tier) Needed(people int, privileged, offboarding bool) bool {
	return t.People > 0 && people > t.People || t.Privileged && privileged || t.Offboarding && offboarding
}

// OffboardingRule lists rules ("<bundle>/<role>", sorted) whose effects
// offboarding treats otherwise than their cause says.
type OffboardingRule struct {
	// Undo although the client caused it.
	Undo []string
	// HandOver although the MSP caused it.
	HandOver []string
}

// Budgets hold back removals that look like an accident. Each is a percentage of
// the managed objects of its kind with a floor, so that a client of 40 people
// can still let two of them go.
type Budgets struct {
	Disable, Delete, Membership Budget
}

// Budget is used up when more than Floor people and more than Percent of the
// managed ones would lose access.
type Budget struct {
	Percent int
	Floor   int
}

// LeaverRule is what happens to people who left.
type LeaverRule struct {
	// Snapshots that must be complete and without the person, in a row.
	Snapshots int
	// Grace after the first of them.
	Grace time.Duration
	// Retention of the disabled account; zero keeps it for ever.
	Retention time.Duration
}
