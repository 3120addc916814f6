package wall

import (
	"fmt"
	"time"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// plans makes one that is refused and rejected, one whose changes are done and
// whose order has not ended, and one that waits.
func (w *world) plans(e *estate, people []*connectorv1.Object) error {
	refusals := []*auditv1.Refusal{{Code: "GUARDRAIL", Rule: e.word("rule"), Sentence: e.word("refusal")}}
	p, err := w.tried(e, refusals)
	if err != nil {
		return err
	}
	if _, err := w.operator("Plan", "RejectPlan", &operatorv1.RejectPlanRequest{Plan: p.GetId(), Reason: e.word("reject reason")}); err != nil {
		return err
	}
	if p, err = w.tried(e, nil); err != nil {
		return err
	}
	if _, err := w.operator("Plan", "ApprovePlan", &operatorv1.ApprovePlanRequest{Plan: p.GetId(), Digest: p.GetDigest(), Reason: e.word("approve reason")}); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); e.order == ""; time.Sleep(20 * time.Millisecond) {
		told, err := e.main.must("Session", e.main.hello())
		if err != nil {
			return err
		}
		for _, m := range told {
			if order := m.(*agentv1.SessionResponse).GetFetch().GetOrder(); order != "" {
				e.order = order
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no order came for %s", e.tenant)
		}
	}
	got, err := w.operator("Plan", "ListChanges", &operatorv1.ListChangesRequest{Plan: p.GetId()})
	if err != nil {
		return err
	}
	for i, c := range got[0].(*operatorv1.ListChangesResponse).GetChanges() {
		r := &auditv1.Receipt{
			Order: e.order, Change: c.GetChange().GetId(), Connector: c.GetChange().GetConnector(), Result: auditv1.Receipt_RESULT_APPLIED,
			Operation: c.GetChange().GetOperation().Kind(), Type: c.GetChange().GetOperation().GetObject().GetType(), Cause: c.GetChange().GetCause(),
			Anchor: c.GetChange().GetOperation().GetObject().GetAnchor(), Problem: e.problem("receipt"),
		}
		if r.GetAnchor() == "" {
			r.Anchor = e.word(fmt.Sprint("made ", i))
			r.After = &auditv1.Touched{Exists: true, Keys: []string{"dn:uid=" + e.word("made key")}}
		}
		if c.GetChange().GetOperation().GetCreate() != nil {
			e.change, e.receipt = r.GetChange(), r
		}
		if err := e.main.ship(auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: r}}); err != nil {
			return err
		}
	}
	if e.receipt == nil {
		return fmt.Errorf("the plan for %s creates nothing", e.tenant)
	}
	if err := e.main.ship(auditv1.Type_TYPE_ORDER_ADMITTED, &auditv1.Body{Body: &auditv1.Body_Order{Order: &auditv1.OrderEvent{Order: e.order, GuardrailsDigest: e.word("guardrails in record")}}}); err != nil {
		return err
	}
	var acts []*auditv1.Body
	for range e.more {
		acts = append(acts, act(e.word("verb"), e.word("act object"), e.word("act reason"), &auditv1.Act_Detail{Name: e.word("detail name"), Value: e.word("detail value")}))
	}
	if err := e.main.ship(auditv1.Type_TYPE_AGENT_STARTED, acts...); err != nil {
		return err
	}
	if _, err := e.main.must("PushObservations", snapshot("hr", e.word("second snapshot"), "hr", e.word("method"), []*connectorv1.Problem{e.problem("snapshot")}, append(people, e.person(3))...)...); err != nil {
		return err
	}
	if p, err = w.tried(e, refusals); err != nil {
		return err
	}
	e.plan, e.digest = p.GetId(), p.GetDigest()
	return nil
}

// tried makes a plan with changes and has the agent answer the dry run.
func (w *world) tried(e *estate, refusals []*auditv1.Refusal) (*operatorv1.Plan, error) {
	got, err := w.operator("Plan", "MakePlan", &operatorv1.MakePlanRequest{Tenant: e.tenant, Purpose: planv1.Purpose_PURPOSE_CHANGE})
	if err != nil {
		return nil, err
	}
	p := got[0].(*operatorv1.MakePlanResponse).GetPlan()
	if p.GetState().GetTotal() == 0 {
		return nil, fmt.Errorf("the plan for %s is empty: %v", e.tenant, p.GetFindings())
	}
	_, err = e.main.must("ReportProgress", &agentv1.ReportProgressRequest{DryRun: p.GetDigest(), Refusals: refusals, GuardrailsDigest: e.word("guardrails")})
	return p, err
}
