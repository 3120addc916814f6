package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// join adds what another role says of the same account. Roles may add to each
// other, but none is above another: where two decide the same thing they must
// agree, so that the order of roles in a bundle means nothing.
func join(a *Account, b Account) error {
	disagree := func(what string) error {
		return fmt.Errorf("%w: rules %s and %s disagree about %s of the %s account on %s; let the `when` of one exclude the other",
			ErrEvaluation, min(a.Rule, b.Rule), max(a.Rule, b.Rule), what, a.Purpose, a.Connector)
	}
	if a.Type != b.Type {
		return disagree("the type")
	}
	if !reflect.DeepEqual(a.Name, b.Name) {
		return disagree("the name")
	}
	switch {
	case a.Credential == nil:
		a.Credential = b.Credential
	case b.Credential != nil && *a.Credential != *b.Credential:
		return disagree("the credential")
	}
	// What only the MSP's role maps stays the MSP's, on the client's account too.
	if causeRank(a.Cause) > causeRank(b.Cause) {
		a.stamp()
	} else if causeRank(a.Cause) < causeRank(b.Cause) {
		b.stamp()
	}
	for _, wanted := range b.Attributes {
		same := func(x DesiredAttribute) bool { return strings.EqualFold(x.Name, wanted.Name) }
		i := slices.IndexFunc(a.Attributes, same)
		if i < 0 {
			a.Attributes = append(a.Attributes, wanted)
			continue
		}
		have := &a.Attributes[i]
		switch {
		case have.Authority != wanted.Authority || have.Name != wanted.Name:
			return disagree("attribute " + have.Name)
		case have.Authority == Additive:
			joined := additive(append(having(a.Attributes, same), wanted))
			a.Attributes = append(slices.DeleteFunc(a.Attributes, same), joined...)
			continue
		case !slices.Equal(have.Values, wanted.Values) || !slices.Equal(have.Refs, wanted.Refs):
			return disagree("attribute " + have.Name)
		}
		if wanted.Cause == "" {
			have.Cause, have.Rule = "", ""
		}
	}
	slices.SortFunc(a.Attributes, byAttribute)
	// What the client also wants stays with the client.
	if cmp.Or(causeRank(b.Cause)-causeRank(a.Cause), strings.Compare(b.Rule, a.Rule)) < 0 {
		a.Cause, a.Rule = b.Cause, b.Rule
	}
	return nil
}

func having(list []DesiredAttribute, same func(DesiredAttribute) bool) []DesiredAttribute {
	return slices.DeleteFunc(slices.Clone(list), func(x DesiredAttribute) bool { return !same(x) })
}

// additive joins values that stand beside each other, those of each reason apart.
// A value that the client also wants is the client's.
func additive(list []DesiredAttribute) []DesiredAttribute {
	// The account's own reason, which is the client's where there are two, first.
	slices.SortStableFunc(list, byAttribute)
	var out []DesiredAttribute
	for _, x := range list {
		if n := len(out); n > 0 && out[n-1].Cause == x.Cause {
			out[n-1].Values, out[n-1].Refs = union(out[n-1].Values, x.Values), union(out[n-1].Refs, x.Refs)
			out[n-1].Rule = min(out[n-1].Rule, x.Rule)
			continue
		}
		if n := len(out); n > 0 {
			x.Values, x.Refs = except(x.Values, out[n-1].Values), except(x.Refs, out[n-1].Refs)
		}
		out = append(out, x)
	}
	return out
}

func except(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(v string) bool { return slices.Contains(b, v) })
}

// stamp gives attributes the account's cause, before the account takes another's.
func (a *Account) stamp() {
	for i := range a.Attributes {
		if a.Attributes[i].Cause == "" {
			a.Attributes[i].Cause, a.Attributes[i].Rule = a.Cause, a.Rule
		}
	}
}

func causeRank(cause string) int {
	if cause == "client" {
		return 0
	}
	return 1
}

func union(a, b []string) []string {
	if len(a)+len(b) == 0 {
		return nil
	}
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// entitlements settles each entitlement on the one rule or grant that lasts
// longest; the others are named in Also. One without an account to hold it is a
// problem.
func (d *draft) entitlements() []Entitled {
	slices.SortFunc(d.entitled, func(a, b Entitled) int {
		return cmp.Or(
			strings.Compare(a.Entitlement, b.Entitlement),
			later(a, b),
			causeRank(a.Cause)-causeRank(b.Cause),
			strings.Compare(a.Grant, b.Grant),
			strings.Compare(a.Rule, b.Rule),
			strings.Compare(a.Ticket, b.Ticket),
			strings.Compare(a.Reason, b.Reason),
		)
	})
	var out []Entitled
	for _, e := range d.entitled {
		if n := len(out); n > 0 && out[n-1].Entitlement == e.Entitlement {
			out[n-1].Also = append(out[n-1].Also, giver(e))
			continue
		}
		if !slices.ContainsFunc(d.accounts, func(a Account) bool { return a.Connector == e.Connector && a.Purpose == e.Purpose }) {
			d.problems = append(d.problems, fmt.Sprintf("%s gives %s, but no rule gives an account of purpose %s on %s to hold it; add the account to a rule or take the entitlement away",
				giver(e), e.Entitlement, e.Purpose, e.Connector))
			continue
		}
		out = append(out, e)
	}
	for i := range out {
		slices.Sort(out[i].Also)
		out[i].Also = slices.Compact(out[i].Also)
	}
	return out
}

// later orders what lasts longer first; no end is longest, and a role stands
// before an open grant.
func later(a, b Entitled) int {
	switch {
	case a.End.Equal(b.End):
		return min(len(a.Grant), 1) - min(len(b.Grant), 1)
	case a.End.IsZero():
		return -1
	case b.End.IsZero():
		return 1
	}
	return b.End.Compare(a.End)
}

func giver(e Entitled) string {
	if e.Grant != "" {
		return "grant " + printable(e.Grant)
	}
	return "rule " + e.Rule
}
