package guardrails

import (
	"fmt"
	"maps"
	"slices"

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

// Charges returns what a change costs. Whoever deletes a group takes it from all
// its members.
func Charges(s Subject) []Charge {
	kind := s.Change.GetOperation().Kind()
	if !Losing(kind) {
		return []Charge{{Kind: kind, Subject: "change:" + s.Change.GetId()}}
	}
	who := s.Object.GetAnchor()
	if kind == connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER {
		who = s.Member.GetAnchor()
	}
	if who == "" {
		who = "change:" + s.Change.GetId()
	}
	out := []Charge{{Kind: kind, Subject: who}}
	if kind == connectorv1.OperationKind_OPERATION_KIND_DELETE && len(s.Object.GetMembers()) > 0 {
		out = out[:0]
		for _, key := range s.Object.GetMembers() {
			out = append(out, Charge{Kind: kind, Subject: key})
		}
	}
	return out
}

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

func count(charges []Charge, key string) int {
	seen := map[string]bool{}
	for _, ch := range charges {
		if key == LosingAccess && Losing(ch.Kind) || key == operationName(ch.Kind) {
			seen[ch.Subject] = true
		}
	}
	return len(seen)
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
	if slices.Contains(need.Operations, operationName(op.Kind())) {
		return c.g.Alias + "/client_signature.operations"
	}
	for _, r := range c.g.Scope {
		if !slices.Contains(need.Rules, r.Rule) {
			continue
		}
		for _, name := range placesOf(s) {
			if r.holds(name, op.GetObject().GetType(), c.rule) {
				return c.g.Alias + "/client_signature.rules." + r.Rule
			}
		}
	}
	if need.Dangerous && c.writesDangerous(op) {
		return c.g.Alias + "/client_signature.dangerous"
	}
	return ""
}

func placesOf(s Subject) []*connectorv1.Name {
	op := s.Change.GetOperation()
	if create := op.GetCreate(); create != nil {
		return []*connectorv1.Name{create.GetName()}
	}
	out := []*connectorv1.Name{s.Object.GetName()}
	if r := op.GetRename(); r != nil {
		out = append(out, &connectorv1.Name{Components: append([]*connectorv1.Component{r.GetTo()}, s.Object.GetName().Parent().GetComponents()...)})
	}
	if m := op.GetMove(); m != nil {
		out = append(out, &connectorv1.Name{Components: append([]*connectorv1.Component{s.Object.GetName().Leaf()}, m.GetTo()...)})
	}
	return out
}

func (c *Checker) writesDangerous(op *connectorv1.Operation) bool {
	t := c.types[op.GetObject().GetType()]
	for _, a := range op.GetCreate().GetAttributes() {
		if c.danger(t.AttributeType(a.GetName()), a.GetName(), a.GetValues()) != "" {
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
