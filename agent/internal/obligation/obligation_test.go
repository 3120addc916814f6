package obligation

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// fakeRemover settles holds by dropping them, unless it is told to fail.
type fakeRemover struct {
	j     *journal.Journal
	fail  map[string]bool
	tried map[string]int
	done  chan string
}

func (f *fakeRemover) TakeBack(ctx context.Context, h journal.Hold) error {
	f.tried[h.ID]++
	if f.fail[h.ID] {
		return errors.New("directory is down")
	}
	if f.done != nil {
		f.done <- h.ID
	}
	return f.j.Commit(ctx, func(tx *journal.Tx) error { return tx.DropHold(h) })
}

type bench struct {
	t      *testing.T
	wall   time.Time
	boot   time.Duration
	bootID string
	o      journal.Options
	j      *journal.Journal
	r      *fakeRemover
	k      *Keeper
	clock  *journal.Clock
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), bootID: "boot-1", o: journal.Options{
		Path: filepath.Join(t.TempDir(), "journal.db"), Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ReserveBytes: 1, MinFree: 1,
		Identity: journal.Identity{TrustDomain: "d", Tenant: "t", Agent: "a", Epoch: 1},
	}}
	b.start()
	return b
}

func (b *bench) start() {
	b.t.Helper()
	j, err := journal.Open(context.Background(), b.o)
	b.check(err)
	b.t.Cleanup(func() { _ = j.Close() })
	clock := journal.NewClock(j, journal.ClockOptions{Wall: func() time.Time { return b.wall }, Boot: func() time.Duration { return b.boot }, BootID: b.bootID})
	b.clock = clock
	b.j, b.r = j, &fakeRemover{j: j, fail: map[string]bool{}, tried: map[string]int{}}
	b.k = New(Options{Journal: j, Clock: clock, Audit: audit.Recorder{Actor: "agent", Now: clock.Now}, Remover: b.r})
}

func (b *bench) check(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) pass(d time.Duration) { b.wall, b.boot = b.wall.Add(d), b.boot+d }

func (b *bench) put(holds ...journal.Hold) {
	b.t.Helper()
	b.check(b.j.Commit(context.Background(), func(tx *journal.Tx) error {
		for _, h := range holds {
			if err := tx.PutHold(h); err != nil {
				return err
			}
		}
		return nil
	}))
}

func (b *bench) hold(id string, in time.Duration) journal.Hold {
	return journal.Hold{ID: id, Connector: "c", Group: "g", Member: id, State: journal.HoldOpen, Made: true, Due: b.wall.Add(in)}
}

func (b *bench) tick(wantOwed int) {
	b.t.Helper()
	due, err := b.k.due(context.Background())
	b.check(err)
	owed := 0
	for _, holds := range due {
		n, err := b.k.settle(context.Background(), holds)
		b.check(err)
		owed += n
	}
	if owed != wantOwed {
		b.t.Fatalf("%d owed, want %d", owed, wantOwed)
	}
}

func (b *bench) left() (n int) {
	b.t.Helper()
	b.check(b.j.View(context.Background(), func(tx *journal.Tx) error {
		holds, err := tx.Holds()
		n = len(holds)
		return err
	}))
	return n
}

func TestDueHoldsAreTakenBackAndOthersLeft(t *testing.T) {
	b := newBench(t)
	lasting := b.hold("lasting", 0)
	lasting.Due = time.Time{}
	pending := b.hold("pending", -time.Minute)
	pending.State, pending.Made = journal.HoldPending, false
	b.put(b.hold("now", 0), b.hold("later", time.Hour), lasting, pending)
	b.check(b.j.Commit(context.Background(), func(tx *journal.Tx) error { return tx.Set(journal.VarPaused, "pause does not matter") }))
	b.tick(0)
	if b.r.tried["now"] != 1 || len(b.r.tried) != 1 || b.left() != 3 {
		t.Fatalf("tried %v, %d left", b.r.tried, b.left())
	}
	b.pass(time.Hour)
	b.tick(0)
	if b.r.tried["later"] != 1 || b.left() != 2 {
		t.Fatalf("tried %v, %d left", b.r.tried, b.left())
	}
}

func TestRemovalIsNeverGivenUp(t *testing.T) {
	b := newBench(t)
	b.put(b.hold("stuck", 0), b.hold("easy", 0))
	b.r.fail["stuck"] = true
	b.tick(1)
	if b.r.tried["easy"] != 1 {
		t.Fatal("one that fails kept another from being taken back")
	}
	b.tick(1)
	if b.r.tried["stuck"] != 1 {
		t.Fatal("no pause between attempts")
	}
	for range 200 {
		b.pass(5 * time.Minute)
		b.tick(1)
	}
	if n := b.r.tried["stuck"]; n != 201 {
		t.Fatalf("%d attempts, want one each time", n)
	}
	b.check(b.j.Close())
	b.start() // the pause and the obligation outlive a restart
	b.pass(5 * time.Minute)
	b.tick(0)
	if b.left() != 0 {
		t.Fatal("still owed")
	}
}

