package guardrails

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Explain tells in words what the guardrails allow, one sentence a line, for the
// client's administrator. What cannot be seen is written as its code point.
func (g *Guardrails) Explain() []string {
	if g == nil || len(g.Scope) == 0 {
		alias := ""
		if g != nil {
			alias = g.Alias
		}
		return []string{fmt.Sprintf("%s: nothing may be changed: there is no scope rule.", alias)}
	}
	var out []string
	say := func(format string, args ...any) {
		out = append(out, visible(g.Alias+": "+fmt.Sprintf(format, args...)))
	}
	for _, r := range g.Scope {
		say("rule %s: %s %s: %s.", r.Rule, strings.Join(r.Types, " or "), r.where(), r.may())
	}
	for _, a := range g.Attributes {
		say("attribute %s may be written%s.", a.Name, a.limits())
	}
	if len(g.Attributes) == 0 {
		say("no attribute may be written.")
	}
	if len(g.Dangerous) > 0 {
		say("by the client's express will, these may be written although they can grant power: %s.", strings.Join(g.Dangerous, ", "))
	}
	if g.Credentials == "any" {
		say("credentials may be set on any account in scope.")
	} else {
		say("credentials may be set only on accounts that this agent created.")
	}
	for _, p := range g.Protected {
		if p.Anchor != "" {
			say("the object with anchor %s is never touched.", clean(p.Anchor))
		} else {
			say("%s is never touched, under whatever name it comes to be.", p.Name.parsed.Text())
		}
	}
	explainBudget(say, "one plan", g.Budgets.Plan)
	explainBudget(say, "any 24 hours", g.Budgets.Day)
	g.explainSignature(say)
	return out
}

// visible keeps a sentence on its line and its characters in their order.
func visible(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

func (r ScopeRule) where() string {
	base := "the top"
	if len(r.Base.parsed.GetComponents()) > 0 {
		base = r.Base.parsed.Text()
	}
	var where string
	switch {
	case r.Depth == nil:
		where = "anywhere below " + base
	case *r.Depth == 0:
		where = "being " + base + " itself"
	case *r.Depth == 1:
		where = "right below " + base
	default:
		where = fmt.Sprintf("up to %d levels below %s", *r.Depth, base)
	}
	if r.Match != nil {
		where += fmt.Sprintf(" whose %s looks like %q", r.Match.Part, r.Match.Glob)
	}
	return where
}

func (r ScopeRule) may() string {
	if len(r.Operations) == 0 {
		return "may be members of groups, nothing else"
	}
	text := strings.ReplaceAll(strings.Join(r.Operations, ", "), "_", " ")
	if r.MaxGrant > 0 {
		text += fmt.Sprintf("; memberships only with an end, at most %v ahead", time.Duration(r.MaxGrant))
	} else if r.RequireEnd {
		text += "; memberships only with an end"
	}
	return text
}

func (a AttributeRule) limits() string {
	var parts []string
	if len(a.Types) > 0 {
		parts = append(parts, "on "+strings.Join(a.Types, ", "))
	}
	if a.Prefix != "" {
		parts = append(parts, fmt.Sprintf("beginning with %q", a.Prefix))
	}
	if a.Suffix != "" {
		parts = append(parts, fmt.Sprintf("ending with %q", a.Suffix))
	}
	if len(a.OneOf) > 0 {
		parts = append(parts, fmt.Sprintf("as one of %q", a.OneOf))
	}
	if a.MaxLength > 0 {
		parts = append(parts, fmt.Sprintf("up to %d characters", a.MaxLength))
	}
	if a.Pattern.re != nil {
		parts = append(parts, fmt.Sprintf("matching %q", a.Pattern.source))
	}
	if len(parts) == 0 {
		return " with any value"
	}
	return " " + strings.Join(parts, ", ")
}

func explainBudget(say func(string, ...any), within string, b map[string]int) {
	if len(b) == 0 {
		say("%s may do any number of allowed things: there is no budget.", within)
		return
	}
	for _, key := range slices.Sorted(maps.Keys(b)) {
		say("%s: %s of at most %d %s.", within, strings.ReplaceAll(key, "_", " "), b[key], countWord(key))
	}
}

func (g *Guardrails) explainSignature(say func(string, ...any)) {
	need := g.ClientSignature
	who := "any approver"
	if len(need.Approvers) > 0 {
		who = strings.Join(need.Approvers, " or ")
	}
	for _, op := range need.Operations {
		say("%s needs the signature of %s.", strings.ReplaceAll(op, "_", " "), who)
	}
	for _, r := range need.Rules {
		say("every change under rule %s needs the signature of %s.", r, who)
	}
	if need.Dangerous {
		say("writing a dangerous attribute needs the signature of %s.", who)
	}
}
