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

// State is what a base is, beside its digests.
type State struct {
	// Snapshot is the one last acknowledged; empty before the first.
	Snapshot string
	// Cursor is where the connector's changes can be read from, empty when they
	// cannot. It holds under Scope only: what Following.Scope said.
	Cursor []byte
	Scope  string
	// Set is the digest over the objects, as connectorv1.SetDigest writes it.
	Set []byte
}

// Base is what the control plane has acknowledged to hold, kept by the journal.
type Base interface {
	State(ctx context.Context, connector string) (State, error)
	// Observed returns the state and tells the digests by anchor, each once; a
	// state without a snapshot means that what was told counts for nothing.
	Observed(ctx context.Context, connector string, hold func(anchor string, digest [32]byte)) (State, error)
	// Digests tells the digests of those of the anchors that are held.
	Digests(ctx context.Context, connector string, anchors iter.Seq[string], hold func(anchor string, digest [32]byte)) error
	// SetObserved makes the difference and the state the new base, durably and as a
	// whole. With full set, what was held before is forgotten first.
	SetObserved(ctx context.Context, connector string, to State, changed iter.Seq2[string, [32]byte], removed []string, full bool) error
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
	state, err := base.Observed(ctx, source.Alias(), held.hold)
	if err != nil {
		return nil, fmt.Errorf("load what was observed of %s: %w", source.Alias(), err)
	}
	d := &delta{source: source, held: held}
	if state.Snapshot == "" || d.set.UnmarshalBinary(state.Set) != nil {
		return push(ctx, client, &delta{source: source, held: newHoldings()}, base, now, "")
	}
	result, err := push(ctx, client, d, base, now, state.Snapshot)
	if errors.Is(err, ErrResync) {
		result, err = push(ctx, client, &delta{source: source, held: newHoldings()}, base, now, "")
	}
	return result, err
}

func push(ctx context.Context, client agentv1.AgentServiceClient, d *delta, base Base, now func() time.Time, from string) (*Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	alias := d.source.Alias()
	to := State{Snapshot: rand.Text()}
	d.header = &planv1.SnapshotHeader{Connector: alias, Snapshot: to.Snapshot, ObservedAt: timestamppb.New(now())}
	d.stream = &upload{client: client, begin: &agentv1.SnapshotBegin{Connector: alias, Base: from, Snapshot: to.Snapshot}, cancel: cancel}
	defer d.stream.close()

	end, err := d.source.Observe(ctx, func(objects []*connectorv1.Object) error { return d.take(ctx, objects) })
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
	if d.header.GetComplete() {
		// Changes of what was not read whole would look whole.
		to.Cursor = end.GetCursor()
	}
	if f, ok := d.source.(Following); ok {
		to.Scope = f.Scope()
	}
	changed, sent := d.held.sent()
	return d.keep(ctx, base, to, changed, sent, from == "")
}

// keep makes what was acknowledged the base.
func (d *delta) keep(ctx context.Context, base Base, to State, changed iter.Seq2[string, [32]byte], sent int, full bool) (*Result, error) {
	var err error
	if to.Set, err = d.set.MarshalBinary(); err == nil {
		err = base.SetObserved(ctx, d.source.Alias(), to, changed, d.removed, full)
	}
	if err != nil {
		return nil, fmt.Errorf("keep what was observed of %s: %w", d.source.Alias(), err)
	}
	return &Result{
		Snapshot: to.Snapshot, Sent: sent, Removed: len(d.removed),
		Objects: d.header.GetObjects(), Complete: d.header.GetComplete(), Problems: d.problems,
	}, nil
}

// delta is one observation on its way.
type delta struct {
	source  Source
	held    *holdings
	digests digester
	// set is the digest over what the control plane holds, or will.
	set connectorv1.SetDigest
	// read counts the objects that stand.
	read    int
	removed []string
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
		if held.known {
			d.set.Remove(held.anchor, held.digest)
		}
		held.digest, held.known, held.sent = digest, true, true
		d.set.Add(held.anchor, digest)
		if err := d.add(ctx, o, size); err != nil {
			return err
		}
	}
	return nil
}

// add puts an object of that many octets into the batch.
func (d *delta) add(ctx context.Context, o *connectorv1.Object, size int) error {
	if len(d.batch) > 0 && (len(d.batch) == maxBatchObjects || d.bytes+size > maxBatchBytes) {
		if err := d.flush(ctx); err != nil {
			return err
		}
	}
	d.batch, d.bytes = append(d.batch, o), d.bytes+size
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
	d.removed = d.held.settle(d.header.GetComplete(), &d.set)
	return d.close(ctx, end.GetMethod())
}

// close sends the removals and the end, and waits for the acknowledgement.
func (d *delta) close(ctx context.Context, method string) error {
	for chunk := range slices.Chunk(d.removed, maxBatchObjects) {
		if err := d.stream.send(ctx, &agentv1.ObservedBatch{Removed: chunk}, len(chunk)*48); err != nil {
			return err
		}
	}
	d.header.SetDigest, d.header.Objects = d.set.Sum()
	return d.stream.end(ctx, &agentv1.SnapshotEnd{Header: d.header, Method: method, Problems: d.problems})
}
