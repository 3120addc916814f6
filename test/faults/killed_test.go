package faults_test

import (
	"maps"
	"math/rand/v2"
	"testing"
	"time"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

func TestNothingBreaks(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Bin: bin})
	w := r.Watch()
	r.Applied(r.CarryOut())
	r.Provisioned(r.Estate.People())
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	w.Once()
	r.Offboard(nil)
}

// The control plane is killed at any moment from the approval to the last
// record. What it acknowledged is there when it comes back, and each approved
// plan comes to its end once.
func TestControlPlaneIsKilledMidOrder(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(8)
	e.Cost = 8 // slow enough that an order can be met in the middle
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	w := r.Watch()
	settled := func(s *operatorv1.PlanState) uint32 { return s.GetApplied() + s.GetAlready() }
	points := map[string]func(p *operatorv1.Plan){
		"while it is approved": func(p *operatorv1.Plan) {
			approved := make(chan struct{})
			go func() {
				defer close(approved)
				r.TryApprove(p)
			}()
			pause(30 * time.Millisecond)
			r.ControlPlane.Kill()
			<-approved
		},
		"right after approval": func(p *operatorv1.Plan) { r.Approve(p); r.ControlPlane.Kill() },
		"after the fetch": func(p *operatorv1.Plan) {
			r.Approve(p)
			rig.Until(t, "the agent has the order", func() (bool, string) { return r.AgentHas(p), r.Agent.Log() })
			r.ControlPlane.Kill()
		},
		"while records ship": func(p *operatorv1.Plan) {
			r.Approve(p)
			rig.Until(t, "first records have come", func() (bool, string) { return settled(r.Show(p.GetId()).GetState()) > 0, "" })
			r.ControlPlane.Kill()
		},
		"at any moment": func(p *operatorv1.Plan) { r.Approve(p); pause(700 * time.Millisecond); r.ControlPlane.Kill() },
	}
	for range 2 {
		for when, kill := range points {
			t.Logf("killed %s", when)
			p := provision(t, r)
			kill(p)
			r.StartControlPlane()
			if r.Show(p.GetId()).GetState().GetPhase() == operatorv1.PlanState_PHASE_WAITING {
				// The approval was not acknowledged, and did not happen.
				r.Approve(p)
			}
			// A session that was cut often is dialled ever more slowly: begin anew.
			r.Agent.Stop()
			r.Agent.Start()
			r.Applied(r.Ended(p.GetId()))
			r.Provisioned(r.Estate.People())
		}
	}
	w.Once()
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}

// provision hires people unless some wait already, and plans what they need.
func provision(t *testing.T, r *rig.Rig) *operatorv1.Plan {
	t.Helper()
	if _, begun := r.Estate.Accounts(t)[r.Estate.People()[0]]; begun {
		r.Estate.Hire(t, 5)
		r.Observe()
	}
	p := r.Plan()
	if p.GetState().GetTotal() == 0 {
		t.Fatal("nothing to do")
	}
	return p
}

// pause waits for a random part of most: faults come at no particular moment.
func pause(most time.Duration) { time.Sleep(rand.N(most)) }

// The agent is killed again and again in the middle of orders of some hundred
// changes, with its connectors and without them.
func TestAgentIsKilledMidOrder(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(80)
	e.Cost = 8
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	w := r.Watch()
	p := r.Plan()
	r.Approve(p)
	// How often the agent died in the middle of an order.
	met := 0
	for kill := range 16 {
		pause(900 * time.Millisecond)
		if kill%2 == 0 {
			r.Agent.Kill()
		} else {
			// The connectors may be in the middle of a change, and on their own.
			r.Agent.KillAlone()
		}
		if s := r.Show(p.GetId()).GetState(); s.GetPhase() == operatorv1.PlanState_PHASE_RUNNING {
			met++
		}
		r.Agent.Start()
		if s := r.Show(p.GetId()).GetState(); s.GetPhase() == operatorv1.PlanState_PHASE_ENDED && kill < 15 {
			r.Applied(r.Show(p.GetId()))
			r.Estate.Hire(t, 40)
			r.Observe()
			p = r.Plan()
			r.Approve(p)
		}
	}
	r.Applied(r.Ended(p.GetId()))
	if t.Logf("killed %d times in the middle of an order", met); met == 0 {
		t.Error("no order was ever met in the middle: make them slower")
	}
	w.Once()
	r.Provisioned(r.Estate.People())
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}

// The agent is killed as soon as a target shows an effect, when its receipt is
// not written yet: whoever comes back reads the target first.
func TestAgentIsKilledAfterEachEffect(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Bin: bin, Estate: rig.NewEstate(6)})
	w := r.Watch()
	kills := 0
	for range 4 {
		p := provision(t, r)
		before := r.Estate.Files(t)
		r.Approve(p)
		// A password cannot be read back: it is set again after each kill, and whoever
		// goes on killing at that keeps the order from ever ending.
		for n := 0; n < 6 && r.Show(p.GetId()).GetState().GetPhase() == operatorv1.PlanState_PHASE_RUNNING; n++ {
			deadline := time.Now().Add(2 * time.Second)
			now := r.Estate.Files(t)
			for maps.Equal(now, before) && time.Now().Before(deadline) {
				time.Sleep(time.Millisecond)
				now = r.Estate.Files(t)
			}
			if maps.Equal(now, before) {
				break // the last one was met
			}
			r.Agent.Kill()
			kills++
			before = r.Estate.Files(t)
			r.Agent.Start()
		}
		r.Applied(r.Ended(p.GetId()))
		r.Provisioned(r.Estate.People())
	}
	if t.Logf("killed after %d effects", kills); kills < 8 {
		t.Errorf("only %d effects were met", kills)
	}
	w.Once()
	r.Passwords(r.OneRecordAChange(), r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}
