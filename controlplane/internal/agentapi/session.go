package agentapi

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/pki/chain"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

const (
	// maxDirectives bounds what waits to be sent in one session. What does not
	// fit is told again at the next hello.
	maxDirectives = 1024
	// silent heartbeats end a session.
	silent = 4
)

// session is one Session stream.
type session struct {
	agent   string
	version string
	since   time.Time
	now     func() time.Time
	wake    chan struct{}

	mu       sync.Mutex
	out      []*agentv1.SessionResponse
	heard    time.Time
	lastWork time.Time
	paused   bool
	spooled  uint64
}

// push queues a directive; false means that the queue is full.
func (s *session) push(m *agentv1.SessionResponse) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.out) >= maxDirectives {
		return false
	}
	s.out = append(s.out, m)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return true
}

func (s *session) take() []*agentv1.SessionResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.out
	s.out = nil
	return out
}

func (s *session) live() Live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Live{Agent: s.agent, Since: s.since, Heard: s.heard, LastWork: s.lastWork, Paused: s.paused, Spooled: s.spooled, Version: s.version}
}

func (s *session) beat(h *agentv1.Heartbeat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard = s.now()
	if h != nil {
		s.paused, s.spooled = h.GetPaused(), h.GetSpooled()
		if h.GetLastWork() != nil {
			s.lastWork = h.GetLastWork().AsTime()
		}
	}
}

// Session implements agentv1.AgentServiceServer.
func (a *agentService) Session(stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse]) error {
	ctx := stream.Context()
	c, err := callerOf(ctx)
	if err != nil {
		return err
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := first.GetHello()
	if hello == nil {
		return status.Error(codes.InvalidArgument, "a session begins with hello")
	}
	s := &session{agent: c.Agent, since: a.Now(), now: a.Now, wake: make(chan struct{}, 1), paused: hello.GetPaused()}
	s.beat(nil)
	var agent enrollment.Agent
	var head chain.Head
	err = aside(func() (err error) { agent, head, err = a.recognize(ctx, &c, s, hello); return err })
	if err != nil {
		return a.fail(ctx, err)
	}
	// Known before it is asked what waits: what comes to wait in between is told
	// twice rather than not at all.
	defer a.Registry.open(agentKey{c.Tenant, c.Agent}, s)()
	if err := aside(func() error { return a.greet(ctx, stream, c, s, hello, agent, head) }); err != nil {
		return a.fail(ctx, err)
	}
	a.Log.InfoContext(ctx, "session open", "tenant", c.Tenant, "agent", c.Agent)
	err = a.converse(ctx, stream, c, s)
	a.Log.InfoContext(ctx, "session ended", "tenant", c.Tenant, "agent", c.Agent)
	return err
}

// recognize takes a hello: who it is, and what it has.
func (a *agentService) recognize(ctx context.Context, c *Caller, s *session, hello *agentv1.Hello) (enrollment.Agent, chain.Head, error) {
	agent, head, err := a.Enrollment.Hello(ctx, c.Tenant, c.Agent, enrollment.Hello{
		Version: hello.GetVersion(), Epoch: hello.GetEpoch(), ChainLength: hello.GetChainLength(), ChainHash: hello.GetChainHash(),
		Another: a.Registry.has(agentKey{c.Tenant, c.Agent}),
	})
	if err != nil {
		return agent, head, err
	}
	c.Epoch, c.Quarantined, s.version = agent.Epoch, agent.Quarantine != "", agent.Version
	return agent, head, a.Observations.Connectors(ctx, *c, hello.GetConnectors())
}

// greet answers a hello and queues what waits for the agent.
func (a *agentService) greet(ctx context.Context, stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse], c Caller, s *session, hello *agentv1.Hello, agent enrollment.Agent, head chain.Head) error {
	roots, err := a.Roots.After(hello.GetRootVersion())
	if err != nil {
		return err
	}
	err = stream.Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Welcome{Welcome: &agentv1.Welcome{
		At: timestamppb.New(a.Now()), RootDocuments: roots, ChainLength: head.Next, HeartbeatSeconds: uint32(a.Heartbeat / time.Second),
	}}})
	if err != nil {
		return err
	}
	if c.Quarantined {
		s.push(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Quarantine{Quarantine: &agentv1.Quarantine{Reason: agent.Quarantine}}})
	} else {
		waiting, err := a.Orders.Waiting(ctx, c, hello.GetSequence())
		if err != nil {
			return err
		}
		for _, f := range waiting {
			s.push(fetch(f))
		}
	}
	return nil
}

// converse runs a session until either side ends it.
func (a *agentService) converse(ctx context.Context, stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse], c Caller, s *session) error {
	in := make(chan heard, 1)
	go listen(stream, in)
	quiet := time.NewTimer(silent * a.Heartbeat)
	defer quiet.Stop()
	w := witness{service: a, caller: c, session: s}
	_ = aside(func() error { w.offer(ctx); return nil })
	for {
		if out := s.take(); len(out) > 0 {
			if err := aside(func() error { return sendAll(stream, out) }); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-s.wake:
		case <-quiet.C:
			return status.Error(codes.DeadlineExceeded, "no heartbeat came")
		case h := <-in:
			if errors.Is(h.err, io.EOF) {
				return nil
			}
			if h.err != nil {
				return h.err
			}
			go listen(stream, in)
			quiet.Reset(silent * a.Heartbeat)
			if err := aside(func() error { return a.hear(ctx, c, s, &w, h.m) }); err != nil {
				return a.fail(ctx, err)
			}
		}
	}
}

// heard is what came in on a session.
type heard struct {
	m   *agentv1.SessionRequest
	err error
}

// listen takes one message in. The next one gets a goroutine of its own, with a
// stack that has not grown yet.
func listen(stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse], in chan<- heard) {
	m, err := stream.Recv()
	in <- heard{m, err}
}

func sendAll(stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse], out []*agentv1.SessionResponse) error {
	for _, m := range out {
		if err := stream.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (a *agentService) hear(ctx context.Context, c Caller, s *session, w *witness, m *agentv1.SessionRequest) error {
	switch m := m.GetMessage().(type) {
	case *agentv1.SessionRequest_Heartbeat:
		s.beat(m.Heartbeat)
		w.offer(ctx)
		if len(m.Heartbeat.GetConnectors()) > 0 {
			return a.Observations.Connectors(ctx, c, m.Heartbeat.GetConnectors())
		}
	case *agentv1.SessionRequest_Cosignature:
		s.beat(nil)
		w.answer(ctx, m.Cosignature)
	case *agentv1.SessionRequest_Hello:
		return status.Error(codes.InvalidArgument, "hello comes once")
	}
	return nil
}
