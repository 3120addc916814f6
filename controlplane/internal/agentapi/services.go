package agentapi

import (
	"context"
	"errors"
	"io"
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// enrollmentService is reachable without a certificate.
type enrollmentService struct {
	agentv1.UnimplementedEnrollmentServiceServer
	*Server
}

// GetRoot implements agentv1.EnrollmentServiceServer.
func (e *enrollmentService) GetRoot(ctx context.Context, r *agentv1.GetRootRequest) (*agentv1.GetRootResponse, error) {
	envelopes, err := e.Roots.After(r.GetAfterVersion())
	if err != nil {
		return nil, e.fail(ctx, err)
	}
	return &agentv1.GetRootResponse{Envelopes: envelopes}, nil
}

// Enroll implements agentv1.EnrollmentServiceServer.
func (e *enrollmentService) Enroll(ctx context.Context, r *agentv1.EnrollRequest) (*agentv1.EnrollResponse, error) {
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	out, err := e.Enrollment.Enroll(ctx, r, exporter)
	if err != nil {
		return nil, e.fail(ctx, err)
	}
	return out, nil
}

// Challenge implements agentv1.EnrollmentServiceServer.
func (e *enrollmentService) Challenge(ctx context.Context, r *agentv1.ChallengeRequest) (*agentv1.ChallengeResponse, error) {
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	if spiffe.ValidateName(r.GetTenant()) != nil || spiffe.ValidateName(r.GetAgent()) != nil {
		return nil, status.Error(codes.InvalidArgument, "tenant and agent must be names")
	}
	value, err := e.Enrollment.Challenge(r.GetTenant(), r.GetAgent(), exporter)
	if err != nil {
		return nil, e.fail(ctx, err)
	}
	return &agentv1.ChallengeResponse{Challenge: value}, nil
}

// Reattest implements agentv1.EnrollmentServiceServer.
func (e *enrollmentService) Reattest(ctx context.Context, r *agentv1.ReattestRequest) (*agentv1.ReattestResponse, error) {
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	issued, err := e.Enrollment.Reattest(ctx, r.GetTenant(), r.GetAgent(), r.GetChallenge(),
		enrollment.Renewal{CSR: r.GetCsr(), Counter: r.GetCounter(), Proof: r.GetProof(), Exporter: exporter})
	if err != nil {
		return nil, e.fail(ctx, err)
	}
	return &agentv1.ReattestResponse{Certificates: issued.Certificates, Counter: issued.Counter}, nil
}

func exporterOf(ctx context.Context) ([]byte, error) {
	state, err := mtls.State(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "this service needs TLS")
	}
	exporter, err := mtls.ExporterBinding(state)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "this service needs TLS 1.3")
	}
	return exporter, nil
}

// agentService needs an agent's SVID; the interceptors have put the Caller into
// the context.
type agentService struct {
	agentv1.UnimplementedAgentServiceServer
	*Server
}

// Renew implements agentv1.AgentServiceServer.
func (a *agentService) Renew(ctx context.Context, r *agentv1.RenewRequest) (*agentv1.RenewResponse, error) {
	exporter, err := exporterOf(ctx)
	if err != nil {
		return nil, err
	}
	id, err := agentID(ctx)
	if err != nil {
		return nil, err
	}
	issued, err := a.Enrollment.Renew(ctx, id, enrollment.Renewal{CSR: r.GetCsr(), Counter: r.GetCounter(), Proof: r.GetProof(), Exporter: exporter})
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return &agentv1.RenewResponse{Certificates: issued.Certificates, Counter: issued.Counter}, nil
}

// PushObservations implements agentv1.AgentServiceServer. Nothing is read ahead
// of what is durable but one stream window, so a slow store slows the agent
// down and costs no memory here.
func (a *agentService) PushObservations(stream grpc.BidiStreamingServer[agentv1.PushObservationsRequest, agentv1.PushObservationsResponse]) error {
	ctx := stream.Context()
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	var snapshot string
	var batches uint64
	defer func() { a.abandon(c, snapshot) }()
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := a.observe(ctx, c, m, &snapshot, &batches)
		if err != nil {
			return a.fail(ctx, err)
		}
		if answer != nil {
			if err := stream.Send(answer); err != nil {
				return err
			}
		}
	}
}

