package rehearsal

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func TestRehearseVerdicts(t *testing.T) {
	for _, c := range []struct {
		name    string
		in      func() planner.Input
		verdict planv1.Rehearsal_Verdict
		says    string
	}{
		{"what the MSP makes is taken back whole", func() planner.Input {
			in := company(3, 2)
			for i := range in.Desired {
				in.Desired[i].Accounts[0].Cause = "msp"
				for j := range in.Desired[i].Entitlements {
					in.Desired[i].Entitlements[j].Cause = "msp"
				}
			}
			return in
		}, planv1.Rehearsal_VERDICT_ROUND_TRIP, ""},
		{"what the client causes stays", func() planner.Input { return company(3, 2) }, planv1.Rehearsal_VERDICT_ROUND_TRIP, ""},
		{"a new password is residue", func() planner.Input {
			in := company(1, 0)
			in = settle(t, in)
			in.Links[0].Created = false
			in.Desired[0].Accounts[0].Cause, in.Desired[0].Accounts[0].Credential = "msp", &policy.Credential{Recipient: "hr"}
			in.Ledger = []planner.Entry{{Connector: in.Links[0].Connector, Type: "person", Anchor: in.Links[0].Anchor, Item: planner.ItemCredential,
				Last: [][]byte{[]byte("revoked")}, Cause: planv1.Cause_CAUSE_CLIENT, Identity: in.Links[0].Identity}}
			return in
		}, planv1.Rehearsal_VERDICT_RESIDUE, "credential"},
		{"what the connector cannot delete is residue", func() planner.Input {
			in := company(1, 0)
			in.Connectors[0].Types[0].Operations = slices.DeleteFunc(slices.Clone(allOperations), func(k connectorv1.OperationKind) bool {
				return k == connectorv1.OperationKind_OPERATION_KIND_DELETE
			})
			in.Desired[0].Accounts[0].Cause = "msp"
			return in
		}, planv1.Rehearsal_VERDICT_RESIDUE, "delete"},
		{"inputs that contradict each other", func() planner.Input {
			in := company(1, 0)
			in.Desired[0].Accounts[0].Cause = "nobody"
			return in
		}, planv1.Rehearsal_VERDICT_FAILED, "nobody"},
	} {
		t.Run(c.name, func(t *testing.T) {
			result, problems := Rehearse(c.in())
			said := strings.Join(result.GetResidue(), " ")
			for _, p := range problems {
				said += p.GetSaid()
			}
			if result.GetVerdict() != c.verdict || !strings.Contains(said, c.says) {
				t.Errorf("verdict %v saying %q, want %v saying %q", result.GetVerdict(), said, c.verdict, c.says)
			}
		})
	}
}

// settle runs the plan and returns the tenant after it.
func settle(t *testing.T, in planner.Input) planner.Input {
	t.Helper()
	out, err := planner.Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	in, applied := NewTwin(in.Connectors).Run(in, out)
	for _, a := range applied {
		if !a.Succeeded() {
			t.Fatal(a.Receipt.GetProblem())
		}
	}
	return in
}

func TestRehearsalStatesAreDigests(t *testing.T) {
	in := company(2, 1)
	for i := range in.Desired {
		in.Desired[i].Accounts[0].Cause, in.Desired[i].Entitlements[0].Cause = "msp", "msp"
	}
	r, problems := Rehearse(in)
	if len(problems) > 0 || !bytes.Equal(r.GetBefore(), r.GetRestored()) || bytes.Equal(r.GetBefore(), r.GetAfter()) {
		t.Errorf("before %x after %x restored %x: %v", r.GetBefore(), r.GetAfter(), r.GetRestored(), problems)
	}
	if r.GetForwardChanges() != 6 || r.GetBackwardChanges() != 4 {
		t.Errorf("%d forward, %d backward", r.GetForwardChanges(), r.GetBackwardChanges())
	}
	again, _ := Rehearse(in)
	if again.String() != r.String() {
		t.Error("rehearsing twice gives two results")
	}
}

// A role may be handed over although the MSP caused it, and undone although the
// client did.
func TestRolesMayReverseTheirCause(t *testing.T) {
	in := company(1, 0)
	in.Rules.Offboarding = policy.OffboardingRule{Undo: []string{"base/staff"}}
	r, problems := Rehearse(in)
	if len(problems) > 0 || !bytes.Equal(r.GetBefore(), r.GetRestored()) {
		t.Errorf("undo: %v", problems)
	}
	in.Desired[0].Accounts[0].Cause = "msp"
	in.Rules.Offboarding = policy.OffboardingRule{HandOver: []string{"base/staff"}}
	r, problems = Rehearse(in)
	if len(problems) > 0 || !bytes.Equal(r.GetAfter(), r.GetRestored()) {
		t.Errorf("hand over: %v", problems)
	}
}
