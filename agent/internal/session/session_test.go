package session_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/enroll"
	"github.com/reevehq/reeve/agent/internal/fakecontrolplane"
	"github.com/reevehq/reeve/agent/internal/session"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// agent is an agent's edge: joined, with a source, a link and a witness.
type agent struct {
	t       *testing.T
	cp      *fakecontrolplane.ControlPlane
	state   statedir.Dir
	source  *svid.Renewing
	link    *session.Link
	witness *session.Witness
	renewed chan struct{}
	orders  *session.Orders
	forks   []string

	mu       sync.Mutex
	observed []string
	roots    *statedir.Roots
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	cp := fakecontrolplane.Start(t)
	d, err := statedir.Open(t.TempDir() + "/state")
	check(t, err)
	id, _, err := enroll.Join(t.Context(), enroll.JoinOptions{ControlPlane: cp.Address, Pin: cp.Pin, Token: cp.Invite("dc1", time.Hour), State: d, Now: time.Now})
	check(t, err)
	a := &agent{t: t, cp: cp, state: d, renewed: make(chan struct{}, 1)}
	a.roots, err = d.Roots(cp.Pin, time.Now, nil)
	check(t, err)
	at := &enroll.Attestor{ControlPlane: cp.Address, State: d, Identity: id, Roots: a.roots, Now: time.Now, Logger: quiet()}
	a.source, err = at.Start()
	check(t, err)
	t.Cleanup(func() { a.source.Close() })
	key, err := keys.LoadPrivate(d.WitnessKey())
	check(t, err)
	cosigner, err := tlogproof.NewCosigner("dc1", key, time.Now)
	check(t, err)
	a.witness = &session.Witness{
		Origin: id.LogOrigin, Private: filepath.Join(d.Path(), "witness"), Public: d.Checkpoints(), Signer: cosigner, Logger: quiet(),
		LogKeys: func() ([]note.Verifier, error) {
			doc, err := a.roots.Current()
			if err != nil {
				return nil, err
			}
			pub, err := doc.CheckpointKeys[0].PublicKey()
			if err != nil {
				return nil, err
			}
			v, err := tlogproof.NewVerifier(doc.CheckpointKeys[0].Name, pub)
			return []note.Verifier{v}, err
		},
		Forked: func(_ context.Context, _, offered, _ string) error { a.forks = append(a.forks, offered); return nil },
	}
	check(t, a.witness.Load())
	a.link = &session.Link{
		Dial: func(context.Context) (*grpc.ClientConn, error) {
			return session.NewConn(cp.Address, mtls.ClientConfig(a.source, spiffe.ControlPlaneID{TrustDomain: id.TrustDomain}, time.Now))
		},
		Renewed: a.renewed, Handler: (*handler)(a), Every: time.Minute, Logger: quiet(),
		Hello: func(context.Context) (*agentv1.Hello, error) {
			doc, err := a.roots.Current()
			return &agentv1.Hello{Version: "test", Epoch: 1, RootVersion: doc.Version}, err
		},
		Beat:       func() *agentv1.Heartbeat { return &agentv1.Heartbeat{At: timestamppb.Now()} },
		FirstPause: 10 * time.Millisecond, MostPause: 100 * time.Millisecond,
	}
	return a
}

// start runs what is given until the test ends.
func (a *agent) start(runs ...func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for _, run := range append(runs, a.link.Run) {
		all.Go(func() { run(ctx) })
	}
	a.t.Cleanup(func() { cancel(); all.Wait() })
}

type handler agent

func (h *handler) Welcome(_ context.Context, w *agentv1.Welcome) error {
	_, err := h.roots.Accept(w.GetRootDocuments())
	return err
}
func (h *handler) Observe(o *agentv1.Observe) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.observed = append(h.observed, o.GetConnector())
}
func (h *handler) Fetch(f *agentv1.Fetch) { h.orders.Add(f) }
func (h *handler) Checkpoint(ctx context.Context, c *agentv1.Checkpoint) *agentv1.Cosignature {
	return h.witness.Consider(ctx, c)
}
func (h *handler) Quarantine(*agentv1.Quarantine) {}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("waited in vain for %s", what)
}

