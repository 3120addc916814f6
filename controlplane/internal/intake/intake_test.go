package intake_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/intake"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// heard is a Receiver that remembers what it was told, per attempt: a test looks
// at it only after commits.
type heard struct {
	mu   sync.Mutex
	list []string
	fail error
}

func (h *heard) Received(t tx.Tx, r intake.Record) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.fail != nil {
		return h.fail
	}
	told := fmt.Sprintf("%s/%d/%d", r.Agent, r.Epoch, r.Index)
	if r.Idle {
		told += " idle"
	}
	t.OnCommit(func() { h.mu.Lock(); defer h.mu.Unlock(); h.list = append(h.list, told) })
	return nil
}

func setup(t testing.TB) (*intaketest.Estate, *heard, *intaketest.FakeAgent) {
	e := intaketest.New(t)
	h := &heard{}
	e.Receivers = []intake.Receiver{h}
	e.Reopen()
	return e, h, e.Join("fabrikam", "dc1")
}

// proven holds the answer to what the agent will hold it to.
func proven(t *testing.T, e *intaketest.Estate, b *auditv1.Batch, answer *agentv1.ShipRecordsResponse) {
	t.Helper()
	v, err := tlogproof.NewVerifier("log.reeve.example", e.LogKey.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	c, err := tlogproof.OpenCheckpoint([]byte(answer.GetCheckpoint()), e.Log.Origin("fabrikam"), []note.Verifier{v})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.GetProofs()) != len(b.GetRecords()) {
		t.Fatalf("%d proofs for %d records", len(answer.GetProofs()), len(b.GetRecords()))
	}
	for i, p := range answer.GetProofs() {
		var entry auditv1.Entry
		if err := planv1.Decode(p.GetEntry(), &entry); err != nil {
			t.Fatal(err)
		}
		if entry.GetAgent() != b.GetAgent() || entry.GetEpoch() != b.GetEpoch() || entry.GetIndex() != b.GetFirst()+uint64(i) || !bytes.Equal(entry.GetHeader(), b.GetRecords()[i].GetHeader()) {
			t.Fatalf("proof %d is of another record: %v", i, &entry)
		}
		var hashes []tlog.Hash
		for _, h := range p.GetHashes() {
			hashes = append(hashes, tlog.Hash(h))
		}
		if err := tlogproof.CheckInclusion(hashes, c.Checkpoint, int64(p.GetIndex()), tlogproof.LeafHash(p.GetEntry())); err != nil {
			t.Fatal(err)
		}
	}
}

func TestBatchesComeInOnceAndAreProven(t *testing.T) {
	e, h, a := setup(t)
	first, second := a.Batch(3), a.Batch(300)
	proven(t, e, first, e.Ship(a, first))
	proven(t, e, second, e.Ship(a, second))
	// Everything again, in any grouping, and after a restart: the same proofs and
	// no second effect.
	for range 2 {
		proven(t, e, first, e.Ship(a, first))
		proven(t, e, second, e.Ship(a, second))
		whole := &auditv1.Batch{Agent: "dc1", Epoch: 1, Records: slices.Concat(first.Records, second.Records), Head: second.Head}
		proven(t, e, whole, e.Ship(a, whole))
		e.Reopen()
	}
	report := e.Recheck("fabrikam", "")
	if report.Records != 303 || len(h.list) != 303 {
		t.Fatalf("%d records in the log, receivers were told %d", report.Records, len(h.list))
	}
	// A batch that begins in the known part and goes on beyond it.
	third := a.Batch(5)
	third = &auditv1.Batch{Agent: "dc1", Epoch: 1, First: 3, Records: slices.Concat(second.Records, third.Records), Head: third.Head}
	proven(t, e, third, e.Ship(a, third))
	if report := e.Recheck("fabrikam", ""); report.Records != 308 || len(h.list) != 308 {
		t.Fatalf("%d records in the log, receivers were told %d", report.Records, len(h.list))
	}
}

