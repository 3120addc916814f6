package policy

import (
	"fmt"
	"slices"
	"strings"
)

// resolve checks what one part of a bundle says about another and completes
// the rules that name roles. Nothing here needs CEL.
func (b *Bundle) resolve() Problems {
	var p Problems
	add := func(at Position, object, text, remedy string) {
		p = append(p, Problem{At: at, Object: object, Text: text, Remedy: remedy})
	}
	twice := func(kind, id string, at Position, seen map[string]Position) {
		if first, ok := seen[id]; ok {
			add(at, fmt.Sprintf("%s %q", kind, id), fmt.Sprintf("stands twice, first at %s", first), "rename or remove one of them")
			return
		}
		seen[id] = at
	}

	seen := map[string]Position{}
	for _, param := range b.Parameters {
		twice("parameter", param.Name, param.At, seen)
		object := fmt.Sprintf("parameter %q", param.Name)
		switch {
		case param.Required && param.HasDefault:
			add(param.At, object, "it is required and has a default", "keep one of them")
		case !param.Required && !param.HasDefault:
			add(param.At, object, "it is not required and has no default", "add `default:` or `required: true`")
		case param.HasDefault:
			if _, err := param.parse(param.Default); err != nil {
				add(param.At, object, "the default does not fit: "+err.Error(), "correct the default")
			}
		}
	}

	seen = map[string]Position{}
	for _, s := range b.Sources {
		twice("source", s.Connector+" "+s.Type, s.At, seen)
		names := map[string]bool{}
		for _, m := range s.Attributes {
			names[m.Name] = true
		}
		for _, r := range s.References {
			if names[r.Name] {
				add(r.Value.At, fmt.Sprintf("source %q", s.Connector+" "+s.Type), fmt.Sprintf("%q is both an attribute and a reference", r.Name), "keep one of them")
			}
		}
	}
	known := b.attributes()
	for _, c := range b.Correlations {
		for _, m := range c.Match {
			if !slices.Contains(known, m.Identity) {
				add(c.At, fmt.Sprintf("correlate %q", c.Connector+" "+c.Type), fmt.Sprintf("no source gives identities an attribute %q", m.Identity), didYouMean(m.Identity, known))
			}
		}
	}

	entitlements := map[string]EntitlementRule{}
	var ids []string
	seen = map[string]Position{}
	for _, e := range b.Entitlements {
		twice("entitlement", e.ID, e.At, seen)
		entitlements[e.ID] = e
		ids = append(ids, e.ID)
	}
	slices.Sort(ids)
	unknown := func(at Position, object, id string) bool {
		if _, ok := entitlements[id]; ok {
			return false
		}
		add(at, object, fmt.Sprintf("there is no entitlement %q", id), didYouMean(id, ids))
		return true
	}

	places := map[place]bool{}
	for _, r := range b.Roles {
		for _, a := range r.Accounts {
			places[place{a.Connector, a.Purpose}] = true
		}
	}
	seen = map[string]Position{}
	var roles []string
	for _, r := range b.Roles {
		object := fmt.Sprintf("role %q", r.ID)
		twice("role", r.ID, r.At, seen)
		roles = append(roles, r.ID)
		for i, use := range r.Entitlements {
			if unknown(use.At, object, use.ID) {
				continue
			}
			if slices.ContainsFunc(r.Entitlements[:i], func(e EntitlementUse) bool { return e.ID == use.ID }) {
				add(use.At, object, fmt.Sprintf("entitlement %q stands twice", use.ID), "remove one")
			}
			if e := entitlements[use.ID]; !places[place{e.Connector, e.Purpose}] {
				add(use.At, object, fmt.Sprintf("no role gives an account of purpose %s on %s, which could hold %q", e.Purpose, e.Connector, use.ID), "add the account to a role")
			}
			// A role follows from source attributes: whoever may write the
			// source could otherwise make themselves an administrator.
			if entitlements[use.ID].Privileged {
				add(use.At, object, fmt.Sprintf("entitlement %q is privileged and cannot follow from a role", use.ID), "take it out here and give it by `reeve grant add`")
			}
			if entitlements[use.ID].RequireEnd {
				add(use.At, object, fmt.Sprintf("entitlement %q requires an end, which a role cannot give", use.ID), "take it out here and give it by `reeve grant add --for`")
			}
		}
		p = append(p, accountProblems(object, r.Accounts)...)
	}
	p = append(p, accountProblems("msp", b.MSP.Accounts)...)

	for _, pair := range b.Rules.Separation {
		for _, id := range pair {
			unknown(Position{File: firstFile(b)}, "separation", id)
		}
	}
	for _, list := range []*[]string{&b.Rules.Offboarding.Undo, &b.Rules.Offboarding.HandOver} {
		for i, id := range *list {
			if !slices.Contains(roles, id) {
				add(Position{File: firstFile(b)}, "offboarding", fmt.Sprintf("there is no role %q", id), didYouMean(id, roles))
			}
			(*list)[i] = b.Name + "/" + id
		}
		slices.Sort(*list)
	}
	for _, id := range b.Rules.Offboarding.Undo {
		if slices.Contains(b.Rules.Offboarding.HandOver, id) {
			add(Position{File: firstFile(b)}, "offboarding", fmt.Sprintf("%q is both undone and handed over", id), "keep one of them")
		}
	}

	names := map[string]Position{}
	for _, t := range b.Tests {
		twice("test", t.Name, t.At, names)
	}
	return p
}

func firstFile(b *Bundle) string {
	if len(b.Files) == 0 {
		return ""
	}
	return b.Files[0].Path
}

// attributes lists every identity attribute that a source gives, sorted.
func (b *Bundle) attributes() []string {
	var names []string
	for _, s := range b.Sources {
		for _, m := range s.Attributes {
			names = append(names, m.Name)
		}
		for _, r := range s.References {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func accountProblems(owner string, accounts []AccountRule) Problems {
	var p Problems
	seen := map[string]Position{}
	for _, a := range accounts {
		object := fmt.Sprintf("%s: account %q", owner, a.Connector+" "+a.Purpose)
		if first, ok := seen[a.Connector+" "+a.Purpose]; ok {
			p = append(p, Problem{At: a.At, Object: object, Text: fmt.Sprintf("stands twice, first at %s", first), Remedy: "an identity has one account a connector and purpose: join the two"})
		}
		seen[a.Connector+" "+a.Purpose] = a.At
		names := map[string]bool{}
		for _, attribute := range a.Attributes {
			folded := strings.ToLower(attribute.Name)
			if names[folded] {
				p = append(p, Problem{At: attribute.At, Object: object, Text: fmt.Sprintf("attribute %q stands twice", attribute.Name), Remedy: "join the two into one expression"})
			}
			names[folded] = true
		}
	}
	return p
}
