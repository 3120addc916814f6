package siege

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// rails are guardrails as the client means them: the oracle reads these, the agent
// the text that yaml writes of them.
type rails struct {
	caseRule    string
	scope       []scope
	attributes  []attribute
	dangerous   []string
	credentials string
	protected   []dn
	anchors     []string
	plan, day   map[string]int
	signOps     []string
	signRules   []string
	signDanger  bool
}

type scope struct {
	name       string
	types      []string
	base       dn
	depth      int // -1 is none given
	part, glob string
	operations []string
	requireEnd bool
	maxHours   int
}

type attribute struct {
	name           string
	types          []string
	prefix, suffix string
	oneOf          []string
	maxLength      int
	pattern        string
}

func quoted(list []string) string {
	var out []string
	for _, s := range list {
		out = append(out, fmt.Sprintf("%q", s))
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// yamlName writes a name as text with escapes or as a list of parts, as clients do.
func (g *rails) yamlName(r *rand.Rand, n dn) string {
	list := r.IntN(2) == 0
	var items []string
	for _, level := range n {
		v := level[0].value
		if !list {
			v = escaped(v)
		}
		if r.IntN(4) == 0 && g.caseRule != "exact" {
			v = strings.ToUpper(v)
		}
		items = append(items, level[0].typ+"="+v)
	}
	if list && len(n) > 0 {
		return quoted(items)
	}
	return fmt.Sprintf("%q", strings.Join(items, []string{",", " , "}[r.IntN(2)]))
}

func (g *rails) yaml(r *rand.Rand) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	if g.caseRule != "" {
		say("case: %s", g.caseRule)
	}
	say("scope:")
	for _, s := range g.scope {
		say("  - rule: %s\n    types: %s\n    base: %s\n    operations: %s", s.name, quoted(s.types), g.yamlName(r, s.base), quoted(s.operations))
		if s.depth >= 0 {
			say("    depth: %d", s.depth)
		}
		if s.part != "" {
			say("    match: {part: %q, glob: %q}", s.part, s.glob)
		}
		if s.requireEnd {
			say("    require_end: true")
		}
		if s.maxHours > 0 {
			say("    max_grant: %dh", s.maxHours)
		}
	}
	if len(g.attributes) > 0 {
		say("attributes:")
	}
	for _, a := range g.attributes {
		say("  - name: %q", a.name)
		if len(a.types) > 0 {
			say("    types: %s", quoted(a.types))
		}
		for key, v := range map[string]string{"prefix": a.prefix, "suffix": a.suffix, "pattern": a.pattern} {
			if v != "" {
				say("    %s: %q", key, v)
			}
		}
		if len(a.oneOf) > 0 {
			say("    one_of: %s", quoted(a.oneOf))
		}
		if a.maxLength > 0 {
			say("    max_length: %d", a.maxLength)
		}
	}
	if len(g.dangerous) > 0 {
		say("dangerous: %s", quoted(g.dangerous))
	}
	say("credentials: %s", g.credentials)
	if len(g.protected)+len(g.anchors) > 0 {
		say("protected:")
	}
	for _, n := range g.protected {
		say("  - name: %s", g.yamlName(r, n))
	}
	for _, a := range g.anchors {
		say("  - anchor: %q", a)
	}
	if len(g.plan)+len(g.day) > 0 {
		say("budgets:")
	}
	for _, in := range []struct {
		key string
		m   map[string]int
	}{{"plan", g.plan}, {"day", g.day}} {
		if len(in.m) == 0 {
			continue
		}
		say("  %s:", in.key)
		for key, n := range in.m {
			say("    %s: %d", key, n)
		}
	}
	say("client_signature:\n  dangerous: %v\n  operations: %s\n  rules: %s", g.signDanger, quoted(g.signOps), quoted(g.signRules))
	return b.String()
}

var root = dn{{{"dc", "fabrikam"}}, {{"dc", "example"}}}

func ou(above dn, values ...string) dn {
	out := above
	for _, v := range values {
		out = append(dn{{{"ou", v}}}, out...)
	}
	return out
}

var (
	people   = ou(root, "people")
	north    = ou(people, `Staff, North "+"`)
	admins   = ou(root, "admins")
	groups   = ou(root, "groups")
	shares   = ou(groups, "shares")
	special  = ou(groups, "special=one")
	places   = []dn{people, north, admins, groups, shares, special}
	accounts = []string{"create", "update", "rename", "move", "enable", "disable", "delete", "set_credential", "revoke_credential"}
	teams    = []string{"create", "update", "rename", "move", "delete", "add_member", "remove_member"}
)

func some(r *rand.Rand, list []string, percent int) []string {
	var out []string
	for _, s := range list {
		if r.IntN(100) < percent {
			out = append(out, s)
		}
	}
	return out
}

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func one[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// newRails makes a configuration that allows a good deal, so that there is
// something to go beyond.
func newRails(r *rand.Rand) *rails {
	g := &rails{credentials: one(r, []string{"created", "any"}), caseRule: one(r, []string{"", "", "exact", "ignore"}), plan: map[string]int{}, day: map[string]int{}}
	depth := func() int { return one(r, []int{-1, -1, 1, 1, 2}) }
	g.scope = []scope{
		{name: "people", types: []string{"person"}, base: people, depth: depth(), operations: some(r, accounts, 80)},
		{name: "shares", types: []string{"group", "posix"}, base: one(r, []dn{shares, shares, groups}), depth: depth(), operations: some(r, teams, 80), requireEnd: chance(r, 15)},
	}
	if chance(r, 20) {
		g.scope[1].maxHours = 8
	}
	if chance(r, 20) {
		g.scope[1].operations = []string{"create", "update", "rename"} // and nobody into them
	}
	if chance(r, 40) {
		g.scope = append(g.scope, scope{name: "north", types: []string{"person"}, base: north, depth: depth(), operations: some(r, accounts, 50)})
	}
	if chance(r, 40) {
		g.scope = append(g.scope, scope{name: "special", types: []string{one(r, []string{"group", "posix"})}, base: special, depth: depth(), operations: some(r, teams, 50), maxHours: r.IntN(3)})
	}
	if chance(r, 30) {
		g.scope = append(g.scope, scope{name: "service", types: []string{"person"}, base: admins, depth: depth(), part: "uid", glob: "svc-*", operations: some(r, accounts, 60)})
	}
	if chance(r, 35) {
		// Lies within what people may hold too, but only here is a signature asked for.
		g.scope = append(g.scope, scope{name: "keys", types: []string{"person"}, base: north, depth: 1, part: "uid", glob: "svc-*", operations: some(r, accounts, 80)})
	}
	if chance(r, 20) {
		g.scope = append(g.scope, scope{name: "top", types: []string{"group"}, base: one(r, []dn{root, {}}), depth: -1, part: "cn", glob: one(r, []string{"g?", "*x*", "sh*"}), operations: some(r, teams, 30)})
	}
	if chance(r, 15) {
		g.scope = append(g.scope, scope{name: "itself", types: []string{"person"}, base: append(dn{{{"uid", "p1"}}}, people...), depth: 0, operations: some(r, accounts, 70)})
	}
	if chance(r, 20) {
		g.scope[0].part, g.scope[0].glob = "uid", one(r, []string{"p*", "?*", "*1*"})
	}
	if chance(r, 25) { // everything is allowed in people, so that other limits stand alone
		g.scope[0].depth, g.scope[0].part, g.scope[0].operations = -1, "", accounts
	}
	g.newAttributes(r)
	if chance(r, 80) {
		g.protected = append(g.protected, append(dn{{{"uid", "Ceo"}}}, people...))
		g.protected = append(g.protected, append(dn{{{"cn", "board"}}}, shares...))
		// Names that nobody bears yet.
		g.protected = append(g.protected, append(dn{{{"uid", "Reserved"}}}, people...), append(dn{{{"cn", "reserved"}}}, shares...))
	}
	if chance(r, 60) {
		g.anchors = append(g.anchors, "person-cfo", "group-5")
	}
	for _, key := range append(slices.Concat(accounts, teams), "losing_access", "losing_access", "losing_access") {
		if chance(r, 8) {
			g.plan[key] = 1 + r.IntN(3)
		}
		if chance(r, 12) {
			g.day[key] = 2 + r.IntN(10)
		}
	}
	if chance(r, 25) {
		g.signOps = some(r, append(slices.Clone(accounts), "add_member", "remove_member"), 12)
	}
	for _, s := range g.scope[1:] {
		if chance(r, 15) || s.name == "keys" && chance(r, 60) {
			g.signRules = append(g.signRules, s.name)
		}
	}
	g.signDanger = chance(r, 30)
	return g
}

func (g *rails) newAttributes(r *rand.Rand) {
	all := []attribute{
		{name: "mail", suffix: "@fabrikam.example", maxLength: one(r, []int{0, 30})},
		{name: "DESCRIPTION", prefix: one(r, []string{"", "ok: "})},
		{name: "title", oneOf: []string{"Clerk", "Lead "}},
		{name: "cn", types: []string{"person"}, maxLength: 12},
		{name: "cn", types: []string{"group"}, pattern: one(r, []string{"[a-z0-9]+|new.*", "g.|x", "(?s).*"})},
		{name: "uid", types: []string{"person"}, pattern: one(r, []string{"(?i)[a-z0-9-]+", "(?s).*"})},
		{name: "uidNumber", pattern: one(r, []string{"", "[0-9]+"})},
		{name: "gidNumber", oneOf: one(r, [][]string{nil, {"100", "200"}})},
		{name: "employeeType", oneOf: []string{"a", "b"}},
		{name: "manager", prefix: one(r, []string{"", "dn:uid=p"})},
		{name: "employeeType", types: []string{"group"}},
	}
	for _, a := range all {
		if chance(r, 65) {
			g.attributes = append(g.attributes, a)
		}
	}
	for _, name := range []string{"loginShell", "sshPublicKey"} {
		if chance(r, 15) {
			g.dangerous = append(g.dangerous, strings.ToUpper(name))
			g.attributes = append(g.attributes, attribute{name: name, types: []string{"person"}})
		}
	}
	if chance(r, 30) {
		g.attributes = append(g.attributes, attribute{name: "vault"}) // dangerous by the connector's word, and not named so
	}
	for _, name := range []string{"uidNumber", "gidNumber"} {
		if chance(r, 10) {
			g.dangerous = append(g.dangerous, name)
		}
	}
}
