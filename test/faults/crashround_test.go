package faults_test

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// kill is one round: a plan, what happens to it, its end and the account.
func (c *crash) kill(victim string) {
	c.t.Helper()
	if strings.HasPrefix(victim, "control") {
		// A session that was cut often is dialled ever more slowly: begin anew.
		c.r.Agent.Stop()
		c.r.Agent.Start()
		c.r.Connected()
	}
	touched, made := c.change()
	p := c.plan()
	w := watchEffects(c.t, c.e, c.server)
	switch victim {
	case agentAlone, agentAndAll, connector, controlPlane:
		c.killAtCall(victim, p)
	default:
		c.killAnywhen(victim, p)
	}
	c.finish(p)
	w.once(touched, made)
	if c.t.Failed() {
		c.t.Logf("in round %d: %s", c.round, victim)
	}
}

// killAtCall kills at a system call while the plan runs, and every other time
// again while the process recovers.
func (c *crash) killAtCall(victim string, p *operatorv1.Plan) {
	c.t.Helper()
	at := c.walks[victim].next(c.random)
	pids := []int{c.r.Agent.PID()}
	switch victim {
	case connector:
		pids = c.connectors()
	case controlPlane:
		pids = []int{c.r.ControlPlane.PID()}
	}
	children := rig.Descendants(c.r.Agent.PID())
	var tracers []*tracer
	for i, pid := range pids {
		tracers = append(tracers, attach(c.t, fmt.Sprintf("%s.%d", c.log, i), at.kill(), pid))
	}
	approved := c.r.TryApprove(p)
	if approved.Code != 0 && victim != controlPlane {
		c.t.Fatalf("approve: %s", approved.Stderr)
	}
	var dead *tracer
	died := func() bool {
		for _, tr := range tracers {
			if tr.died() {
				dead = tr
				return true
			}
		}
		return false
	}
	midway := c.diesFirst(p, died)
	if midway && victim == agentAndAll {
		end(children)
	}
	for _, tr := range tracers {
		if tr != dead && tr.detach() {
			// Another one as well, or just after the plan's end.
			if dead != nil {
				c.note(victim, tr.log, at)
			}
			dead = tr
		}
	}
	if dead == nil {
		c.f.with(func() { c.f.spared[victim]++ })
		c.settleApproval(p, approved)
		return
	}
	c.note(victim, dead.log, at)
	if !midway && victim == agentAndAll {
		end(children)
	}
	if midway {
		c.f.with(func() { c.f.midway[victim]++ })
	}
	began := time.Now()
	switch victim {
	case connector:
		// The agent runs on and starts it again.
	case controlPlane:
		c.r.ControlPlane.KillAlone()
		c.killAgain(controlStarting, c.r.ControlPlane, p)
		began = time.Now()
		c.r.StartControlPlane()
		c.settleApproval(p, approved)
	default:
		c.r.Agent.KillAlone()
		c.killAgain(agentStarting, c.r.Agent, p)
		began = time.Now()
		c.r.Agent.Start()
	}
	c.recovered(victim, p, began)
}

// settleApproval approves again what was not acknowledged; what was, must stand.
func (c *crash) settleApproval(p *operatorv1.Plan, approved rig.Result) {
	c.t.Helper()
	if c.phase(p) != operatorv1.PlanState_PHASE_WAITING {
		return
	}
	if approved.Code == 0 {
		c.t.Errorf("the approval of plan %s was acknowledged and is lost", p.GetId())
	}
	c.r.Approve(p)
}

// killAgain kills a process while it recovers, up to five times in a row: at a
// call under strace, and at random moments.
func (c *crash) killAgain(victim string, process *rig.Process, p *operatorv1.Plan) {
	c.t.Helper()
	if c.random.IntN(2) == 0 {
		c.killStarting(victim, process, p)
	}
	for range c.random.IntN(5) {
		process.Start()
		time.Sleep(time.Duration(c.random.Int64N(int64(250 * time.Millisecond))))
		open := c.phase(p) != operatorv1.PlanState_PHASE_ENDED
		process.KillTree()
		c.f.with(func() {
			if c.f.kills[victim+", at random"]++; open {
				c.f.midway[victim+", at random"]++
			}
		})
	}
}