func TestGapSaysWhereToGoOn(t *testing.T) {
	e, _, a := setup(t)
	first, lost, third := a.Batch(2), a.Batch(2), a.Batch(2)
	e.Ship(a, first)
	answer, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", third, 0)
	if err != nil || answer.GetLength() != 2 || len(answer.GetProofs()) != 0 {
		t.Fatalf("%v %v", answer, err)
	}
	e.Ship(a, lost)
	e.Ship(a, third)
	if report := e.Recheck("fabrikam", ""); report.Records != 6 {
		t.Fatalf("%d records", report.Records)
	}
}

// Each of these is refused, writes nothing and does not keep the agent from
// shipping on.
func TestForgedBatchesAreRefused(t *testing.T) {
	e, h, a := setup(t)
	e.AddTenant("contoso")
	e.Ship(a, a.Batch(2))
	other := e.Join("fabrikam", "dc2")
	stranger := e.Join("contoso", "dc9")
	head := func(f func(h *auditv1.ChainHead)) []byte {
		c := a.ChainHead()
		f(c)
		return a.Sign(a.Audit, c)
	}
	before := e.Checkpoint("fabrikam")
	told := len(h.list)
	for name, c := range map[string]struct {
		tamper func(b *auditv1.Batch)
		want   error
	}{
		"no records":           {func(b *auditv1.Batch) { b.Records = nil }, intake.ErrMalformed},
		"another agent's name": {func(b *auditv1.Batch) { b.Agent = "dc2" }, intake.ErrMalformed},
		"body changed":         {func(b *auditv1.Batch) { b.Records[0].Body[3] ^= 1 }, intake.ErrMalformed},
		"salt left out":        {func(b *auditv1.Batch) { b.Records[0].Salt = nil }, intake.ErrMalformed},
		"body in the salt": {func(b *auditv1.Batch) {
			r := b.Records[0]
			r.Salt, r.Body = slices.Concat(r.Salt, r.Body), nil // the hash is the same
		}, intake.ErrMalformed},
		"body left out":           {func(b *auditv1.Batch) { b.Records[0].Salt, b.Records[0].Body = nil, nil }, intake.ErrMalformed},
		"unknown field in header": {func(b *auditv1.Batch) { b.Records[0].Header = unknown(b.Records[0].Header) }, intake.ErrMalformed},
		"unknown field in batch":  {func(b *auditv1.Batch) { b.ProtoReflect().SetUnknown(unknown(nil)) }, intake.ErrMalformed},
		"control plane's type": {func(b *auditv1.Batch) {
			b.Records[0] = a.Record(auditv1.Type_TYPE_AGENT_ENROLLED, intaketest.Started(0))
		}, intake.ErrMalformed},
		"no type":             {func(b *auditv1.Batch) { b.Records[0] = a.Record(0, intaketest.Started(0)) }, intake.ErrMalformed},
		"index overflows":     {func(b *auditv1.Batch) { b.First = 1<<64 - 1 }, intake.ErrMalformed},
		"no head":             {func(b *auditv1.Batch) { b.Head = nil }, intake.ErrSignature},
		"another agent's key": {func(b *auditv1.Batch) { b.Head = a.Sign(other.Audit, a.ChainHead()) }, intake.ErrSignature},
		"identity key":        {func(b *auditv1.Batch) { b.Head = a.Sign(a.Identity, a.ChainHead()) }, intake.ErrSignature},
		"another tenant":      {func(b *auditv1.Batch) { b.Head = head(func(h *auditv1.ChainHead) { h.Tenant = "contoso" }) }, intake.ErrSignature},
		"another domain":      {func(b *auditv1.Batch) { b.Head = head(func(h *auditv1.ChainHead) { h.TrustDomain = "x" }) }, intake.ErrSignature},
		"another length":      {func(b *auditv1.Batch) { b.Head = head(func(h *auditv1.ChainHead) { h.Length++ }) }, intake.ErrSignature},
		"another epoch":       {func(b *auditv1.Batch) { b.Epoch = 2; b.Head = head(func(h *auditv1.ChainHead) { h.Epoch = 2 }) }, intake.ErrEpoch},
		"head's epoch":        {func(b *auditv1.Batch) { b.Head = head(func(h *auditv1.ChainHead) { h.Epoch = 2 }) }, intake.ErrSignature},
	} {
		saved := *a
		b := a.Batch(2)
		c.tamper(b)
		if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", b, 0); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		// The genuine chain goes on from where it was.
		a.Head = saved.Head
	}
	// The right batch from the wrong caller is as if the agent did not exist.
	saved := a.Head
	b := a.Batch(1)
	if _, err := e.Intake.Ship(t.Context(), "contoso", "dc1", b, 0); err == nil {
		t.Error("another tenant's caller shipped for this one")
	}
	if _, err := e.Intake.Ship(t.Context(), "contoso", stranger.Name, b, 0); err == nil {
		t.Error("another agent shipped this one's records")
	}
	if e.Checkpoint("fabrikam") != before || len(h.list) != told {
		t.Fatal("a refused batch left something behind")
	}
	a.Head = saved
	e.Ship(a, a.Batch(1))
	e.Recheck("fabrikam", before)
}

