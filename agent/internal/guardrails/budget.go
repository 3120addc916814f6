package guardrails

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Charge is what one change costs of a budget: an operation and whom it counts.
type Charge struct {
	Kind connectorv1.OperationKind
	// Subject is the anchor, or the link key, of who loses something; for other
	// operations the change's id. The plan's own idea of identities is not asked:
	// who made the plan could make one person of many.
	Subject string
}

// Losing reports whether the operation takes something from people.
func Losing(k connectorv1.OperationKind) bool {
	switch k {
	case connectorv1.OperationKind_OPERATION_KIND_DELETE, connectorv1.OperationKind_OPERATION_KIND_DISABLE,
		connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL:
		return true
	}
	return false
}

// Charges returns what a change costs. Whoever deletes a group, or takes it out of
// another one, takes it from all its members and theirs; a group's first members are added.
func Charges(s Subject) []Charge {
	op := s.Change.GetOperation()
	kind := op.Kind()
	if !Losing(kind) {
		out := []Charge{{Kind: kind, Subject: changeSubject + s.Change.GetId()}}
		for range op.GetCreate().GetMembers() {
			out = append(out, Charge{Kind: connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, Subject: changeSubject + s.Change.GetId()})
		}
		return out
	}
	loser := s.Object
	if kind == connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER {
		loser = s.Member
	}
	who := loser.GetAnchor()
	if who == "" {
		who = changeSubject + s.Change.GetId()
	}
	through := kind == connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER || kind == connectorv1.OperationKind_OPERATION_KIND_DELETE
	losers := s.Losers
	if losers == nil {
		losers = loser.GetMembers()
	}
	if !through || len(losers) == 0 {
		return []Charge{{Kind: kind, Subject: who}}
	}
	var out []Charge
	for _, key := range losers {
		out = append(out, Charge{Kind: kind, Subject: key})
	}
	return out
}

// changeSubject begins the subject of what is counted by changes.
const changeSubject = "change:"

// Budget returns what a plan exceeds: on its own, and together with earlier, what
// was charged in the 24 hours before.
func (c *Checker) Budget(plan, earlier []Charge) []Refusal {
	var out []Refusal
	check := func(limits map[string]int, charges []Charge, within string) {
		for _, key := range slices.Sorted(maps.Keys(limits)) {
			if n := count(charges, key); n > limits[key] {
				out = append(out, Refusal{
					Rule: c.g.Alias + "/budgets." + within + "." + key, Budget: true,
					Sentence: fmt.Sprintf("%s: %s of %d %s is above the %d allowed per %s; split the plan or have an approver sign it", c.g.Alias, key, n, countWord(key), limits[key], within),
				})
			}
		}
	}
	check(c.g.Budgets.Plan, plan, "plan")
	// A day's budget refuses a plan for what it adds, never for what is spent.
	if len(plan) > 0 {
		check(c.g.Budgets.Day, slices.Concat(earlier, plan), "day")
	}
	return out
}

// count counts people once each, changes every time: their ids are the plan's, and
// two plans may give one id to two changes.
func count(charges []Charge, key string) int {
	seen := map[string]bool{}
	changes := 0
	for _, ch := range charges {
		switch {
		case (key != LosingAccess || !Losing(ch.Kind)) && key != operationName(ch.Kind):
		case strings.HasPrefix(ch.Subject, changeSubject):
			changes++
		default:
			seen[ch.Subject] = true
		}
	}
	return changes + len(seen)
}

func countWord(key string) string {
	if key == LosingAccess || Losing(operationKinds[key]) {
		return "people"
	}
	return "changes"
}

// NeedsSignature says which rule asks for an approver's signature on the change;
// empty if none does. An approver who may sign is Approves.
func (c *Checker) NeedsSignature(s Subject) (rule string) {
	need := c.g.ClientSignature
	op := s.Change.GetOperation()
	adds := len(op.GetCreate().GetMembers()) > 0 && slices.Contains(need.Operations, operationName(connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER))
	if adds || slices.Contains(need.Operations, operationName(op.Kind())) {
		return c.g.Alias + "/client_signature.operations"
	}
	for _, r := range c.g.Scope {
		if !slices.Contains(need.Rules, r.Rule) {
			continue
		}
		for _, o := range touchedBy(s) {
			if r.holds(o.GetName(), o.GetType(), c.rule) {
				return c.g.Alias + "/client_signature.rules." + r.Rule
			}
		}
	}
	if need.Dangerous && c.writesDangerous(op) {
		return c.g.Alias + "/client_signature.dangerous"
	}
	return ""
}

// touchedBy is the object where it is and where it goes, and every group whose
// power the change hands on.
func touchedBy(s Subject) []*connectorv1.Object {
	op := s.Change.GetOperation()
	out := append(slices.Clone(s.Above), s.Named...)
	at := func(n *connectorv1.Name) {
		out = append(out, &connectorv1.Object{Type: op.GetObject().GetType(), Name: n})
	}
	if create := op.GetCreate(); create != nil {
		at(create.GetName())
		return out
	}
	at(s.Object.GetName())
	if op.GetRename() != nil || op.GetMove() != nil {
		at(NameAfter(s.Object, op))
	}
	return out
}

// NameAfter is the name that a rename or move gives to an object.
func NameAfter(o *connectorv1.Object, op *connectorv1.Operation) *connectorv1.Name {
	if r := op.GetRename(); r != nil {
		return &connectorv1.Name{Components: append([]*connectorv1.Component{r.GetTo()}, o.GetName().Parent().GetComponents()...)}
	}
	return &connectorv1.Name{Components: append([]*connectorv1.Component{o.GetName().Leaf()}, op.GetMove().GetTo()...)}
}

func (c *Checker) writesDangerous(op *connectorv1.Operation) bool {
	t := c.types[op.GetObject().GetType()]
	for _, a := range op.GetCreate().GetAttributes() {
		if c.danger(t.AttributeType(a.GetName()), a.GetName(), a.GetValues()) != "" {
			return true
		}
	}
	for _, p := range append(op.GetCreate().GetName().Leaf().GetParts(), op.GetRename().GetTo().GetParts()...) {
		if c.danger(t.AttributeType(p.GetType()), p.GetType(), [][]byte{[]byte(p.GetValue())}) != "" {
			return true
		}
	}
	for _, d := range op.GetUpdate().GetDeltas() {
		if c.danger(t.AttributeType(d.GetAttribute()), d.GetAttribute(), d.GetAdd()) != "" {
			return true
		}
	}
	return false
}

// Approves reports whether the approver of that name may sign for this connector.
func (c *Checker) Approves(name string) bool {
	list := c.g.ClientSignature.Approvers
	return len(list) == 0 || slices.Contains(list, name)
}