// killStarting starts a process under strace, to be killed at a call of its
// recovery. It may do all that is left to do before.
func (c *crash) killStarting(victim string, process *rig.Process, p *operatorv1.Plan) {
	c.t.Helper()
	at := c.walks[victim].next(c.random)
	if err := os.Remove(c.log); err != nil && !os.IsNotExist(err) {
		c.t.Fatal(err)
	}
	process.StartUnder("strace", traceArgs(c.log, at.kill())...)
	killed := func() bool { return process.Ended() || traceKilled(c.log) }
	c.diesFirst(p, func() bool {
		if victim == controlStarting && c.phase(p) == operatorv1.PlanState_PHASE_WAITING {
			c.r.TryApprove(p)
		}
		return killed()
	})
	died := killed()
	// What runs on is killed with it, wherever it is.
	process.KillTree()
	if died {
		c.note(victim, c.log, at)
		c.f.with(func() { c.f.midway[victim]++ })
	} else {
		c.f.with(func() { c.f.spared[victim]++ })
	}
}

func traceKilled(log string) bool {
	raw, err := os.ReadFile(log)
	return err == nil && strings.Contains(string(raw), "+++ killed by SIGKILL")
}

// note counts a kill and the call it came at.
func (c *crash) note(victim, log string, at point) {
	c.t.Helper()
	list, err := calls(log)
	if err != nil {
		c.t.Fatal(err)
	}
	in, found := met(list, at)
	if !found {
		c.t.Errorf("%s died, and not at %s", victim, at)
	}
	c.f.at(victim, at, in)
}

// diesFirst waits for a death or for the plan's end, and says whether it was a
// death.
func (c *crash) diesFirst(p *operatorv1.Plan, dead func() bool) (died bool) {
	c.t.Helper()
	n := 0
	rig.Until(c.t, "the plan ends or the process dies", func() (bool, string) {
		for range 8 {
			if dead() {
				died = true
				return true, ""
			}
			time.Sleep(3 * time.Millisecond)
		}
		n++
		return c.phase(p) == operatorv1.PlanState_PHASE_ENDED, c.r.Agent.Log()
	})
	return died
}

// killAnywhen kills after a random time.
func (c *crash) killAnywhen(victim string, p *operatorv1.Plan) {
	c.t.Helper()
	running := c.connectors()
	approved := make(chan rig.Result, 1)
	go func() { approved <- c.r.TryApprove(p) }()
	time.Sleep(time.Duration(c.random.Int64N(int64(200 * time.Millisecond))))
	switch victim {
	case agentAnywhen:
		c.r.Agent.KillAlone()
	case agentAllAnywhen:
		c.r.Agent.Kill()
	case connectorAnywhen:
		_ = syscall.Kill(running[c.random.IntN(len(running))], syscall.SIGKILL)
	case controlAnywhen:
		c.r.ControlPlane.KillAlone()
	}
	answer := <-approved
	c.f.with(func() { c.f.kills[victim]++ })
	if victim != controlAnywhen && c.phase(p) == operatorv1.PlanState_PHASE_RUNNING {
		c.f.with(func() { c.f.midway[victim]++ })
	}
	began := time.Now()
	switch victim {
	case agentAnywhen, agentAllAnywhen:
		c.r.Agent.Start()
	case controlAnywhen:
		c.r.StartControlPlane()
		if s := c.phase(p); s == operatorv1.PlanState_PHASE_RUNNING || s == operatorv1.PlanState_PHASE_WAITING {
			c.f.with(func() { c.f.midway[victim]++ })
		}
	}
	c.settleApproval(p, answer)
	c.recovered(victim, p, began)
}

// recovered waits for the plan's end and measures how long it took.
func (c *crash) recovered(victim string, p *operatorv1.Plan, began time.Time) {
	c.t.Helper()
	c.r.Applied(c.r.Ended(p.GetId()))
	d := time.Since(began)
	c.f.with(func() { c.f.recovered[victim] = append(c.f.recovered[victim], d) })
}
