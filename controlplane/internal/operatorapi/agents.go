package operatorapi

import (
	"context"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

type agents struct {
	operatorv1.UnimplementedAgentServiceServer
	*Server
}

func (s agents) InviteAgent(ctx context.Context, r *operatorv1.InviteAgentRequest) (*operatorv1.InviteAgentResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	pin, err := s.RootSHA256()
	if err != nil {
		return nil, err
	}
	token, expires, err := s.Enrollment.Invite(ctx, actor(ctx), r.GetTenant(), r.GetAgent(), r.GetValidFor().AsDuration())
	if err != nil {
		return nil, err
	}
	return &operatorv1.InviteAgentResponse{
		Token: token.Reveal(), RootSha256: pin, ControlPlane: s.AgentAddress, Expires: stamp(expires), TrustDomain: s.TrustDomain,
	}, nil
}

func (s agents) ListAgents(ctx context.Context, r *operatorv1.ListAgentsRequest) (*operatorv1.ListAgentsResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.Enrollment.List(ctx, r.GetTenant(), after, limit)
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListAgentsResponse)
	for _, a := range list {
		resp.Agents = append(resp.Agents, s.showAgent(a))
		resp.NextPageToken = next(len(list), limit, a.ID)
	}
	return resp, nil
}

func (s agents) RevokeAgent(ctx context.Context, r *operatorv1.RevokeAgentRequest) (*operatorv1.RevokeAgentResponse, error) {
	if err := s.Enrollment.Revoke(ctx, actor(ctx), r.GetTenant(), r.GetAgent(), r.GetReason()); err != nil {
		return nil, err
	}
	a, err := s.Enrollment.Get(ctx, r.GetTenant(), r.GetAgent())
	return &operatorv1.RevokeAgentResponse{Agent: s.showAgent(a)}, err
}

func (s *Server) showAgent(a enrollment.Agent) *operatorv1.Agent {
	now, connected := s.Sessions.Connected(a.Tenant)[a.ID]
	return &operatorv1.Agent{
		Tenant: a.Tenant, Name: a.ID, SpiffeId: a.SPIFFE, State: string(a.State), Connected: connected, Paused: now.Paused,
		LastSeen: stamp(a.Seen), Version: a.Version, Epoch: a.Epoch,
	}
}