func TestRenewalMovesTheSessionAndLosesNothing(t *testing.T) {
	a := newAgent(t)
	a.start()
	first := a.cp.Newest()
	// Something runs on the old connection while the session moves.
	client, release, err := a.link.Acquire(t.Context())
	check(t, err)
	changed := a.source.Updated()
	a.source.Renew()
	<-changed
	a.renewed <- struct{}{}
	await(t, "a second session", func() bool { return len(a.cp.Sessions()) == 2 })
	second := a.cp.Sessions()[1]
	// The old session is closed by the agent, and what was sent into it counts.
	second.Send(observe("two"))
	await(t, "the directive in the new session", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.observed) == 1
	})
	await(t, "the old session to end", func() bool { return !first.Open() })
	if _, err := client.ReportProgress(t.Context(), &agentv1.ReportProgressRequest{Order: "o"}); err != nil {
		t.Errorf("the old connection was closed while in use: %v", err)
	}
	release()
	if connected, _, _ := a.link.State(); !connected || !second.Open() {
		t.Error("the new session is not open")
	}
	if a.cp.Agent("dc1").Renewed != 1 {
		t.Error("the certificate was not renewed")
	}
}

func observe(alias string) *agentv1.SessionResponse {
	return &agentv1.SessionResponse{Message: &agentv1.SessionResponse_Observe{Observe: &agentv1.Observe{Connector: alias}}}
}

func TestSessionSurvivesARestartOfTheControlPlane(t *testing.T) {
	a := newAgent(t)
	a.start()
	a.cp.Newest()
	a.cp.NewRoot()
	a.cp.Restart()
	await(t, "a session after the restart", func() bool { return len(a.cp.Sessions()) >= 2 })
	a.cp.Newest().Send(observe("hr"))
	await(t, "a directive", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.observed) > 0 })
	if doc, err := a.roots.Current(); err != nil || doc.Version != 2 {
		t.Errorf("root document %d, %v: the welcome's was not kept", doc.Version, err)
	}
	// It is kept: opened from disk again it is the same.
	again, err := a.state.Roots(a.cp.Pin, time.Now, nil)
	check(t, err)
	if doc, err := again.Current(); err != nil || doc.Version != 2 {
		t.Errorf("stored root document %d, %v", doc.Version, err)
	}
}

// spool is a fake spool of records in memory, with a fake signed head.
type spool struct {
	mu       sync.Mutex
	records  []*auditv1.Record
	proven   uint64
	purges   []uint64
	appended chan struct{}
}

func newSpool(t *testing.T, n int) *spool {
	s := &spool{appended: make(chan struct{}, 1)}
	for i := range n {
		header, err := planv1.Encode(&auditv1.Header{Format: 1, Change: "c" + string(rune('a'+i%26)), Type: auditv1.Type_TYPE_RECEIPT, Ticket: time.Duration(i).String()})
		check(t, err)
		s.records = append(s.records, &auditv1.Record{Header: header})
	}
	return s
}

func (s *spool) Proven() uint64 { s.mu.Lock(); defer s.mu.Unlock(); return s.proven }
func (s *spool) Spool(_ context.Context, after uint64, most int) (*auditv1.Batch, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end := min(after+uint64(most), uint64(len(s.records)))
	if after >= end {
		return nil, nil
	}
	return &auditv1.Batch{Agent: "dc1", Epoch: 1, First: after, Records: s.records[after:end], Head: []byte("fake head")}, nil
}
func (s *spool) Purge(_ context.Context, upTo uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proven = upTo
	s.purges = append(s.purges, upTo)
	return nil
}
func (s *spool) Appended() <-chan struct{} { return s.appended }

