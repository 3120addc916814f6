package rig

import (
	"encoding/hex"
	"encoding/json"
	"strings"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// Plan makes a plan and waits until the agent's guardrails were asked.
func (r *Rig) Plan() *operatorv1.Plan {
	r.T.Helper()
	var made operatorv1.MakePlanResponse
	r.Ask(&made, "plan", "make", Tenant)
	return r.Tried(made.GetPlan().GetId())
}

// Tried waits until the agent's guardrails were asked about a plan.
func (r *Rig) Tried(id string) *operatorv1.Plan {
	r.T.Helper()
	var p *operatorv1.Plan
	Until(r.T, "the guardrails were asked about "+id, func() (bool, string) {
		p = r.Show(id)
		return p.GetDryRunDone() || p.GetState().GetTotal() == 0, p.GetBlocked() + "\n" + tail(r.Agent.Log())
	})
	if len(p.GetRefusals()) > 0 {
		r.T.Fatalf("plan %s is refused: %v", id, p.GetRefusals())
	}
	return p
}

// Show is a plan as it stands.
func (r *Rig) Show(id string) *operatorv1.Plan {
	r.T.Helper()
	var got operatorv1.GetPlanResponse
	r.Ask(&got, "plan", "show", id)
	return got.GetPlan()
}

// Changes are a plan's changes, with receipts where there are.
func (r *Rig) Changes(id string) []*operatorv1.PlannedChange {
	r.T.Helper()
	var got operatorv1.ListChangesResponse
	r.Ask(&got, "plan", "show", id, "--changes")
	return got.GetChanges()
}

// Approve approves a plan with the digest that was shown.
func (r *Rig) Approve(p *operatorv1.Plan) {
	r.T.Helper()
	r.Do("plan", "approve", p.GetId(), "--digest", hex.EncodeToString(p.GetDigest()))
}

// TryApprove is Approve for when nobody may answer.
func (r *Rig) TryApprove(p *operatorv1.Plan) Result {
	r.T.Helper()
	return r.Try("plan", "approve", p.GetId(), "--digest", hex.EncodeToString(p.GetDigest()))
}

// AgentHas reports whether the agent has admitted the plan's order, or has
// carried it out already.
func (r *Rig) AgentHas(p *operatorv1.Plan) bool {
	r.T.Helper()
	var shown operatorv1.GetPlanResponse
	if r.ask(&shown, "plan", "show", p.GetId()).Code == 0 && shown.GetPlan().GetState().GetPhase() == operatorv1.PlanState_PHASE_ENDED {
		return true
	}
	got := r.Local("plan", "status", hex.EncodeToString(p.GetDigest()), "--config", "agent.yaml", "-o", "json")
	var list struct{ Orders []struct{ State string } }
	return got.Code == 0 && json.Unmarshal([]byte(got.Stdout), &list) == nil && len(list.Orders) > 0
}

// AgentIdle reports whether the agent has no open order.
func (r *Rig) AgentIdle() bool {
	r.T.Helper()
	got := r.Local("plan", "status", "--config", "agent.yaml", "-o", "json")
	var list struct{ Orders []struct{ State string } }
	return got.Code == 0 && json.Unmarshal([]byte(got.Stdout), &list) == nil && len(list.Orders) == 0
}

// agentStatus is what the client's administrator is told.
type agentStatus struct {
	Running     bool
	Records     int
	Spooled     int
	Obligations int
	Connectors  []struct{ Reachable bool }
}

func (r *Rig) agentStatus() (s agentStatus, ok bool) {
	r.T.Helper()
	got := r.Local("status", "--config", "agent.yaml", "-o", "json")
	err := json.Unmarshal([]byte(got.Stdout), &s)
	return s, err == nil && s.Running
}

// Spooled is how many records wait at the running agent; -1 when none runs.
func (r *Rig) Spooled() int {
	r.T.Helper()
	if s, ok := r.agentStatus(); ok {
		return s.Spooled
	}
	return -1
}

// Recorded is how many records the running agent has made in its epoch, and
// Owed how many timed removals it owes.
func (r *Rig) Recorded() int { r.T.Helper(); return r.mustRun().Records }
func (r *Rig) Owed() int     { r.T.Helper(); return r.mustRun().Obligations }

func (r *Rig) mustRun() agentStatus {
	r.T.Helper()
	s, ok := r.agentStatus()
	if !ok {
		r.T.Fatal("the agent does not run")
	}
	return s
}

// Ready waits until the agent runs and has reached all its directories.
func (r *Rig) Ready() {
	r.T.Helper()
	Until(r.T, "the agent runs", func() (bool, string) {
		// A status asked of one that is starting would wait for its folder.
		log := r.Agent.Log()
		return strings.Count(log, "--- started") == strings.Count(log, "agent runs"), log
	})
	Until(r.T, "the agent is ready", func() (bool, string) {
		s, ok := r.agentStatus()
		for _, c := range s.Connectors {
			ok = ok && c.Reachable
		}
		return ok, r.Agent.Log()
	})
}

// Ended waits until a plan has ended, over restarts of the control plane too,
// and returns it.
func (r *Rig) Ended(id string) *operatorv1.Plan {
	r.T.Helper()
	var p *operatorv1.Plan
	Until(r.T, "plan "+id+" has ended", func() (bool, string) {
		var got operatorv1.GetPlanResponse
		if answer := r.ask(&got, "plan", "show", id); answer.Code != 0 {
			return false, answer.Stderr
		}
		p = got.GetPlan()
		switch p.GetState().GetPhase() {
		case operatorv1.PlanState_PHASE_ENDED, operatorv1.PlanState_PHASE_REFUSED, operatorv1.PlanState_PHASE_REJECTED, operatorv1.PlanState_PHASE_SUPERSEDED:
			return true, ""
		}
		return false, p.GetState().String() + "\n" + tail(r.Agent.Log())
	})
	return p
}

// Applied fails the test unless everything in an ended plan was applied.
func (r *Rig) Applied(p *operatorv1.Plan) {
	r.T.Helper()
	s := p.GetState()
	if s.GetPhase() != operatorv1.PlanState_PHASE_ENDED || s.GetApplied() != s.GetTotal() {
		r.T.Fatalf("plan %s ended as %v", p.GetId(), s)
	}
}

// CarryOut makes a plan, approves it and waits for its end.
func (r *Rig) CarryOut() *operatorv1.Plan {
	r.T.Helper()
	p := r.Plan()
	if p.GetState().GetTotal() == 0 {
		r.T.Fatal("the plan is empty")
	}
	r.Approve(p)
	return r.Ended(p.GetId())
}

// Converged fails the test unless planning on what is there now finds nothing.
func (r *Rig) Converged() {
	r.T.Helper()
	r.Observe()
	if p := r.Plan(); p.GetState().GetTotal() != 0 {
		r.T.Fatalf("planning again finds %d changes: %v", p.GetState().GetTotal(), r.Changes(p.GetId()))
	}
}
