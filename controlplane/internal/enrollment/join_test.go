package enrollment_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/jointoken"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func invite(t *testing.T, e *intaketest.Estate, agent string) jointoken.Token {
	t.Helper()
	token, expires, err := e.Enrollment.Invite(t.Context(), "operator:kari", "fabrikam", agent, 0)
	if err != nil || expires.Sub(e.Clock.Now()) > time.Hour {
		t.Fatal(expires, err)
	}
	return token
}

func enroll(t *testing.T, e *intaketest.Estate, r *agentv1.EnrollRequest) (*agentv1.EnrollResponse, error) {
	return e.Enrollment.Enroll(t.Context(), r, intaketest.Exporter("c"))
}

func types(t *testing.T, e *intaketest.Estate) (list []auditv1.Type) {
	t.Helper()
	e.Do(func(x tx.Tx) error {
		entries, err := e.Log.Entries(x, "fabrikam", 0, 1000)
		for _, entry := range entries {
			list = append(list, entry.Header.GetType())
		}
		return err
	})
	return list
}

func count(list []auditv1.Type, want auditv1.Type) (n int) {
	for _, typ := range list {
		if typ == want {
			n++
		}
	}
	return n
}

// 64 hosts with one token at once: one wins, the others change nothing, and the
// winner's retry gets the winner's answer.
func TestOneOf64WinsTheToken(t *testing.T) {
	e := intaketest.New(t)
	token := invite(t, e, "dc1")
	const hosts = 64
	agents := make([]*intaketest.FakeAgent, hosts)
	requests := make([]*agentv1.EnrollRequest, hosts)
	for i := range hosts {
		agents[i] = intaketest.NewAgent(t, fmt.Sprintf("host%d", i))
		agents[i].Name = "dc1"
		requests[i] = agents[i].EnrollRequest(token, intaketest.Exporter("c"))
	}
	answers := make([]*agentv1.EnrollResponse, hosts)
	errs := make([]error, hosts)
	start := make(chan struct{})
	var wait sync.WaitGroup
	for i := range hosts {
		wait.Go(func() {
			<-start
			answers[i], errs[i] = e.Enrollment.Enroll(context.Background(), requests[i], intaketest.Exporter("c"))
		})
	}
	close(start)
	wait.Wait()
	winner := -1
	for i := range hosts {
		switch {
		case errs[i] == nil && winner < 0:
			winner = i
		case errs[i] == nil:
			t.Fatalf("hosts %d and %d both won", winner, i)
		case !errors.Is(errs[i], enrollment.ErrTokenUsed):
			t.Fatalf("host %d: %v", i, errs[i])
		}
	}
	if winner < 0 {
		t.Fatal("nobody won")
	}
	if n := count(types(t, e), auditv1.Type_TYPE_AGENT_ENROLLED); n != 1 {
		t.Fatalf("%d enrolments in the log", n)
	}
	for range 2 {
		again, err := enroll(t, e, requests[winner])
		if err != nil || !proto.Equal(again, answers[winner]) {
			t.Fatalf("the winner's retry: %v", err)
		}
		if _, err := enroll(t, e, requests[(winner+1)%hosts]); !errors.Is(err, enrollment.ErrTokenUsed) {
			t.Fatalf("a loser's retry: %v", err)
		}
		e.Reopen()
	}
	// The winner's CSR under other keys is another request.
	stolen := agents[(winner+1)%hosts]
	stolen.CSR = agents[winner].CSR
	if _, err := enroll(t, e, stolen.EnrollRequest(token, intaketest.Exporter("c"))); !errors.Is(err, enrollment.ErrTokenUsed) {
		t.Fatalf("same CSR, other keys: %v", err)
	}
	e.Recheck("fabrikam", "")
}

