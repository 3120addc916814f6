package operatorapi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

type tenants struct {
	operatorv1.UnimplementedTenantServiceServer
	*Server
}

func (s tenants) AddTenant(ctx context.Context, r *operatorv1.AddTenantRequest) (*operatorv1.AddTenantResponse, error) {
	n, err := s.Tenants.Add(ctx, actor(ctx), tenant.New{ID: r.GetId(), Name: r.GetId(), Owner: r.GetOwner(), Zone: r.GetZone()})
	if err != nil {
		return nil, err
	}
	shown, err := s.show(ctx, n)
	return &operatorv1.AddTenantResponse{Tenant: shown}, err
}

func (s tenants) GetTenant(ctx context.Context, r *operatorv1.GetTenantRequest) (*operatorv1.GetTenantResponse, error) {
	n, err := s.tenant(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	shown, err := s.show(ctx, n)
	return &operatorv1.GetTenantResponse{Tenant: shown}, err
}

func (s tenants) ListTenants(ctx context.Context, r *operatorv1.ListTenantsRequest) (*operatorv1.ListTenantsResponse, error) {
	after, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	list, err := s.Tenants.List(ctx, after, limit)
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListTenantsResponse)
	for _, n := range list {
		shown, err := s.show(ctx, n)
		if err != nil {
			return nil, err
		}
		resp.Tenants = append(resp.Tenants, shown)
		resp.NextPageToken = next(len(list), limit, n.ID)
	}
	return resp, nil
}

func (s *Server) show(ctx context.Context, n tenant.Tenant) (*operatorv1.Tenant, error) {
	shown := &operatorv1.Tenant{Id: n.ID, Owner: n.Owner, Zone: n.Zone, State: string(n.State), Msp: n.MSP, Created: stamp(n.Created)}
	err := s.view(ctx, func(t tx.Tx) (err error) {
		shown.Policy, shown.PolicyVersion, err = s.Policies.Bound(t, n.ID)
		return err
	})
	return shown, err
}

// OffboardTenant makes the plan that leads back. It runs the path of every other
// plan; when it has ended, the second call ends the agents.
func (s tenants) OffboardTenant(ctx context.Context, r *operatorv1.OffboardTenantRequest) (*operatorv1.OffboardTenantResponse, error) {
	n, err := s.tenant(ctx, r.GetTenant())
	if err != nil {
		return nil, err
	}
	if r.GetFinish() {
		return s.finish(ctx, n, r)
	}
	if n.State == tenant.Active {
		if err := s.begin(ctx, n); err != nil {
			return nil, err
		}
	}
	p, err := s.Planning.Make(ctx, n.ID, planv1.Purpose_PURPOSE_OFFBOARD, actor(ctx))
	if err != nil {
		return nil, err
	}
	shown, err := s.showPlan(ctx, p)
	if err != nil {
		return nil, err
	}
	resp := &operatorv1.OffboardTenantResponse{Plan: shown}
	for _, f := range shown.GetFindings() {
		if isResidue(f.GetKind()) {
			resp.Residue = append(resp.Residue, f)
		}
	}
	return resp, nil
}

