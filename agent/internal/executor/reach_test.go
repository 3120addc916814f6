package executor

import (
	"context"
	"errors"
	"testing"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Two steps of one order must not lead to where each of them alone would have
// needed an approver's signature.
func TestASignatureIsAskedForAsThingsAreAtTheEffect(t *testing.T) {
	b := newBench(t, t.TempDir(), `
scope:
  - {rule: people, types: [account], base: "ou=staff", operations: [rename, move]}
  - {rule: lobby, types: [account], base: "ou=desk", match: {part: login, glob: "a*"}, operations: [rename, move]}
  - {rule: roots, types: [account], base: "ou=desk", match: {part: login, glob: "root*"}, operations: [rename, move]}
client_signature: {rules: [roots]}
`)
	b.put(account("anna"))
	anna := anchored("account", "a-anna")
	move := &connectorv1.Operation{Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: []*connectorv1.Component{connectorv1.NewComponent("ou", "desk")}}}}
	rename := &connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("login", "root1")}}}
	id := b.carriedOut(simple("move", 0, move, anna), simple("rename", 1, rename, anchored("account", "a-anna")))
	if got := b.results()[id+"/rename"]; got != auditv1.Receipt_RESULT_REFUSED {
		t.Errorf("the step that needs a signature came to %v", got)
	}
	if b.object("root1") != nil || b.object("anna") == nil {
		t.Error("an account is under a rule whose every change needs a signature, and nobody signed")
	}
}

// A budget of people counts those who lose something through a group within a group.
func TestABudgetCountsWhoIsInANestedGroup(t *testing.T) {
	b := newBench(t, t.TempDir(), generous+"budgets: {plan: {losing_access: 2}}\n")
	b.put(account("a"), account("b"), account("c"), group("inner", "a-a", "a-b", "a-c"), group("middle", "g-inner"), group("outer", "g-middle"))
	for _, c := range []*connectorv1.Operation{
		{Object: anchored("group", "g-outer"), Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: anchored("group", "g-middle")}}},
		{Object: anchored("group", "g-middle"), Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}},
	} {
		_, d := b.order(change("c", 0, c))
		_, err := b.admit.Admit(context.Background(), d)
		var refused *admission.Refused
		if !errors.As(err, &refused) || refused.Code() != admission.CodeBudget {
			t.Errorf("three who lose something through two groups are within a budget of two: %v", err)
		}
	}
}

// A member that the client protects by its anchor alone is found in the directory's
// groups by what it is called there.
func TestAProtectedAnchorIsFoundInGroups(t *testing.T) {
	b := newBench(t, t.TempDir(), generous+"protected: [{name: 'login=boss,ou=staff'}]\n")
	boss := connectortest.MemoryObject{Type: "account", Anchor: "a-boss", Leaf: "boss", Place: "staff"}
	b.put(boss, account("anna"), group("board", "a-boss"))
	if err := b.admit.Pin(context.Background(), "mem"); err != nil {
		t.Fatal(err)
	}
	s := b.memory()
	s.Objects[0].Leaf = "renamed"
	if err := s.Write(b.state); err != nil {
		t.Fatal(err)
	}
	_, d := b.order(simple("c", 0, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}, anchored("group", "g-board")))
	_, err := b.admit.Admit(context.Background(), d)
	var refused *admission.Refused
	if !errors.As(err, &refused) || refused.Code() != admission.CodeGuardrail {
		t.Errorf("a group is deleted with a protected member: %v", err)
	}
}
