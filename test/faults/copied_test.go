package faults_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// copyState copies a state folder as a backup or a cloned disk would.
func copyState(t *testing.T, from, to string) {
	t.Helper()
	if err := os.RemoveAll(to); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("copy %s: %v: %s", from, err, out)
	}
	// Sockets do not travel.
	_ = os.Remove(filepath.Join(to, "agent.sock"))
}

// suspensions are the reasons for which the log tells that the agent was shut
// out, by kind.
func suspensions(list []rig.Entry) map[string]int {
	out := map[string]int{}
	for _, e := range list {
		if e.Header.GetType() != auditv1.Type_TYPE_SUSPENDED {
			continue
		}
		for _, d := range e.Body.GetAct().GetDetails() {
			out[d.GetName()+" "+d.GetValue()]++
		}
	}
	return out
}

// lapse takes the certificates out of a state folder, as an hour without the
// control plane does; the counter of renewals stays.
func lapse(t *testing.T, state string) {
	t.Helper()
	path := filepath.Join(state, "svid")
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var kept map[string]any
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	if kept["certificates"] == nil || kept["counter"] == nil {
		t.Fatalf("%s is not as this test takes it to be", path)
	}
	delete(kept, "certificates")
	if raw, err = json.Marshal(kept); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// The state folder is copied to a second host while it is at rest, and both run:
// whichever way they meet, neither is served any more, and the log says so.
func TestClonesAreSuspended(t *testing.T) {
	for name, meet := range map[string]struct {
		prepare func(t *testing.T, state string)
		kind    string
	}{
		"by the records they make":         {func(*testing.T, string) {}, "kind fork"},
		"by renewing the same certificate": {lapse, "kind clone"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := rig.New(t, rig.Options{Bin: bin})
			r.Applied(r.CarryOut())
			r.Agent.Stop()
			second := filepath.Join(r.Dir, "second")
			copyState(t, r.State, second)
			meet.prepare(t, r.State)
			meet.prepare(t, second)
			r.Configure("second.yaml", second)
			other := r.Another("second.yaml")
			r.Agent.Start()
			r.Connected()
			other.Start()
			rig.Until(t, "the agent is suspended", func() (bool, string) {
				return r.AgentState().GetState() == "suspended", r.AgentState().String() + r.Agent.Log() + other.Log()
			})
			for _, one := range []*rig.Process{r.Agent, other} {
				one.Stop()
				one.ForgetLog()
				one.Start()
				rig.Until(t, "it is refused with a sentence", func() (bool, string) {
					return strings.Contains(one.Log(), "suspended") || strings.Contains(one.Log(), "invite"), one.Log()
				})
			}
			if a := r.AgentState(); a.GetConnected() {
				t.Error("a suspended agent is connected")
			}
			list := r.OneRecordAChange()
			if got := suspensions(list); got[meet.kind] != 1 {
				t.Errorf("the log tells of %v, want %s once", got, meet.kind)
			}
			// What was done stands, and nothing was done since.
			r.Provisioned(r.Estate.People())
			r.Passwords(list, r.Estate.People())
		})
	}
}

// The state folder of yesterday is put back: the agent notices, runs no order,
// and goes on in a new epoch when local root says so, with everything it owes.
func TestRestoredStateIsQuarantined(t *testing.T) {
	t.Parallel()
	r := rig.New(t, rig.Options{Bin: bin})
	r.Applied(r.CarryOut())
	who := r.Estate.People()[4]
	lend(t, r, who, "45s")
	shipped(t, r)
	r.Agent.Stop()
	backup := filepath.Join(r.Dir, "backup")
	copyState(t, r.State, backup)
	r.Agent.Start()
	r.Connected()
	hired := r.Estate.Hire(t, 3)
	r.Observe()
	r.Applied(r.CarryOut())
	late := r.Estate.People()[5]
	lend(t, r, late, "45s")
	shipped(t, r)
	r.Estate.Hire(t, 1)
	r.Observe()
	waiting := r.Plan()
	files := r.Estate.Files(t)
	r.Agent.Stop()
	copyState(t, backup, r.State)
	r.Agent.Start()
	rig.Until(t, "the agent is in quarantine", func() (bool, string) {
		got := r.Local("status", "--config", "agent.yaml", "-o", "json")
		var s struct{ Quarantined string }
		_ = json.Unmarshal([]byte(got.Stdout), &s)
		return got.Code == 5 && s.Quarantined != "", got.Stdout + r.Agent.Log()
	})
	// An order that comes now is not begun, at the next start either.
	r.Approve(waiting)
	r.Agent.Stop()
	r.Agent.Start()
	r.Connected()
	if now := r.Estate.Files(t); now["htpasswd"] != files["htpasswd"] {
		t.Error("an agent in quarantine has done something")
	}
	r.Agent.Stop()
	if got := r.Local("recover", "--config", "agent.yaml"); got.Code != 0 {
		t.Fatalf("recover: %d %s", got.Code, got.Stderr)
	}
	r.Agent.Start()
	r.Connected()
	// It was for the epoch that is over.
	if got := r.Ended(waiting.GetId()).GetState(); got.GetApplied() != 0 {
		t.Errorf("the order of the old epoch ended as %v", got)
	}
	if a := r.AgentState(); a.GetEpoch() != 2 || a.GetState() != "active" {
		t.Errorf("the agent is %s in epoch %d", a.GetState(), a.GetEpoch())
	}
	// What it owed when the copy was made it knows itself. What it accepted later
	// it has forgotten; the control plane has not.
	ends(t, r, who)
	rig.Until(t, "the later grant has ended too", func() (bool, string) {
		var grants operatorv1.ListGrantsResponse
		r.Ask(&grants, "grant", "list", rig.Tenant)
		for _, g := range grants.GetGrants() {
			if time.Now().Before(g.GetEnds().AsTime()) {
				return false, g.String()
			}
		}
		return true, ""
	})
	r.Observe()
	p := r.Plan()
	r.Approve(p)
	if got := r.Ended(p.GetId()); got.GetState().GetPhase() != operatorv1.PlanState_PHASE_ENDED || got.GetState().GetApplied() != got.GetState().GetTotal() {
		t.Errorf("in the new epoch the plan ended as %v", got.GetState())
	}
	shipped(t, r)
	list := r.OneRecordAChange()
	if got := settled(list); got["removed"] != 1 || admin(t, r, late) {
		t.Errorf("the log tells of ends %v; %s is still in admins: %v", got, late, admin(t, r, late))
	}
	r.Provisioned(r.Estate.People())
	r.Passwords(list, hired)
	r.Converged()
	r.Offboard(nil)
}
