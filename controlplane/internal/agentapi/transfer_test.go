package agentapi_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

func begin(snapshot, base string) *agentv1.PushObservationsRequest {
	return &agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Begin{Begin: &agentv1.SnapshotBegin{Connector: "hr", Snapshot: snapshot, Base: base}}}
}

func TestObservationsAreAcknowledgedOnceDurable(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	s, err := p.as(a).PushObservations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	batch := &agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Batch{Batch: &agentv1.ObservedBatch{}}}
	end := &agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_End{End: &agentv1.SnapshotEnd{}}}
	// The base is not held: what was sent after it is dropped, and it begins anew.
	for _, m := range []*agentv1.PushObservationsRequest{begin("d1", "lost"), batch, end, begin("f1", ""), batch, batch, end, begin("d2", "held"), batch, end} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for range 6 {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		word := strings.Repeat("+", int(m.GetBatches()))
		if m.GetDone() {
			word += "done"
		}
		if m.GetResync() {
			word += "resync"
		}
		got = append(got, m.GetSnapshot()+" "+word)
	}
	if want := []string{"d1 resync", "f1 +", "f1 ++", "f1 ++done", "d2 +", "d2 +done"}; !slices.Equal(got, want) {
		t.Fatalf("%q, want %q", got, want)
	}
	if want := []string{"begin d1", "begin f1", "batch f1", "batch f1", "end f1", "begin d2", "batch d2", "end d2"}; !slices.Equal(strip(p.observations.list()), want) {
		t.Fatalf("%q", p.observations.list())
	}
	// Two are begun and not ended: one is replaced, one's stream breaks off.
	for _, m := range []*agentv1.PushObservationsRequest{begin("x1", ""), begin("x2", ""), batch} {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := s.Recv(); err != nil || m.GetBatches() != 1 {
		t.Fatal(m, err)
	}
	p.observations.mu.Lock()
	p.observations.broken = errors.New("/var/lib/reeve: disk full")
	p.observations.mu.Unlock()
	if err := s.Send(begin("f2", "")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); codeOf(err) != codes.Internal || strings.Contains(err.Error(), "/var") {
		t.Fatalf("what failed inside went out: %v", err)
	}
	waitFor(t, func() bool {
		told := strip(p.observations.list())
		return slices.Contains(told, "abandoned x1") && slices.Contains(told, "abandoned x2") && !slices.Contains(told, "abandoned f1")
	})
}

func strip(list []string) (out []string) {
	for _, s := range list {
		out = append(out, strings.TrimPrefix(s, "fabrikam/dc1 "))
	}
	return out
}

func TestRecordsAndOrdersOverTheWire(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	c := p.as(a)
	ship, err := c.ShipRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := a.Batch(3)
	for range 2 {
		if err := ship.Send(&agentv1.ShipRecordsRequest{Batch: b}); err != nil {
			t.Fatal(err)
		}
		m, err := ship.Recv()
		if err != nil || m.GetLength() != 3 || len(m.GetProofs()) != 3 {
			t.Fatal(m, err)
		}
	}
	// An agent that has cosigned more than there is sees the fork in an error,
	// not in silence.
	if err := ship.Send(&agentv1.ShipRecordsRequest{Batch: b, CosignedSize: 1000}); err != nil {
		t.Fatal(err)
	}
	if _, err := ship.Recv(); codeOf(err) != codes.FailedPrecondition {
		t.Fatal(err)
	}
	bad, err := c.ShipRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Send(&agentv1.ShipRecordsRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Recv(); codeOf(err) != codes.InvalidArgument {
		t.Fatalf("no batch: %v", err)
	}
	f, err := c.FetchOrder(t.Context(), &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_Order{Order: "o1"}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	for {
		m, err := f.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if m.GetHead() != nil {
			sizes = append(sizes, -1)
			continue
		}
		sizes = append(sizes, len(m.GetChunk()))
	}
	if !slices.Equal(sizes, []int{-1, 3, 1 << 20}) {
		t.Fatal(sizes)
	}
	dry, err := c.FetchOrder(t.Context(), &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_DryRun{DryRun: []byte("d")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dry.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := dry.Recv(); codeOf(err) != codes.Internal || strings.Contains(err.Error(), "secret") {
		t.Fatal(err)
	}
	p.Recheck("fabrikam", "")
}

// An agent whose records contradict its earlier ones is told so, then cut, then
// kept out.
func TestForkIsSaidAndCut(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	start := a.Head
	p.Ship(a, a.Batch(2))
	c := p.as(a)
	session, _ := hello(t, c, &agentv1.Hello{Epoch: 1, ChainLength: 2, ChainHash: a.Head.Link[:]})
	ship, err := c.ShipRecords(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	a.Head = start
	if err := ship.Send(&agentv1.ShipRecordsRequest{Batch: a.Batch(3)}); err != nil {
		t.Fatal(err)
	}
	if _, err := ship.Recv(); codeOf(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "contradict") {
		t.Fatal(err)
	}
	if took, err := ends(func() error { _, err := session.Recv(); return err }); took > 5*time.Second || err == nil {
		t.Fatalf("the session went on for %s: %v", took, err)
	}
	if _, err := p.as(a).ReportProgress(t.Context(), &agentv1.ReportProgressRequest{}); codeOf(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "suspended") {
		t.Fatal(err)
	}
	p.Recheck("fabrikam", "")
}
