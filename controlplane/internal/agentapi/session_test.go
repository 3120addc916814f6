package agentapi_test

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

func TestSessionCarriesDirectives(t *testing.T) {
	p := start(t)
	p.Documents.Add(p.Document(2, p.LogKey))
	a := p.Join("fabrikam", "dc1")
	c := p.as(a)
	if p.registry.Observe("fabrikam", "dc1", "hr") {
		t.Fatal("an agent that never connected was told something")
	}
	s, w := hello(t, c, &agentv1.Hello{Epoch: 1, RootVersion: 1, Version: "0.1.0", Connectors: []*agentv1.ConnectorState{{Alias: "hr"}}})
	if len(w.GetRootDocuments()) != 1 || w.GetHeartbeatSeconds() == 0 || w.GetChainLength() != 0 {
		t.Fatal(w)
	}
	receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetFetch().GetOrder() == "o1" })
	if !p.registry.Observe("fabrikam", "dc1", "hr") || !p.registry.Fetch("fabrikam", "dc1", "o2") || !p.registry.FetchDryRun("fabrikam", "dc1", []byte("d")) || p.registry.Fetch("contoso", "dc1", "o2") {
		t.Fatal("directives")
	}
	receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetObserve().GetConnector() == "hr" })
	receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetFetch().GetOrder() == "o2" })
	receive(t, s, func(m *agentv1.SessionResponse) bool { return string(m.GetFetch().GetDryRun()) == "d" })

	// A renewal moves the session: what comes now goes to the new one, and the
	// end of the old one does not take it away.
	next, _ := hello(t, p.as(a), &agentv1.Hello{Epoch: 1, RootVersion: 2, Sequence: 1})
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := ends(func() error { _, err := s.Recv(); return err }); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if !p.registry.Fetch("fabrikam", "dc1", "o3") {
		t.Fatal("the moved session is not known")
	}
	receive(t, next, func(m *agentv1.SessionResponse) bool { return m.GetFetch().GetOrder() == "o3" })
	if err := next.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{Heartbeat: &agentv1.Heartbeat{Spooled: 7, Paused: true, Connectors: []*agentv1.ConnectorState{{Alias: "erp"}}}}}); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		live := p.registry.Connected("fabrikam")
		return len(live) == 1 && live[0].Spooled == 7 && live[0].Paused && slices.Contains(p.observations.list(), "fabrikam/dc1 connector erp")
	})
	if !slices.Contains(p.observations.list(), "fabrikam/dc1 connector hr") || len(p.registry.Connected("contoso")) != 0 {
		t.Fatal(p.observations.list())
	}
	// Somebody else's panic is theirs alone.
	bad, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: &agentv1.Hello{Epoch: 1, Connectors: []*agentv1.ConnectorState{{Alias: "panic"}}}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Recv(); codeOf(err) != codes.Internal || strings.Contains(err.Error(), "connector of that name") {
		t.Fatal(err)
	}
	if !p.registry.Fetch("fabrikam", "dc1", "o4") {
		t.Fatal("the session is gone")
	}
	receive(t, next, func(m *agentv1.SessionResponse) bool { return m.GetFetch().GetOrder() == "o4" })
}

func TestRestoredJournalIsQuarantined(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	p.Ship(a, a.Batch(4))
	c := p.as(a)
	s, w := hello(t, c, &agentv1.Hello{Epoch: 1, ChainLength: 2})
	if w.GetChainLength() != 4 {
		t.Fatal(w)
	}
	m := receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetQuarantine() != nil || m.GetFetch() != nil })
	if !strings.Contains(m.GetQuarantine().GetReason(), "recover") {
		t.Fatalf("an order was announced to a restored journal: %v", m)
	}
	f, err := c.FetchOrder(t.Context(), &agentv1.FetchOrderRequest{What: &agentv1.FetchOrderRequest_Order{Order: "o1"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Recv(); codeOf(err) != codes.FailedPrecondition {
		t.Fatalf("a quarantined agent fetched: %v", err)
	}
	s, _ = hello(t, c, &agentv1.Hello{Epoch: 2})
	receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetFetch().GetOrder() == "o1" })
	bad, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: &agentv1.Hello{Epoch: 1}}}); err != nil {
		t.Fatal(err)
	}
	if _, err := bad.Recv(); codeOf(err) != codes.FailedPrecondition {
		t.Fatalf("an epoch that is over: %v", err)
	}
}

