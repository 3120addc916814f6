package dispatch_test

import (
	"context"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Whatever becomes of an agent, the plans that it was sent come to an end.
func TestNoPlanRunsForEver(t *testing.T) {
	fetch := func(d *desk) {
		if _, err := d.Fetch(context.Background(), "fabrikam", "dc1", d.pending("dc1")[0]); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		before func(d *desk)
		stays  bool
	}{
		{name: "nothing happened", before: func(*desk) {}, stays: true},
		{name: "expired and never fetched", before: func(d *desk) { d.now = d.now.Add(25 * time.Hour) }},
		{name: "fetched and still running", before: func(d *desk) { fetch(d); d.now = d.now.Add(25 * time.Hour) }, stays: true},
		{name: "agent revoked", before: func(d *desk) { fetch(d); delete(d.agents, "dc1") }},
		{name: "agent lost its journal", before: func(d *desk) { fetch(d); d.agents["dc1"] = 2 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, false)
			p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
			d.send(p, "dc1")
			c.before(d)
			for range 2 {
				if err := d.Tend(context.Background()); err != nil {
					t.Fatal(err)
				}
			}
			running := d.phase(p) == operatorv1.PlanState_PHASE_RUNNING
			if running != c.stays || (len(d.pending("dc1")) > 0) != c.stays {
				t.Fatalf("plan is %v, pending %v", d.phase(p), d.pending("dc1"))
			}
			if last := d.log.acts[len(d.log.acts)-1]; (last == auditv1.Type_TYPE_ORDER_SUPERSEDED) == c.stays {
				t.Fatalf("last on record: %v", last)
			}
		})
	}
}

// An approval whose sending was cut off is taken up again; one that nobody can
// carry out any more ends, and keeps no other waiting.
func TestApprovedPlansAreSentOrEnd(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	approve := func(agent string) (id string, phase func() operatorv1.PlanState_Phase) {
		p := d.plan(planv1.Purpose_PURPOSE_URGENT, agent)
		if err := d.DryRan(ctx, "fabrikam", agent, p.Digest, "g", nil); err != nil {
			t.Fatal(err)
		}
		if err := d.approval.Approve(ctx, p.ID, p.Digest, "operator:ola", ""); err != nil {
			t.Fatal(err)
		}
		return p.ID, func() operatorv1.PlanState_Phase { return d.phase(p) }
	}
	_, gone := approve("dc1")
	_, there := approve("dc2")
	delete(d.agents, "dc1")
	if err := d.Tend(ctx); err != nil {
		t.Fatal(err)
	}
	if gone() != operatorv1.PlanState_PHASE_SUPERSEDED || there() != operatorv1.PlanState_PHASE_RUNNING {
		t.Fatalf("of an ended agent: %v, of another: %v", gone(), there())
	}
}

// A receipt counts for the change that its agent was sent, as it was planned.
func TestReceiptsOfWhatWasNotPlannedMoveNothing(t *testing.T) {
	d := open(t, false)
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1", "dc2")
	d.send(p, "dc1", "dc2")
	good := func() *auditv1.Receipt {
		return &auditv1.Receipt{
			Order: d.pending("dc1")[0], Change: "c1-dc1", Connector: "corp", Anchor: "a",
			Operation: connectorv1.OperationKind_OPERATION_KIND_DISABLE, Result: auditv1.Receipt_RESULT_APPLIED,
		}
	}
	for _, c := range []struct {
		name          string
		tenant, agent string
		change        func(r *auditv1.Receipt)
		ok            bool
		planned       bool
	}{
		{name: "as planned", ok: true, planned: true},
		{name: "under no order: its own doing", change: func(r *auditv1.Receipt) { r.Order = "leave" }, ok: true},
		{name: "another tenant's order is none", tenant: "contoso", ok: true},
		{name: "another agent's order", agent: "dc2"},
		{name: "another agent's change", change: func(r *auditv1.Receipt) { r.Change = "c1-dc2" }},
		{name: "no change of the plan", change: func(r *auditv1.Receipt) { r.Change = "c9" }},
		{name: "another connector", change: func(r *auditv1.Receipt) { r.Connector = "erp" }},
		{name: "another operation", change: func(r *auditv1.Receipt) { r.Operation = connectorv1.OperationKind_OPERATION_KIND_DELETE }},
		{name: "another object", change: func(r *auditv1.Receipt) { r.Anchor = "b" }},
	} {
		tenant, agent, r := "fabrikam", "dc1", good()
		if c.tenant != "" {
			tenant = c.tenant
		}
		if c.agent != "" {
			agent = c.agent
		}
		if c.change != nil {
			c.change(r)
		}
		if err := d.db.View(context.Background(), func(t tx.Tx) error {
			change, ok, err := d.Change(t, tenant, agent, r)
			if ok != c.ok || (change != nil) != c.planned {
				d.t.Errorf("%s: %v, %v", c.name, change, ok)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if !c.planned {
			d.received(tenant, agent, auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: r}})
		}
	}
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		state, err := d.State(t, p)
		if state.GetApplied() != 0 {
			d.t.Errorf("%d changes count as applied", state.GetApplied())
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

// Only an agent that a plan has changes for is asked about it.
func TestOthersAreNotAskedAboutAPlan(t *testing.T) {
	d := open(t, false)
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	refusals := []*auditv1.Refusal{{Code: "GUARDRAIL", Sentence: "I say no"}}
	if err := d.DryRan(context.Background(), "fabrikam", "dc2", p.Digest, "g", refusals); err == nil {
		t.Fatal("an agent without a part in the plan refused it")
	}
}
