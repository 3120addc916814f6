package operatorapi

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

type plans struct {
	operatorv1.UnimplementedPlanServiceServer
	*Server
}

func (s plans) MakePlan(ctx context.Context, r *operatorv1.MakePlanRequest) (*operatorv1.MakePlanResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	p, err := s.Planning.Make(ctx, r.GetTenant(), r.GetPurpose(), actor(ctx))
	if err != nil {
		return nil, err
	}
	shown, err := s.showPlan(ctx, p)
	return &operatorv1.MakePlanResponse{Plan: shown}, err
}

func (s plans) GetPlan(ctx context.Context, r *operatorv1.GetPlanRequest) (*operatorv1.GetPlanResponse, error) {
	shown, err := s.plan(ctx, r.GetPlan())
	return &operatorv1.GetPlanResponse{Plan: shown}, err
}

func (s plans) ListPlans(ctx context.Context, r *operatorv1.ListPlansRequest) (*operatorv1.ListPlansResponse, error) {
	if _, err := s.tenant(ctx, r.GetTenant()); err != nil {
		return nil, err
	}
	before, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListPlansResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		list, err := s.Plans.Plans(t, r.GetTenant(), before, limit)
		if err != nil {
			return err
		}
		for _, p := range list {
			shown, err := s.showPlanIn(t, p)
			if err != nil {
				return err
			}
			// A list is for choosing one; its details are asked for by id.
			shown.Manifest, shown.Findings = nil, nil
			resp.Plans = append(resp.Plans, shown)
			resp.NextPageToken = next(len(list), limit, p.ID)
		}
		return nil
	})
}