func shipper(a *agent, s *spool) *session.Shipper {
	return &session.Shipper{Link: a.link, Spool: s, Witness: a.witness, Logger: quiet(), Pause: 20 * time.Millisecond, Poll: 20 * time.Millisecond}
}

func TestRecordsAreShippedOnceWhateverIsCut(t *testing.T) {
	a := newAgent(t)
	const n = 1000
	s := newSpool(t, n)
	a.cp.CutShipping = 3
	a.start(shipper(a, s).Run)
	await(t, "half of the records", func() bool { return s.Proven() > 0 })
	a.cp.Restart()
	await(t, "all records", func() bool { return s.Proven() == n })
	if held, twice := a.cp.Records(1); held != n || twice != 0 {
		t.Errorf("%d records in the log, %d twice", held, twice)
	}
}

func TestForkedLogIsRefusedAndToldOnce(t *testing.T) {
	a := newAgent(t)
	s := newSpool(t, 10)
	a.cp.Append([]byte("an act"))
	a.start(shipper(a, s).Run)
	now := a.cp.Newest()
	await(t, "records", func() bool { return s.Proven() == 10 })
	now.Send(checkpoint(a.cp.Checkpoint(0)))
	a.cp.Await("a cosignature", func() bool { return len(a.cp.Cosigned) == 1 })
	held := a.witness.Held()
	if held.Size != 11 || a.cp.Cosigned[0].GetRefused() != "" || a.cp.Cosigned[0].GetLine() == "" {
		t.Fatalf("held %d, answered %v", held.Size, a.cp.Cosigned[0])
	}
	latest := read(t, filepath.Join(a.state.Checkpoints(), "latest"))
	if !strings.Contains(latest, a.cp.Cosigned[0].GetLine()) {
		t.Error("the client's copy does not bear the cosignature")
	}

	// A checkpoint from a size the agent is not at is answered with where it is.
	now.Send(checkpoint(a.cp.Checkpoint(3)))
	a.cp.Await("an answer", func() bool { return len(a.cp.Cosigned) == 2 })
	if got := a.cp.Cosigned[1]; got.GetSize() != 11 || got.GetRefused() != "" || got.GetLine() != a.cp.Cosigned[0].GetLine() {
		t.Errorf("answered %v", got)
	}

	// The same size with other content, then more of it, each told once.
	a.cp.Fork()
	for range 2 {
		now.Send(checkpoint(a.cp.Checkpoint(11)))
	}
	a.cp.Await("a refusal", func() bool { return len(a.cp.Cosigned) == 4 })
	for _, c := range a.cp.Cosigned[2:] {
		if c.GetRefused() == "" || c.GetLine() != "" {
			t.Errorf("the fork was cosigned: %v", c)
		}
	}
	if len(a.forks) != 1 {
		t.Errorf("%d records of one fork", len(a.forks))
	}
	if a.witness.Fork() == "" || a.witness.Held().Hash != held.Hash || read(t, filepath.Join(a.state.Checkpoints(), "latest")) != latest {
		t.Error("the fork moved the witness, or is not told")
	}
	if found, _ := filepath.Glob(filepath.Join(a.state.Checkpoints(), "fork-*")); len(found) != 1 {
		t.Errorf("evidence: %v", found)
	}
	// Nothing is purged on the word of a forked log.
	s.mu.Lock()
	s.records = append(s.records, s.records[0])
	s.mu.Unlock()
	await(t, "the record to be sent", func() bool { held, _ := a.cp.Records(1); return held > 0 })
	a.cp.Append([]byte("another act"))
	await(t, "the log to be refused at shipping too", func() bool {
		found, _ := filepath.Glob(filepath.Join(a.state.Checkpoints(), "fork-*"))
		return len(found) > 1
	})
	if s.Proven() != 10 {
		t.Error("a record was purged on the word of a forked log")
	}
	// A new start still knows.
	again := &session.Witness{Origin: a.witness.Origin, Private: a.witness.Private, Public: a.witness.Public, Signer: a.witness.Signer, Logger: quiet()}
	check(t, again.Load())
	if again.Held().Hash != held.Hash || again.Fork() == "" {
		t.Error("a restart forgot the checkpoint or the fork")
	}
}

