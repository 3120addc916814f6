package cli

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func ago(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(testNow.Add(-d)) }

// hostile is a name that tries to move the cursor and to turn its neighbours
// round.
const hostile = "anna\x1b[2J\u202egpj\r\nroot"

var testDigest = bytes.Repeat([]byte{0xd1, 0x9e}, 16)

func testPlan() *operatorv1.Plan {
	return &operatorv1.Plan{
		Id: "P-7", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, Digest: testDigest,
		State: &operatorv1.PlanState{Phase: operatorv1.PlanState_PHASE_WAITING, Total: 16},
		Manifest: &planv1.Manifest{
			Plan: "P-7", Tenant: "fabrikam", PolicyVersion: "1.0", AsOf: ago(2 * time.Hour), SoloOperator: true,
			Audiences: []*planv1.Audience{{Agent: "dc1", Connectors: []string{"unix", "web"}}},
		},
		Rehearsal:  &planv1.Rehearsal{Verdict: planv1.Rehearsal_VERDICT_RESIDUE, ForwardChanges: 16, BackwardChanges: 15, Residue: []string{"unix: the password of login=anna"}},
		MadeBy:     "operator:kari",
		Made:       ago(time.Hour),
		DryRunDone: true,
		Refusals: []*auditv1.Refusal{{
			Code: "GUARDRAIL", Change: "c-3", Rule: "unix/groups", Sentence: "Group files-admins may not gain members: it is not named under members.",
		}},
		Findings: []*operatorv1.Finding{
			{Kind: "unexplained", Connector: "web", Object: "group=finance", Sentence: "login=per is a member of group=finance on web and policy does not say why."},
			{Kind: "held", Connector: "hr", Sentence: "Nothing is planned on hr: it is read only."},
			{Kind: "held", Connector: "erp", Identity: "0197-aa", Sentence: "Policy wants an account on erp, which is not there."},
			{Kind: "held", Connector: "erp", Identity: "0197-bb", Sentence: "Policy wants an account on erp, which is not there."},
			{Kind: "collision", Connector: "web", Sentence: "login=" + hostile + " on web is taken."},
			{Kind: "something_new", Connector: "web", Sentence: "A kind that a newer control plane knows."},
		},
		Blocked: "guardrails at agent dc1 refuse 1 of its changes",
	}
}

func testChange(id, connector string, level uint32, sentence string, op *connectorv1.Operation) *operatorv1.PlannedChange {
	return &operatorv1.PlannedChange{
		Agent: "dc1", Sentence: sentence,
		Change: &planv1.Change{Id: id, Connector: connector, Level: level, Operation: op, Cause: planv1.Cause_CAUSE_CLIENT, Rule: "role staff", Reason: "on the staff list"},
	}
}

func testChanges() []*operatorv1.PlannedChange {
	create := &connectorv1.Operation{Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{}}}
	add := &connectorv1.Operation{Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{}}}
	enable := &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}
	list := []*operatorv1.PlannedChange{testChange("c-1", "unix", 0, "create user login="+hostile, create)}
	for i := range 13 {
		list = append(list, testChange(fmt.Sprintf("c-1%02d", i), "web", 0, fmt.Sprintf("create user login=p%02d", i), create))
	}
	timed := testChange("c-2", "unix", 1, "add member: msp-kari to files-admins", add)
	timed.Change.Rule, timed.Change.Reason, timed.Change.Ticket, timed.Change.EndsAt = "grant", "file server is full", "T-1042", ago(-2*time.Hour)
	last := testChange("c-3", "web", 5, "", enable)
	last.Change.Display, last.Change.Reason = "login=p00", ""
	return append(list, timed, last)
}

// settledChanges are the changes with what became of them.
func settledChanges() []*operatorv1.PlannedChange {
	list := testChanges()
	for _, c := range list {
		c.Receipt = &auditv1.Receipt{Change: c.GetChange().GetId(), Result: auditv1.Receipt_RESULT_APPLIED}
	}
	list[1].Receipt.Result = auditv1.Receipt_RESULT_ALREADY
	list[14].Receipt = &auditv1.Receipt{Change: "c-2", Result: auditv1.Receipt_RESULT_CONFLICT, Problem: &connectorv1.Problem{
		Code: "CONFLICT", Object: "group=files-admins", Said: "somebody changed it since", Remedy: "plan again",
	}}
	list[15].Receipt.Result = auditv1.Receipt_RESULT_SKIPPED
	return list
}

