package faults_test

import (
	"testing"
	"time"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/rig"
)

// The connection breaks after so many bytes either way, again right after it was
// made anew, is closed on one side, or hangs before it breaks: while the agent
// observes, is told to try a plan, fetches its order, reports and ships.
func TestConnectionIsCut(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	e := rig.NewEstate(6)
	e.Cost = 7
	r := rig.New(t, rig.Options{Bin: bin, Estate: e, Through: through})
	w := r.Watch()
	// What one whole round takes, when nothing breaks.
	var whole [2]int64
	before := [2]int64{p.passed[up].Load(), p.passed[down].Load()}
	r.Applied(r.CarryOut())
	for d := range whole {
		whole[d] = p.passed[d].Load() - before[d]
	}
	broke := 0
	const rounds = 12
	for n := range rounds {
		r.Estate.Hire(t, 6)
		d := direction(n % 2)
		at := whole[d] * int64(n/2+1) / (rounds/2 + 1)
		faults := []fault{
			{direction: d, after: at, half: n%3 == 1, stall: time.Duration(n%3/2) * time.Second},
			{direction: 1 - d, after: 500 + whole[1-d]*int64(n)/rounds},
		}
		// From the observation on in one round, from the approval on in the next.
		if n%4 < 2 {
			p.breakNext(faults...)
		}
		r.Observe()
		plan := r.Plan()
		if n%4 >= 2 {
			p.breakNext(faults...)
		}
		r.Approve(plan)
		// Whoever waits for the next try waits ever longer: begin anew.
		pause(2 * time.Second)
		broke += len(faults) - p.pending()
		p.forgive()
		r.Agent.Stop()
		r.Agent.Start()
		r.Applied(r.Ended(plan.GetId()))
		r.Provisioned(r.Estate.People())
	}
	if t.Logf("%d connections broke", broke); broke < rounds/2 {
		t.Errorf("only %d connections broke in %d rounds", broke, rounds)
	}
	w.Once()
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}

// An agent that carried its order out while the control plane was away is told
// of the order again when it is back, and ships what it had shipped before when
// it starts anew: neither has an effect, or leaves a record, a second time.
func TestDeliveredAgainAfterItsEnd(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	e := rig.NewEstate(10)
	e.Cost = 10
	r := rig.New(t, rig.Options{Bin: bin, Estate: e, Through: through})
	w := r.Watch()
	plan := r.Plan()
	r.Approve(plan)
	rig.Until(t, "the agent has the order", func() (bool, string) { return r.AgentHas(plan), r.Agent.Log() })
	r.ControlPlane.Kill()
	rig.Until(t, "the agent has ended the order by itself", func() (bool, string) {
		return len(r.Estate.Members(t)["staff"]) == len(r.Estate.People())+1 && r.AgentIdle(), r.Agent.Log()
	})
	files := r.Estate.Files(t)
	// What goes up is held back, so that the order is told again before its end
	// can be known.
	p.breakNext(fault{direction: up, after: 20_000, stall: time.Second}, fault{direction: up, after: 25_000})
	r.StartControlPlane()
	r.Agent.Stop()
	r.Agent.Start()
	r.Applied(r.Ended(plan.GetId()))
	count := func() (receipts, starts int) {
		for _, entry := range r.OneRecordAChange() {
			switch entry.Header.GetType() {
			case auditv1.Type_TYPE_RECEIPT:
				receipts++
			case auditv1.Type_TYPE_AGENT_STARTED:
				starts++
			}
		}
		return receipts, starts
	}
	receipts, starts := count()
	if receipts != int(plan.GetState().GetTotal()) {
		t.Errorf("%d receipts for %d changes", receipts, plan.GetState().GetTotal())
	}
	// Everything once more, from a journal that does not know what was proven.
	for range 3 {
		r.Agent.Kill()
		r.ControlPlane.Kill()
		r.StartControlPlane()
		r.Agent.Start()
		r.Connected()
		r.Observe()
		starts++
		rig.Until(t, "the records have come again", func() (bool, string) { _, n := count(); return n == starts, r.Agent.Log() })
	}
	if again, _ := count(); again != receipts {
		t.Errorf("%d receipts became %d", receipts, again)
	}
	for name, now := range r.Estate.Files(t) {
		if now != files[name] {
			t.Errorf("%s was changed again", name)
		}
	}
	w.Once()
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}
