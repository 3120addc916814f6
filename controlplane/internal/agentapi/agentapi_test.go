package agentapi_test

import (
	"crypto/ed25519"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

func TestJoinRenewReattestOverTheWire(t *testing.T) {
	p := start(t)
	token, _, err := p.Enrollment.Invite(t.Context(), "operator:kari", "fabrikam", "dc1", 0)
	if err != nil {
		t.Fatal(err)
	}
	stranger := p.dial(nil, nil)
	joining := agentv1.NewEnrollmentServiceClient(stranger)
	roots, err := joining.GetRoot(t.Context(), &agentv1.GetRootRequest{})
	if err != nil || len(roots.GetEnvelopes()) != 1 {
		t.Fatal(roots, err)
	}
	a := intaketest.NewAgent(t, "dc1")
	if _, err := joining.Enroll(t.Context(), a.EnrollRequest(token, intaketest.Exporter("elsewhere"))); codeOf(err) != codes.PermissionDenied {
		t.Fatalf("proof of another connection: %v", err)
	}
	answer, err := joining.Enroll(t.Context(), a.EnrollRequest(token, exporter(t, stranger)))
	if err != nil {
		t.Fatal(err)
	}
	a.Enrolled(answer)
	if answer.GetTenant() != "fabrikam" || answer.GetLogOrigin() != "reeve.example/tenant/fabrikam" {
		t.Fatal(answer)
	}

	conn := p.dial(a.Certificates, a.Key)
	binding := exporter(t, conn)
	oldKey := a.Key
	a.NewCSR()
	proof := ed25519.Sign(a.Identity, agentv1.RenewalBinding(binding, nil, a.CSR, a.Counter))
	renewed, err := agentv1.NewAgentServiceClient(conn).Renew(t.Context(), &agentv1.RenewRequest{Csr: a.CSR, Counter: a.Counter, Proof: proof})
	if err != nil || renewed.GetCounter() != a.Counter+1 {
		t.Fatal(renewed, err)
	}
	// The stolen proof is worth nothing on another connection.
	other := p.dial(a.Certificates, oldKey)
	if _, err := agentv1.NewAgentServiceClient(other).Renew(t.Context(), &agentv1.RenewRequest{Csr: a.CSR, Counter: a.Counter, Proof: proof}); codeOf(err) != codes.PermissionDenied {
		t.Fatalf("relayed renewal: %v", err)
	}
	a.Certificates, a.Counter = renewed.GetCertificates(), renewed.GetCounter()
	hello(t, p.as(a), &agentv1.Hello{Epoch: 1})

	// Long offline: the certificate is over, the identity key is not.
	p.Clock.Forward(3 * time.Hour)
	p.restart()
	late := p.dial(nil, nil)
	rejoining := agentv1.NewEnrollmentServiceClient(late)
	binding = exporter(t, late)
	challenge, err := rejoining.Challenge(t.Context(), &agentv1.ChallengeRequest{Tenant: "fabrikam", Agent: "dc1"})
	if err != nil {
		t.Fatal(err)
	}
	a.NewCSR()
	again, err := rejoining.Reattest(t.Context(), &agentv1.ReattestRequest{Tenant: "fabrikam", Agent: "dc1", Challenge: challenge.GetChallenge(), Csr: a.CSR, Counter: a.Counter,
		Proof: ed25519.Sign(a.Identity, agentv1.RenewalBinding(binding, challenge.GetChallenge(), a.CSR, a.Counter))})
	if err != nil {
		t.Fatal(err)
	}
	a.Certificates = again.GetCertificates()
	hello(t, p.as(a), &agentv1.Hello{Epoch: 1})
	p.Recheck("fabrikam", "")
}

// Who is served, and as whom, follows from the certificate alone.
func TestOnlyRegisteredAgentsAreServed(t *testing.T) {
	p := start(t)
	p.AddTenant("contoso")
	p.Join("fabrikam", "dc1")
	namesake := p.Join("contoso", "dc1")
	progress := func(c agentv1.AgentServiceClient) error {
		_, err := c.ReportProgress(t.Context(), &agentv1.ReportProgressRequest{Order: "o1", Done: 1})
		return err
	}
	if err := progress(agentv1.NewAgentServiceClient(p.dial(nil, nil))); codeOf(err) != codes.Unauthenticated {
		t.Errorf("no certificate: %v", err)
	}
	ghost := intaketest.NewAgent(t, "ghost")
	chain, err := p.CA.IssueAgent(ghost.CSR, spiffe.AgentID{TrustDomain: intaketest.TrustDomain, Tenant: "fabrikam", Agent: "ghost"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := progress(agentv1.NewAgentServiceClient(p.dial(chain.DER(), ghost.Key))); codeOf(err) != codes.PermissionDenied {
		t.Errorf("an agent that is not registered: %v", err)
	}
	operator, err := p.CA.IssueOperator(ghost.CSR, spiffe.OperatorID{TrustDomain: intaketest.TrustDomain, Name: "kari"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := progress(agentv1.NewAgentServiceClient(p.dial(operator.DER(), ghost.Key))); codeOf(err) != codes.Unavailable {
		t.Errorf("an operator got through the handshake: %v", err)
	}
	fetch := func(order string) error {
		s, err := p.as(namesake).FetchOrder(t.Context(), &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_Order{Order: order}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		return err
	}
	foreign, missing := fetch("o1"), fetch("o2")
	if codeOf(foreign) != codes.NotFound || foreign.Error() != missing.Error() {
		t.Errorf("another tenant's order answers %v, one that is not there %v", foreign, missing)
	}
}

// waitFor waits for what another goroutine brings about.
func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it never happened")
		}
	}
}

// A revoked agent's live streams end within five seconds, and it stays out after
// a restart.
func TestRevokeCutsLiveStreams(t *testing.T) {
	p := start(t)
	a, bystander := p.Join("fabrikam", "dc1"), p.Join("fabrikam", "dc2")
	c := p.as(a)
	session, _ := hello(t, c, &agentv1.Hello{Epoch: 1})
	staying, _ := hello(t, p.as(bystander), &agentv1.Hello{Epoch: 1})
	ship, err := c.ShipRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	push, err := p.as(a).PushObservations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := ship.Send(&agentv1.ShipRecordsRequest{Batch: a.Batch(1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := ship.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := push.Send(begin("s1", "")); err != nil {
		t.Fatal(err)
	}
	if err := push.Send(&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Batch{Batch: &agentv1.ObservedBatch{}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := push.Recv(); err != nil {
		t.Fatal(err)
	}
	if err := p.Enrollment.Revoke(t.Context(), "operator:kari", "fabrikam", "dc1", "lost laptop"); err != nil {
		t.Fatal(err)
	}
	for name, recv := range map[string]func() error{
		"session":      func() error { _, err := session.Recv(); return err },
		"records":      func() error { _, err := ship.Recv(); return err },
		"observations": func() error { _, err := push.Recv(); return err },
	} {
		if took, err := ends(recv); took > 5*time.Second || err == nil {
			t.Errorf("%s went on for %s: %v", name, took, err)
		}
	}
	refused := func() {
		t.Helper()
		s, err := p.as(a).Session(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); codeOf(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "revoked") {
			t.Fatalf("a revoked agent came back: %v", err)
		}
	}
	refused()
	if !p.registry.Observe("fabrikam", "dc2", "hr") {
		t.Fatal("another agent was cut")
	}
	receive(t, staying, func(m *agentv1.SessionResponse) bool { return m.GetObserve() != nil })
	p.restart()
	refused()
	p.Recheck("fabrikam", "")
}

func TestConnectionEndsWithItsCertificate(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	p.Clock.Forward(time.Hour - 500*time.Millisecond)
	s, _ := hello(t, p.as(a), &agentv1.Hello{Epoch: 1})
	if _, err := ends(func() error { _, err := s.Recv(); return err }); codeOf(err) != codes.Unavailable {
		t.Fatalf("the stream ended with %v", err)
	}
	// A connection whose timer has not fired yet serves no request either.
	b := p.Join("fabrikam", "dc2")
	c := p.as(b)
	if _, err := c.ReportProgress(t.Context(), &agentv1.ReportProgressRequest{}); err != nil {
		t.Fatal(err)
	}
	p.Clock.Forward(2 * time.Hour)
	if _, err := c.ReportProgress(t.Context(), &agentv1.ReportProgressRequest{}); codeOf(err) != codes.Unauthenticated {
		t.Fatal(err)
	}
}