func watched(phase operatorv1.PlanState_Phase, applied, already, conflicts, skipped uint32) *operatorv1.WatchPlanResponse {
	return &operatorv1.WatchPlanResponse{Plan: &operatorv1.Plan{Id: "P-7", Tenant: "fabrikam", State: &operatorv1.PlanState{
		Phase: phase, Total: 16, Applied: applied, Already: already, Conflicts: conflicts, Skipped: skipped,
	}}}
}

func testConnectors() *operatorv1.ListConnectorsResponse {
	return &operatorv1.ListConnectorsResponse{Connectors: []*operatorv1.Connector{
		{
			Agent: "dc1", FingerprintSha256: "ab12",
			State: &agentv1.ConnectorState{
				Alias: "hr", Connector: "flatfile", Role: agentv1.ConnectorState_ROLE_SOURCE, Mode: agentv1.ConnectorState_MODE_OBSERVE, Reachable: true,
				Fingerprint: []*connectorv1.Fact{{Name: "file", Value: "staff.csv"}, {Name: "columns", Value: "login,email"}},
				Problems:    []*connectorv1.Problem{{Code: "LINE", Object: "staff.csv line 12", Said: "it has 4 fields, the head has 9", Remedy: "correct the line"}},
			},
			Snapshot: &planv1.SnapshotHeader{Connector: "hr", Objects: 250, ObservedAt: ago(time.Minute)},
		},
		{
			Agent: "dc1", Confirmed: true,
			State:    &agentv1.ConnectorState{Alias: "web", Connector: "flatfile", Role: agentv1.ConnectorState_ROLE_TARGET, Mode: agentv1.ConnectorState_MODE_ADOPT, Reachable: true},
			Snapshot: &planv1.SnapshotHeader{Connector: "web", Objects: 1240, Complete: true, ObservedAt: ago(time.Minute)},
		},
	}}
}

func testInventory() *operatorv1.GetInventoryResponse {
	return &operatorv1.GetInventoryResponse{
		People: 250, Services: 3, OpenCases: 2, Connectors: testConnectors().GetConnectors(),
		Counts: []*operatorv1.InventoryCount{
			{Connector: "hr", Type: "person", Objects: 250, Linked: 250},
			{Connector: "web", Type: "user", Objects: 1236, Linked: 246, Orphans: 990},
			{Connector: "web", Type: "group", Objects: 4},
		},
		Findings: testPlan().GetFindings()[:2],
	}
}

func testExplained(t *testing.T) *operatorv1.ExplainIdentityResponse {
	t.Helper()
	entry, other := []byte("an entry"), []byte("another")
	checkpoint, err := tlogproof.FormatCheckpoint(tlogproof.Checkpoint{
		Origin: "reeve.example/tenant/fabrikam", Size: 2, Hash: tlog.NodeHash(tlogproof.LeafHash(other), tlogproof.LeafHash(entry)),
	})
	if err != nil {
		t.Fatal(err)
	}
	sibling := tlogproof.LeafHash(other)
	return &operatorv1.ExplainIdentityResponse{
		Identity: &operatorv1.Identity{
			Id: "0197-aa", Kind: "human", State: "active", Label: "anna", Sources: []string{"hr E-1001"}, Starts: ago(1000 * time.Hour),
			Accounts: []*operatorv1.Account{
				{Connector: "unix", Type: "user", Purpose: "normal", Anchor: "1001", CreatedByReeve: true},
				{Connector: "web", Type: "user", Purpose: "normal", Display: hostile},
			},
		},
		Explanations: []*operatorv1.Explanation{
			{What: "normal account login=anna", Connector: "unix", Rule: "role staff", Cause: "client", Plan: "P-7", Change: "c-1", Record: 1, HasRecord: true},
			{What: "normal account login=anna", Connector: "web", Rule: "role staff", Cause: "client", Adopted: true},
			{What: "attribute gecos", Connector: "unix", Rule: "role staff", Cause: "client", Change: "c-9"},
			{What: "entitlement files/admins", Connector: "unix", Rule: "grant", Cause: "msp", Grant: "G-1", Ends: ago(-time.Hour), Reason: hostile},
		},
		Proof: &planv1.InclusionProof{Checkpoint: checkpoint + "\n— reeve.example/tenant/fabrikam c2ln\n", Index: 1, Entry: entry, Hashes: [][]byte{sibling[:]}},
	}
}
