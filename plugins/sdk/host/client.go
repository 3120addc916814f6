package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Client calls one connector. Its errors are *sdk.Problem, but for errors of
// the caller's own functions, which are returned as they are. Calls may run at
// the same time.
type Client struct {
	alias  string
	rpc    connectorv1.ConnectorServiceClient
	digest []byte
	exited <-chan struct{}
	kill   func()
	once   sync.Once

	mu         sync.Mutex
	attributes map[string]map[string]*connectorv1.AttributeType
}

// New returns a client over a connection that someone else made, such as a
// test's; Kill does nothing to it and Exited never fires.
func New(alias string, conn grpc.ClientConnInterface) *Client {
	return &Client{alias: alias, rpc: connectorv1.NewConnectorServiceClient(conn)}
}

// SHA256 is the digest of the executable that runs; nil without a process.
func (c *Client) SHA256() []byte { return slices.Clone(c.digest) }

// Exited is closed when the process has ended, for whatever reason.
func (c *Client) Exited() <-chan struct{} { return c.exited }

// Kill ends the process, asking first and forcing after three seconds, and
// returns when it is gone.
func (c *Client) Kill() {
	c.once.Do(func() {
		if c.kill != nil {
			c.kill()
		}
	})
}

// fail turns an error of the wire into a problem.
func (c *Client) fail(ctx context.Context, err error, tried string) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return sdk.AsProblem(ctx.Err(), c.alias, tried)
	}
	return sdk.AsProblem(err, c.alias, tried)
}

func (c *Client) bug(tried, format string, args ...any) error {
	return sdk.NewProblem(sdk.CodeConnectorBug, c.alias, tried, "this is a fault of the connector: report it to its author").
		WithSaid(fmt.Sprintf(format, args...))
}

// Describe asks what the connector can do.
func (c *Client) Describe(ctx context.Context) (*connectorv1.DescribeResponse, error) {
	out, err := c.rpc.Describe(ctx, &connectorv1.DescribeRequest{})
	return out, c.fail(ctx, err, "describe")
}

// Configure hands over settings and secrets, once a process.
func (c *Client) Configure(ctx context.Context, r *connectorv1.ConfigureRequest) (*connectorv1.ConfigureResponse, error) {
	out, err := c.rpc.Configure(ctx, r)
	if err != nil {
		return nil, c.fail(ctx, err, "configure")
	}
	attributes := map[string]map[string]*connectorv1.AttributeType{}
	for _, t := range out.GetTypes() {
		if attributes[t.GetName()] != nil {
			return nil, c.bug("configure", "type %q is declared twice", t.GetName())
		}
		attributes[t.GetName()] = map[string]*connectorv1.AttributeType{}
		for _, a := range t.GetAttributes() {
			attributes[t.GetName()][a.GetName()] = a
		}
	}
	c.mu.Lock()
	c.attributes = attributes
	c.mu.Unlock()
	return out, nil
}

// Check proves the settings against the directory.
func (c *Client) Check(ctx context.Context) (*connectorv1.CheckResponse, error) {
	out, err := c.rpc.Check(ctx, &connectorv1.CheckRequest{})
	return out, c.fail(ctx, err, "check")
}

// Observe reads everything in scope; batch owns the objects it is given. The
// end is checked: its count is what was received, and it is complete only if
// nothing was left out. Without an end there is an error, and nothing follows
// from what was received.
func (c *Client) Observe(ctx context.Context, batch func([]*connectorv1.Object) error) (*connectorv1.ObserveEnd, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Observe(ctx, &connectorv1.ObserveRequest{})
	if err != nil {
		return nil, c.fail(ctx, err, "observe")
	}
	tally := tally{client: c, tried: "observe"}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return tally.finish()
		}
		if err != nil {
			return nil, c.fail(ctx, err, "observe")
		}
		switch item := m.GetItem().(type) {
		case *connectorv1.ObserveResponse_Batch:
			err = tally.objects(item.Batch.GetObjects(), batch)
		case *connectorv1.ObserveResponse_End:
			err = tally.endWith(item.End)
		default:
			err = c.bug("observe", "a message that is neither batch nor end")
		}
		if err != nil {
			return nil, err
		}
	}
}

// Delta takes what Changes received, in order; it owns what it is given.
type Delta struct {
	Changed func([]*connectorv1.Object) error
	// Removed and Present take anchors. What was told as neither changed nor
	// present is gone only under an end that is enumerated.
	Removed, Present func(anchors []string) error
}

