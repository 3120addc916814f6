package faults_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/test/rig"
)

// A revoked agent's live connections are cut, and it stays out when the control
// plane and it begin anew.
func TestRevokedAgentIsCut(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	r := rig.New(t, rig.Options{Bin: bin, Through: through})
	r.Applied(r.CarryOut())
	r.Connected()
	live := p.links()
	if len(live) == 0 {
		t.Fatal("no connection is open")
	}
	r.Do("agent", "revoke", rig.Tenant, "dc1", "--reason", "the host was stolen")
	since := time.Now()
	for _, k := range live {
		select {
		case <-k.gone:
		case <-time.After(time.Minute):
			t.Fatal("a live connection of the revoked agent was not cut")
		}
	}
	t.Logf("cut after %v", time.Since(since).Round(time.Millisecond))
	refused := func() {
		rig.Until(t, "the agent is refused with a sentence", func() (bool, string) {
			return strings.Contains(r.Agent.Log(), "revoked"), r.Agent.Log()
		})
		if a := r.AgentState(); a.GetState() != "revoked" || a.GetConnected() {
			t.Errorf("the agent is %s, connected %v", a.GetState(), a.GetConnected())
		}
	}
	refused()
	r.ControlPlane.Kill()
	r.StartControlPlane()
	r.Agent.Stop()
	r.Agent.ForgetLog()
	r.Agent.Start()
	refused()
	// Nothing more is asked of it, and what it did before still stands proven.
	r.Estate.Hire(t, 1)
	if made := r.Try("plan", "make", rig.Tenant); made.Code == 0 {
		if len(r.Estate.Accounts(t)) != len(r.Estate.People())+1 {
			t.Error("a revoked agent has done something")
		}
	}
	r.Passwords(r.OneRecordAChange(), r.Estate.People()[:12])
}
