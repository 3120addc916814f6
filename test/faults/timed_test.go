package faults_test

import (
	"slices"
	"strings"
	"testing"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/rig"
)

// lend gives somebody the group admins for a time and waits until it is there.
func lend(t *testing.T, r *rig.Rig, login, valid string) {
	t.Helper()
	r.Do("grant", "add", rig.Tenant, "--identity", login, "--entitlement", "web/admins", "--for", valid, "--reason", "restore a share", "--ticket", "T-1042")
	r.Applied(r.CarryOut())
	if !admin(t, r, login) {
		t.Fatalf("%s is not in admins after the plan", login)
	}
}

func admin(t *testing.T, r *rig.Rig, login string) bool {
	t.Helper()
	return slices.Contains(r.Estate.Members(t)["admins"], login)
}

// ends waits until the access is gone from the file.
func ends(t *testing.T, r *rig.Rig, login string) {
	t.Helper()
	rig.Until(t, "the timed access has ended", func() (bool, string) { return !admin(t, r, login), r.Agent.Log() })
}

// settled counts the ends of timed access in the log, by outcome.
func settled(list []rig.Entry) map[string]int {
	out := map[string]int{}
	for _, e := range list {
		if e.Header.GetType() == auditv1.Type_TYPE_OBLIGATION_SETTLED {
			out[e.Body.GetObligation().GetOutcome()]++
		}
	}
	return out
}

// shipped waits until the agent's records have all come, for as long as some do.
func shipped(t *testing.T, r *rig.Rig) {
	t.Helper()
	for waiting := r.Spooled(); waiting != 0; {
		rig.Until(t, "the agent's records have come", func() (bool, string) {
			n := r.Spooled()
			fewer := n >= 0 && (n < waiting || waiting < 0)
			if fewer {
				waiting = n
			}
			return fewer, r.Agent.Log()
		})
	}
}

// Timed access ends though the control plane is away and the agent was killed
// and started again in between.
func TestTimedAccessEndsAlone(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Bin: bin})
	r.Applied(r.CarryOut())
	w := r.Watch()
	who := r.Estate.People()[1]
	lend(t, r, who, "12s")
	r.ControlPlane.Kill()
	r.Agent.Kill()
	r.Agent.Start()
	ends(t, r, who)
	r.StartControlPlane()
	r.Agent.Stop()
	r.Agent.Start()
	r.Connected()
	shipped(t, r)
	if got := settled(r.OneRecordAChange()); len(got) != 1 || got["removed"] != 1 {
		t.Errorf("the log tells of ends %v", got)
	}
	w.Once()
	if n := w.Went(who, "admins"); n != 1 {
		t.Errorf("%s was seen to leave admins %d times", who, n)
	}
	r.Converged()
	r.Offboard(nil)
}

// A client that has paused its agent takes no orders, and access that was lent
// ends all the same.
func TestTimedAccessEndsWhilePaused(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Bin: bin})
	r.Applied(r.CarryOut())
	w := r.Watch()
	who := r.Estate.People()[2]
	lend(t, r, who, "12s")
	if got := r.Local("pause", "--config", "agent.yaml", "--reason", "audit week"); got.Code != 0 {
		t.Fatal(got.Stderr)
	}
	r.Agent.Kill()
	r.Agent.Start()
	ends(t, r, who)
	// And nothing else happens: an order that comes now is refused with the
	// client's reason.
	hired := r.Estate.Hire(t, 1)
	r.Observe()
	p := r.Plan()
	r.TryApprove(p)
	if got := r.Ended(p.GetId()); got.GetState().GetApplied() != 0 {
		t.Errorf("a paused agent carried out %v", got.GetState())
	}
	shipped(t, r)
	list := r.OneRecordAChange()
	if got := settled(list); len(got) != 1 || got["removed"] != 1 {
		t.Errorf("the log tells of ends %v", got)
	}
	said := false
	for _, e := range list {
		said = said || e.Header.GetType() == auditv1.Type_TYPE_ORDER_REFUSED && strings.Contains(e.Body.GetRefusal().GetSentence(), "audit week")
	}
	if !said {
		t.Error("no record says that the order was refused because of the pause")
	}
	w.Once()
	if got := r.Local("resume", "--config", "agent.yaml"); got.Code != 0 {
		t.Fatal(got.Stderr)
	}
	r.Applied(r.CarryOut())
	r.Provisioned(append(r.Estate.People()[:12], hired...))
	r.Offboard(nil)
}
