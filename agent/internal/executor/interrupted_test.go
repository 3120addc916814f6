package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// A timed add that was sent when the agent died is read back and ends in time,
// though orders are paused meanwhile; and leaving knows that it has ended.
func TestAPauseHidesNoTimedMembershipThatWasSent(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(account("anna"), group("all"))
	end := b.wall.Add(time.Hour)
	id := b.admitted(timed(addMember("x", 0, anchored("group", "g-all"), anchored("account", "a-anna")), "g1", end))
	ctx, die := context.WithCancel(context.Background())
	b.fake.after = func([]*connectorv1.Operation) error { die(); return ctx.Err() }
	if err := b.exec.Run(ctx, id); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.fake.after = nil
	if err := b.j.Commit(context.Background(), func(tx *journal.Tx) error { return tx.Set(journal.VarPaused, "holiday") }); err != nil {
		t.Fatal(err)
	}
	if err := b.exec.Resume(context.Background()); !errors.Is(err, ErrPaused) {
		t.Fatal(err)
	}
	if got := b.results()[id+"/x"]; got != applied {
		t.Fatalf("got %v", got)
	}
	b.wall = end
	b.takeBackAll()
	if got := b.object("all").Members; len(got) != 0 {
		t.Fatalf("members %v", got)
	}
	var last auditv1.Receipt
	if err := b.j.View(context.Background(), func(tx *journal.Tx) error {
		effects, err := tx.Effects()
		if err != nil || len(effects) != 2 {
			return fmt.Errorf("%d effects, %w", len(effects), err)
		}
		return planv1.Decode(effects[1], &last)
	}); err != nil {
		t.Fatal(err)
	}
	if last.GetOperation() != connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER || last.GetMember() != "a-anna" || last.GetAfter().GetMember() {
		t.Fatalf("the last effect is %v", &last)
	}
}

func TestATimedAddIsNotSentAgainAfterItsEnd(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(account("anna"), group("all"))
	id := b.admitted(timed(addMember("x", 0, anchored("group", "g-all"), anchored("account", "a-anna")), "g1", b.wall.Add(time.Hour)))
	ctx, die := context.WithCancel(context.Background())
	b.fake.before = func([]*connectorv1.Operation) error { die(); return ctx.Err() }
	if err := b.exec.Run(ctx, id); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	b.fake.before, b.fake.applied = nil, nil
	b.wall = b.wall.Add(2 * time.Hour)
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if got := b.results()[id+"/x"]; got != skipped || len(b.fake.applied) != 0 {
		t.Fatalf("got %v, sent %v", got, b.fake.applied)
	}
}

func TestAJournalInQuarantineSendsNothing(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.admitted(createAccount("c", "anna"))
	if err := b.j.Quarantine(context.Background(), "an older copy was put back"); err != nil {
		t.Fatal(err)
	}
	if err := b.exec.Resume(context.Background()); !errors.Is(err, ErrPaused) || len(b.fake.applied) != 0 {
		t.Fatalf("got %v, sent %v", err, b.fake.applied)
	}
}

// An order may outlive the connector it is for, but what was sent is not guessed.
func TestWhatWasSentToAConnectorThatIsGoneStaysOpen(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	id := b.admitted(createAccount("c", "anna"))
	ctx, die := context.WithCancel(context.Background())
	b.fake.after = func([]*connectorv1.Operation) error { die(); return ctx.Err() }
	if err := b.exec.Run(ctx, id); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	without := b.exec.o
	without.Connectors = nil
	if err := New(without).Run(context.Background(), id); !errors.Is(err, ErrUnreachable) || len(b.results()) != 0 {
		t.Fatalf("got %v, %v", err, b.results())
	}
	b.fake.after = nil
	if err := b.exec.Run(context.Background(), id); err != nil || b.results()[id+"/c"] != applied {
		t.Fatalf("got %v, %v", err, b.results())
	}
}

// A delete must not carry out of the network what observations may not; what
// leaving goes back to stays whole.
func TestReceiptsShipNoMoreThanObservationsDo(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	o := account("anna")
	o.Attributes = map[string][]string{"displayName": {"Anna"}, "mail": {"private@fabrikam.example"}}
	b.put(o)
	b.carriedOut(simple("gone", 0, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}, anchored("account", "a-anna")))
	names := func(r *auditv1.Receipt) (out []string) {
		for _, a := range r.GetBefore().GetAttributes() {
			out = append(out, a.GetName())
		}
		return out
	}
	if got := names(b.trail(auditv1.Type_TYPE_RECEIPT)[0].GetReceipt()); !slices.Equal(got, []string{"displayName"}) {
		t.Errorf("shipped are %v", got)
	}
	if err := b.j.View(context.Background(), func(tx *journal.Tx) error {
		effects, err := tx.Effects()
		if err != nil {
			return err
		}
		var kept auditv1.Receipt
		if err := planv1.Decode(effects[0], &kept); err != nil {
			return err
		}
		if !slices.Contains(names(&kept), "mail") {
			t.Errorf("kept are %v", names(&kept))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Where an anchor is a name, another object may come to bear it: passwords of that
// one are not the agent's to set.
func TestWhatWasDeletedIsNotCreatedHereAnyMore(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.carriedOut(createAccount("c", "anna"))
	anchor := b.object("anna").Anchor
	b.carriedOut(simple("gone", 0, &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}, anchored("account", anchor)))
	other := account("anna")
	other.Anchor = anchor
	b.put(other)
	_, d := b.order(simple("p", 0, setPassword(), anchored("account", anchor)))
	var refused *admission.Refused
	if _, err := b.admit.Admit(context.Background(), d); !errors.As(err, &refused) || refused.Code() != admission.CodeGuardrail {
		t.Fatalf("got %v", err)
	}
}

// What is above groups is read once for a level, however many groups come into
// being or into each other.
func TestGroupsAreReadOnceForALevel(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	var changes []*planv1.Change
	for n := range 150 {
		id := fmt.Sprintf("c%03d", n)
		changes = append(changes, createAccount("a"+id, "a"+id), change("g"+id, 0, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "group"},
			Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: place("cn", "g"+id, "groups")}}}))
	}
	id := b.admitted(changes...)
	b.fake.groupsRead = 0
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if b.fake.groupsRead != 1 {
		t.Errorf("all groups were read %d times", b.fake.groupsRead)
	}
	for n := range 150 {
		if id := fmt.Sprintf("gc%03d", n); b.object(id) == nil {
			t.Fatalf("%s was not created", id)
		}
	}
}