func unknown(b []byte) []byte {
	return protowire.AppendVarint(protowire.AppendTag(slices.Clone(b), 99, protowire.VarintType), 1)
}

// What an agent ships from a journal that was put back contradicts what came
// before. It has been told to wait for local root, and must be able to.
func TestQuarantinedAgentIsNotTakenForAFork(t *testing.T) {
	e, h, a := setup(t)
	start := *a
	e.Ship(a, a.Batch(5))
	told := len(h.list)
	a.Head = start.Head
	restored := a.Batch(2)
	if who, _, err := e.Enrollment.Hello(t.Context(), "fabrikam", "dc1", enrollment.Hello{Epoch: 1, ChainLength: a.Head.Next, ChainHash: a.Head.Link[:]}); err != nil || who.Quarantine == "" {
		t.Fatalf("not in quarantine: %+v %v", who, err)
	}
	if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", restored, 0); !errors.Is(err, intake.ErrQuarantined) {
		t.Fatal(err)
	}
	if who, err := e.Enrollment.Get(t.Context(), "fabrikam", "dc1"); err != nil || who.State != enrollment.Active || len(h.list) != told {
		t.Fatalf("agent is %s, %v; %d records had an effect", who.State, err, len(h.list)-told)
	}
	a.Begin(2)
	if _, _, err := e.Enrollment.Hello(t.Context(), "fabrikam", "dc1", enrollment.Hello{Epoch: 2}); err != nil {
		t.Fatal(err)
	}
	e.Ship(a, a.Batch(3))
}

func TestForkSuspendsAndSaysSo(t *testing.T) {
	for name, fork := range map[string]func(a *intaketest.FakeAgent, start intaketest.FakeAgent) *auditv1.Batch{
		"another record at a known index": func(a *intaketest.FakeAgent, start intaketest.FakeAgent) *auditv1.Batch {
			a.Head = start.Head
			return a.Batch(2)
		},
		"another record, then further": func(a *intaketest.FakeAgent, start intaketest.FakeAgent) *auditv1.Batch {
			a.Head = start.Head
			return a.Batch(7)
		},
		"going on from another past": func(a *intaketest.FakeAgent, start intaketest.FakeAgent) *auditv1.Batch {
			a.Head = start.Head
			a.Batch(3)
			return a.Batch(2)
		},
		"records that the signed head does not follow from": func(a *intaketest.FakeAgent, _ intaketest.FakeAgent) *auditv1.Batch {
			b := a.Batch(2)
			b.Records[0], b.Records[1] = b.Records[1], b.Records[0]
			return b
		},
	} {
		e, h, a := setup(t)
		start := *a
		e.Ship(a, a.Batch(3))
		told := len(h.list)
		b := fork(a, start)
		if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", b, 0); !errors.Is(err, intake.ErrFork) {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if who, err := e.Enrollment.Get(t.Context(), "fabrikam", "dc1"); err != nil || who.State != enrollment.Suspended {
			t.Errorf("%s: agent is %s, %v", name, who.State, err)
		}
		if n := e.Sessions.(*intaketest.FakeSessions).Cuts("fabrikam", "dc1"); n != 1 {
			t.Errorf("%s: cut %d times", name, n)
		}
		if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", b, 0); !errors.Is(err, enrollment.ErrSuspended) {
			t.Errorf("%s: shipping on: %v", name, err)
		}
		if len(h.list) != told {
			t.Errorf("%s: the fork had an effect", name)
		}
		last := entry(t, e, "fabrikam")
		if last.GetType() != auditv1.Type_TYPE_SUSPENDED {
			t.Errorf("%s: last record is %s", name, last.GetType())
		}
		if report := e.Recheck("fabrikam", ""); report.Records != 3 {
			t.Errorf("%s: %d records", name, report.Records)
		}
	}
}

