package guardrails

import (
	"fmt"
	"slices"
	"strings"
	"time"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Subject is one change with everything that the agent read about it. An object
// that an earlier change of the same plan creates stands in as that change
// describes it, without anchor.
type Subject struct {
	Change *planv1.Change
	// Object is what the change is about, as read; nil for a create, and when it
	// could not be read.
	Object *connectorv1.Object
	// Member is the member of an add_member or remove_member.
	Member *connectorv1.Object
	// Members are the first members of a create; nil entries could not be read.
	Members []*connectorv1.Object
	// Above is every group that the object is in, directly or through others. It
	// counts for add_member only, and only if AboveKnown.
	Above      []*connectorv1.Object
	AboveKnown bool
	// Named is every group that already names as a member what a create, rename
	// or move would make, with all that is above those groups: a stale member of
	// an old name is a membership for whoever gets the name.
	Named []*connectorv1.Object
	// Losers are the link keys of all who are in the group that a delete or
	// remove_member is about, directly or through others; nil if it is no group or
	// has no members.
	Losers []string
	// CreatedHere is true for an object that this agent created.
	CreatedHere bool
}

// Checker applies guardrails to one configured connector.
type Checker struct {
	g     *Guardrails
	types map[string]*connectorv1.ObjectType
	rule  connectorv1.CaseRule
	pins  map[string]string
	// guarded are the protected subjects as they are now.
	guarded []*connectorv1.Object
}

// Guard hands over the protected subjects as they were read now (Anchors): under
// whatever name, nothing is done to them through a group or what they lie under.
func (c *Checker) Guard(subjects []*connectorv1.Object) { c.guarded = subjects }

// Anchors are those of the protected subjects, as far as they are known, sorted.
// pins are as for Checker; one whose name the client took off the list is free.
func (g *Guardrails) Anchors(pins map[string]string) []string {
	var out []string
	if g == nil {
		return nil
	}
	for _, p := range g.Protected {
		if p.Anchor != "" {
			out = append(out, p.Anchor)
			continue
		}
		for anchor, pin := range pins {
			if pin == p.Pin() {
				out = append(out, anchor)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Checker prepares the guardrails for an instance: its declared types and case
// rule, and the anchors (to Protected.Pin) at which protected names were ever seen.
func (g *Guardrails) Checker(types []*connectorv1.ObjectType, declared connectorv1.CaseRule, pins map[string]string) *Checker {
	if g == nil {
		g = &Guardrails{}
	}
	c := &Checker{g: g, types: map[string]*connectorv1.ObjectType{}, rule: declared, pins: pins}
	for _, t := range types {
		c.types[t.GetName()] = t
	}
	switch g.Case {
	case "exact":
		c.rule = connectorv1.CaseRule_CASE_RULE_EXACT
	case "ignore":
		c.rule = connectorv1.CaseRule_CASE_RULE_IGNORE
	}
	return c
}

// Check returns why the change is not allowed; none means that it is. now is the
// agent's time, for the length of grants.
func (c *Checker) Check(s Subject, now time.Time) []Refusal {
	k := &checking{Checker: c, s: s, kind: s.Change.GetOperation().Kind(), now: now}
	k.run()
	return k.refusals
}

type checking struct {
	*Checker
	s        Subject
	kind     connectorv1.OperationKind
	now      time.Time
	refusals []Refusal
}

func (k *checking) refuse(rule, format string, args ...any) {
	k.refusals = append(k.refusals, Refusal{Change: k.s.Change.GetId(), Rule: k.g.Alias + "/" + rule, Sentence: visible(fmt.Sprintf(format, args...))})
}

func (k *checking) run() {
	op := k.s.Change.GetOperation()
	typ := op.GetObject().GetType()
	if k.types[typ] == nil {
		k.refuse("scope", "%s has no object type %q", k.g.Alias, clean(typ))
		return
	}
	if k.kind == connectorv1.OperationKind_OPERATION_KIND_CREATE {
		k.create(typ, op.GetCreate())
		return
	}
	o := k.s.Object
	if o == nil {
		k.refuse("scope", "the object to %s could not be read, and what cannot be read is not touched", k.kind.Word())
		return
	}
	if o.GetType() != typ {
		k.refuse("scope", "%s is a %s, not a %s", o.GetName().Text(), clean(o.GetType()), clean(typ))
		return
	}
	k.unprotected(o, k.kind.Word())
	k.place(o.GetName(), typ)
	switch action := op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		for _, d := range action.Update.GetDeltas() {
			k.attribute(typ, d.GetAttribute(), d.GetAdd(), o.GetName())
			if len(d.GetAddRefs()) > 0 {
				k.references(typ, d.GetAttribute(), o.GetName())
			}
		}
	case *connectorv1.Operation_Rename:
		k.leaf(typ, action.Rename.GetTo(), o.GetName())
		k.leftOut(typ, action.Rename.GetTo(), o.GetName())
		k.newPlace(o, NameAfter(o, op))
	case *connectorv1.Operation_Move:
		k.newPlace(o, NameAfter(o, op))
	case *connectorv1.Operation_Delete:
		k.nothingProtectedBelow(o)
		k.nothingProtectedIn(o)
	case *connectorv1.Operation_AddMember:
		k.member(o, k.s.Member)
		k.above(o)
	case *connectorv1.Operation_RemoveMember:
		k.member(o, k.s.Member)
	case *connectorv1.Operation_SetCredential, *connectorv1.Operation_RevokeCredential:
		if k.g.Credentials != "any" && !k.s.CreatedHere {
			k.refuse("credentials", "%s was not created by this agent; credentials: any would allow it", o.GetName().Text())
		}
	}
}

// create checks place, attributes and first members of a new object.
func (k *checking) create(typ string, create *connectorv1.Create) {
	name := create.GetName()
	k.notProtectedName(name, "create")
	k.place(name, typ)
	k.leaf(typ, name.Leaf(), &connectorv1.Name{})
	k.named(name)
	for _, a := range create.GetAttributes() {
		if !k.naming(name, a) {
			k.attribute(typ, a.GetName(), a.GetValues(), name)
		}
	}
	if len(create.GetMembers()) == 0 {
		return
	}
	if len(k.s.Members) != len(create.GetMembers()) {
		k.refuse("scope", "the members of the new %s could not be read", name.Text())
		return
	}
	k.kind = connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER
	k.place(name, typ)
	for _, m := range k.s.Members {
		k.member(&connectorv1.Object{Type: typ, Name: name}, m)
	}
}

// naming reports whether the attribute only repeats the object's own component,
// which leaf has judged.
func (k *checking) naming(name *connectorv1.Name, a *connectorv1.Attribute) bool {
	return len(a.GetValues()) == 1 && slices.ContainsFunc(name.Leaf().GetParts(), func(p *connectorv1.Part) bool {
		return strings.EqualFold(p.GetType(), a.GetName()) && p.GetValue() == string(a.GetValues()[0])
	})
}

// named asks that every group which names the new name already may gain members.
func (k *checking) named(name *connectorv1.Name) {
	for _, g := range k.s.Named {
		k.unprotected(g, "give "+name.Text()+" a membership of")
		if !k.allowsGain(g) {
			k.refuse("scope", "%s already has %s, or a group that has it, as a member, and no scope rule of %s allows it to gain members; remove the stale member first", g.GetName().Text(), name.Text(), k.g.Alias)
		}
	}
}

func (k *checking) newPlace(o *connectorv1.Object, name *connectorv1.Name) {
	k.notProtectedName(name, k.kind.Word()+" to")
	k.nothingProtectedBelow(o)
	k.place(name, o.GetType())
	k.named(name)
}

// place asks that one rule holds the name and allows the operation wholly.
func (k *checking) place(name *connectorv1.Name, typ string) {
	var first *Refusal
	for _, r := range k.g.Scope {
		if !r.holds(name, typ, k.rule) {
			continue
		}
		why := k.within(r, k.kind)
		if why == "" {
			return
		}
		if first == nil {
			first = &Refusal{Rule: r.Rule, Sentence: fmt.Sprintf("%s: %s", name.Text(), why)}
		}
	}
	if first != nil {
		k.refuse(first.Rule, "%s", first.Sentence)
		return
	}
	k.refuse("scope", "no scope rule of %s holds %s (%s); add one if it should be in reach", k.g.Alias, name.Text(), clean(typ))
}

// within says why the rule does not allow an operation of that kind, or nothing.
func (k *checking) within(r ScopeRule, kind connectorv1.OperationKind) string {
	if !slices.Contains(r.Operations, operationName(kind)) {
		return fmt.Sprintf("rule %s does not list %s", r.Rule, operationName(kind))
	}
	if kind != connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER {
		return ""
	}
	end := k.s.Change.GetEndsAt()
	if end == nil {
		if r.RequireEnd || r.MaxGrant > 0 {
			return fmt.Sprintf("rule %s takes no membership without an end", r.Rule)
		}
		return ""
	}
	if longest := time.Duration(r.MaxGrant); longest > 0 && end.AsTime().Sub(k.now) > longest {
		return fmt.Sprintf("rule %s takes no membership for longer than %v; this one would end at %s", r.Rule, longest, end.AsTime().UTC().Format(time.RFC3339))
	}
	return ""
}

// holds reports whether an object of that name and type lies within the rule.
func (r ScopeRule) holds(name *connectorv1.Name, typ string, rule connectorv1.CaseRule) bool {
	if !slices.Contains(r.Types, typ) {
		return false
	}
	depth, under := name.Under(r.Base.parsed, rule)
	if !under {
		return false
	}
	if r.Depth == nil && depth == 0 || r.Depth != nil && (depth > *r.Depth || depth == 0 && *r.Depth != 0) {
		return false
	}
	if r.Match == nil {
		return true
	}
	return slices.ContainsFunc(name.Leaf().GetParts(), func(p *connectorv1.Part) bool {
		return strings.EqualFold(p.GetType(), r.Match.Part) &&
			glob(connectorv1.FoldValue(r.Match.Glob, rule), connectorv1.FoldValue(p.GetValue(), rule))
	})
}

// inScope reports whether any rule holds the object, whatever it allows.
func (k *checking) inScope(o *connectorv1.Object) bool {
	return slices.ContainsFunc(k.g.Scope, func(r ScopeRule) bool { return r.holds(o.GetName(), o.GetType(), k.rule) })
}

func (k *checking) member(group, m *connectorv1.Object) {
	if m == nil {
		k.refuse("scope", "the member of %s could not be read, and who cannot be read is not added or removed", group.GetName().Text())
		return
	}
	k.unprotected(m, k.kind.Word())
	k.nothingProtectedIn(m)
	if !k.inScope(m) {
		k.refuse("scope", "no scope rule of %s holds the member %s (%s)", k.g.Alias, m.GetName().Text(), clean(m.GetType()))
	}
}

// above asks that every group which the group is in may be reached too: who is
// added to the one is added to all of them.
func (k *checking) above(group *connectorv1.Object) {
	if !k.s.AboveKnown {
		k.refuse("scope", "which groups %s belongs to could not be read, so what a membership grants is not known", group.GetName().Text())
		return
	}
	for _, g := range k.s.Above {
		k.unprotected(g, "add, through "+group.GetName().Text()+", a member to")
		if !k.allowsGain(g) {
			k.refuse("scope", "%s belongs to %s, which no scope rule of %s allows to gain members", group.GetName().Text(), g.GetName().Text(), k.g.Alias)
		}
	}
}

// allowsGain reports whether the group may gain a member, by whatever operation:
// who is given a name that a group lists has a membership without an end.
func (k *checking) allowsGain(g *connectorv1.Object) bool {
	return slices.ContainsFunc(k.g.Scope, func(r ScopeRule) bool {
		return r.holds(g.GetName(), g.GetType(), k.rule) && k.within(r, connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER) == ""
	})
}

func (k *checking) unprotected(o *connectorv1.Object, what string) {
	for i, p := range k.g.Protected {
		if p.Anchor != "" && p.Anchor == o.GetAnchor() || p.Name.parsed != nil && sameName(p.Name.parsed, o.GetName()) {
			k.refuse(protectedRule(i), "%s is protected: nothing may %s it", o.GetName().Text(), what)
			return
		}
	}
	pin, pinned := k.pins[o.GetAnchor()]
	if !pinned || o.GetAnchor() == "" {
		return
	}
	for i, p := range k.g.Protected {
		if p.Pin() == pin {
			k.refuse(protectedRule(i), "%s is protected, under whatever name: nothing may %s it", o.GetName().Text(), what)
			return
		}
	}
}

func (k *checking) notProtectedName(name *connectorv1.Name, what string) {
	for i, p := range k.g.Protected {
		if p.Name.parsed != nil && sameName(p.Name.parsed, name) {
			k.refuse(protectedRule(i), "the name %s is protected: nothing may %s it", name.Text(), what)
			return
		}
	}
}

// nothingProtectedBelow keeps a protected subject from being moved or deleted
// together with what it lies under.
func (k *checking) nothingProtectedBelow(o *connectorv1.Object) {
	for i, p := range k.g.Protected {
		if depth, under := below(p.Name.parsed, o.GetName()); p.Name.parsed != nil && under && depth > 0 {
			k.refuse(protectedRule(i), "%s lies under %s and is protected", p.Name.parsed.Text(), o.GetName().Text())
		}
	}
	for _, g := range k.guarded {
		if depth, under := below(g.GetName(), o.GetName()); under && depth > 0 {
			k.refuse("protected", "%s lies under %s and is protected", g.GetName().Text(), o.GetName().Text())
		}
	}
}

func below(n, base *connectorv1.Name) (depth int, under bool) {
	return prepared(n).Under(prepared(base), connectorv1.CaseRule_CASE_RULE_IGNORE)
}

// nothingProtectedIn keeps a protected member of a group from losing, or gaining,
// with the group what it could not lose or gain alone.
func (k *checking) nothingProtectedIn(group *connectorv1.Object) {
	for i, p := range k.g.Protected {
		var values []string
		if len(p.Name.parsed.GetComponents()) > 0 {
			values = calledBy(p.Name.parsed)
		}
		for _, key := range group.GetMembers() {
			_, anchor, _ := strings.Cut(key, ":")
			if p.Anchor != "" && anchor == p.Anchor || slices.ContainsFunc(readAs(key), func(v string) bool { return slices.Contains(values, v) }) {
				k.refuse(protectedRule(i), "%s has a protected member", group.GetName().Text())
				break
			}
		}
	}
	for _, g := range k.guarded {
		if slices.ContainsFunc(g.GetKeys(), func(key string) bool { return slices.Contains(group.GetMembers(), key) }) {
			k.refuse("protected", "%s has a protected member, %s", group.GetName().Text(), g.GetName().Text())
		}
	}
}

func protectedRule(i int) string { return fmt.Sprintf("protected[%d]", i) }

// Pin is under what the anchor of a protected name is remembered; empty for one
// protected by its anchor. It is the name and not its place in the list, so that
// whom the client takes off the list is free again.
func (p Protected) Pin() string {
	if len(p.Name.parsed.GetComponents()) == 0 {
		return ""
	}
	return p.Name.parsed.Key(connectorv1.CaseRule_CASE_RULE_IGNORE)
}

func sameName(a, b *connectorv1.Name) bool {
	const ignore = connectorv1.CaseRule_CASE_RULE_IGNORE
	return len(a.GetComponents()) > 0 && prepared(a).Key(ignore) == prepared(b).Key(ignore)
}

// clean makes a text that came from outside safe to show.
func clean(s string) string {
	return strings.Trim(fmt.Sprintf("%q", s), `"`)
}