// ListChanges shows a plan's changes in the order in which they run, each with
// its receipt once there is one. A page costs what is on it and the chunks that
// it lies in.
func (s plans) ListChanges(ctx context.Context, r *operatorv1.ListChangesRequest) (*operatorv1.ListChangesResponse, error) {
	token, limit, err := page(r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	from, err := parsePosition(token)
	if err != nil {
		return nil, err
	}
	resp := new(operatorv1.ListChangesResponse)
	return resp, s.view(ctx, func(t tx.Tx) error {
		p, err := s.Plans.Plan(t, r.GetPlan())
		if err != nil {
			return err
		}
		called := &names{Server: s.Server, t: t, tenant: p.Tenant}
		for at := from; ; at = (position{chunk: at.chunk + 1}) {
			c, ok, err := s.Plans.Chunk(t, p.ID, at.chunk)
			if err != nil || !ok {
				return err
			}
			chunk := new(planv1.Chunk)
			if err := planv1.Decode(c.Bytes, chunk); err != nil {
				return err
			}
			for ; at.change < len(chunk.GetChanges()); at.change++ {
				if len(resp.Changes) == limit {
					resp.NextPageToken = next(limit, limit, at.String())
					return nil
				}
				change := chunk.GetChanges()[at.change]
				receipt, _, err := s.Orders.Receipt(t, p.ID, change.GetId())
				if err != nil {
					return err
				}
				resp.Changes = append(resp.Changes, &operatorv1.PlannedChange{
					Change: change, Agent: c.Agent, Receipt: receipt.Receipt, Sentence: called.sentence(change),
				})
			}
		}
	})
}

// position is where a page of changes begins: a plan never changes, so a place
// in it is a key.
type position struct{ chunk, change int }

func (p position) String() string { return fmt.Sprintf("%d/%d", p.chunk, p.change) }

func parsePosition(s string) (p position, err error) {
	if s == "" {
		return p, nil
	}
	if _, err := fmt.Sscanf(s, "%d/%d", &p.chunk, &p.change); err != nil || p.chunk < 0 || p.change < 0 || p.String() != s {
		return p, errToken
	}
	return p, nil
}

func (s plans) ApprovePlan(ctx context.Context, r *operatorv1.ApprovePlanRequest) (*operatorv1.ApprovePlanResponse, error) {
	if err := s.Approval.Approve(ctx, r.GetPlan(), r.GetDigest(), actor(ctx), r.GetReason()); err != nil {
		return nil, err
	}
	shown, err := s.plan(ctx, r.GetPlan())
	return &operatorv1.ApprovePlanResponse{Plan: shown}, err
}

func (s plans) RejectPlan(ctx context.Context, r *operatorv1.RejectPlanRequest) (*operatorv1.RejectPlanResponse, error) {
	if err := s.Approval.Reject(ctx, r.GetPlan(), actor(ctx), r.GetReason()); err != nil {
		return nil, err
	}
	s.Changes.Changed(r.GetPlan())
	shown, err := s.plan(ctx, r.GetPlan())
	return &operatorv1.RejectPlanResponse{Plan: shown}, err
}

// WatchPlan streams the plan whenever its state changed, until it has ended.
func (s plans) WatchPlan(r *operatorv1.WatchPlanRequest, stream grpc.ServerStreamingServer[operatorv1.WatchPlanResponse]) error {
	ctx := stream.Context()
	changed, stop := s.Changes.Watch(r.GetPlan())
	defer stop()
	for {
		shown, err := s.plan(ctx, r.GetPlan())
		if err != nil {
			return err
		}
		if err := stream.Send(&operatorv1.WatchPlanResponse{Plan: shown}); err != nil {
			return err
		}
		switch shown.GetState().GetPhase() {
		case operatorv1.PlanState_PHASE_ENDED, operatorv1.PlanState_PHASE_REJECTED, operatorv1.PlanState_PHASE_REFUSED, operatorv1.PlanState_PHASE_SUPERSEDED:
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (s *Server) plan(ctx context.Context, id string) (shown *operatorv1.Plan, err error) {
	err = s.view(ctx, func(t tx.Tx) error {
		p, err := s.Plans.Plan(t, id)
		if err != nil {
			return err
		}
		shown, err = s.showPlanIn(t, p)
		return err
	})
	return shown, err
}

func (s *Server) showPlan(ctx context.Context, p planning.Plan) (shown *operatorv1.Plan, err error) {
	err = s.view(ctx, func(t tx.Tx) error {
		shown, err = s.showPlanIn(t, p)
		return err
	})
	return shown, err
}

func (s *Server) showPlanIn(t tx.Tx, p planning.Plan) (*operatorv1.Plan, error) {
	manifest := new(planv1.Manifest)
	if err := planv1.Decode(p.Manifest, manifest); err != nil {
		return nil, err
	}
	shown := &operatorv1.Plan{
		Id: p.ID, Tenant: p.Tenant, Purpose: p.Purpose, Digest: p.Digest, Manifest: manifest, Rehearsal: p.Rehearsal,
		MadeBy: p.MadeBy, Made: stamp(p.Made), Findings: showFindings(p.Findings), DryRunDone: true,
	}
	approvals, err := s.Plans.Approvals(t, p.ID)
	if err != nil {
		return nil, err
	}
	for _, a := range approvals {
		shown.Approvals = append(shown.Approvals, a.Approval)
	}
	dryRuns, err := s.Plans.DryRuns(t, p.ID)
	if err != nil {
		return nil, err
	}
	for _, d := range dryRuns {
		shown.Refusals = append(shown.Refusals, d.Refusals...)
	}
	orders, err := s.Orders.OfPlan(t, p.ID)
	if err != nil {
		return nil, err
	}
	for _, o := range orders {
		if o.State == dispatch.StateRefused {
			shown.Refusals = append(shown.Refusals, o.Refusal)
		}
	}
	agents := approval.Agents(manifest)
	for _, agent := range agents {
		shown.DryRunDone = shown.DryRunDone && slices.ContainsFunc(dryRuns, func(d planning.DryRun) bool { return d.Agent == agent })
	}
	if p.Phase == operatorv1.PlanState_PHASE_WAITING {
		shown.Blocked = approval.Blocked(p, dryRuns, agents)
	}
	shown.State, err = s.Dispatch.State(t, p)
	return shown, err
}

// Changes tells watchers that a plan's state changed. It is safe for concurrent
// use; watchers that are slow see the newest state and miss none.
type Changes struct {
	mu       sync.Mutex
	watchers map[string]map[chan struct{}]bool
}

// NewChanges returns Changes without watchers.
func NewChanges() *Changes {
	return &Changes{watchers: map[string]map[chan struct{}]bool{}}
}

// Changed wakes the plan's watchers.
func (c *Changes) Changed(plan string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for w := range c.watchers[plan] {
		select {
		case w <- struct{}{}:
		default:
			// It has not looked since the last time: one look sees both.
		}
	}
}

// Watch returns a channel that gets a value after each change, until stop.
func (c *Changes) Watch(plan string) (changed <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.watchers[plan] == nil {
		c.watchers[plan] = map[chan struct{}]bool{}
	}
	c.watchers[plan][w] = true
	return w, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.watchers[plan], w)
		if len(c.watchers[plan]) == 0 {
			delete(c.watchers, plan)
		}
	}
}