func entries(t *testing.T, e *intaketest.Estate) (list []planner.Entry) {
	t.Helper()
	e.Do(func(x tx.Tx) (err error) { list, err = e.Ledger.All(x, "fabrikam"); return err })
	return list
}

// entry is the header of the log's last entry.
func entry(t *testing.T, e *intaketest.Estate, tenant string) (h *auditv1.Header) {
	t.Helper()
	e.Do(func(x tx.Tx) error {
		size, err := e.Log.Size(x, tenant)
		if err != nil {
			return err
		}
		last, err := e.Log.Entry(x, tenant, size-1)
		h = last.Header
		return err
	})
	return h
}

// Many agents of many tenants ship at once, each batch several times: every
// record is in its tenant's log once, and every log verifies.
func TestManyShipAtOnce(t *testing.T) {
	e, h, _ := setup(t)
	var agents []*intaketest.FakeAgent
	for i := range 4 {
		tenant := fmt.Sprintf("t%d", i)
		e.AddTenant(tenant)
		for j := range 3 {
			agents = append(agents, e.Join(tenant, fmt.Sprintf("a%d-%d", i, j)))
		}
	}
	var wait sync.WaitGroup
	for _, a := range agents {
		wait.Go(func() {
			for range 5 {
				b := a.Batch(20)
				var same sync.WaitGroup
				for range 3 {
					same.Go(func() {
						answer, err := e.Intake.Ship(context.Background(), a.Tenant, a.Name, proto.CloneOf(b), 0)
						if err != nil || answer.GetLength() != b.GetFirst()+20 || len(answer.GetProofs()) != 20 {
							t.Errorf("%s: %v %v", a.Name, answer.GetLength(), err)
						}
					})
				}
				same.Wait()
			}
		})
	}
	wait.Wait()
	if want := len(agents) * 100; len(h.list) != want {
		t.Fatalf("receivers were told %d records, want %d", len(h.list), want)
	}
	for i := range 4 {
		if report := e.Recheck(fmt.Sprintf("t%d", i), ""); report.Records != 300 {
			t.Fatalf("t%d holds %d records", i, report.Records)
		}
	}
}

// A receiver's failure takes back its own batch as a whole and nobody else's.
func TestFailingReceiverTakesBackItsBatchOnly(t *testing.T) {
	e, h, a := setup(t)
	boom := errors.New("boom")
	b := a.Batch(3)
	h.fail = boom
	before := e.Checkpoint("fabrikam")
	if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", b, 0); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	if e.Checkpoint("fabrikam") != before {
		t.Fatal("the failed batch is in the log")
	}
	h.mu.Lock()
	h.fail = nil
	h.mu.Unlock()
	e.Ship(a, b)
	if report := e.Recheck("fabrikam", ""); report.Records != 3 || len(h.list) != 3 {
		t.Fatalf("%d records, %d told", report.Records, len(h.list))
	}
}