// The agent witnesses its tenant's log, says where it stands when that is not
// where the control plane believes, and refuses.
func TestAgentsWitnessTheLog(t *testing.T) {
	p := start(t)
	a := p.Join("fabrikam", "dc1")
	cosigner, err := tlogproof.NewCosigner("dc1.fabrikam", a.Witness, func() time.Time { return intaketest.Start })
	if err != nil {
		t.Fatal(err)
	}
	cosign := func(signed string) string {
		text, _, _ := strings.Cut(signed, "\n\n")
		own, err := note.Sign(&note.Note{Text: text + "\n"}, cosigner)
		if err != nil {
			t.Fatal(err)
		}
		return string(own[len(text)+2:])
	}
	send := func(s stream, c *agentv1.Cosignature) {
		t.Helper()
		if err := s.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Cosignature{Cosignature: c}}); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint := func(s stream) *agentv1.Checkpoint {
		t.Helper()
		return receive(t, s, func(m *agentv1.SessionResponse) bool { return m.GetCheckpoint() != nil }).GetCheckpoint()
	}
	cosigned := func() (size uint64, refused string) {
		p.Do(func(x tx.Tx) error {
			list, err := p.Log.Cosignatures(x, "fabrikam")
			if len(list) == 1 {
				size, refused = list[0].Size, list[0].Refused
			}
			return err
		})
		return size, refused
	}
	s, _ := hello(t, p.as(a), &agentv1.Hello{Epoch: 1})
	first := checkpoint(s)
	if first.GetFromSize() != 0 {
		t.Fatal(first)
	}
	sizeOf := func(c *agentv1.Checkpoint) uint64 {
		text, _, _ := strings.Cut(c.GetNote(), "\n\n")
		parsed, err := tlogproof.ParseCheckpoint(text + "\n")
		if err != nil {
			t.Fatal(err)
		}
		return uint64(parsed.Size)
	}
	line := cosign(first.GetNote())
	send(s, &agentv1.Cosignature{Size: sizeOf(first), Line: line})
	waitFor(t, func() bool { size, _ := cosigned(); return size == sizeOf(first) })

	// The log grows; the next heartbeat brings the next checkpoint, proven.
	p.Ship(a, a.Batch(3))
	beat := &agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{Heartbeat: &agentv1.Heartbeat{}}}
	if err := s.Send(beat); err != nil {
		t.Fatal(err)
	}
	second := checkpoint(s)
	if second.GetFromSize() != sizeOf(first) || len(second.GetConsistency()) == 0 {
		t.Fatal(second)
	}
	// The agent lost its state: it holds nothing and says so.
	send(s, &agentv1.Cosignature{})
	third := checkpoint(s)
	if third.GetFromSize() != 0 || sizeOf(third) != sizeOf(second) {
		t.Fatal(third)
	}
	send(s, &agentv1.Cosignature{Size: sizeOf(third), Line: cosign(third.GetNote())})
	waitFor(t, func() bool { size, _ := cosigned(); return size == sizeOf(third) })

	// A signature over something else is not stored.
	p.Ship(a, a.Batch(1))
	s, _ = hello(t, p.as(a), &agentv1.Hello{Epoch: 1, ChainLength: 4, ChainHash: a.Head.Link[:]})
	fourth := checkpoint(s)
	send(s, &agentv1.Cosignature{Size: sizeOf(fourth), Line: line})
	send(s, &agentv1.Cosignature{Size: sizeOf(third), Refused: "it does not continue"})
	waitFor(t, func() bool { _, refused := cosigned(); return refused == "it does not continue" })
	if size, _ := cosigned(); size != sizeOf(third) {
		t.Fatal(size)
	}
}

func TestSessionBeginsWithHello(t *testing.T) {
	p := start(t)
	s, err := p.as(p.Join("fabrikam", "dc1")).Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Fatal(err)
	}
}
