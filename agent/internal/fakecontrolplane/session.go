package fakecontrolplane

import (
	"context"
	"encoding/hex"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Session is one session of an agent.
type Session struct {
	Hello  *agentv1.Hello
	out    chan *agentv1.SessionResponse
	ctx    context.Context
	ending context.CancelFunc
}

// Open reports whether the session still is.
func (s *Session) Open() bool { return s.ctx.Err() == nil }

// Send gives the agent a directive in this session.
func (s *Session) Send(m *agentv1.SessionResponse) {
	select {
	case s.out <- m:
	case <-s.ctx.Done():
	}
}

// Cut ends the session from the server's side.
func (s *Session) Cut() { s.ending() }

// Sessions are all there were, oldest first.
func (c *ControlPlane) Sessions() []*Session {
	c.Lock()
	defer c.Unlock()
	return append([]*Session(nil), c.sessions...)
}

// Newest waits for a session to be open and returns the newest.
func (c *ControlPlane) Newest() *Session {
	c.tb.Helper()
	var newest *Session
	c.Await("an open session", func() bool {
		for _, s := range c.sessions {
			if s.Open() {
				newest = s
			}
		}
		return newest != nil
	})
	return newest
}

// Await waits until the condition, asked under the lock, holds.
func (c *ControlPlane) Await(what string, holds func() bool) {
	c.tb.Helper()
	for range 3000 {
		c.Lock()
		ok := holds()
		c.Unlock()
		if ok {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	c.tb.Fatalf("waited in vain for %s", what)
}

// Session implements agentv1.AgentServiceServer.
func (c *ControlPlane) Session(stream grpc.BidiStreamingServer[agentv1.SessionRequest, agentv1.SessionResponse]) error {
	agent, err := c.caller(stream.Context())
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	s := &Session{Hello: first.GetHello(), out: make(chan *agentv1.SessionResponse), ctx: ctx, ending: cancel}
	c.Lock()
	newer := c.envelopes[min(int(s.Hello.GetRootVersion()), len(c.envelopes)):]
	length := uint64(len(c.log.place[s.Hello.GetEpoch()]))
	c.Unlock()
	if err := stream.Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Welcome{Welcome: &agentv1.Welcome{
		At: timestamppb.Now(), RootDocuments: newer, ChainLength: length,
	}}}); err != nil {
		return err
	}
	c.Lock()
	c.sessions = append(c.sessions, s)
	c.Unlock()
	go func() {
		defer cancel()
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			c.Lock()
			if m.GetHeartbeat() != nil {
				c.Beats = append(c.Beats, m.GetHeartbeat())
			}
			if m.GetCosignature() != nil {
				c.Cosigned = append(c.Cosigned, m.GetCosignature())
			}
			c.Unlock()
		}
	}()
	_ = agent
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		}
	}
}

// ProveGrowth implements agentv1.AgentServiceServer.
func (c *ControlPlane) ProveGrowth(_ context.Context, r *agentv1.ProveGrowthRequest) (*agentv1.ProveGrowthResponse, error) {
	c.Lock()
	defer c.Unlock()
	hashes, err := c.log.growth(r.GetFromSize(), r.GetToSize())
	return &agentv1.ProveGrowthResponse{Hashes: hashes}, err
}

// FetchOrder implements agentv1.AgentServiceServer.
func (c *ControlPlane) FetchOrder(r *agentv1.FetchOrderRequest, stream grpc.ServerStreamingServer[agentv1.FetchOrderResponse]) error {
	name := r.GetOrder()
	if name == "" {
		name = hex.EncodeToString(r.GetDryRun())
	}
	c.Lock()
	o := c.Orders[name]
	c.Fetched = append(c.Fetched, name)
	c.Unlock()
	if o == nil {
		return status.Error(codes.NotFound, "no such order")
	}
	if err := stream.Send(&agentv1.FetchOrderResponse{Item: &agentv1.FetchOrderResponse_Head{Head: &agentv1.OrderHead{Envelope: o.Envelope, Manifest: o.Manifest}}}); err != nil {
		return err
	}
	for _, chunk := range o.Chunks {
		if err := stream.Send(&agentv1.FetchOrderResponse{Item: &agentv1.FetchOrderResponse_Chunk{Chunk: chunk}}); err != nil {
			return err
		}
	}
	return nil
}

// ReportProgress implements agentv1.AgentServiceServer.
func (c *ControlPlane) ReportProgress(_ context.Context, r *agentv1.ReportProgressRequest) (*agentv1.ReportProgressResponse, error) {
	c.Lock()
	defer c.Unlock()
	c.Reports = append(c.Reports, r)
	return &agentv1.ReportProgressResponse{}, nil
}

// Snapshot is what a connector was observed to hold.
type Snapshot struct {
	ID      string
	Objects map[string]*connectorv1.Object
	End     *agentv1.SnapshotEnd
	Batches int
	// Pushed counts snapshots that came to their end, Sent the objects that came
	// in all of them.
	Pushed, Sent int
}

// PushObservations implements agentv1.AgentServiceServer.
func (c *ControlPlane) PushObservations(stream grpc.BidiStreamingServer[agentv1.PushObservationsRequest, agentv1.PushObservationsResponse]) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	begin := first.GetBegin()
	objects := map[string]*connectorv1.Object{}
	c.Lock()
	held := c.Snapshots[begin.GetConnector()]
	if held == nil {
		held = &Snapshot{}
		c.Snapshots[begin.GetConnector()] = held
	}
	if begin.GetBase() != "" {
		if begin.GetBase() != held.ID {
			c.Unlock()
			return stream.Send(&agentv1.PushObservationsResponse{Snapshot: begin.GetSnapshot(), Resync: true})
		}
		for k, v := range held.Objects {
			objects[k] = v
		}
	}
	c.Unlock()
	batches, sent := 0, 0
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if b := m.GetBatch(); b != nil {
			for _, o := range b.GetObjects() {
				objects[o.GetAnchor()] = o
			}
			sent += len(b.GetObjects())
			for _, anchor := range b.GetRemoved() {
				delete(objects, anchor)
			}
			batches++
			c.Lock()
			cut := c.CutPushing > 0
			if cut {
				c.CutPushing--
			}
			c.Unlock()
			if cut {
				return status.Error(codes.Unavailable, "cut after a batch")
			}
		}
		answer := &agentv1.PushObservationsResponse{Snapshot: begin.GetSnapshot(), Batches: uint64(batches)}
		if e := m.GetEnd(); e != nil {
			c.Lock()
			held.ID, held.Objects, held.End, held.Batches = begin.GetSnapshot(), objects, e, batches
			held.Pushed++
			held.Sent += sent
			c.Unlock()
			answer.Done = true
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}
