package observation_test

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/agent/internal/fakecontrolplane"
	"github.com/reevehq/reeve/agent/internal/observation"
	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client speaks to the fake control plane without TLS, which has nothing to do
// with observations.
func client(t *testing.T) (agentv1.AgentServiceClient, *fakecontrolplane.ControlPlane) {
	t.Helper()
	cp := fakecontrolplane.Start(t)
	l := bufconn.Listen(1 << 20)
	s := grpc.NewServer(grpc.MaxRecvMsgSize(16 << 20))
	agentv1.RegisterAgentServiceServer(s, cp)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	cc, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return agentv1.NewAgentServiceClient(cc), cp
}

// source is a fake connector: what it holds, and where it breaks off.
type source struct {
	objects map[string]string
	// stop breaks the read off after that many objects; -1 never.
	stop int
	// left marks the read as incomplete though it came to its end.
	left bool
}

func (s *source) Alias() string { return "hr" }
func (s *source) Released(o *connectorv1.Object) {
	o.Attributes = slices.DeleteFunc(o.Attributes, func(a *connectorv1.Attribute) bool { return a.GetName() != "mail" })
}
func (s *source) Observe(_ context.Context, batch func([]*connectorv1.Object) error) (*connectorv1.ObserveEnd, error) {
	n := 0
	for _, anchor := range slices.Sorted(maps.Keys(s.objects)) {
		if n == s.stop {
			return nil, sdk.NewProblem(sdk.CodeUnreachable, "hr", "observe", "look at the server")
		}
		n++
		err := batch([]*connectorv1.Object{{Type: "person", Anchor: anchor, Attributes: []*connectorv1.Attribute{
			{Name: "mail", Values: [][]byte{[]byte(s.objects[anchor])}}, {Name: "salary", Values: [][]byte{[]byte("much")}},
		}}})
		if err != nil {
			return nil, err
		}
	}
	end := &connectorv1.ObserveEnd{Complete: !s.left, Count: uint64(n), Method: "fake"}
	if s.left {
		end.Problems = []*connectorv1.Problem{sdk.NewProblem(sdk.CodeQuarantined, "line 3", "read", "correct it").Incomplete()}
	}
	return end, nil
}

// state is the journal's, under a name that leaves base a method State.
type state = observation.State

// base is a fake of the journal's memory of what was acknowledged.
type base struct {
	state
	digests map[string][32]byte
}

func (b *base) Observed(_ context.Context, _ string, hold func(string, [32]byte)) (observation.State, error) {
	for anchor, digest := range b.digests {
		hold(anchor, digest)
	}
	return b.state, nil
}
func (b *base) State(context.Context, string) (observation.State, error) { return b.state, nil }
func (b *base) Digests(_ context.Context, _ string, anchors iter.Seq[string], hold func(string, [32]byte)) error {
	for anchor := range anchors {
		if digest, held := b.digests[anchor]; held {
			hold(anchor, digest)
		}
	}
	return nil
}
func (b *base) SetObserved(_ context.Context, _ string, to observation.State, changed iter.Seq2[string, [32]byte], removed []string, full bool) error {
	if full || b.digests == nil {
		b.digests = map[string][32]byte{}
	}
	maps.Insert(b.digests, changed)
	for _, a := range removed {
		delete(b.digests, a)
	}
	b.state = to
	return nil
}

