package enrollment_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func id(a *intaketest.FakeAgent) spiffe.AgentID {
	return spiffe.AgentID{TrustDomain: intaketest.TrustDomain, Tenant: a.Tenant, Agent: a.Name}
}

func renewal(a *intaketest.FakeAgent, counter uint64, challenge []byte) enrollment.Renewal {
	exporter := intaketest.Exporter("c")
	return enrollment.Renewal{CSR: a.CSR, Counter: counter, Exporter: exporter,
		Proof: ed25519.Sign(a.Identity, agentv1.RenewalBinding(exporter, challenge, a.CSR, counter))}
}

func TestRenewalMovesTheCounterAndShowsUpClones(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	// A disk image of the host as it is now.
	clone := *a
	for range 3 {
		a.NewCSR()
		first, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil))
		if err != nil {
			t.Fatal(err)
		}
		// The answer was lost, the control plane restarted: the same request again.
		e.Reopen()
		again, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil))
		if err != nil || again.Counter != first.Counter || !bytes.Equal(again.Certificates[0], first.Certificates[0]) {
			t.Fatalf("retry: %v", err)
		}
		a.Counter = again.Counter
	}
	forged := renewal(a, a.Counter, nil)
	forged.Proof = ed25519.Sign(a.Audit, agentv1.RenewalBinding(forged.Exporter, nil, a.CSR, a.Counter))
	if _, err := e.Enrollment.Renew(t.Context(), id(a), forged); !errors.Is(err, enrollment.ErrProof) {
		t.Fatalf("forged proof: %v", err)
	}
	relayed := renewal(a, a.Counter, nil)
	relayed.Exporter = intaketest.Exporter("relay")
	if _, err := e.Enrollment.Renew(t.Context(), id(a), relayed); !errors.Is(err, enrollment.ErrProof) {
		t.Fatalf("relayed proof: %v", err)
	}
	if who, err := e.Enrollment.Get(t.Context(), "fabrikam", "dc1"); err != nil || who.State != enrollment.Active {
		t.Fatalf("a forged proof suspended the agent: %v %v", who.State, err)
	}
	clone.NewCSR()
	if _, err := e.Enrollment.Renew(t.Context(), id(&clone), renewal(&clone, clone.Counter, nil)); !errors.Is(err, enrollment.ErrClone) {
		t.Fatalf("clone: %v", err)
	}
	for range 2 {
		if _, err := e.Enrollment.Authorize(t.Context(), id(a)); !errors.Is(err, enrollment.ErrSuspended) {
			t.Fatalf("the original goes on: %v", err)
		}
		a.NewCSR()
		if _, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil)); !errors.Is(err, enrollment.ErrSuspended) {
			t.Fatalf("the original renews: %v", err)
		}
		e.Reopen()
	}
	if n := e.Sessions.(*intaketest.FakeSessions).Cuts("fabrikam", "dc1"); n != 1 {
		t.Fatalf("cut %d times", n)
	}
	if n := count(types(t, e), auditv1.Type_TYPE_SUSPENDED); n != 1 {
		t.Fatalf("%d suspensions in the log", n)
	}
	// The client's administrator sorts it out with a new invitation.
	e.JoinAs("fabrikam", a)
	if _, err := e.Enrollment.Authorize(t.Context(), id(a)); err != nil || a.Epoch != 2 {
		t.Fatalf("after a new invitation: %v, epoch %d", err, a.Epoch)
	}
	if _, err := e.Enrollment.Renew(t.Context(), id(&clone), renewal(&clone, clone.Counter, nil)); !errors.Is(err, enrollment.ErrClone) {
		t.Fatalf("the clone again: %v", err)
	}
	e.Recheck("fabrikam", "")
}

