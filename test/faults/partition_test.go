package faults_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/root"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/clock"
	"github.com/reevehq/reeve/test/rig"
)

// promised is how long after its end timed access may last (SECURITY.md).
const promised = 60 * time.Second

// clocked makes a rig whose agent and control plane go by a clock of the test's,
// with the proxy between them.
func clocked(t *testing.T, e *rig.Estate) (*rig.Rig, *clock.Clock, *proxy) {
	t.Helper()
	c, err := clock.Make(filepath.Join(t.TempDir(), "clock"))
	if err != nil {
		t.Fatal(err)
	}
	programs, err := clockedBin()
	if err != nil {
		t.Fatal(err)
	}
	p, through := newProxy(t)
	return rig.New(t, rig.Options{Bin: programs, Estate: e, Through: through, Clock: c}), c, p
}

// restart kills the agent and starts it anew.
func restart(r *rig.Rig) {
	r.Agent.Kill()
	r.Agent.Start()
	r.Ready()
}

// returned lets the agent dial at once, as after its pause, and waits for the
// session.
func returned(t *testing.T, r *rig.Rig, c *clock.Clock, p *proxy) {
	t.Helper()
	p.heal()
	rig.Until(t, "the agent is back", func() (bool, string) {
		c.Move(30 * time.Second)
		return r.AgentState().GetConnected(), r.Agent.Log()
	})
	shipped(t, r)
}

// endsOnTime lets the clock come to the end of somebody's access, and no further
// than the promise goes: there it stands still until the file says that the
// access is gone.
func endsOnTime(t *testing.T, r *rig.Rig, c *clock.Clock, login string, due time.Time) {
	t.Helper()
	c.MoveTo(due.Add(-time.Second))
	if !admin(t, r, login) {
		t.Errorf("%s left admins before %v", login, due)
	}
	owed := r.Owed()
	c.MoveTo(due.Add(promised - 10*time.Second))
	ends(t, r, login)
	rig.Until(t, "the end is on record", func() (bool, string) { return r.Owed() < owed, r.Agent.Log() })
}

// onTime holds the records of ends against the clock: none before its time, none
// later than promised.
func onTime(t *testing.T, list []rig.Entry) (n int) {
	t.Helper()
	for _, e := range list {
		if e.Header.GetType() != auditv1.Type_TYPE_OBLIGATION_SETTLED {
			continue
		}
		n++
		late := e.Header.GetAt().AsTime().Sub(e.Body.GetObligation().GetDue().AsTime())
		if late < 0 || late > promised {
			t.Errorf("access that was due %v ended %v after it", e.Body.GetObligation().GetDue().AsTime(), late)
		}
	}
	return n
}