func TestReceiptMovesTheLedger(t *testing.T) {
	e, _, a := setup(t)
	receipt := func(op connectorv1.OperationKind, before, after bool) *auditv1.Record {
		return a.Record(auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: &auditv1.Receipt{
			Order: "o", Change: "c", Connector: "erp", Result: auditv1.Receipt_RESULT_APPLIED, Anchor: "g1", Member: "p1", Type: "group",
			Operation: op, Cause: planv1.Cause_CAUSE_MSP, Before: &auditv1.Touched{Exists: true, Member: before}, After: &auditv1.Touched{Exists: true, Member: after},
		}}})
	}
	add := a.Commit(receipt(connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, false, true))
	for range 2 {
		e.Ship(a, add)
		list := entries(t, e)
		if len(list) != 1 || list[0].Member != "p1" || string(list[0].Before[0]) != "false" || string(list[0].Last[0]) != "true" {
			t.Fatalf("ledger: %+v", list)
		}
	}
	e.Ship(a, a.Commit(receipt(connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER, true, false)))
	if list := entries(t, e); len(list) != 0 {
		t.Fatalf("what is as it was is still in the ledger: %+v", list)
	}
}

// notTheirs finds that no receipt is the agent's to ship.
type notTheirs struct{ planned, own bool }

func (n notTheirs) Change(tx.Tx, string, string, *auditv1.Receipt) (*planv1.Change, bool, error) {
	return nil, n.planned, nil
}

func (n notTheirs) Look(tx.Tx, string, string, string, string) (planner.Look, bool, error) {
	return planner.Look{}, n.own, nil
}

// A receipt that speaks for another agent, or of what was never planned, is kept
// and moves nothing; the agent ships on.
func TestReceiptsForOthersMoveNothing(t *testing.T) {
	for _, plans := range []notTheirs{{planned: true}, {own: true}} {
		e, h, a := setup(t)
		e.Plans = plans
		e.Reopen()
		e.Ship(a, a.Commit(a.Record(auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: &auditv1.Receipt{
			Order: "o", Change: "c", Connector: "erp", Result: auditv1.Receipt_RESULT_APPLIED, Anchor: "p1", Type: "person",
			Operation: connectorv1.OperationKind_OPERATION_KIND_CREATE, Cause: planv1.Cause_CAUSE_MSP,
			Before: &auditv1.Touched{}, After: &auditv1.Touched{Exists: true},
		}}})))
		if list := entries(t, e); len(list) != 0 {
			t.Fatalf("ledger: %+v", list)
		}
		if len(h.list) != 1 || h.list[0] != "dc1/1/0 idle" {
			t.Fatalf("told: %q", h.list)
		}
		e.Recheck("fabrikam", "")
	}
}

// Random shipping (cut, doubled, regrouped, out of order) ends with the whole
// chain in the log, once.
func TestAnyShippingEndsWithTheChain(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		e, h, a := setup(t)
		defer e.Close()
		var records []*auditv1.Record
		heads := map[uint64][]byte{}
		var ends []uint64
		for range rapid.IntRange(1, 6).Draw(r, "commits") {
			b := a.Batch(rapid.IntRange(1, 5).Draw(r, "records"))
			records = append(records, b.Records...)
			ends = append(ends, uint64(len(records)))
			heads[uint64(len(records))] = b.Head
		}
		length := uint64(0)
		for range 15 {
			from := rapid.Uint64Range(0, uint64(len(records))-1).Draw(r, "from")
			end := rapid.SampledFrom(ends).Draw(r, "end")
			if from >= end {
				continue
			}
			b := &auditv1.Batch{Agent: "dc1", Epoch: 1, First: from, Records: records[from:end], Head: heads[end]}
			answer, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", b, 0)
			if err != nil {
				t.Fatal(err)
			}
			if from <= length {
				length = max(length, end)
				proven(t, e, b, answer)
			}
			if answer.GetLength() != length {
				t.Fatalf("durable %d, want %d", answer.GetLength(), length)
			}
		}
		if report := e.Recheck("fabrikam", ""); report.Records != length || uint64(len(h.list)) != length {
			t.Fatalf("%d records in the log, %d told, want %d", report.Records, len(h.list), length)
		}
	})
}