// An agent whose renewal was answered into a connection that broke, and who then
// is away for longer than a certificate lasts, comes back with the same request:
// it gets a certificate that holds, and is no clone however often it asks.
func TestLostAnswerThatLapsedIsAnsweredAnew(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	a.NewCSR()
	lost, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil))
	if err != nil {
		t.Fatal(err)
	}
	for _, away := range []time.Duration{2 * time.Hour, 30 * 24 * time.Hour} {
		e.Clock.Forward(away)
		e.Reopen()
		var first []byte
		for range 3 {
			value, err := e.Enrollment.Challenge("fabrikam", "dc1", intaketest.Exporter("c"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value))
			if err != nil || got.Counter != lost.Counter {
				t.Fatalf("retry after %v: counter %d, %v", away, got.Counter, err)
			}
			leaf, err := x509.ParseCertificate(got.Certificates[0])
			if err != nil {
				t.Fatal(err)
			}
			if !e.Clock.Now().Before(leaf.NotAfter) {
				t.Fatalf("the certificate ended at %v, now it is %v", leaf.NotAfter, e.Clock.Now())
			}
			if first == nil {
				first = got.Certificates[0]
			}
			if !bytes.Equal(first, got.Certificates[0]) {
				t.Fatal("while its answer holds a retry is not answered the same")
			}
		}
	}
	a.Counter = lost.Counter
	a.NewCSR()
	if _, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil)); err != nil {
		t.Fatalf("the next renewal: %v", err)
	}
}

func TestConcurrentRenewalsIssueOnce(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	a.NewCSR()
	r := renewal(a, a.Counter, nil)
	counters := make([]uint64, 16)
	var wait sync.WaitGroup
	for i := range counters {
		wait.Go(func() {
			out, err := e.Enrollment.Renew(context.Background(), id(a), r)
			if err != nil {
				t.Error(err)
			}
			counters[i] = out.Counter
		})
	}
	wait.Wait()
	for _, c := range counters {
		if c != a.Counter+1 {
			t.Fatalf("counters %v", counters)
		}
	}
}

func TestReattestation(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	e.Clock.Forward(40 * 24 * time.Hour)
	a.NewCSR()
	exporter := intaketest.Exporter("c")
	challenge := func(tenant, agent string) []byte {
		value, err := e.Enrollment.Challenge(tenant, agent, exporter)
		if err != nil || len(value) != 32 {
			t.Fatal(value, err)
		}
		return value
	}
	value := challenge("fabrikam", "dc1")
	out, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value)); !errors.Is(err, enrollment.ErrProof) {
		t.Fatalf("challenge used twice: %v", err)
	}
	// The answer was lost: a new challenge, the same request.
	value = challenge("fabrikam", "dc1")
	again, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value))
	if err != nil || again.Counter != out.Counter || !bytes.Equal(again.Certificates[0], out.Certificates[0]) {
		t.Fatalf("retry: %v", err)
	}
	a.Counter = out.Counter
	for name, f := range map[string]func() error{
		"an agent that is not there": func() error {
			value := challenge("fabrikam", "ghost")
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "ghost", value, renewal(a, 1, value))
			return err
		},
		"another agent's challenge": func() error {
			value := challenge("fabrikam", "dc2")
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value))
			return err
		},
		"another connection": func() error {
			value := challenge("fabrikam", "dc1")
			r := renewal(a, a.Counter, value)
			r.Exporter = intaketest.Exporter("relay")
			r.Proof = ed25519.Sign(a.Identity, agentv1.RenewalBinding(r.Exporter, value, a.CSR, a.Counter))
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, r)
			return err
		},
		"made up": func() error {
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", make([]byte, 32), renewal(a, a.Counter, make([]byte, 32)))
			return err
		},
		"too late": func() error {
			value := challenge("fabrikam", "dc1")
			e.Clock.Forward(3 * time.Minute)
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value))
			return err
		},
		"proof without the challenge": func() error {
			value := challenge("fabrikam", "dc1")
			_, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, nil))
			return err
		},
	} {
		// All the same to an outsider.
		if err := f(); !errors.Is(err, enrollment.ErrProof) || err.Error() != enrollment.ErrProof.Error() {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Strangers cannot fill the memory, nor keep the agent out for long.
	for range 10_000 {
		challenge("fabrikam", "dc1")
	}
	value = challenge("fabrikam", "dc1")
	a.NewCSR()
	if _, err := e.Enrollment.Reattest(t.Context(), "fabrikam", "dc1", value, renewal(a, a.Counter, value)); err != nil {
		t.Fatal(err)
	}
}
