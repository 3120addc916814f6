package planner

import (
	"cmp"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// sorted returns the input in its one order, without touching the caller's.
func sorted(in Input) Input {
	in.Desired = order(in.Desired, func(a, b policy.Desired) int { return strings.Compare(a.Subject, b.Subject) })
	in.Entitlements = order(in.Entitlements, func(a, b policy.Entitlement) int { return strings.Compare(a.ID, b.ID) })
	in.Connectors = order(in.Connectors, func(a, b Connector) int { return strings.Compare(a.Alias, b.Alias) })
	for i, c := range in.Connectors {
		in.Connectors[i].Objects = order(c.Objects, func(a, b *connectorv1.Object) int { return strings.Compare(a.GetAnchor(), b.GetAnchor()) })
	}
	in.Links = order(in.Links, func(a, b Link) int {
		return cmp.Or(strings.Compare(a.Connector, b.Connector), strings.Compare(a.Anchor, b.Anchor))
	})
	in.Ledger = order(in.Ledger, CompareEntries)
	for i, d := range in.Desired {
		in.Desired[i].Accounts = order(d.Accounts, func(a, b policy.Account) int {
			return cmp.Or(strings.Compare(a.Connector, b.Connector), strings.Compare(a.Purpose, b.Purpose))
		})
		in.Desired[i].Entitlements = order(d.Entitlements, compareReasons)
	}
	return in
}

// order returns a sorted copy.
func order[E any](list []E, compare func(a, b E) int) []E {
	list = slices.Clone(list)
	if !slices.IsSortedFunc(list, compare) {
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
