package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Receiver takes what was fetched. Without an error it needs not be fetched
// again: it is durable, or refused with a record. Calls may come twice for one
// order, since the control plane sends again until records show the end.
type Receiver interface {
	// Order takes a signed order. next returns the chunks in the manifest's
	// order and io.EOF after the last. What remains to be done without the
	// connection is returned as run; nil is nothing.
	Order(ctx context.Context, order string, head *agentv1.OrderHead, next func() ([]byte, error)) (run func(context.Context) error, err error)
	// DryRun takes a plan that nobody has ordered yet.
	DryRun(ctx context.Context, digest []byte, head *agentv1.OrderHead, next func() ([]byte, error)) error
}

// Orders is the queue of what the control plane says waits, run one by one in
// the order it was told.
type Orders struct {
	Link     Acquirer
	Receiver Receiver
	Logger   *slog.Logger
	// Tries is how often a fetch is tried before what waits behind it has its
	// turn; 0 is 5. Pause is the first wait in between; 0 is one second. After
	// Later it comes to the end of the queue again; 0 is one minute. Only what
	// the control plane does not have any more is given up: a disk that was full
	// has space again without anybody telling.
	Tries int
	Pause time.Duration
	Later time.Duration

	mu      sync.Mutex
	queue   []*agentv1.Fetch
	waiting map[string]bool
	wake    chan struct{}
}

// maxQueue bounds what waits: a control plane that says more is told again
// later.
const maxQueue = 1024

// maxChunk is the greatest size of a chunk in bytes.
const maxChunk = 1 << 20

func fetchKey(f *agentv1.Fetch) string {
	if f.GetOrder() != "" {
		return "order " + f.GetOrder()
	}
	return "dry-run " + hex.EncodeToString(f.GetDryRun())
}

// Add puts a directive into the queue; one that waits already is not put twice.
func (o *Orders) Add(f *agentv1.Fetch) {
	key := fetchKey(f)
	if f.GetOrder() == "" && len(f.GetDryRun()) == 0 {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.init()
	if o.waiting[key] || len(o.queue) >= maxQueue {
		return
	}
	o.waiting[key] = true
	o.queue = append(o.queue, f)
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

func (o *Orders) init() {
	if o.wake == nil {
		o.wake, o.waiting = make(chan struct{}, 1), map[string]bool{}
	}
}

func (o *Orders) next() *agentv1.Fetch {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.queue) == 0 {
		return nil
	}
	f := o.queue[0]
	o.queue = o.queue[1:]
	// Taken off before it runs: an order that is announced while it runs is
	// fetched once more, and known.
	delete(o.waiting, fetchKey(f))
	return f
}

// Run works through the queue until ctx ends.
func (o *Orders) Run(ctx context.Context) {
	o.mu.Lock()
	o.init()
	o.mu.Unlock()
	tries, first, later := o.Tries, o.Pause, o.Later
	if tries <= 0 {
		tries = 5
	}
	if first <= 0 {
		first = time.Second
	}
	if later <= 0 {
		later = time.Minute
	}
	for ctx.Err() == nil {
		f := o.next()
		if f == nil {
			select {
			case <-ctx.Done():
			case <-o.wake:
			}
			continue
		}
		pause := first
		for try := range tries {
			err := o.take(ctx, f)
			if err == nil || ctx.Err() != nil {
				break
			}
			o.Logger.Warn("order was not taken", "fetch", sdk.Clean(fetchKey(f)), "try", try+1, "error", sdk.Clean(err.Error()))
			if forGood(err) {
				break
			}
			if try == tries-1 {
				time.AfterFunc(later, func() { o.Add(f) })
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause/2 + rand.N(pause/2+1)):
			}
			pause *= 2
		}
	}
}

// forGood reports whether asking again has no sense in this session: the order
// was taken back, or is not this agent's to fetch.
func forGood(err error) bool {
	switch status.Code(err) {
	case codes.NotFound, codes.PermissionDenied, codes.FailedPrecondition:
		return true
	}
	return false
}

func (o *Orders) take(ctx context.Context, f *agentv1.Fetch) error {
	run, err := o.fetch(ctx, f)
	if err != nil || run == nil {
		return err
	}
	return run(ctx)
}

func (o *Orders) fetch(ctx context.Context, f *agentv1.Fetch) (run func(context.Context) error, err error) {
	client, release, err := o.Link.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_Order{Order: f.GetOrder()}}
	if f.GetOrder() == "" {
		request.What = &agentv1.FetchOrderRequest_DryRun{DryRun: f.GetDryRun()}
	}
	stream, err := client.FetchOrder(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	m, err := stream.Recv()
	if err != nil {
		return nil, fmt.Errorf("fetch: %w", err)
	}
	head := m.GetHead()
	if head == nil {
		return nil, errors.New("fetch: the stream does not begin with an order's head")
	}
	next := chunks(stream)
	if f.GetOrder() != "" {
		return o.Receiver.Order(ctx, f.GetOrder(), head, next)
	}
	return nil, o.Receiver.DryRun(ctx, f.GetDryRun(), head, next)
}

func chunks(stream grpc.ServerStreamingClient[agentv1.FetchOrderResponse]) func() ([]byte, error) {
	return func() ([]byte, error) {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		if err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}
		chunk, ok := m.GetItem().(*agentv1.FetchOrderResponse_Chunk)
		if !ok || len(chunk.Chunk) > maxChunk {
			return nil, errors.New("fetch: a message that is no chunk of at most 1 MiB")
		}
		return chunk.Chunk, nil
	}
}