func TestClockBehindAfterRestartEndsTimedGrants(t *testing.T) {
	b := newBench(t)
	b.tick(0)
	lasting := b.hold("lasting", 0)
	lasting.Due = time.Time{}
	b.put(b.hold("a", 24*time.Hour), b.hold("b", 48*time.Hour), lasting)
	b.check(b.j.Close())
	b.bootID, b.boot, b.wall = "boot-2", time.Minute, b.wall.AddDate(-10, 0, 0)
	b.start()
	b.tick(0)
	if b.r.tried["a"] != 1 || b.r.tried["b"] != 1 || b.left() != 1 {
		t.Fatalf("tried %v, %d left", b.r.tried, b.left())
	}
	if n := b.clockRecords(); n != 1 {
		t.Fatalf("%d records about the clock", n)
	}
}

func TestJumpFreezesOrdersAndStillEndsGrants(t *testing.T) {
	b := newBench(t)
	b.tick(0)
	b.put(b.hold("a", 10*time.Hour))
	b.wall = b.wall.Add(11 * time.Hour) // the boot clock did not move
	b.tick(0)
	b.tick(0)
	if b.r.tried["a"] != 1 {
		t.Fatal("the end did not come")
	}
	frozen, err := b.j.Get(context.Background(), journal.VarFrozen)
	b.check(err)
	if frozen == "" || b.clockRecords() != 1 {
		t.Fatalf("frozen %q, %d records", frozen, b.clockRecords())
	}
	b.check(b.clock.Accept(context.Background(), func(tx *journal.Tx) error { return b.k.o.Audit.Clock(tx, audit.LocalRoot, "right") }))
	if frozen, err = b.j.Get(context.Background(), journal.VarFrozen); err != nil || frozen != "" {
		t.Fatalf("frozen %q, %v", frozen, err)
	}
	b.tick(0)
	if b.clockRecords() != 2 {
		t.Fatalf("%d records", b.clockRecords())
	}
}

func (b *bench) clockRecords() (n int) {
	b.t.Helper()
	batch, err := b.j.Spool(context.Background(), 0, 1000)
	b.check(err)
	for _, r := range batch.GetRecords() {
		var h auditv1.Header
		b.check(planv1.Decode(r.GetHeader(), &h))
		if h.GetType() == auditv1.Type_TYPE_CLOCK {
			n++
		}
	}
	return n
}

func TestRunWakesUpAndEnds(t *testing.T) {
	b := newBench(t)
	leaks := goleak.IgnoreCurrent()
	b.r.done = make(chan string, 2)
	b.put(b.hold("first", 0))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.k.Run(ctx) }()
	if id := <-b.r.done; id != "first" {
		t.Fatalf("took back %s", id)
	}
	b.put(b.hold("second", 0))
	b.k.Kick()
	if id := <-b.r.done; id != "second" {
		t.Fatalf("took back %s", id)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, leaks)
}

// fakeHanging takes back at once, but on a connector that hangs until ctx ends.
type fakeHanging struct {
	j    *journal.Journal
	hung chan struct{}
	done chan string
}

func (f *fakeHanging) TakeBack(ctx context.Context, h journal.Hold) error {
	if h.Connector == "hangs" {
		close(f.hung)
		<-ctx.Done()
		return ctx.Err()
	}
	f.done <- h.ID
	return f.j.Commit(ctx, func(tx *journal.Tx) error { return tx.DropHold(h) })
}

func TestAConnectorThatHangsDelaysNoOther(t *testing.T) {
	b := newBench(t)
	leaks := goleak.IgnoreCurrent()
	f := &fakeHanging{j: b.j, hung: make(chan struct{}), done: make(chan string, 3)}
	b.k.o.Remover = f
	stuck := b.hold("stuck", -time.Hour)
	stuck.Connector = "hangs"
	b.put(stuck, b.hold("first", 0))
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.k.Run(ctx) }()
	<-f.hung
	if id := <-f.done; id != "first" {
		t.Fatalf("took back %s", id)
	}
	b.put(b.hold("second", 0))
	for id := ""; id != "second"; {
		b.k.Kick()
		select {
		case id = <-f.done:
		case <-time.After(time.Second):
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, leaks)
}
