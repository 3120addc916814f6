package agentapi

import (
	"context"
	"iter"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Caller is the agent a request comes from, as its SVID and its registration
// say.
type Caller struct {
	Tenant, Agent string
	Epoch         uint64
	// Quarantined agents may observe and ship, but get no order.
	Quarantined bool
}

// Enrollment knows who is an agent; enrollment.Service is it.
type Enrollment interface {
	Authorize(ctx context.Context, id spiffe.AgentID) (enrollment.Agent, error)
	Enroll(ctx context.Context, r *agentv1.EnrollRequest, exporter []byte) (*agentv1.EnrollResponse, error)
	Renew(ctx context.Context, id spiffe.AgentID, r enrollment.Renewal) (enrollment.Issued, error)
	Challenge(tenant, agent string, exporter []byte) ([]byte, error)
	Reattest(ctx context.Context, tenant, agent string, challenge []byte, r enrollment.Renewal) (enrollment.Issued, error)
	Hello(ctx context.Context, tenant, agent string, h enrollment.Hello) (enrollment.Agent, chain.Head, error)
}

// Roots gives root document envelopes, verbatim.
type Roots interface {
	// After returns those of versions greater than version, oldest first.
	After(version uint64) ([][]byte, error)
}

// Observations takes what agents observe; inventory is it.
type Observations interface {
	// Connectors takes the configured connectors as the agent states them.
	Connectors(ctx context.Context, c Caller, list []*agentv1.ConnectorState) error
	// Begin opens a snapshot; resync true means that the base is not held here.
	Begin(ctx context.Context, c Caller, b *agentv1.SnapshotBegin) (resync bool, err error)
	// Batch is durable when it returns. Batches come in order; after a lost
	// connection a snapshot begins anew.
	Batch(ctx context.Context, c Caller, snapshot string, b *agentv1.ObservedBatch) error
	// End puts the snapshot durably in place.
	End(ctx context.Context, c Caller, snapshot string, e *agentv1.SnapshotEnd) error
}

// Abandoned is for Observations that hold something in memory while a snapshot
// comes in.
type Abandoned interface {
	// Abandoned says that no more of a begun snapshot comes: its stream broke, it
	// failed, or the agent began another in its place.
	Abandoned(c Caller, snapshot string)
}

// Orders is what waits for agents; dispatch is it.
type Orders interface {
	// Waiting are the orders to fetch and plans to dry-run at a session's start.
	// sequence is the highest in the agent's journal.
	Waiting(ctx context.Context, c Caller, sequence uint64) ([]*agentv1.Fetch, error)
	// Order and DryRun return the head and the chunks in the manifest's order.
	Order(ctx context.Context, c Caller, order string) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error)
	DryRun(ctx context.Context, c Caller, digest []byte) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error)
	// Progress is for people to watch.
	Progress(ctx context.Context, c Caller, p *agentv1.ReportProgressRequest) error
}

// Records takes signed batches in; intake.Service is it.
type Records interface {
	Ship(ctx context.Context, tenant, agent string, b *auditv1.Batch, cosigned uint64) (*agentv1.ShipRecordsResponse, error)
}

// Checkpoints goes between a tenant's log and the agents that witness it;
// Witnessing is it.
type Checkpoints interface {
	// Next is the newest checkpoint with the proof from the size that the agent
	// cosigned last; nil when there is nothing newer.
	Next(ctx context.Context, tenant, agent string) (*agentv1.Checkpoint, error)
	// From is Next for an agent that says itself which size it holds.
	From(ctx context.Context, tenant string, size uint64) (*agentv1.Checkpoint, error)
	// Growth is the consistency proof between two sizes of the log.
	Growth(ctx context.Context, tenant string, from, to uint64) ([][]byte, error)
	// Cosigned takes the agent's answer.
	Cosigned(ctx context.Context, tenant, agent string, c *agentv1.Cosignature) error
}