// TestDeltasAddUp: whatever happens to the directory, the connection and the
// reads, what the control plane holds is what was read, a gone object goes only
// on a complete read, and nothing travels twice without need.
func TestDeltasAddUp(t *testing.T) {
	c, cp := client(t)
	rapid.Check(t, func(rt *rapid.T) {
		cp.Do(func() { clear(cp.Snapshots); cp.CutPushing = 0 })
		s, b := &source{objects: map[string]string{}, stop: -1}, &base{}
		model := map[string]string{}
		for range rapid.IntRange(1, 8).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 10).Draw(rt, "edits") {
				anchor := fmt.Sprint(rapid.IntRange(0, 12).Draw(rt, "anchor"))
				if rapid.Bool().Draw(rt, "delete") {
					delete(s.objects, anchor)
				} else {
					s.objects[anchor] = rapid.StringN(1, 3, -1).Draw(rt, "mail")
				}
			}
			s.stop, s.left = rapid.SampledFrom([]int{-1, -1, 1, 3}).Draw(rt, "stop"), rapid.Bool().Draw(rt, "left out")
			if rapid.IntRange(0, 4).Draw(rt, "lose the base") == 0 {
				b.Snapshot = "unknown"
			}
			if rapid.IntRange(0, 4).Draw(rt, "cut") == 0 {
				cp.Do(func() { cp.CutPushing = 1 })
			}
			before := b.Snapshot
			earlier := map[string]bool{}
			cp.Do(func() {
				if held := cp.Snapshots["hr"]; held != nil && held.ID == before {
					for anchor := range held.Objects {
						earlier[anchor] = true
					}
				}
			})
			r, err := observation.Push(context.Background(), c, s, b, time.Now)
			cp.Do(func() { cp.CutPushing = 0 })
			if err != nil {
				if b.Snapshot != before {
					rt.Fatal("a push that failed moved the base")
				}
				continue
			}
			seen := slices.Sorted(maps.Keys(s.objects))
			broken := s.stop >= 0 && s.stop < len(seen)
			if broken {
				seen = seen[:s.stop]
			}
			if r.Complete != (!broken && !s.left) {
				rt.Fatalf("complete is %v", r.Complete)
			}
			cp.Do(func() {
				held := cp.Snapshots["hr"]
				model = map[string]string{}
				for anchor, o := range held.Objects {
					if len(o.GetAttributes()) != 1 {
						rt.Fatalf("an attribute left that is not released: %v", o)
					}
					model[anchor] = string(o.Attribute("mail")[0])
				}
				var set connectorv1.SetDigest
				for _, anchor := range slices.Sorted(maps.Keys(held.Objects)) {
					set.Add(anchor, held.Objects[anchor].Digest())
				}
				sum, n := set.Sum()
				if h := held.End.GetHeader(); string(sum) != string(h.GetSetDigest()) || n != h.GetObjects() || held.ID != b.Snapshot {
					rt.Fatalf("%d objects at the control plane, the header says %d", n, h.GetObjects())
				}
			})
			for _, anchor := range seen {
				if model[anchor] != s.objects[anchor] {
					rt.Fatalf("%s is %q, held %q", anchor, s.objects[anchor], model[anchor])
				}
			}
			for anchor := range earlier {
				if _, held := model[anchor]; !held && !r.Complete {
					rt.Fatalf("%s was removed by a read that was not complete", anchor)
				}
			}
			if r.Complete && len(model) != len(s.objects) {
				rt.Fatalf("%d objects held, %d are there", len(model), len(s.objects))
			}
			if r.Complete {
				again, err := observation.Push(context.Background(), c, s, b, time.Now)
				if err != nil || again.Sent != 0 || again.Removed != 0 {
					rt.Fatalf("nothing changed and %+v was sent (%v)", again, err)
				}
			}
		}
	})
}

func TestWindowHoldsManyObjects(t *testing.T) {
	c, cp := client(t)
	s, b := &source{objects: map[string]string{}, stop: -1}, &base{}
	for i := range 40_000 {
		s.objects[fmt.Sprint(i)] = "x"
	}
	r, err := observation.Push(t.Context(), c, s, b, time.Now)
	if err != nil || r.Objects != 40_000 || !r.Complete {
		t.Fatalf("%+v, %v", r, err)
	}
	cp.Do(func() {
		if n := len(cp.Snapshots["hr"].Objects); n != 40_000 {
			t.Errorf("%d objects arrived", n)
		}
	})
}

func TestNothingReadIsNothingSent(t *testing.T) {
	c, cp := client(t)
	_, err := observation.Push(t.Context(), c, &source{objects: map[string]string{"1": "x"}, stop: 0}, &base{}, time.Now)
	if !sdk.HasCode(err, sdk.CodeUnreachable) {
		t.Errorf("error %v", err)
	}
	cp.Do(func() {
		if len(cp.Snapshots) != 0 {
			t.Error("something was sent")
		}
	})
}

// An object that is too large to send is left out, and then nobody is gone: the
// finding is the agent's own, whatever the connector says of its end.
func TestWhatCannotBeSentRemovesNobody(t *testing.T) {
	c, cp := client(t)
	s, b := &source{objects: map[string]string{"1": "x", "2": "y", "3": "z"}, stop: -1}, &base{}
	if r, err := observation.Push(t.Context(), c, s, b, time.Now); err != nil || !r.Complete {
		t.Fatalf("%+v, %v", r, err)
	}
	s.objects["1"] = strings.Repeat("x", 13<<20)
	delete(s.objects, "3")
	r, err := observation.Push(t.Context(), c, s, b, time.Now)
	if err != nil || r.Complete || r.Removed != 0 {
		t.Fatalf("%+v, %v", r, err)
	}
	cp.Do(func() {
		if held := cp.Snapshots["hr"]; len(held.Objects) != 3 || held.End.GetHeader().GetComplete() {
			t.Errorf("%d objects are held, complete %v", len(held.Objects), held.End.GetHeader().GetComplete())
		}
	})
}