// Changes reads what changed since cursor, checked as Observe checks; nothing
// follows from what was received unless the end is complete. A cursor that the
// directory does not know any more is a problem of code CURSOR_LOST.
func (c *Client) Changes(ctx context.Context, cursor []byte, to Delta) (*connectorv1.ObserveEnd, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Changes(ctx, &connectorv1.ChangesRequest{Cursor: cursor})
	if err != nil {
		return nil, c.fail(ctx, err, "changes")
	}
	tally := tally{client: c, tried: "changes"}
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return tally.finishChanges()
		}
		if err != nil {
			return nil, c.fail(ctx, err, "changes")
		}
		switch item := m.GetItem().(type) {
		case *connectorv1.ChangesResponse_Changed:
			err = tally.objects(item.Changed.GetObjects(), to.Changed)
		case *connectorv1.ChangesResponse_Removed:
			err = tally.names(item.Removed.GetAnchors(), to.Removed)
		case *connectorv1.ChangesResponse_Present:
			tally.present = true
			err = tally.names(item.Present.GetAnchors(), to.Present)
		case *connectorv1.ChangesResponse_End:
			err = tally.endWith(item.End)
		default:
			err = c.bug("changes", "a message that is neither change nor end")
		}
		if err != nil {
			return nil, err
		}
	}
}

// Watch calls changed after each change until ctx ends.
func (c *Client) Watch(ctx context.Context, cursor []byte, changed func()) error {
	stream, err := c.rpc.Watch(ctx, &connectorv1.WatchRequest{Cursor: cursor})
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			changed()
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return c.fail(ctx, err, "watch")
}

// Read returns one result for each ref, in order; at most 100 refs.
func (c *Client) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	out, err := c.rpc.Read(ctx, &connectorv1.ReadRequest{Objects: refs})
	if err != nil {
		return nil, c.fail(ctx, err, "read")
	}
	if len(out.GetResults()) != len(refs) {
		return nil, c.bug("read", "%d results for %d objects", len(out.GetResults()), len(refs))
	}
	for i, r := range out.GetResults() {
		switch outcome := r.GetOutcome().(type) {
		case *connectorv1.ReadResult_Object:
			if a := refs[i].GetAnchor(); outcome.Object.GetType() != refs[i].GetType() || (a != "" && a != outcome.Object.GetAnchor()) {
				return nil, c.bug("read", "result %d is another object than the one asked for", i)
			}
			if err := c.checkObject("read", outcome.Object); err != nil {
				return nil, err
			}
		case *connectorv1.ReadResult_Absent:
		case *connectorv1.ReadResult_Problem:
			outcome.Problem = sdk.FromProto(outcome.Problem).Proto()
		default:
			return nil, c.bug("read", "result %d is empty", i)
		}
	}
	return out.GetResults(), nil
}

// maxOperations is how many operations one message carries.
const maxOperations = 100

// Apply carries out operations, a hundred a message, sent ahead of the answers.
// Results are in the order of the operations. With an error come the results
// received before it; every operation without one may or may not have happened.
func (c *Client) Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.rpc.Apply(ctx)
	if err != nil {
		return nil, c.fail(ctx, err, "apply")
	}
	go func() {
		for chunk := range slices.Chunk(operations, maxOperations) {
			if stream.Send(&connectorv1.ApplyRequest{Operations: chunk}) != nil {
				// Recv tells the reason.
				return
			}
		}
		_ = stream.CloseSend()
	}()
	results := make([]*connectorv1.ApplyResult, 0, len(operations))
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			if len(results) < len(operations) {
				return results, c.bug("apply", "%d results for %d operations", len(results), len(operations))
			}
			return results, nil
		}
		if err != nil {
			return results, c.fail(ctx, err, "apply")
		}
		for _, r := range m.GetResults() {
			if len(results) == len(operations) {
				return results, c.bug("apply", "more results than operations")
			}
			want := operations[len(results)].GetId()
			if r.GetOperationId() != want {
				return results, c.bug("apply", "result %q where %q was next", r.GetOperationId(), want)
			}
			switch r.GetOutcome() {
			case connectorv1.Outcome_OUTCOME_DONE, connectorv1.Outcome_OUTCOME_CONFLICT, connectorv1.Outcome_OUTCOME_REFUSED, connectorv1.Outcome_OUTCOME_UNKNOWN:
			default:
				return results, c.bug("apply", "operation %q has no known outcome", want)
			}
			if r.Problem != nil {
				r.Problem = sdk.FromProto(r.Problem).Proto()
			}
			results = append(results, r)
		}
	}
}
