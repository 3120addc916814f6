package rehearsal

import (
	"fmt"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// company is a tenant of people who all hold every one of the entitlements.
func company(people, entitlements int) planner.Input {
	wide := policy.Budget{Floor: people}
	in := planner.Input{
		Plan: "p", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, AsOf: epoch,
		Rules: policy.Rules{Budgets: policy.Budgets{Disable: wide, Delete: wide, Membership: wide}},
		Connectors: []planner.Connector{{
			Alias: "ad", Agent: "dc1", Mode: planner.ModeEnforce, CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE,
			Types: []*connectorv1.ObjectType{personType(), groupType("dn:", false)}, Snapshot: &planv1.SnapshotHeader{Connector: "ad", Complete: true},
		}},
	}
	c := &in.Connectors[0]
	for i := range entitlements {
		n := wireName(teamName(i))
		c.Objects = append(c.Objects, &connectorv1.Object{Type: "team", Anchor: fmt.Sprintf("team%03d", i), Name: n, Keys: []string{"dn:" + n.Text()}})
		in.Entitlements = append(in.Entitlements, policy.Entitlement{ID: fmt.Sprintf("ad/%03d", i), Connector: "ad", Type: "team", Name: teamName(i), Authority: policy.Additive})
	}
	for i := range people {
		login := fmt.Sprintf("user%05d", i)
		d := policy.Desired{Subject: login, Accounts: []policy.Account{{
			Connector: "ad", Purpose: "normal", Type: "person", Name: accountName(login, "people"), Enabled: true, Cause: "client", Rule: "base/staff",
			Attributes: []policy.DesiredAttribute{
				{Name: "mail", Values: []string{login + "@fabrikam.example"}, Authority: policy.Enforce},
				{Name: "sn", Values: []string{login}, Authority: policy.Enforce},
				{Name: "title", Values: []string{"Clerk"}, Authority: policy.Enforce},
			},
		}}}
		for _, e := range in.Entitlements {
			d.Entitlements = append(d.Entitlements, policy.Entitled{Entitlement: e.ID, Connector: "ad", Purpose: "normal", Cause: "client", Rule: "base/staff"})
		}
		in.Desired = append(in.Desired, d)
	}
	return in
}

// BenchmarkRehearse rehearses the onboarding of such a tenant and its way back.
func BenchmarkRehearse(b *testing.B) {
	in := company(10_000, 20)
	for i := range in.Desired {
		in.Desired[i].Accounts[0].Cause = "msp"
		for j := range in.Desired[i].Entitlements {
			in.Desired[i].Entitlements[j].Cause = "msp"
		}
	}
	for b.Loop() {
		if r, problems := Rehearse(in); r.GetVerdict() != planv1.Rehearsal_VERDICT_ROUND_TRIP {
			b.Fatal(problems)
		}
	}
}
