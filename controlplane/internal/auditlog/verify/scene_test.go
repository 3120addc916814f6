package verify_test

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// scene is a generated log of one tenant and what a client and a forger have of
// it.
type scene struct {
	*intaketest.Estate
	r      *rand.Rand
	tenant string
	agents []*intaketest.FakeAgent
	// ended are audit keys of epochs that are over, by agent.
	ended map[string]ed25519.PrivateKey
	// saved are checkpoints as the log grew, the newest last.
	saved  []string
	export []byte
	// bodies holds, by entry, the control plane's own salted bodies as they were
	// before anything was erased.
	bodies map[int]*auditv1.ExportEntry
	other  *file
}

// generate lets a tenant live through random steps: agents that join, ship, are
// invited again, acts, erasures, and a client that saves checkpoints now and then.
func generate(t *testing.T, e *intaketest.Estate, seed uint64, other *file) *scene {
	s := &scene{Estate: e, r: rand.New(rand.NewPCG(seed, 0)), tenant: fmt.Sprintf("client%d", seed), ended: map[string]ed25519.PrivateKey{}, other: other}
	e.AddTenant(s.tenant)
	join := func() {
		s.agents = append(s.agents, e.Join(s.tenant, fmt.Sprintf("dc%d", len(s.agents)+1)))
	}
	join()
	join()
	for _, a := range s.agents {
		e.Ship(a, a.Batch(1+s.r.IntN(3)))
	}
	for range 6 + s.r.IntN(8) {
		a := s.agents[s.r.IntN(len(s.agents))]
		switch s.r.IntN(8) {
		case 0, 1, 2, 3:
			e.Ship(a, a.Batch(1+s.r.IntN(4)))
		case 4:
			s.act("act")
		case 5:
			s.ended[a.Name] = a.Audit
			a.Audit = intaketest.Key(t, fmt.Sprintf("%s %s %d", s.tenant, a.Name, a.Epoch))
			a.NewCSR()
			e.JoinAs(s.tenant, a)
			e.Ship(a, a.Batch(1+s.r.IntN(2)))
		default:
			s.saved = append(s.saved, e.Checkpoint(s.tenant))
		}
	}
	s.act("first act")
	s.act("last act")
	a := s.agents[0]
	e.Ship(a, a.Batch(2))
	e.Ship(a, a.Batch(2))
	s.bodies = map[int]*auditv1.ExportEntry{}
	whole := parse(t, e.Export(s.tenant))
	for i, x := range whole.entries {
		if len(x.GetBody()) > 0 {
			s.bodies[i] = proto.CloneOf(x)
		}
	}
	// One of the control plane's own bodies and one of an agent's.
	own := slices.IndexFunc(whole.entries, func(x *auditv1.ExportEntry) bool { return len(x.GetBody()) > 0 })
	for i := range whole.entries {
		if _, h := whole.entry(i); h.GetType() == auditv1.Type_TYPE_PLAN_MADE {
			own = i
			break
		}
	}
	agents := whole.find(auditv1.Type_TYPE_AGENT_STARTED, s.r.IntN(3))
	e.Do(func(x tx.Tx) error {
		_, err := e.Log.Erase(x, s.tenant, "operator:kari", "request 7", uint64(own), uint64(agents))
		return err
	})
	s.act("act after the erasure")
	s.saved = append(s.saved, e.Checkpoint(s.tenant))
	s.export = e.Export(s.tenant)
	return s
}

func (s *scene) act(verb string) {
	estate{Estate: s.Estate}.actOf(s.tenant, verb)
}

// sound verifies the log with every checkpoint that was saved, and with none: no
// false alarm, and erased records still verify.
func (s *scene) sound() {
	s.T.Helper()
	for _, saved := range append([]string{""}, s.saved...) {
		report, err := verify.Verify(bytes.NewReader(s.export), saved, s.Pin)
		if err != nil || !report.Sound() || report.Erased != 2 {
			s.T.Fatalf("log of %s: %v, %d erased, %v", s.tenant, err, report.Erased, report.Findings)
		}
	}
}

// found reports whether tampering is found by a client that saved the newest
// checkpoint.
func (s *scene) found(export []byte) bool {
	report, err := verify.Verify(bytes.NewReader(export), s.saved[len(s.saved)-1], s.Pin)
	return err != nil || !report.Sound()
}

// any is a random number below n.
func (s *scene) any(n int) int { return s.r.IntN(n) }