func TestBadJoins(t *testing.T) {
	e := intaketest.New(t)
	e.AddTenant("contoso")
	fresh := func() (*intaketest.FakeAgent, jointoken.Token) {
		return intaketest.NewAgent(t, "dc1"), invite(t, e, "dc1")
	}
	for name, c := range map[string]struct {
		request func() *agentv1.EnrollRequest
		want    error
	}{
		"garbled token": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			r := a.EnrollRequest(token, intaketest.Exporter("c"))
			r.Token = r.Token[:len(r.Token)-1] + "x"
			return r
		}, enrollment.ErrInvalid},
		"unknown token": {func() *agentv1.EnrollRequest {
			a, _ := fresh()
			token, err := jointoken.New(intaketest.Seed("guess"))
			if err != nil {
				t.Fatal(err)
			}
			return a.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrToken},
		"replaced token": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			invite(t, e, "dc1")
			return a.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrToken},
		"expired token": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			e.Clock.Forward(time.Hour)
			return a.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrTokenExpired},
		"another agent's name": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			r := a.EnrollRequest(token, intaketest.Exporter("c"))
			r.Agent = "dc2"
			return r
		}, enrollment.ErrInvalid},
		"proof of another connection": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			return a.EnrollRequest(token, intaketest.Exporter("relay"))
		}, enrollment.ErrProof},
		"proof for another CSR": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			r := a.EnrollRequest(token, intaketest.Exporter("c"))
			a.NewCSR()
			r.Csr = a.CSR
			return r
		}, enrollment.ErrProof},
		"one key for two purposes": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			a.Audit = a.Identity
			return a.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrInvalid},
		"a key too few": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			r := a.EnrollRequest(token, intaketest.Exporter("c"))
			r.Keys, r.Proofs = r.Keys[:2], r.Proofs[:2]
			return r
		}, enrollment.ErrInvalid},
		"a purpose twice": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			r := a.EnrollRequest(token, intaketest.Exporter("c"))
			r.Keys[2].Purpose = auditv1.KeyEvent_PURPOSE_AUDIT
			return r
		}, enrollment.ErrInvalid},
		"CSR of another kind": {func() *agentv1.EnrollRequest {
			a, token := fresh()
			a.CSR = []byte("x")
			return a.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrInvalid},
		"keys of another tenant's agent": {func() *agentv1.EnrollRequest {
			other := e.Join("contoso", "dc7")
			token := invite(t, e, "dc1")
			other.Name = "dc1"
			return other.EnrollRequest(token, intaketest.Exporter("c"))
		}, enrollment.ErrInvalid},
	} {
		before := count(types(t, e), auditv1.Type_TYPE_AGENT_ENROLLED)
		if _, err := enroll(t, e, c.request()); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if n := count(types(t, e), auditv1.Type_TYPE_AGENT_ENROLLED); n != before {
			t.Errorf("%s: enrolled all the same", name)
		}
	}
	if _, _, err := e.Enrollment.Invite(t.Context(), "operator:kari", "nobody", "dc1", 0); !errors.Is(err, tenant.ErrNotFound) {
		t.Errorf("unknown tenant: %v", err)
	}
	if _, _, err := e.Enrollment.Invite(t.Context(), "operator:kari", "fabrikam", "dc1", 2*time.Hour); !errors.Is(err, enrollment.ErrInvalid) {
		t.Errorf("long invitation: %v", err)
	}
	if _, _, err := e.Enrollment.Invite(t.Context(), "operator:kari", "fabrikam", "../dc1", 0); !errors.Is(err, enrollment.ErrInvalid) {
		t.Errorf("bad name: %v", err)
	}
	e.Do(func(x tx.Tx) error { return e.Tenants.SetState(x, "operator:kari", "fabrikam", tenant.Offboarding) })
	if _, _, err := e.Enrollment.Invite(t.Context(), "operator:kari", "fabrikam", "dc1", 0); !errors.Is(err, enrollment.ErrConflict) {
		t.Errorf("offboarding tenant: %v", err)
	}
}
