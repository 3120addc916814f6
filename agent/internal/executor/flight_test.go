package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/journal"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// many creates n accounts, more than one batch takes.
func many(n int) []*planv1.Change {
	var changes []*planv1.Change
	for k := range n {
		changes = append(changes, createAccount(fmt.Sprintf("c%03d", k), fmt.Sprintf("p%03d", k)))
	}
	return changes
}

// intended is how many changes of an order are committed as intents and open.
func (b *bench) intended(order string) (n int) {
	b.t.Helper()
	if err := b.j.View(context.Background(), func(tx *journal.Tx) error {
		progress, err := tx.Progress(order)
		for _, p := range progress {
			if !p.Settled {
				n++
			}
		}
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	return n
}

// While a batch is under way the next one is read and its intents are durable; and
// none is sent before they are.
func TestTheNextBatchIsMadeReadyWhileOneIsUnderWay(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	id := b.admitted(many(250)...)
	first := true
	b.fake.before = func(ops []*connectorv1.Operation) error {
		var progress map[string]journal.Progress
		if err := b.j.View(context.Background(), func(tx *journal.Tx) (err error) { progress, err = tx.Progress(id); return err }); err != nil {
			return err
		}
		for _, op := range ops {
			if p, known := progress[op.GetId()]; !known || p.Settled {
				t.Errorf("%s is sent without an intent", op.GetId())
			}
		}
		if !first {
			time.Sleep(50 * time.Millisecond) // time enough for another to be sent beside it
			return nil
		}
		first = false
		for range 1000 {
			if b.intended(id) == 2*MaxBatch {
				return nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("the next batch was not made ready: %d intents", b.intended(id))
		return nil
	}
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	for key, result := range b.results() {
		if result != applied {
			t.Errorf("%s: %v", key, result)
		}
	}
	if got := len(b.memory().Objects); got != 250 {
		t.Errorf("%d objects", got)
	}
	if b.fake.most != 1 {
		t.Errorf("%d batches were sent at once", b.fake.most)
	}
}

// The answers of a batch are lost while the next one is ready to go: each change
// has one effect and one receipt all the same.
func TestLostAnswersOfABatchBesideTheNext(t *testing.T) {
	for _, lost := range []int{1, 2, 3} {
		b := newBench(t, t.TempDir(), generous)
		id := b.admitted(many(250)...)
		sendings := 0
		fail := func([]*connectorv1.Operation) error {
			time.Sleep(20 * time.Millisecond)
			if sendings++; sendings == lost {
				return errors.New("connection reset")
			}
			return nil
		}
		// Lost before the directory saw it, and after.
		if lost%2 == 0 {
			b.fake.before = fail
		} else {
			b.fake.after = fail
		}
		if err := b.exec.Run(context.Background(), id); err != nil {
			t.Fatal(err)
		}
		if n := len(b.results()); n != 250 {
			t.Errorf("lost %d: %d receipts", lost, n)
		}
		if n := len(b.memory().Objects); n != 250 {
			t.Errorf("lost %d: %d objects", lost, n)
		}
		if b.fake.most != 1 {
			t.Errorf("lost %d: %d batches were sent at once", lost, b.fake.most)
		}
	}
}

// An order that is paused or cut off with two batches under way keeps the intents
// of both, and goes on with one effect and one receipt for each.
func TestTwoBatchesUnderWaySurviveTheEnd(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	id := b.admitted(many(250)...)
	ctx, die := context.WithCancel(context.Background())
	b.fake.after = func([]*connectorv1.Operation) error {
		for range 1000 {
			if b.intended(id) == 2*MaxBatch {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		die()
		return ctx.Err()
	}
	if err := b.exec.Run(ctx, id); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := b.intended(id); n != 2*MaxBatch {
		t.Fatalf("%d intents", n)
	}
	b.fake.after = nil
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if n := len(b.results()); n != 250 {
		t.Errorf("%d receipts", n)
	}
	if n := len(b.memory().Objects); n != 250 {
		t.Errorf("%d objects", n)
	}
}

// A timed removal does not wait for an order's end.
func TestAnOrderGivesWayToATimedRemoval(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(account("anna"), group("all"))
	end := b.wall.Add(time.Hour)
	b.carriedOut(timed(addMember("x", 0, anchored("group", "g-all"), anchored("account", "a-anna")), "g1", end))
	id := b.admitted(many(500)...)
	var taken sync.WaitGroup
	var once sync.Once
	var order []string
	b.fake.before = func(ops []*connectorv1.Operation) error {
		order = append(order, ops[0].Kind().Word())
		once.Do(func() {
			b.wall = end
			taken.Go(b.takeBackAll)
			for b.exec.turns["mem"].waiting.Load() == 0 {
				time.Sleep(time.Millisecond)
			}
		})
		return nil
	}
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	taken.Wait()
	at := slices.Index(order, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER.Word())
	if at < 0 || at > 3 {
		t.Errorf("sent in the order %q", order)
	}
}

// Memberships of one group go together, however they stand in the plan.
func TestMembershipsOfAGroupGoTogether(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	var changes []*planv1.Change
	for g := range 20 {
		b.put(group(fmt.Sprintf("g%02d", g)))
	}
	for n := range 200 {
		leaf := fmt.Sprintf("p%03d", n)
		b.put(account(leaf))
		changes = append(changes, addMember("m"+leaf, 0, anchored("group", fmt.Sprintf("g-g%02d", n%20)), anchored("account", "a-"+leaf)))
	}
	groups := map[string]bool{}
	b.fake.before = func(ops []*connectorv1.Operation) error {
		for _, op := range ops {
			groups[op.GetObject().GetAnchor()] = true
		}
		if len(b.fake.applied) == 1 && len(groups) != MaxBatch/10 {
			t.Errorf("a batch is about %d groups", len(groups))
		}
		return nil
	}
	b.carriedOut(changes...)
	for g := range 20 {
		if n := len(b.object(fmt.Sprintf("g%02d", g)).Members); n != 10 {
			t.Errorf("group %d has %d members", g, n)
		}
	}
}

// What is about an object that is being changed is read when that is settled.
func TestWhatTouchesABatchUnderWayWaits(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(account("anna"))
	b.fake.before = func([]*connectorv1.Operation) error {
		time.Sleep(50 * time.Millisecond) // time enough to be read too early
		return nil
	}
	id := b.carriedOut(update("first", 0, anchored("account", "a-anna"), "displayName", nil, []string{"one"}),
		update("second", 0, anchored("account", "a-anna"), "displayName", []string{"one"}, []string{"two"}))
	if got := b.results(); got[id+"/first"] != applied || got[id+"/second"] != applied {
		t.Errorf("got %v", got)
	}
}