func (a *agentService) observe(ctx context.Context, c Caller, m *agentv1.PushObservationsRequest, snapshot *string, batches *uint64) (*agentv1.PushObservationsResponse, error) {
	leave, err := a.bulk.Enter(ctx, c.Tenant)
	if err != nil {
		return nil, err
	}
	defer leave()
	begun := *snapshot
	switch m := m.GetMessage().(type) {
	case *agentv1.PushObservationsRequest_Begin:
		a.abandon(c, begun)
		*snapshot, *batches = "", 0
		resync, err := a.Observations.Begin(ctx, c, m.Begin)
		if err != nil {
			return nil, err
		}
		if !resync {
			*snapshot = m.Begin.GetSnapshot()
			return nil, nil
		}
		// What the agent had sent already belongs to nothing; it begins anew.
		return &agentv1.PushObservationsResponse{Snapshot: m.Begin.GetSnapshot(), Resync: true}, nil
	case *agentv1.PushObservationsRequest_Batch:
		if begun == "" {
			return nil, nil
		}
		if err := a.Observations.Batch(ctx, c, begun, m.Batch); err != nil {
			return nil, err
		}
		*batches++
		return &agentv1.PushObservationsResponse{Snapshot: begun, Batches: *batches}, nil
	case *agentv1.PushObservationsRequest_End:
		if begun == "" {
			return nil, nil
		}
		if err := a.Observations.End(ctx, c, begun, m.End); err != nil {
			return nil, err
		}
		*snapshot = ""
		return &agentv1.PushObservationsResponse{Snapshot: begun, Batches: *batches, Done: true}, nil
	}
	return nil, status.Error(codes.InvalidArgument, "an observation is begin, batch or end")
}

// abandon tells whoever holds a begun snapshot that the rest will not come.
func (a *agentService) abandon(c Caller, snapshot string) {
	if to, ok := a.Observations.(Abandoned); ok && snapshot != "" {
		to.Abandoned(c, snapshot)
	}
}

// ShipRecords implements agentv1.AgentServiceServer.
func (a *agentService) ShipRecords(stream grpc.BidiStreamingServer[agentv1.ShipRecordsRequest, agentv1.ShipRecordsResponse]) error {
	ctx := stream.Context()
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := a.Records.Ship(ctx, c.Tenant, c.Agent, m.GetBatch(), m.GetCosignedSize())
		if err != nil {
			return a.fail(ctx, err)
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

// FetchOrder implements agentv1.AgentServiceServer.
func (a *agentService) FetchOrder(r *agentv1.FetchOrderRequest, stream grpc.ServerStreamingServer[agentv1.FetchOrderResponse]) error {
	ctx := stream.Context()
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	if c.Quarantined {
		return status.Error(codes.FailedPrecondition, "this agent is quarantined and runs no order; run `reeve-agent recover`")
	}
	var head *agentv1.OrderHead
	var chunks iter.Seq2[[]byte, error]
	switch what := r.GetWhat().(type) {
	case *agentv1.FetchOrderRequest_Order:
		head, chunks, err = a.Orders.Order(ctx, c, what.Order)
	case *agentv1.FetchOrderRequest_DryRun:
		head, chunks, err = a.Orders.DryRun(ctx, c, what.DryRun)
	default:
		return status.Error(codes.InvalidArgument, "name an order or a plan's digest")
	}
	if err != nil {
		return a.fail(ctx, err)
	}
	if err := stream.Send(&agentv1.FetchOrderResponse{Item: &agentv1.FetchOrderResponse_Head{Head: head}}); err != nil {
		return err
	}
	for chunk, err := range chunks {
		if err != nil {
			return a.fail(ctx, err)
		}
		if err := stream.Send(&agentv1.FetchOrderResponse{Item: &agentv1.FetchOrderResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

// ProveGrowth implements agentv1.AgentServiceServer.
func (a *agentService) ProveGrowth(ctx context.Context, r *agentv1.ProveGrowthRequest) (*agentv1.ProveGrowthResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	hashes, err := a.Checkpoints.Growth(ctx, c.Tenant, r.GetFromSize(), r.GetToSize())
	if err != nil {
		return nil, a.fail(ctx, err)
	}
	return &agentv1.ProveGrowthResponse{Hashes: hashes}, nil
}

// ReportProgress implements agentv1.AgentServiceServer.
func (a *agentService) ReportProgress(ctx context.Context, r *agentv1.ReportProgressRequest) (*agentv1.ReportProgressResponse, error) {
	c, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.Orders.Progress(ctx, c, r); err != nil {
		return nil, a.fail(ctx, err)
	}
	return &agentv1.ReportProgressResponse{}, nil
}
