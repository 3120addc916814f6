package operatorapi

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

type grants struct {
	operatorv1.UnimplementedGrantServiceServer
	*Server
}

// AddGrant resolves names to ids at once: a grant must not move to somebody else
// because a login did.
func (s grants) AddGrant(ctx context.Context, r *operatorv1.AddGrantRequest) (*operatorv1.AddGrantResponse, error) {
	n, err := s.tenant(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	if n.State != tenant.Active {
		return nil, fmt.Errorf("%w: %s is %s and takes no new access", tenant.ErrConflict, n.ID, n.State)
	}
	g := grant.Grant{Entitlement: r.GetEntitlement(), Reason: r.GetReason(), Ticket: r.GetTicket()}
	var rule grant.Rule
	if err := s.view(ctx, func(t tx.Tx) error {
		program, err := s.Policies.Program(t, r.GetTenant())
		if err != nil {
			return err
		}
		e, ok := program.Entitlement(r.GetEntitlement())
		if !ok {
			return fmt.Errorf("%w: policy %s has no entitlement %q; it has %s", grant.ErrInvalid, program.Name(), r.GetEntitlement(), entitlementIDs(program))
		}
		rule = grant.Rule{RequireEnd: e.RequireEnd, MaxGrant: e.MaxGrant}
		id, err := s.findIdentity(t, r.GetTenant(), r.GetIdentity())
		g.Identity = id.ID
		return err
	}); err != nil {
		return nil, err
	}
	g, err = s.Grants.Add(ctx, r.GetTenant(), g, r.GetValidFor().AsDuration(), rule, actor(ctx))
	return &operatorv1.AddGrantResponse{Grant: s.showGrant(r.GetTenant(), g)}, err
}

// findIdentity finds an identity of a tenant, or one of the MSP's as the tenant
// knows it: its id then keeps the prefix that it was asked for with, but in the
// MSP's own tenant, where it is one of its own.
func (s *Server) findIdentity(t tx.Tx, tenant, who string) (identity.Identity, error) {
	home, prefix := tenant, ""
	if technician, ok := strings.CutPrefix(who, grant.MSPPrefix); ok {
		home, who = s.MSP, technician
		if tenant != s.MSP {
			prefix = grant.MSPPrefix
		}
	}
	id, err := s.Identities.Find(t, home, who)
	if errors.Is(err, identity.ErrNotFound) {
		return id, fmt.Errorf("%w; see `reeve identity list %s`", err, home)
	}
	id.ID = prefix + id.ID
	return id, err
}

func entitlementIDs(p *policy.Program) string {
	var ids []string
	for _, e := range p.Entitlements() {
		ids = append(ids, e.ID)
	}
	return strings.Join(ids, ", ")
}

func (s grants) EndGrant(ctx context.Context, r *operatorv1.EndGrantRequest) (*operatorv1.EndGrantResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	g, err := s.Grants.End(ctx, r.GetTenant(), r.GetGrant(), r.GetReason(), actor(ctx))
	return &operatorv1.EndGrantResponse{Grant: s.showGrant(r.GetTenant(), g)}, err
}

func (s grants) ListGrants(ctx context.Context, r *operatorv1.ListGrantsRequest) (*operatorv1.ListGrantsResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.Grants.List(ctx, r.GetTenant(), after, limit)
	resp := new(operatorv1.ListGrantsResponse)
	for _, g := range list {
		resp.Grants = append(resp.Grants, s.showGrant(r.GetTenant(), g))
		resp.NextPageToken = next(len(list), limit, g.ID)
	}
	return resp, err
}

func (s *Server) showGrant(tenant string, g grant.Grant) *operatorv1.Grant {
	shown := &operatorv1.Grant{
		Id: g.ID, Tenant: tenant, Identity: g.Identity, Entitlement: g.Entitlement, Cause: g.Cause, Reason: g.Reason, Ticket: g.Ticket,
		Starts: stamp(g.Starts), Ends: stamp(g.Ends), State: "ended",
	}
	if g.Open(s.Now()) {
		shown.State = "open"
	}
	return shown
}

type schedules struct {
	operatorv1.UnimplementedScheduleServiceServer
	*Server
}

func (s schedules) AddSchedule(ctx context.Context, r *operatorv1.AddScheduleRequest) (*operatorv1.AddScheduleResponse, error) {
	asked := r.GetSchedule()
	if _, err := s.tenant(ctx, asked.GetTenant()); err != nil {
		return nil, err
	}
	kept, err := s.Schedules.Add(ctx, schedule.Schedule{Tenant: asked.GetTenant(), Name: asked.GetName(), Cron: asked.GetCron(), Work: asked.GetWork()})
	return &operatorv1.AddScheduleResponse{Schedule: showSchedule(kept)}, err
}

func (s schedules) ListSchedules(ctx context.Context, r *operatorv1.ListSchedulesRequest) (*operatorv1.ListSchedulesResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	list, err := s.Schedules.List(ctx, r.GetTenant())
	resp := new(operatorv1.ListSchedulesResponse)
	for _, kept := range list {
		resp.Schedules = append(resp.Schedules, showSchedule(kept))
	}
	return resp, err
}

func (s schedules) RemoveSchedule(ctx context.Context, r *operatorv1.RemoveScheduleRequest) (*operatorv1.RemoveScheduleResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	return &operatorv1.RemoveScheduleResponse{}, s.Schedules.Remove(ctx, r.GetTenant(), r.GetName())
}

func showSchedule(s schedule.Schedule) *operatorv1.Schedule {
	return &operatorv1.Schedule{
		Tenant: s.Tenant, Name: s.Name, Cron: s.Cron, Work: s.Work, NextRun: stamp(s.NextRun), LastRun: stamp(s.LastRun), LastOutcome: s.Outcome,
	}
}
