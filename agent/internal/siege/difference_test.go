package siege

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// closure is who is in which group, directly or through others: group, member.
func closure(p picture) map[[2]string]bool {
	byKey := map[string][]string{}
	for _, e := range p {
		for _, key := range e.keys() {
			byKey[key] = append(byKey[key], e.anchor)
		}
	}
	in := map[[2]string]bool{}
	for _, g := range p {
		seen := map[string]bool{}
		for queue := []string{g.anchor}; len(queue) > 0; queue = queue[1:] {
			for _, key := range p[queue[0]].members {
				for _, m := range byKey[key] {
					if !seen[m] {
						seen[m] = true
						in[[2]string{g.anchor, m}] = true
						queue = append(queue, m)
					}
				}
			}
		}
	}
	return in
}

func has(p picture, key string) []*entry {
	var out []*entry
	for _, e := range p {
		if slices.Contains(e.keys(), key) {
			out = append(out, e)
		}
	}
	return out
}

// judge says what of a difference is outside of what the client allows. end is
// when the change, known by an id of its own, said that what it gives ends.
func (o *oracle) judge(before, after picture, change string, end *time.Time) (outside []string) {
	j := &judging{oracle: o, before: before, after: after, end: end, change: change}
	for _, e := range after {
		if old := before[e.anchor]; old == nil {
			j.created(e)
		} else if old != e {
			j.changed(old, e)
		}
	}
	for _, e := range before {
		if after[e.anchor] == nil {
			j.gone(e)
		}
	}
	j.memberships()
	j.budgets()
	return j.outside
}

type judging struct {
	*oracle
	before, after picture
	end           *time.Time
	outside       []string
	losing        string      // the kind of loss, if this is one
	added         [][2]string // groups and their new direct members
	change        string      // sent again after a crash it is the same
}

func (j *judging) no(e *entry, format string, args ...any) {
	j.outside = append(j.outside, fmt.Sprintf("%s %q: ", e.anchor, e.key())+fmt.Sprintf(format, args...))
}

func (j *judging) count(kind, whom string) {
	j.plans[kind] = append(j.plans[kind], whom)
	j.day = append(j.day, loss{kind, whom, j.now})
}

func (j *judging) asks(e *entry, operation string, names ...dn) {
	for _, n := range names {
		if !j.may(operation, e.typ, n, j.end) {
			j.no(e, "no rule allows to %s it at %q", operation, n.key())
		}
		if j.protectedName(n) {
			j.no(e, "the name %q is protected", n.key())
		}
	}
	if j.guarded[e.anchor] {
		j.no(e, "is protected, and something was done to it: %s", operation)
	}
	if j.signed(operation, e.typ, names...) {
		j.no(e, "%s needed an approver's signature", operation)
	}
}

func (j *judging) created(e *entry) {
	j.asks(e, "create", e.name)
	j.count("create", j.change)
	j.made[e.anchor] = true
	for name, values := range e.attributes {
		for _, v := range values {
			j.wrote(e, name, v)
		}
	}
	if e.enabled || e.password != "" {
		j.no(e, "was created enabled or with a password")
	}
	for _, key := range e.members {
		j.gained(e, key)
	}
}

// wrote judges one new value. The name's own value needs no entry, but if there
// is one it holds.
func (j *judging) wrote(e *entry, name, v string) {
	naming := typeOf(e.typ).GetNamingAttribute()
	if name == naming && !j.listed(e.typ, name) {
		for _, p := range e.name[0] {
			if strings.EqualFold(p.typ, naming) && prepared(p.value) == prepared(v) {
				return
			}
		}
	}
	if why := j.mayWrite(e.typ, name, v); why != "" {
		j.no(e, "%s=%q %s", name, v, why)
	}
}

func (j *judging) changed(old, e *entry) {
	if old.key() != e.key() || !sameLevel("exact", old.name[0], e.name[0]) {
		operation := "rename"
		if old.name[1:].key() != e.name[1:].key() {
			operation = "move"
		}
		j.asks(e, operation, old.name, e.name)
		j.count(operation, j.change)
	}
	written := false
	for name, values := range e.attributes {
		for _, v := range values {
			if !slices.Contains(old.attributes[name], v) {
				written = true
				j.wrote(e, name, v)
			}
		}
	}
	naming := typeOf(e.typ).GetNamingAttribute()
	for name, values := range old.attributes {
		for _, v := range values {
			if slices.Contains(e.attributes[name], v) {
				continue
			}
			written = true
			if name != naming && !j.listed(e.typ, name) {
				j.no(e, "%s lost a value and is not listed", name)
			}
		}
	}
	if written && old.key() == e.key() {
		j.asks(e, "update", e.name)
		j.count("update", j.change)
	}
	if old.enabled != e.enabled {
		operation := "enable"
		if old.enabled {
			operation, j.losing = "disable", "disable"
			j.count("disable", e.anchor)
		} else {
			j.count("enable", j.change)
		}
		j.asks(e, operation, e.name)
	}
	if old.password != e.password {
		operation := "set_credential"
		if e.password == "" {
			operation = "revoke_credential"
			j.count(operation, e.anchor)
		} else {
			j.count(operation, j.change)
		}
		j.asks(e, operation, e.name)
		if j.g.credentials != "any" && !j.made[e.anchor] {
			j.no(e, "was not created by the agent, and its credential was touched")
		}
	}
	for _, key := range e.members {
		if !slices.Contains(old.members, key) {
			j.gained(e, key)
		}
	}
	for _, key := range old.members {
		if !slices.Contains(e.members, key) {
			j.lost(e, key)
		}
	}
}

