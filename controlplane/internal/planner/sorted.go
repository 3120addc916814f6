package planner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// sorted returns the input in its one order, without touching the caller's. What
// is in order already is not copied: it is long, and only read.
func sorted(in Input) Input {
	in.Desired = order(in.Desired, func(a, b policy.Desired) int { return strings.Compare(a.Subject, b.Subject) })
	in.Entitlements = order(in.Entitlements, func(a, b policy.Entitlement) int { return strings.Compare(a.ID, b.ID) })
	in.Connectors = order(in.Connectors, func(a, b Connector) int { return strings.Compare(a.Alias, b.Alias) })
	in.Connectors, in.Desired = slices.Clone(in.Connectors), slices.Clone(in.Desired)
	for i, c := range in.Connectors {
		in.Connectors[i].Objects = order(c.Objects, func(a, b *connectorv1.Object) int { return strings.Compare(a.GetAnchor(), b.GetAnchor()) })
	}
	in.Links = order(in.Links, func(a, b Link) int {
		return cmp.Or(strings.Compare(a.Connector, b.Connector), strings.Compare(a.Anchor, b.Anchor))
	})
	in.Ledger = order(in.Ledger, CompareEntries)
	for i, d := range in.Desired {
		in.Desired[i] = orderly(d)
	}
	return in
}

// orderly is a desired state in its one order.
func orderly(d policy.Desired) policy.Desired {
	d.Accounts = order(d.Accounts, func(a, b policy.Account) int {
		return cmp.Or(strings.Compare(a.Connector, b.Connector), strings.Compare(a.Purpose, b.Purpose))
	})
	d.Entitlements = order(d.Entitlements, compareReasons)
	return d
}

// order returns the list, or a sorted copy where it is not in order.
func order[E any](list []E, compare func(a, b E) int) []E {
	if !slices.IsSortedFunc(list, compare) {
		list = slices.Clone(list)
		slices.SortStableFunc(list, compare)
	}
	return list
}

// compareReasons puts the reason first that speaks for an entitlement held for
// several: the one that lasts longest, then the client's before the MSP's, then
// a role's before a grant's.
func compareReasons(a, b policy.Entitled) int {
	return cmp.Or(strings.Compare(a.Entitlement, b.Entitlement), strings.Compare(a.Purpose, b.Purpose),
		compareEnds(a, b), strings.Compare(a.Cause, b.Cause), strings.Compare(a.Grant, b.Grant), strings.Compare(a.Rule, b.Rule),
		strings.Compare(a.Reason, b.Reason), strings.Compare(a.Ticket, b.Ticket))
}

func compareEnds(a, b policy.Entitled) int {
	switch {
	case a.End.IsZero() && b.End.IsZero():
		return 0
	case a.End.IsZero():
		return -1
	case b.End.IsZero():
		return 1
	default:
		return b.End.Compare(a.End)
	}
}
