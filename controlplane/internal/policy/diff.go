package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Holder is an identity with its grants, as Diff compares it.
type Holder struct {
	Subject Subject
	Grants  []Grant
}

// DifferenceKind says which way a difference goes for the identity.
type DifferenceKind string

const (
	Gains   DifferenceKind = "gains"
	Loses   DifferenceKind = "loses"
	Changes DifferenceKind = "changes"
	// Unknown: one of the two programs cannot say; After or Before has why.
	Unknown DifferenceKind = "unknown"
)

// Difference is one thing that an identity has under one program and not, or
// not so, under the other.
type Difference struct {
	Subject string
	Kind    DifferenceKind
	// What is entitlement, account, name, enabled, delete or attribute.
	What      string
	Connector string
	Purpose   string
	// Object is the entitlement's id, the account's name or the attribute's name.
	Object string
	// Privileged is true for an entitlement that is so in either program.
	Privileged    bool
	Before, After []string
	// Rule that gives it, in the program that has it.
	Rule string
}

// Diff says who gains and who loses what when new takes old's place, at asOf.
// The result is sorted by subject; an identity that either program cannot
// evaluate is one difference of kind Unknown.
func Diff(old, new *Program, holders []Holder, asOf time.Time) []Difference {
	var out []Difference
	for _, h := range holders {
		before, errBefore := old.Desired(h.Subject, h.Grants, asOf)
		after, errAfter := new.Desired(h.Subject, h.Grants, asOf)
		if errBefore != nil || errAfter != nil {
			d := Difference{Subject: h.Subject.ID, Kind: Unknown}
			if errBefore != nil {
				d.Before = []string{errBefore.Error()}
			}
			if errAfter != nil {
				d.After = []string{errAfter.Error()}
			}
			out = append(out, d)
			continue
		}
		out = append(out, diffEntitlements(old, new, before, after)...)
		out = append(out, diffAccounts(before, after)...)
	}
	slices.SortStableFunc(out, func(a, b Difference) int {
		return cmp.Or(strings.Compare(a.Subject, b.Subject), strings.Compare(a.Connector, b.Connector), strings.Compare(a.Purpose, b.Purpose),
			strings.Compare(a.What, b.What), strings.Compare(a.Object, b.Object), strings.Compare(string(a.Kind), string(b.Kind)))
	})
	return out
}

func diffEntitlements(old, new *Program, before, after Desired) []Difference {
	var out []Difference
	privileged := func(id string) bool {
		a, _ := old.Entitlement(id)
		b, _ := new.Entitlement(id)
		return a.Privileged || b.Privileged
	}
	one := func(kind DifferenceKind, e Entitled) {
		out = append(out, Difference{
			Subject: before.Subject, Kind: kind, What: "entitlement", Connector: e.Connector, Purpose: e.Purpose,
			Object: e.Entitlement, Privileged: privileged(e.Entitlement), Rule: e.Rule,
		})
	}
	// The same id for another group is another thing.
	group := func(p *Program, id string) string {
		e, _ := p.Entitlement(id)
		return e.Type + " " + NameText(e.Name)
	}
	has := func(d Desired, e Entitled) bool {
		return group(old, e.Entitlement) == group(new, e.Entitlement) && slices.ContainsFunc(d.Entitlements, func(x Entitled) bool {
			return x.Entitlement == e.Entitlement && x.Connector == e.Connector && x.Purpose == e.Purpose
		})
	}
	for _, e := range before.Entitlements {
		if !has(after, e) {
			one(Loses, e)
		}
	}
	for _, e := range after.Entitlements {
		if !has(before, e) {
			one(Gains, e)
		}
	}
	return out
}

func diffAccounts(before, after Desired) []Difference {
	var out []Difference
	find := func(d Desired, a Account) *Account {
		i := slices.IndexFunc(d.Accounts, func(x Account) bool { return x.Connector == a.Connector && x.Purpose == a.Purpose })
		if i < 0 {
			return nil
		}
		return &d.Accounts[i]
	}
	whole := func(kind DifferenceKind, a Account) {
		out = append(out, Difference{Subject: before.Subject, Kind: kind, What: "account", Connector: a.Connector, Purpose: a.Purpose, Object: NameText(a.Name), Rule: a.Rule})
	}
	for _, a := range before.Accounts {
		if b := find(after, a); b != nil {
			out = append(out, diffAccount(before.Subject, a, *b)...)
		} else {
			whole(Loses, a)
		}
	}
	for _, a := range after.Accounts {
		if find(before, a) == nil {
			whole(Gains, a)
		}
	}
	return out
}

func diffAccount(subject string, a, b Account) []Difference {
	var out []Difference
	add := func(kind DifferenceKind, what, object string, before, after []string) {
		out = append(out, Difference{Subject: subject, Kind: kind, What: what, Connector: a.Connector, Purpose: a.Purpose, Object: object, Before: before, After: after, Rule: b.Rule})
	}
	name := NameText(b.Name)
	if was := NameText(a.Name); was != name || a.Type != b.Type {
		add(Changes, "name", name, []string{a.Type + " " + was}, []string{b.Type + " " + name})
	}
	if a.Enabled != b.Enabled {
		add(gainIf(b.Enabled), "enabled", name, []string{word(a.Enabled)}, []string{word(b.Enabled)})
	}
	if a.Delete != b.Delete {
		add(gainIf(!b.Delete), "delete", name, []string{word(a.Delete)}, []string{word(b.Delete)})
	}
	var names []string
	values := func(account Account, name string) []string {
		for _, x := range account.Attributes {
			if strings.EqualFold(x.Name, name) {
				return slices.Concat([]string{string(x.Authority)}, x.Values, x.Refs)
			}
		}
		return nil
	}
	for _, x := range slices.Concat(a.Attributes, b.Attributes) {
		if !slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, x.Name) }) {
			names = append(names, x.Name)
		}
	}
	for _, n := range names {
		if was, is := values(a, n), values(b, n); !slices.Equal(was, is) {
			add(Changes, "attribute", n, was, is)
		}
	}
	return out
}

func gainIf(gain bool) DifferenceKind {
	if gain {
		return Gains
	}
	return Loses
}

func word(b bool) string {
	if b {
		return "true"
	}
	return "false"
}
