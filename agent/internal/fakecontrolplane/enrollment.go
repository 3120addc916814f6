package fakecontrolplane

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"path"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

type invitation struct {
	agent   string
	expires time.Time
	csr     []byte
}

// loseAnswer fails calls whose answer is to be lost, after the work was done.
func (c *ControlPlane) loseAnswer(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	answer, err := handler(ctx, req)
	name := path.Base(info.FullMethod)
	c.Lock()
	defer c.Unlock()
	if err == nil && c.LoseAnswers[name] > 0 {
		c.LoseAnswers[name]--
		return nil, status.Error(codes.Unavailable, "connection lost")
	}
	return answer, err
}

// GetRoot implements agentv1.EnrollmentServiceServer.
func (c *ControlPlane) GetRoot(_ context.Context, r *agentv1.GetRootRequest) (*agentv1.GetRootResponse, error) {
	c.Lock()
	defer c.Unlock()
	return &agentv1.GetRootResponse{Envelopes: c.envelopes[min(int(r.GetAfterVersion()), len(c.envelopes)):]}, nil
}

func exporter(ctx context.Context) ([]byte, error) {
	state, err := mtls.State(ctx)
	if err != nil {
		return nil, err
	}
	return mtls.ExporterBinding(state)
}

// Enroll implements agentv1.EnrollmentServiceServer.
func (c *ControlPlane) Enroll(ctx context.Context, r *agentv1.EnrollRequest) (*agentv1.EnrollResponse, error) {
	binding, err := exporter(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	token, err := jointoken.Parse(r.GetToken())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	c.Lock()
	defer c.Unlock()
	inv := c.tokens[token.Hash()]
	switch {
	case inv == nil:
		return nil, status.Error(codes.PermissionDenied, "no such token")
	case time.Now().After(inv.expires):
		return nil, status.Error(codes.PermissionDenied, "the token has expired")
	case inv.csr != nil && !bytes.Equal(inv.csr, r.GetCsr()):
		return nil, status.Error(codes.PermissionDenied, "the token was used already")
	case r.GetAgent() != "" && r.GetAgent() != inv.agent:
		return nil, status.Error(codes.PermissionDenied, "the token is for another agent")
	}
	statement := agentv1.EnrollmentBinding(binding, r.GetCsr())
	known := map[int32]ed25519.PublicKey{}
	for i, k := range r.GetKeys() {
		pub, err := keys.ParseSPKI(k.GetPublicKey())
		if err != nil || i >= len(r.GetProofs()) || !ed25519.Verify(pub, statement, r.GetProofs()[i]) {
			return nil, status.Error(codes.Unauthenticated, "a key is not proven")
		}
		known[int32(k.GetPurpose())] = pub
	}
	if len(known) != 3 {
		return nil, status.Error(codes.InvalidArgument, "three keys are needed")
	}
	id := spiffe.AgentID{TrustDomain: TrustDomain, Tenant: Tenant, Agent: inv.agent}
	agent := c.agents[inv.agent]
	if agent == nil {
		chain, err := c.CA.IssueAgent(r.GetCsr(), id, c.SVIDLife)
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		agent = &Agent{ID: id, Keys: known, Counter: 1, LastCSR: r.GetCsr(), LastSVID: chain.DER()}
		c.agents[inv.agent] = agent
		inv.csr = r.GetCsr()
	}
	agent.Enrolled++
	return &agentv1.EnrollResponse{
		TrustDomain: TrustDomain, Tenant: Tenant, Agent: inv.agent, Epoch: 1,
		Certificates: agent.LastSVID, Counter: agent.Counter, LogOrigin: Origin,
	}, nil
}

// issue is renewal and re-attestation: compare and swap of the counter, and the
// same answer for a repeated CSR.
func (c *ControlPlane) issue(agent *Agent, csr []byte, counter uint64) error {
	if counter+1 == agent.Counter && bytes.Equal(csr, agent.LastCSR) {
		return nil
	}
	if counter != agent.Counter {
		return status.Error(codes.FailedPrecondition, "two hold this identity: suspended")
	}
	chain, err := c.CA.IssueAgent(csr, agent.ID, c.SVIDLife)
	if err != nil {
		return status.Error(codes.InvalidArgument, err.Error())
	}
	agent.Counter++
	agent.LastCSR, agent.LastSVID = csr, chain.DER()
	return nil
}

func identityKey(a *Agent) ed25519.PublicKey {
	return a.Keys[int32(auditv1.KeyEvent_PURPOSE_IDENTITY)]
}

// Renew implements agentv1.AgentServiceServer.
func (c *ControlPlane) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.RenewResponse, error) {
	agent, err := c.caller(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	binding, err := exporter(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	c.Lock()
	defer c.Unlock()
	if !ed25519.Verify(identityKey(agent), agentv1.RenewalBinding(binding, nil, r.GetCsr(), r.GetCounter()), r.GetProof()) {
		return nil, status.Error(codes.Unauthenticated, "the identity key is not proven")
	}
	if err := c.issue(agent, r.GetCsr(), r.GetCounter()); err != nil {
		return nil, err
	}
	agent.Renewed++
	return &agentv1.RenewResponse{Certificates: agent.LastSVID, Counter: agent.Counter}, nil
}

// Challenge implements agentv1.EnrollmentServiceServer.
func (c *ControlPlane) Challenge(context.Context, *agentv1.ChallengeRequest) (*agentv1.ChallengeResponse, error) {
	b := make([]byte, 32)
	_, err := rand.Read(b)
	return &agentv1.ChallengeResponse{Challenge: b}, err
}

// Reattest implements agentv1.EnrollmentServiceServer.
func (c *ControlPlane) Reattest(ctx context.Context, r *agentv1.ReattestRequest) (*agentv1.ReattestResponse, error) {
	binding, err := exporter(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	c.Lock()
	defer c.Unlock()
	agent := c.agents[r.GetAgent()]
	if agent == nil || r.GetTenant() != Tenant ||
		!ed25519.Verify(identityKey(agent), agentv1.RenewalBinding(binding, r.GetChallenge(), r.GetCsr(), r.GetCounter()), r.GetProof()) {
		return nil, status.Error(codes.Unauthenticated, "the identity key is not proven")
	}
	if err := c.issue(agent, r.GetCsr(), r.GetCounter()); err != nil {
		return nil, err
	}
	agent.Reproved++
	return &agentv1.ReattestResponse{Certificates: agent.LastSVID, Counter: agent.Counter}, nil
}
