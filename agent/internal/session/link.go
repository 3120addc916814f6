package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Handler takes what the control plane says in a session. Calls come one at a
// time for each connection; while a session moves, from two of them.
type Handler interface {
	// Welcome takes the answer to Hello; an error ends the session.
	Welcome(ctx context.Context, w *agentv1.Welcome) error
	Observe(o *agentv1.Observe)
	Fetch(f *agentv1.Fetch)
	// Checkpoint judges a checkpoint; what it returns is sent back, nil nothing.
	Checkpoint(ctx context.Context, c *agentv1.Checkpoint) *agentv1.Cosignature
	Quarantine(q *agentv1.Quarantine)
}

// Link is the agent's connection to its control plane. It is safe for concurrent
// use; Run is called once.
type Link struct {
	// Dial opens a new connection under the present SVID.
	Dial func(ctx context.Context) (*grpc.ClientConn, error)
	// Renewed gets a value when there is a new SVID or root document, so that
	// the session must move to a new connection.
	Renewed <-chan struct{}
	Hello   func(ctx context.Context) (*agentv1.Hello, error)
	Beat    func() *agentv1.Heartbeat
	Handler Handler
	// Every is the time between heartbeats; the control plane's wish, within 5 s
	// and 10 min, goes before it.
	Every  time.Duration
	Logger *slog.Logger
	// FirstPause and MostPause bound the pause before dialling again, drawn at
	// random from their growing range; 0 is one second and one minute.
	FirstPause, MostPause time.Duration
	// After is the timer of that pause; nil means time.After.
	After func(time.Duration) <-chan time.Time

	mu      sync.Mutex
	current *connection
	changed chan struct{}
	last    error
	welcome time.Time
}

// held is how long a session must have lasted for the next dial to come soon.
const held = 10 * time.Second

// answerTimeout is how long a control plane may take to welcome.
const answerTimeout = 30 * time.Second

// connection is one gRPC connection with its session.
type connection struct {
	cc     *grpc.ClientConn
	client agentv1.AgentServiceClient
	stream grpc.BidiStreamingClient[agentv1.SessionRequest, agentv1.SessionResponse]
	every  time.Duration
	// ended is closed when the session is over, with its reason in err.
	ended  chan struct{}
	err    error
	cancel context.CancelFunc

	sending sync.Mutex

	// users counts who has acquired it; idle is closed when it is retired and
	// nobody has.
	mu      sync.Mutex
	users   int
	retired bool
	idle    chan struct{}
}

// Acquire lends the present connection's client, waiting for one if need be.
// What runs on it goes on when the session moves; release lets the old
// connection be closed.
func (l *Link) Acquire(ctx context.Context) (agentv1.AgentServiceClient, func(), error) {
	for {
		l.mu.Lock()
		c, changed := l.current, l.changing()
		l.mu.Unlock()
		if c != nil && c.acquire() {
			var once sync.Once
			return c.client, func() { once.Do(c.release) }, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		}
	}
}

// changing is a channel closed at the next change of current; l.mu is held.
func (l *Link) changing() <-chan struct{} {
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.changed
}

func (l *Link) set(c *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.current = c
	if l.changed != nil {
		close(l.changed)
		l.changed = nil
	}
	if c != nil {
		l.welcome = time.Now()
	}
}

// State is whether a session is open, when the last one was, and why there is
// none.
func (l *Link) State() (connected bool, welcome time.Time, last error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.current != nil, l.welcome, l.last
}

// Send puts a message into the present session. Without one it is dropped: what
// must arrive is sent again in the next.
func (l *Link) Send(m *agentv1.SessionRequest) {
	l.mu.Lock()
	c := l.current
	l.mu.Unlock()
	if c != nil {
		c.send(m)
	}
}

// Run keeps a session open until ctx ends.
func (l *Link) Run(ctx context.Context) {
	first, most := l.FirstPause, l.MostPause
	if first <= 0 {
		first = time.Second
	}
	if most <= 0 {
		most = time.Minute
	}
	after := l.After
	if after == nil {
		after = time.After
	}
	var retiring sync.WaitGroup
	defer retiring.Wait()
	pause := first
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connected(ctx, &retiring)
		if ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		l.last = err
		l.mu.Unlock()
		l.Logger.Warn("no session with the control plane", "error", sdk.Clean(err.Error()))
		// A session that held was no failure: a control plane that was restarted a
		// few times must not leave its agents waiting.
		if time.Since(began) > min(held, most) {
			pause = first
		}
		select {
		case <-ctx.Done():
		case <-after(pause/2 + rand.N(pause/2+1)):
		}
		pause = min(2*pause, most)
	}
}