// begin stops new access: plans that give some can no longer be approved.
func (s tenants) begin(ctx context.Context, n tenant.Tenant) error {
	var waiting []planning.Plan
	err := s.DB.Do(ctx, func(t tx.Tx) (err error) {
		if err := s.Tenants.SetState(t, actor(ctx), n.ID, tenant.Offboarding); err != nil {
			return err
		}
		waiting, err = s.Plans.InPhase(t, n.ID, operatorv1.PlanState_PHASE_WAITING)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range waiting {
		// One that somebody approved or rejected meanwhile has its own way.
		if err := s.Approval.Reject(ctx, p.ID, actor(ctx), "the tenant is being offboarded"); err != nil && !errors.Is(err, planning.ErrPhase) {
			return err
		}
		s.Changes.Changed(p.ID)
	}
	return nil
}

func isResidue(kind string) bool {
	switch planner.FindingKind(kind) {
	case planner.FindingResidue, planner.FindingHandedOver, planner.FindingDiverged:
		return true
	}
	return false
}

// finish ends the agents' identities once nothing is left to take back.
func (s tenants) finish(ctx context.Context, n tenant.Tenant, r *operatorv1.OffboardTenantRequest) (*operatorv1.OffboardTenantResponse, error) {
	if n.State != tenant.Offboarding {
		return nil, fmt.Errorf("%w: %s is %s; begin with `reeve tenant offboard %s`", tenant.ErrConflict, n.ID, n.State, n.ID)
	}
	var open []planning.Plan
	if err := s.view(ctx, func(t tx.Tx) (err error) {
		open, err = s.Plans.InPhase(t, n.ID, operatorv1.PlanState_PHASE_APPROVED, operatorv1.PlanState_PHASE_RUNNING)
		return err
	}); err != nil {
		return nil, err
	}
	if len(open) > 0 {
		return nil, fmt.Errorf("%w: plan %s has not ended; see `reeve plan watch %s`", tenant.ErrConflict, open[0].ID, open[0].ID)
	}
	in, left, err := s.Planning.Preview(ctx, n.ID, planv1.Purpose_PURPOSE_OFFBOARD)
	if err != nil {
		return nil, err
	}
	stuck := notTakenBack(in, left)
	switch {
	case stuck != "" && !r.GetForce():
		return nil, fmt.Errorf("%w: %s; if that can never be, finish with --force and a --reason", tenant.ErrConflict, stuck)
	case stuck != "" && r.GetReason() == "":
		return nil, fmt.Errorf("%w: %s; say with --reason why it is left", errInvalid, stuck)
	}
	agents, err := s.Enrollment.List(ctx, n.ID, "", largestPage)
	if err != nil {
		return nil, err
	}
	resp := &operatorv1.OffboardTenantResponse{Finished: true, Residue: showFindings(left.Findings)}
	return resp, s.DB.Do(ctx, func(t tx.Tx) error {
		if stuck != "" {
			if _, err := s.Log.AppendAct(t, n.ID,
				&auditv1.Header{Type: auditv1.Type_TYPE_TENANT_OFFBOARDED, Actor: actor(ctx)},
				&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{
					Verb: "leave behind", Object: n.ID, Reason: r.GetReason(), Details: []*auditv1.Act_Detail{{Name: "left", Value: stuck}},
				}}}); err != nil {
				return err
			}
		}
		for _, a := range agents {
			if err := s.Enrollment.EndKeys(t, actor(ctx), n.ID, a.ID); err != nil {
				return err
			}
		}
		return s.Tenants.SetState(t, actor(ctx), n.ID, tenant.Offboarded)
	})
}

// notTakenBack says what the MSP caused and that is still there, or cannot be seen
// to be gone; empty when nothing is.
func notTakenBack(in planner.Input, left planner.Output) string {
	changes := 0
	for _, a := range left.Agents {
		changes += len(a.Changes)
	}
	if changes > 0 {
		return fmt.Sprintf("%d changes are still to be taken back; approve the offboarding plan and wait for its end", changes)
	}
	written := map[string]bool{}
	for _, e := range in.Ledger {
		if e.Cause == planv1.Cause_CAUSE_MSP {
			written[e.Connector] = true
		}
	}
	for _, c := range in.Connectors {
		if written[c.Alias] && (c.Suspended != "" || c.Snapshot == nil || c.Mode < planner.ModeAdopt) {
			return fmt.Sprintf("what was written on %s cannot be taken back while nothing may be planned there", c.Alias)
		}
		delete(written, c.Alias)
	}
	if len(written) > 0 {
		return fmt.Sprintf("what was written on %s cannot be taken back: the connector is gone", slices.Sorted(maps.Keys(written))[0])
	}
	return ""
}

func showFindings(list []planner.Finding) []*operatorv1.Finding {
	var shown []*operatorv1.Finding
	for _, f := range list {
		shown = append(shown, &operatorv1.Finding{Kind: string(f.Kind), Connector: f.Connector, Object: f.Object, Identity: f.Identity, Sentence: f.Sentence})
	}
	return shown
}