func (j *judging) member(g *entry, key string) *entry {
	found := has(j.after, key)
	if len(found) == 0 {
		j.no(g, "a member %q that is nobody", key)
		return nil
	}
	m := found[0]
	if !j.reach(m.typ, m.name) {
		j.no(g, "its member %q is out of scope", m.key())
	}
	if j.guarded[m.anchor] {
		j.no(g, "its member %q is protected", m.key())
	}
	for _, inner := range m.members {
		for _, p := range has(j.after, inner) {
			if j.guarded[p.anchor] {
				j.no(g, "with %q goes %q, which is protected", m.key(), p.key())
			}
		}
	}
	return m
}

func (j *judging) gained(g *entry, key string) {
	j.asks(g, "add_member", g.name)
	j.count("add_member", j.change+key)
	m := j.member(g, key)
	if m == nil {
		return
	}
	j.added = append(j.added, [2]string{g.anchor, m.anchor})
	if j.end != nil {
		j.grants[[2]string{g.anchor, m.anchor}] = true
	}
}

func (j *judging) lost(g *entry, key string) {
	j.asks(g, "remove_member", g.name)
	j.losing = "remove_member"
	if m := j.member(g, key); m != nil && m.typ == "person" {
		j.count("remove_member", m.anchor)
	}
}

func (j *judging) gone(e *entry) {
	j.asks(e, "delete", e.name)
	j.losing = "delete"
	if e.typ == "person" || len(e.members) == 0 {
		j.count("delete", e.anchor)
	}
	for _, key := range e.members {
		for _, m := range has(j.before, key) {
			if j.guarded[m.anchor] {
				j.no(e, "with it %q, which is protected, loses a membership", m.key())
			}
		}
	}
}

// another reports whether somebody was added below the group who is the member, or
// leads to it.
func (j *judging) another(pair [2]string, is map[[2]string]bool) bool {
	for _, added := range j.added {
		if (added[0] == pair[0] || is[[2]string{pair[0], added[0]}]) && added[1] == pair[1] {
			return true
		}
	}
	return false
}

// memberships looks at who is in what, by whatever way.
func (j *judging) memberships() {
	was, is := closure(j.before), closure(j.after)
	for pair := range is {
		g, m := j.after[pair[0]], j.after[pair[1]]
		// Another way into a group counts even for who is in it already.
		if was[pair] && !j.another(pair, is) {
			continue
		}
		if !j.may("add_member", g.typ, g.name, j.end) {
			j.no(g, "%q came to be in it, and no rule lets it gain members", m.key())
		}
		if j.guarded[g.anchor] {
			j.no(g, "is protected, and %q came to be in it", m.key())
		}
		if j.signed("", g.typ, g.name) {
			j.no(g, "%q came to be in it, which needed an approver's signature", m.key())
		}
	}
	for pair := range was {
		if m := j.before[pair[1]]; j.losing != "" && !is[pair] && m.typ == "person" {
			j.count(j.losing, m.anchor)
		}
	}
}

// budgets counts people once each and changes each time.
func (j *judging) budgets() {
	j.day = slices.DeleteFunc(j.day, func(l loss) bool { return !l.at.After(j.now.Add(-24 * time.Hour)) })
	byDay := map[string][]string{}
	for _, l := range j.day {
		byDay[l.kind] = append(byDay[l.kind], l.whom)
	}
	for _, c := range []struct {
		within string
		limits map[string]int
		counts map[string][]string
	}{{"plan", j.g.plan, j.plans}, {"day", j.g.day, byDay}} {
		for key, limit := range c.limits {
			list := c.counts[key]
			if key == "losing_access" {
				list = slices.Concat(c.counts["delete"], c.counts["disable"], c.counts["remove_member"], c.counts["revoke_credential"])
			}
			counted := map[string]bool{}
			for _, whom := range list {
				counted[whom] = true
			}
			if len(counted) > limit {
				j.outside = append(j.outside, fmt.Sprintf("%s of %d is above the %d allowed per %s", key, len(counted), limit, c.within))
			}
		}
	}
}

// takenBack judges a removal that was owed: it takes only what a timed grant gave.
func (o *oracle) takenBack(before, after picture) (outside []string) {
	for _, e := range before {
		now := after[e.anchor]
		if now == e {
			continue
		}
		if now == nil || len(after) != len(before) {
			return append(outside, e.anchor+" went with an obligation")
		}
		if len(now.members) != len(e.members)-1 || now.name.key() != e.key() {
			outside = append(outside, e.anchor+" was changed by an obligation")
		}
		for _, key := range e.members {
			if slices.Contains(now.members, key) {
				continue
			}
			for _, m := range has(before, key) {
				if !o.grants[[2]string{e.anchor, m.anchor}] {
					outside = append(outside, fmt.Sprintf("%s lost %q to an obligation, and no timed grant gave that", e.anchor, m.key()))
				}
			}
		}
	}
	return outside
}