// connected opens a session and stays until it, and every one it moved to, is
// lost.
func (l *Link) connected(ctx context.Context, retiring *sync.WaitGroup) error {
	c, err := l.open(ctx)
	if err != nil {
		return err
	}
	l.set(c)
	l.Logger.Info("session open")
	defer func() {
		l.set(nil)
		c.close()
	}()
	beat := time.NewTimer(c.every)
	defer beat.Stop()
	var retry <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			return c.err
		case <-beat.C:
			c.send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{Heartbeat: l.Beat()}})
			beat.Reset(c.every)
			continue
		case <-l.Renewed:
		case <-retry:
		}
		// The old session stays until the new one has been welcomed.
		retry = nil
		next, err := l.open(ctx)
		if err != nil {
			l.Logger.Warn("session could not move to a new connection", "error", sdk.Clean(err.Error()))
			retry = time.After(5 * time.Second)
			continue
		}
		old := c
		c = next
		l.set(next)
		l.Logger.Info("session moved to a new connection")
		retiring.Go(func() { old.retire(ctx) })
	}
}

// open dials, says hello and waits for the welcome.
func (l *Link) open(ctx context.Context) (*connection, error) {
	hello, err := l.Hello(ctx)
	if err != nil {
		return nil, fmt.Errorf("prepare session: %w", err)
	}
	cc, err := l.Dial(ctx)
	if err != nil {
		return nil, err
	}
	own, cancel := context.WithCancel(ctx)
	c := &connection{
		cc: cc, client: agentv1.NewAgentServiceClient(cc), every: l.Every,
		ended: make(chan struct{}), cancel: cancel, idle: make(chan struct{}),
	}
	timer := time.AfterFunc(answerTimeout, cancel)
	if err := l.greet(own, c, hello); err != nil {
		late := !timer.Stop()
		c.closeAll()
		if late && ctx.Err() == nil {
			return nil, errors.New("open session: the control plane did not answer in time")
		}
		return nil, err
	}
	if !timer.Stop() {
		c.closeAll()
		return nil, errors.New("open session: the control plane did not answer in time")
	}
	go l.receive(own, c)
	return c, nil
}

func (l *Link) greet(ctx context.Context, c *connection, hello *agentv1.Hello) error {
	stream, err := c.client.Session(ctx)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	c.stream = stream
	if err := stream.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("open session: %w", err)
	}
	m, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	w := m.GetWelcome()
	if w == nil {
		return errors.New("open session: the control plane did not begin with a welcome")
	}
	if s := time.Duration(w.GetHeartbeatSeconds()) * time.Second; s > 0 {
		c.every = min(max(s, 5*time.Second), 10*time.Minute)
	}
	if err := l.Handler.Welcome(ctx, w); err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	return nil
}

func (l *Link) receive(ctx context.Context, c *connection) {
	defer close(c.ended)
	for {
		m, err := c.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the control plane ended the session")
			}
			c.err = fmt.Errorf("session: %w", err)
			return
		}
		switch item := m.GetMessage().(type) {
		case *agentv1.SessionResponse_Observe:
			l.Handler.Observe(item.Observe)
		case *agentv1.SessionResponse_Fetch:
			l.Handler.Fetch(item.Fetch)
		case *agentv1.SessionResponse_Checkpoint:
			if answer := l.Handler.Checkpoint(ctx, item.Checkpoint); answer != nil {
				c.send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Cosignature{Cosignature: answer}})
			}
		case *agentv1.SessionResponse_Quarantine:
			l.Handler.Quarantine(item.Quarantine)
		default:
			// A later version's directive: capabilities keep it from being
			// needed.
			l.Logger.Debug("unknown directive")
		}
	}
}

func (c *connection) send(m *agentv1.SessionRequest) {
	c.sending.Lock()
	defer c.sending.Unlock()
	// A broken stream ends the session through receive.
	_ = c.stream.Send(m)
}

func (c *connection) acquire() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.retired {
		return false
	}
	c.users++
	return true
}

func (c *connection) release() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.users--
	if c.retired && c.users == 0 {
		close(c.idle)
	}
}

// retire ends the session politely and closes the connection when nobody uses
// it any more. The control plane cuts it at the end of its certificate anyway.
func (c *connection) retire(ctx context.Context) {
	c.mu.Lock()
	c.retired = true
	if c.users == 0 {
		close(c.idle)
	}
	c.mu.Unlock()
	c.sending.Lock()
	_ = c.stream.CloseSend()
	c.sending.Unlock()
	// Directives already on their way are still taken.
	select {
	case <-c.ended:
	case <-time.After(10 * time.Second):
	case <-ctx.Done():
	}
	select {
	case <-c.idle:
	case <-ctx.Done():
	}
	c.close()
}

// close ends the connection and waits for its receiver.
func (c *connection) close() {
	c.closeAll()
	<-c.ended
}

func (c *connection) closeAll() {
	c.cancel()
	_ = c.cc.Close()
}
