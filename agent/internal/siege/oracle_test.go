package siege

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// oracle knows what the client allows and what has happened so far. It is asked
// about a difference in the directory and says what of it is outside.
type oracle struct {
	g *rails
	// guarded are the anchors of protected subjects: by anchor, and whoever bore a
	// protected name when the agent looked.
	guarded map[string]bool
	made    map[string]bool     // anchors that the agent created
	grants  map[[2]string]bool  // timed memberships given: group, member
	day     []loss              // what counts for the rolling day
	plans   map[string][]string // this plan's, by kind
	now     time.Time
}

type loss struct {
	kind, whom string
	at         time.Time
}

func newOracle(g *rails, start picture) *oracle {
	o := &oracle{g: g, guarded: map[string]bool{}, made: map[string]bool{}, grants: map[[2]string]bool{}}
	for _, a := range g.anchors {
		o.guarded[a] = true
	}
	for _, e := range start {
		if o.protectedName(e.name) {
			o.guarded[e.anchor] = true
		}
	}
	return o
}

func (o *oracle) clone() *oracle {
	c := *o
	c.made, c.grants = map[string]bool{}, map[[2]string]bool{}
	for k := range o.made {
		c.made[k] = true
	}
	c.day = slices.Clone(o.day)
	return &c
}

func (o *oracle) begin(now time.Time) {
	o.now, o.plans = now, map[string][]string{}
}

func (o *oracle) protectedName(n dn) bool {
	for _, p := range o.g.protected {
		if p.key() == n.key() {
			return true
		}
	}
	return false
}

func sameValue(caseRule, a, b string) bool {
	if caseRule == "exact" {
		return a == b
	}
	return strings.EqualFold(strings.Join(strings.Fields(a), " "), strings.Join(strings.Fields(b), " "))
}

func sameLevel(caseRule string, a, b []pair) bool {
	if len(a) != len(b) {
		return false
	}
	for _, x := range a {
		found := false
		for _, y := range b {
			found = found || strings.EqualFold(x.typ, y.typ) && sameValue(caseRule, x.value, y.value)
		}
		if !found {
			return false
		}
	}
	return true
}

// looksLike is a glob: its first character eats what it can, the rest follows.
func looksLike(glob, v string) bool {
	if glob == "" {
		return v == ""
	}
	if glob[0] == '*' {
		return looksLike(glob[1:], v) || v != "" && looksLike(glob, v[1:])
	}
	if v == "" {
		return false
	}
	_, n := utf8.DecodeRuneInString(v)
	return (glob[0] == '?' || v[:1] == glob[:1]) && looksLike(glob[1:], v[n:])
}

func (o *oracle) within(s scope, typ string, n dn) bool {
	if !slices.Contains(s.types, typ) || len(n) < len(s.base) {
		return false
	}
	levels := len(n) - len(s.base)
	for i, level := range s.base {
		if !sameLevel(o.g.caseRule, level, n[levels+i]) {
			return false
		}
	}
	if s.depth < 0 && levels == 0 || s.depth == 0 && levels != 0 || s.depth > 0 && (levels == 0 || levels > s.depth) {
		return false
	}
	if s.part == "" {
		return true
	}
	if len(n) == 0 {
		return false
	}
	for _, p := range n[0] {
		glob, v := s.glob, p.value
		if o.g.caseRule != "exact" {
			glob, v = strings.ToLower(glob), strings.ToLower(strings.Join(strings.Fields(v), " "))
		}
		if strings.EqualFold(p.typ, s.part) && looksLike(glob, v) {
			return true
		}
	}
	return false
}

func (o *oracle) reach(typ string, n dn) bool {
	for _, s := range o.g.scope {
		if o.within(s, typ, n) {
			return true
		}
	}
	return false
}

// may asks for one rule that lists the operation and, for a membership, takes its
// end.
func (o *oracle) may(operation, typ string, n dn, end *time.Time) bool {
	for _, s := range o.g.scope {
		if !o.within(s, typ, n) || !slices.Contains(s.operations, operation) {
			continue
		}
		if operation == "add_member" && (s.requireEnd || s.maxHours > 0) {
			if end == nil || s.maxHours > 0 && end.After(o.now.Add(time.Duration(s.maxHours)*time.Hour)) {
				continue
			}
		}
		return true
	}
	return false
}

// signed reports whether an approver's signature would have been needed. Nobody
// signs here: the attacker has no approver's key.
func (o *oracle) signed(operation, typ string, names ...dn) bool {
	if slices.Contains(o.g.signOps, operation) {
		return true
	}
	for _, s := range o.g.scope {
		for _, n := range names {
			if slices.Contains(o.g.signRules, s.name) && o.within(s, typ, n) {
				return true
			}
		}
	}
	return false
}

func folded(list []string, s string) bool {
	for _, x := range list {
		if strings.EqualFold(x, s) {
			return true
		}
	}
	return false
}

// powerful says that writing the value can grant power by itself.
func powerful(typ, name, value string) bool {
	switch strings.ToLower(name) {
	case "loginshell", "sshpublickey", "vault", "memberof", "managedby", "userpassword":
		return true
	case "uidnumber", "gidnumber":
		n, err := strconv.ParseUint(strings.TrimLeft(strings.TrimPrefix(strings.TrimSpace(value), "+"), "0"), 10, 64)
		return err != nil || n == 0 || n >= 1<<32-1
	}
	return false
}

// mayWrite says why a value may not be written, or nothing.
func (o *oracle) mayWrite(typ, name, value string) string {
	if powerful(typ, name, value) && !folded(o.g.dangerous, name) {
		return "grants power"
	}
	if powerful(typ, name, value) && o.g.signDanger {
		return "grants power and nobody signed"
	}
	why := "is not listed"
	for _, a := range o.g.attributes {
		if !strings.EqualFold(a.name, name) || len(a.types) > 0 && !slices.Contains(a.types, typ) {
			continue
		}
		limited := a.prefix != "" || a.suffix != "" || len(a.oneOf) > 0 || a.maxLength > 0 || a.pattern != ""
		if typ == "person" && strings.EqualFold(name, "gidNumber") && !limited && !folded(o.g.dangerous, name) {
			return "makes a member of any group by number"
		}
		if o.takes(a, typ, name, value) {
			if why == "is not listed" || why == "has no such value" {
				why = ""
			}
			continue
		}
		if why == "is not listed" {
			why = "has no such value"
		}
	}
	return why
}

func (o *oracle) takes(a attribute, typ, name, value string) bool {
	if !strings.HasPrefix(value, a.prefix) || !strings.HasSuffix(value, a.suffix) {
		return false
	}
	if a.maxLength > 0 && len([]rune(value)) > a.maxLength {
		return false
	}
	if a.pattern != "" && !regexp.MustCompile("^("+a.pattern+")$").MatchString(value) {
		return false
	}
	if len(a.oneOf) == 0 {
		return true
	}
	for _, v := range a.oneOf {
		if same(typeOf(typ).AttributeType(name), v, value) {
			return true
		}
	}
	return false
}

func (o *oracle) listed(typ, name string) bool {
	for _, a := range o.g.attributes {
		if strings.EqualFold(a.name, name) && (len(a.types) == 0 || slices.Contains(a.types, typ)) {
			return true
		}
	}
	return false
}