// renewRoots publishes more versions of the root document: the root key is
// exchanged, so that who missed one cannot take the next.
func renewRoots(t *testing.T, r *rig.Rig, c *clock.Clock, versions int) {
	t.Helper()
	dir := filepath.Join(r.Dir, "noc", "root")
	key, err := keys.LoadPrivate(filepath.Join(dir, "root-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	var envelopes [][]byte
	for n := 1; ; n++ {
		raw, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.json", n)))
		if err != nil {
			break
		}
		envelopes = append(envelopes, raw)
	}
	doc, err := root.Open(r.Pin, envelopes, c.Now(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for range versions {
		public, next, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		named, err := root.NewKey(public)
		if err != nil {
			t.Fatal(err)
		}
		doc.Version++
		doc.RootKeys = []root.Key{named}
		doc.Expires = c.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second)
		envelope, err := root.Sign(doc, key, next)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.json", doc.Version)), envelope, 0o644); err != nil {
			t.Fatal(err)
		}
		key = next
	}
}

// The network is away for two days: certificates lapse, orders expire unfetched,
// an invitation too, a plan is superseded, the root document moves on, lent access
// ends, the agent is killed. When the network is back the agent comes by itself,
// and what was approved in vain is planned anew.
func TestPartitionForDays(t *testing.T) {
	t.Parallel()
	r, c, p := clocked(t, nil)
	r.Applied(r.CarryOut())
	w := r.Watch()
	who := r.Estate.People()[:2]
	began := c.Now()
	lend(t, r, who[0], "30m")
	lend(t, r, who[1], "1h")
	r.Estate.Hire(t, 3)
	r.Observe()
	first, second := r.Plan(), r.Plan()
	r.Do("agent", "invite", rig.Tenant, "dc2", "--token-file", "dc2.token")
	before := r.Estate.Files(t)

	p.part()
	r.Approve(first)
	for n, login := range who {
		endsOnTime(t, r, c, login, began.Add(time.Duration(n+1)*30*time.Minute))
		restart(r)
	}
	if before["htpasswd"] != r.Estate.Files(t)["htpasswd"] {
		t.Error("without a control plane something happened that nobody owed")
	}
	c.Move(2 * time.Hour)
	r.Approve(second)
	if got := r.Ended(first.GetId()).GetState(); got.GetPhase() != operatorv1.PlanState_PHASE_SUPERSEDED {
		t.Errorf("the older plan is %v", got)
	}
	renewRoots(t, r, c, 3)
	restart(r)
	c.Move(45 * time.Hour)
	r.ControlPlane.Stop()
	r.StartControlPlane()
	c.Move(2 * time.Minute)
	if got := r.Ended(second.GetId()).GetState(); got.GetApplied() != 0 {
		t.Errorf("an order that nobody fetched ended as %v", got)
	}

	returned(t, r, c, p)
	if !strings.Contains(r.Agent.Log(), "certificate had lapsed") {
		t.Error("the agent did not prove its identity key after the lapse")
	}
	if _, err := os.Stat(filepath.Join(r.State, "root", "00000004.dsse.json")); err != nil {
		t.Errorf("the agent did not walk to the newest root document: %v", err)
	}
	r.Configure("second.yaml", filepath.Join(r.Dir, "second"))
	if got := r.Local("join", "--config", "second.yaml", "--token-file", "dc2.token"); got.Code == 0 || !strings.Contains(got.Stderr, "expired") {
		t.Errorf("an invitation of two days ago: exit code %d, %s", got.Code, got.Stderr)
	}
	r.Observe()
	r.Applied(r.CarryOut())
	list := r.OneRecordAChange()
	if n := onTime(t, list); n != len(who) {
		t.Errorf("%d ends are on record, want %d", n, len(who))
	}
	w.Once()
	for _, login := range who {
		if n := w.Went(login, "admins"); n != 1 {
			t.Errorf("%s was seen to leave admins %d times", login, n)
		}
	}
	r.Provisioned(r.Estate.People())
	r.Converged()
	r.Offboard(nil)
}

// An order is under way when the network goes, and an answer is lost that renewed
// the certificate: the order is carried out to its end, the agent comes back after
// hours with the request that was answered into the void.
func TestPartitionInTheMiddle(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(40)
	e.Cost = 7
	r, c, p := clocked(t, e)
	w := r.Watch()
	plan := r.Plan()
	r.Approve(plan)
	rig.Until(t, "the agent has the order", func() (bool, string) { return r.AgentHas(plan), r.Agent.Log() })
	p.part()
	rig.Until(t, "the order has ended at the agent", func() (bool, string) {
		return len(e.Members(t)["staff"]) == len(e.People())+1 && r.AgentIdle(), r.Agent.Log()
	})
	files := e.Files(t)
	c.Move(3 * time.Hour)
	returned(t, r, c, p)
	r.Applied(r.Ended(plan.GetId()))
	for range 2 {
		loseRenewal(t, r, c, p)
		p.part()
		p.forgive()
		c.Move(26 * time.Hour)
		restart(r)
		returned(t, r, c, p)
		if answered, expected := renewals(t, r), r.Renewals(); answered != expected {
			t.Errorf("the agent has the answer to renewal %d, the control plane gave %d", answered, expected)
		}
	}
	for name, now := range e.Files(t) {
		if now != files[name] {
			t.Errorf("%s was changed again", name)
		}
	}
	w.Once()
	r.Passwords(r.OneRecordAChange(), e.People())
	r.Converged()
	r.Offboard(nil)
}

// loseRenewal has the control plane renew the agent's certificate with an answer
// that does not arrive: connections are cut after ever more bytes, until it has
// counted a renewal that the agent does not know of.
func loseRenewal(t *testing.T, r *rig.Rig, c *clock.Clock, p *proxy) {
	t.Helper()
	for n := int64(1800); n < 8000; n += 100 {
		p.forgive()
		p.breakNext(slices.Repeat([]fault{{direction: down, after: n}}, 50)...)
		p.cutAll()
		c.Move(35 * time.Minute)
		left := p.pending() - 2
		rig.Until(t, "connections were cut", func() (bool, string) {
			c.Move(20 * time.Second)
			return p.pending() <= left || renewals(t, r) < r.Renewals(), r.Agent.Log()
		})
		if renewals(t, r) < r.Renewals() {
			t.Logf("an answer was lost after %d bytes", n)
			return
		}
	}
	t.Fatal("no answer to a renewal was lost")
}

// renewals is the renewal counter of the last answer that the agent has.
func renewals(t *testing.T, r *rig.Rig) int {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.State, "svid"))
	if err != nil {
		t.Fatal(err)
	}
	var stored struct{ Counter int }
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	return stored.Counter
}
