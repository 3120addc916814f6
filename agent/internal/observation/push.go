package observation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Source is a connector to read. *pluginhost.Instance is one.
type Source interface {
	Alias() string
	// Observe hands over everything in scope. batch owns the objects; its error
	// is returned as it is.
	Observe(ctx context.Context, batch func([]*connectorv1.Object) error) (*connectorv1.ObserveEnd, error)
	// Released takes from the object what may not leave the network.
	Released(o *connectorv1.Object)
}

// Base is what the control plane has acknowledged to hold, kept by the journal.
type Base interface {
	// Observed returns the snapshot last acknowledged and tells its digests by
	// anchor, each once; no snapshot before the first, and then what was told
	// counts for nothing.
	Observed(ctx context.Context, connector string, hold func(anchor string, digest [32]byte)) (snapshot string, err error)
	// SetObserved makes the difference the new base, durably and as a whole. With
	// full set, what was held before is forgotten first.
	SetObserved(ctx context.Context, connector, snapshot string, changed iter.Seq2[string, [32]byte], removed []string, full bool) error
}

// The size of what is sent at once and of what may wait for an acknowledgement.
const (
	maxBatchObjects = 500
	maxBatchBytes   = 256 << 10
	maxObjectBytes  = 12 << 20
	windowBatches   = 32
	windowBytes     = 4 << 20
)

// ErrResync means that the control plane does not hold the base; the snapshot
// was begun again from nothing and still not accepted.
var ErrResync = errors.New("the control plane asks to begin a full snapshot again")

// Result is what a push did.
type Result struct {
	Snapshot string
	// Sent counts objects sent, Removed anchors sent as gone, Objects what the
	// control plane holds now.
	Sent, Removed int
	Objects       uint64
	Complete      bool
	Problems      []*connectorv1.Problem
}

// Push observes source once and returns when the control plane has acknowledged
// the snapshot durably and base holds it. When nothing could be read at all,
// nothing is sent and the reason returned.
func Push(ctx context.Context, client agentv1.AgentServiceClient, source Source, base Base, now func() time.Time) (*Result, error) {
	held := newHoldings()
	snapshot, err := base.Observed(ctx, source.Alias(), held.hold)
	if err != nil {
		return nil, fmt.Errorf("load what was observed of %s: %w", source.Alias(), err)
	}
	if snapshot == "" {
		held = newHoldings()
	}
	result, err := push(ctx, client, source, base, now, snapshot, held)
	if errors.Is(err, ErrResync) && snapshot != "" {
		result, err = push(ctx, client, source, base, now, "", newHoldings())
	}
	return result, err
}

func push(ctx context.Context, client agentv1.AgentServiceClient, source Source, base Base, now func() time.Time, from string, held *holdings) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d := &delta{
		source: source, held: held,
		began:  now(),
		header: &planv1.SnapshotHeader{Connector: source.Alias(), Snapshot: rand.Text()},
		stream: &upload{client: client, begin: &agentv1.SnapshotBegin{Connector: source.Alias(), Base: from}, cancel: cancel},
	}
	d.stream.begin.Snapshot = d.header.Snapshot
	defer d.stream.close()

	end, err := source.Observe(ctx, func(objects []*connectorv1.Object) error { return d.take(ctx, objects) })
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	var problem *sdk.Problem
	switch {
	case err == nil:
	case !errors.As(err, &problem):
		return nil, err // the stream's, not the connector's
	case d.read == 0:
		return nil, err
	default:
		// What was read stands; that the rest is missing is said.
		end = &connectorv1.ObserveEnd{Method: "stopped before the end", Problems: []*connectorv1.Problem{problem.Incomplete()}}
	}
	if err := d.finish(ctx, end); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	changed, sent := d.held.sent()
	if err := base.SetObserved(ctx, source.Alias(), d.header.GetSnapshot(), changed, d.removed, from == ""); err != nil {
		return nil, fmt.Errorf("keep what was observed of %s: %w", source.Alias(), err)
	}
	return &Result{
		Snapshot: d.header.GetSnapshot(), Sent: sent, Removed: len(d.removed),
		Objects: d.header.GetObjects(), Complete: d.header.GetComplete(), Problems: d.problems,
	}, nil
}

// delta is one observation on its way.
type delta struct {
	source  Source
	held    *holdings
	digests digester
	// read counts the objects that stand.
	read    int
	removed []string
	began   time.Time
	header  *planv1.SnapshotHeader
	stream  *upload

	batch    []*connectorv1.Object
	bytes    int
	problems []*connectorv1.Problem
}

func (d *delta) take(ctx context.Context, objects []*connectorv1.Object) error {
	for _, o := range objects {
		d.source.Released(o)
		digest, size, err := d.digests.digest(o)
		if err != nil {
			return err
		}
		if size > maxObjectBytes {
			d.problems = append(d.problems, sdk.NewProblem(sdk.CodeSizeLimit, d.source.Alias()+": "+o.GetName().Text(), "send the object",
				"split the group, or narrow the connector's scope").WithSaid(fmt.Sprintf("the object has %d bytes, more than %d", size, maxObjectBytes)).Incomplete())
			continue
		}
		held := d.held.see(o.GetAnchor())
		if held == nil {
			return sdk.NewProblem(sdk.CodeConnectorBug, d.source.Alias(), "observe", "this is a fault of the connector: report it to its author").
				WithSaid("one anchor was observed twice: " + o.GetAnchor())
		}
		d.read++
		if held.known && held.digest == digest {
			continue
		}
		held.digest, held.known, held.sent = digest, true, true
		if len(d.batch) > 0 && (len(d.batch) == maxBatchObjects || d.bytes+size > maxBatchBytes) {
			if err := d.flush(ctx); err != nil {
				return err
			}
		}
		d.batch, d.bytes = append(d.batch, o), d.bytes+size
	}
	return nil
}

func (d *delta) flush(ctx context.Context) error {
	if len(d.batch) == 0 {
		return nil
	}
	err := d.stream.send(ctx, &agentv1.ObservedBatch{Objects: d.batch}, d.bytes)
	d.batch, d.bytes = nil, 0
	return err
}

func (d *delta) finish(ctx context.Context, end *connectorv1.ObserveEnd) error {
	if err := d.flush(ctx); err != nil {
		return err
	}
	d.problems = append(end.GetProblems(), d.problems...)
	d.header.Complete = end.GetComplete() && !slices.ContainsFunc(d.problems, func(p *connectorv1.Problem) bool {
		return p.GetSeverity() == connectorv1.Severity_SEVERITY_INCOMPLETE
	})
	// What was not seen is gone only when everything was read.
	d.removed = d.held.settle(d.header.GetComplete())
	for chunk := range slices.Chunk(d.removed, maxBatchObjects) {
		if err := d.stream.send(ctx, &agentv1.ObservedBatch{Removed: chunk}, len(chunk)*48); err != nil {
			return err
		}
	}
	d.header.SetDigest, d.header.Objects = d.held.sum()
	d.header.ObservedAt = timestamppb.New(d.began)
	return d.stream.end(ctx, &agentv1.SnapshotEnd{Header: d.header, Method: end.GetMethod(), Problems: d.problems})
}