func checkpoint(c *agentv1.Checkpoint) *agentv1.SessionResponse {
	return &agentv1.SessionResponse{Message: &agentv1.SessionResponse_Checkpoint{Checkpoint: c}}
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	check(t, err)
	return string(raw)
}

// receiver is a fake of the agent's core: it keeps what it was given, and runs
// an order's effect once however often it comes.
type receiver struct {
	mu     sync.Mutex
	known  map[string]bool
	effect []string
	dry    [][]byte
	fail   int
}

func (r *receiver) Order(_ context.Context, order string, head *agentv1.OrderHead, next func() ([]byte, error)) (func(context.Context) error, error) {
	var all []byte
	for {
		chunk, err := next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		all = append(all, chunk...)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail > 0 {
		r.fail--
		return nil, errors.New("fake: not now")
	}
	if r.known[order] {
		return nil, nil
	}
	r.known[order] = true
	return func(context.Context) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.effect = append(r.effect, order+":"+string(head.GetEnvelope())+":"+string(all))
		return nil
	}, nil
}

func (r *receiver) DryRun(_ context.Context, digest []byte, _ *agentv1.OrderHead, _ func() ([]byte, error)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dry = append(r.dry, digest)
	return nil
}

func TestOrdersRunOneByOneAndOnce(t *testing.T) {
	a := newAgent(t)
	r := &receiver{known: map[string]bool{}, fail: 1}
	a.orders = &session.Orders{Link: a.link, Receiver: r, Logger: quiet(), Pause: 10 * time.Millisecond}
	big := bytes.Repeat([]byte("x"), 1<<20)
	a.cp.Orders["o1"] = &fakecontrolplane.Order{Envelope: []byte("e1"), Chunks: [][]byte{[]byte("a"), []byte("b")}}
	a.cp.Orders["o2"] = &fakecontrolplane.Order{Envelope: []byte("e2"), Chunks: [][]byte{big}}
	a.cp.Orders["beef"] = &fakecontrolplane.Order{}
	a.start(a.orders.Run)
	now := a.cp.Newest()
	for _, f := range []*agentv1.Fetch{{Order: "o1"}, {Order: "o1"}, {Order: "o2"}, {DryRun: []byte{0xbe, 0xef}}, {Order: "o1"}} {
		now.Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Fetch{Fetch: f}})
	}
	await(t, "orders to run", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.effect) == 2 && len(r.dry) == 1
	})
	now.Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Fetch{Fetch: &agentv1.Fetch{Order: "o1"}}})
	await(t, "the order to be fetched again", func() bool {
		n := 0
		a.cp.Do(func() {
			for _, f := range a.cp.Fetched {
				if f == "o1" {
					n++
				}
			}
		})
		return n >= 3
	})
	if len(r.effect) != 2 || r.effect[0] != "o1:e1:ab" || r.effect[1] != "o2:e2:"+string(big) {
		t.Errorf("effects: %d", len(r.effect))
	}
}

// An order that could not be taken, for want of space for instance, is fetched
// again by itself however long that lasted: nobody announces it twice.
func TestOrderThatCouldNotBeTakenComesAgain(t *testing.T) {
	a := newAgent(t)
	r := &receiver{known: map[string]bool{}, fail: 5}
	a.orders = &session.Orders{Link: a.link, Receiver: r, Logger: quiet(), Tries: 2, Pause: time.Millisecond, Later: 10 * time.Millisecond}
	a.cp.Orders["o1"] = &fakecontrolplane.Order{Envelope: []byte("e1"), Chunks: [][]byte{[]byte("a")}}
	a.start(a.orders.Run)
	a.cp.Newest().Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Fetch{Fetch: &agentv1.Fetch{Order: "o1"}}})
	await(t, "the order to run", func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.effect) == 1
	})
}
