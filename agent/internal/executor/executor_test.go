package executor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/plugins/sdk"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const (
	applied  = auditv1.Receipt_RESULT_APPLIED
	already  = auditv1.Receipt_RESULT_ALREADY
	conflict = auditv1.Receipt_RESULT_CONFLICT
	skipped  = auditv1.Receipt_RESULT_SKIPPED
	refused  = auditv1.Receipt_RESULT_REFUSED
	failed   = auditv1.Receipt_RESULT_FAILED
)

// joiner is a new account with a mail address, a membership and a password,
// enabled last.
func joiner(leaf string) []*planv1.Change {
	ref := func() *connectorv1.ObjectRef { return made("account", leaf+"-create") }
	return []*planv1.Change{
		createAccount(leaf+"-create", leaf),
		update(leaf+"-mail", 1, ref(), "mail", nil, []string{leaf + "@fabrikam.example"}),
		addMember(leaf+"-member", 1, anchored("group", "g-all"), ref()),
		simple(leaf+"-password", 2, setPassword(), ref()),
		simple(leaf+"-enable", 3, enable(), ref()),
	}
}

func TestJoinerFromNothingToEnabled(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(group("all"))
	changes := joiner("anna")
	id := b.carriedOut(changes...)
	for _, c := range changes {
		if got := b.results()[id+"/"+c.GetId()]; got != applied {
			t.Errorf("%s: %v", c.GetId(), got)
		}
	}
	anna := b.object("anna")
	if anna == nil || anna.Disabled || !slices.Equal(anna.Attributes["mail"], []string{"anna@fabrikam.example"}) || anna.Password == "" {
		t.Fatalf("account is %+v", anna)
	}
	if got := b.object("all").Members; !slices.Equal(got, []string{anna.Anchor}) {
		t.Fatalf("members are %v", got)
	}
	if n := len(b.trail(auditv1.Type_TYPE_ORDER_ENDED)); n != 1 {
		t.Fatalf("%d records of the order's end", n)
	}
	var sealed []byte
	for _, body := range b.trail(auditv1.Type_TYPE_RECEIPT) {
		if r := body.GetReceipt(); r.GetChange() == "anna-password" {
			sealed = r.GetSealed()
		}
		if r := body.GetReceipt(); r.GetChange() == "anna-create" && (r.GetBefore().GetExists() || !r.GetAfter().GetExists() || r.GetAnchor() != anna.Anchor) {
			t.Errorf("receipt of the create: %v", r)
		}
	}
	opened, err := age.Decrypt(bytes.NewReader(sealed), b.opener)
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := io.ReadAll(opened); err != nil || string(secret) != anna.Password {
		t.Fatalf("what was sealed is not the password that was set: %v", err)
	}
	for _, name := range []string{"journal.db", "journal.db-wal"} {
		raw, err := os.ReadFile(b.dir + "/" + name)
		if err == nil && bytes.Contains(raw, []byte(anna.Password)) {
			t.Fatalf("the password is in the clear in %s", name)
		}
	}
	if err := b.j.Verify(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestSecondDeliveryDoesNothing(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	id, d := b.order(createAccount("c", "anna"))
	ctx := context.Background()
	for range 3 {
		if _, err := b.admit.Admit(ctx, d); err != nil {
			t.Fatal(err)
		}
		if err := b.exec.Run(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	if n, head := len(b.memory().Objects), b.j.Head().Next; n != 1 || head != 3 {
		t.Fatalf("%d objects and %d records, want 1 and 3", n, head)
	}
}

func TestBaseState(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	anna := account("anna")
	anna.Attributes = map[string][]string{"displayName": {"Anna B"}, "mail": {"a@fabrikam.example"}}
	b.put(anna, account("bo"), group("all", "a-bo"))
	ref := anchored("account", "a-anna")
	expect := update("expected", 0, ref, "mail", nil, []string{"new@fabrikam.example"})
	expect.Operation.Expect = []*connectorv1.Assertion{{Attribute: "mail", Values: [][]byte{[]byte("old@fabrikam.example")}}}
	taken := change("taken", 1, &connectorv1.Operation{Object: ref, Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("login", "BO")}}})
	id := b.carriedOut(
		update("stale", 0, anchored("account", "a-anna"), "displayName", []string{"Anna A"}, []string{"Anna C"}),
		expect,
		update("same", 0, anchored("account", "a-anna"), "mail", nil, []string{"A@fabrikam.example"}),
		addMember("member", 0, anchored("group", "g-all"), anchored("account", "a-bo")),
		removeMember("nobody", 0, anchored("group", "g-all"), ref),
		createAccount("there", "bo"),
		change("after-stale", 1, disableOf("a-anna"), "stale"),
		taken,
		update("fine", 2, anchored("account", "a-bo"), "displayName", nil, []string{"Bo"}),
	)
	want := map[string]auditv1.Receipt_Result{
		"stale": conflict, "expected": conflict, "same": already, "member": already, "nobody": already, "there": conflict,
		"after-stale": skipped, "taken": conflict, "fine": applied,
	}
	got := b.results()
	for change, result := range want {
		if got[id+"/"+change] != result {
			t.Errorf("%s: %v, want %v", change, got[id+"/"+change], result)
		}
	}
	if o := b.object("anna"); o.Disabled || !slices.Equal(o.Attributes["mail"], []string{"a@fabrikam.example"}) {
		t.Errorf("anna was touched: %+v", o)
	}
}

func disableOf(anchor string) *connectorv1.Operation {
	op := disable()
	op.Object = anchored("account", anchor)
	return op
}

func TestGuardrailsAreAskedAgainBeforeTheEffect(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(account("anna"), group("all"))
	id := b.admitted(addMember("add", 0, anchored("group", "g-all"), anchored("account", "a-anna")))
	// Meanwhile somebody puts the group into one that is out of reach.
	s := b.memory()
	s.Objects = append(s.Objects, groupOutside("g-all"))
	if err := s.Write(b.state); err != nil {
		t.Fatal(err)
	}
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if got := b.results()[id+"/add"]; got != refused {
		t.Fatalf("got %v, want refused", got)
	}
	if len(b.object("all").Members) != 0 {
		t.Fatal("the member was added all the same")
	}
}

func TestUnknownIsReadBackAndNeverGuessed(t *testing.T) {
	for _, where := range []string{"before", "after"} {
		t.Run(where, func(t *testing.T) {
			b := newBench(t, t.TempDir(), generous)
			b.put(group("all"), account("bo"))
			n := 0
			lose := func([]*connectorv1.Operation) error {
				if n++; n%2 == 1 {
					return errors.New("connection reset")
				}
				return nil
			}
			if where == "before" {
				b.fake.before = lose
			} else {
				b.fake.after = lose
			}
			var changes []*planv1.Change
			for i := range 10 {
				changes = append(changes, createAccount(fmt.Sprintf("c%02d", i), fmt.Sprintf("user%02d", i)))
			}
			changes = append(changes, addMember("m", 1, anchored("group", "g-all"), anchored("account", "a-bo")))
			b.carriedOut(changes...)
			for change, result := range b.results() {
				if result != applied {
					t.Errorf("%s: %v", change, result)
				}
			}
			if got := len(b.memory().Objects); got != 12 {
				t.Fatalf("%d objects, want 12", got)
			}
			sent := map[string]int{}
			for _, batch := range b.fake.applied {
				for _, id := range batch {
					sent[id]++
				}
			}
			for id, times := range sent {
				if where == "after" && times != 1 {
					t.Errorf("%s was sent %d times though it was there", id, times)
				}
			}
		})
	}
}

func TestPoisonIsFoundByHalves(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.fake.atomic = true
	b.fake.before = func(operations []*connectorv1.Operation) error {
		if slices.ContainsFunc(operations, func(op *connectorv1.Operation) bool { return op.GetId() == "c13" }) {
			return errors.New("the connector fell over")
		}
		return nil
	}
	var changes []*planv1.Change
	for i := range 20 {
		changes = append(changes, createAccount(fmt.Sprintf("c%02d", i), fmt.Sprintf("user%02d", i)))
	}
	id := b.carriedOut(changes...)
	for change, result := range b.results() {
		want := applied
		if change == id+"/c13" {
			want = failed
		}
		if result != want {
			t.Errorf("%s: %v, want %v", change, result, want)
		}
	}
}

func TestLostDirectoryLeavesTheOrderOpen(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	ctx := context.Background()
	id := b.admitted(createAccount("c", "anna"), simple("e", 1, enable(), made("account", "c")))
	b.fake.after = func([]*connectorv1.Operation) error {
		b.fake.unreadable = true
		return errors.New("cut")
	}
	if err := b.exec.Run(ctx, id); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
	if n := len(b.results()); n != 0 {
		t.Fatalf("%d receipts of what nobody knows", n)
	}
	b.fake.after, b.fake.unreadable = nil, false
	if err := b.exec.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	got := b.results()
	if got[id+"/c"] != applied || got[id+"/e"] != applied || len(b.memory().Objects) != 1 {
		t.Fatalf("results %v", got)
	}
}

// A connector that cannot work with its directory has said nothing of the change.
func TestADirectoryThatIsAwayRefusesNothing(t *testing.T) {
	for _, code := range []string{sdk.CodeUnreachable, sdk.CodeBindRefused, sdk.CodeTLSRefused, sdk.CodeLocked, sdk.CodeTimeLimit} {
		t.Run(code, func(t *testing.T) {
			b := newBench(t, t.TempDir(), generous)
			left := 9
			b.fake.refuse = func(*connectorv1.Operation) *sdk.Problem {
				if left--; left < 0 {
					return nil
				}
				return sdk.NewProblem(code, "mem", "apply", "")
			}
			var changes []*planv1.Change
			for i := range 5 {
				c := fmt.Sprintf("c%d", i)
				changes = append(changes, createAccount(c, "user"+c))
			}
			for i := range 5 {
				changes = append(changes, simple(fmt.Sprintf("p%d", i), 1, setPassword(), made("account", fmt.Sprintf("c%d", i))))
			}
			b.carriedOut(changes...)
			for change, result := range b.results() {
				if result != applied {
					t.Errorf("%s: %v", change, result)
				}
			}
			if len(b.memory().Objects) != 5 {
				t.Errorf("%d objects, want 5", len(b.memory().Objects))
			}
		})
	}
}

func TestADirectoryThatStaysAwayLeavesTheOrderOpen(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	ctx := context.Background()
	id := b.admitted(createAccount("c", "anna"), simple("p", 1, setPassword(), made("account", "c")), simple("e", 2, enable(), made("account", "c")))
	away := func(op *connectorv1.Operation) *sdk.Problem {
		if op.GetSetCredential() == nil {
			return nil
		}
		return sdk.NewProblem(sdk.CodeUnreachable, "mem", "set the password", "")
	}
	b.fake.refuse = away
	if err := b.exec.Run(ctx, id); !errors.Is(err, ErrUnreachable) {
		t.Fatalf("got %v, want ErrUnreachable", err)
	}
	if got := b.results(); len(got) != 1 || got[id+"/c"] != applied {
		t.Fatalf("results %v, want the account's alone", got)
	}
	b.fake.refuse = nil
	if err := b.exec.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	if got := b.results(); got[id+"/p"] != applied || got[id+"/e"] != applied {
		t.Fatalf("results %v", got)
	}
}

// What is sent without an answer can come about after it was looked for.
func TestAnEffectThatComesLateIsOurs(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.put(group("all"), account("bo"))
	n := 0
	b.fake.refuse = func(op *connectorv1.Operation) *sdk.Problem {
		if n++; n == 1 {
			return nil
		}
		b.fake.Instance.(sdk.Applier).Apply(context.Background(), []*connectorv1.Operation{op})
		return sdk.NewProblem(sdk.CodeUnreachable, "mem", "apply", "")
	}
	b.fake.before = func([]*connectorv1.Operation) error {
		if n == 0 {
			n++
			return errors.New("connection reset")
		}
		return nil
	}
	id := b.carriedOut(addMember("m", 0, anchored("group", "g-all"), anchored("account", "a-bo")))
	if got := b.results()[id+"/m"]; got != applied {
		t.Fatalf("got %v, want applied", got)
	}
}

func TestTooManyConflictsStopTheOrder(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	b.exec.o.MaxConflicts = 3
	var changes []*planv1.Change
	for i := range 6 {
		leaf := fmt.Sprintf("user%d", i)
		b.put(account(leaf))
		changes = append(changes, createAccount(fmt.Sprintf("c%d", i), leaf))
	}
	changes = append(changes, change("late", 1, func() *connectorv1.Operation { op := createAccount("", "late").Operation; return op }()))
	id := b.carriedOut(changes...)
	if got := b.results()[id+"/late"]; got != skipped || b.object("late") != nil {
		t.Fatalf("late: %v", got)
	}
}

func TestPauseHoldsAnOrder(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	ctx := context.Background()
	id := b.admitted(createAccount("c", "anna"))
	set := func(v string) {
		if err := b.j.Commit(ctx, func(tx *journal.Tx) error { return tx.Set(journal.VarPaused, v) }); err != nil {
			t.Fatal(err)
		}
	}
	set("audit visit")
	if err := b.exec.Run(ctx, id); !errors.Is(err, ErrPaused) || b.object("anna") != nil {
		t.Fatalf("got %v", err)
	}
	set("")
	if err := b.exec.Run(ctx, id); err != nil || b.object("anna") == nil {
		t.Fatalf("got %v", err)
	}
}

func TestSupersededChangesDoNotRun(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	ctx := context.Background()
	id, d := b.msp.Order(b.wall, []string{"mem"}, []*planv1.Change{createAccount("old", "anna"), createAccount("new", "bo")},
		admissiontest.Edits{Order: func(o *planv1.Order) { o.Superseded = []string{"old"} }})
	if _, err := b.admit.Admit(ctx, d); err != nil {
		t.Fatal(err)
	}
	if err := b.exec.Run(ctx, id); err != nil {
		t.Fatal(err)
	}
	got := b.results()
	if got[id+"/old"] != auditv1.Receipt_RESULT_SUPERSEDED || got[id+"/new"] != applied || b.object("anna") != nil {
		t.Fatalf("results %v", got)
	}
}

func TestWhatIsNotReachedInTimeDoesNotRun(t *testing.T) {
	b := newBench(t, t.TempDir(), generous)
	id := b.admitted(createAccount("c", "anna"))
	b.wall = b.wall.Add(100 * time.Hour)
	if err := b.exec.Run(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	if got := b.results()[id+"/c"]; got != skipped || b.object("anna") != nil {
		t.Fatalf("got %v", got)
	}
}

// timed gives an add_member an end.
func timed(c *planv1.Change, grant string, at time.Time) *planv1.Change {
	c.Grant, c.EndsAt = grant, timestamppb.New(at)
	return c
}

func (b *bench) takeBackAll() {
	b.t.Helper()
	ctx := context.Background()
	var due []journal.Hold
	if err := b.j.View(ctx, func(tx *journal.Tx) error {
		all, err := tx.TimedHolds()
		for _, h := range all {
			if !b.clock.Now().Before(h.Due) {
				due = append(due, h)
			}
		}
		return err
	}); err != nil {
		b.t.Fatal(err)
	}
	for _, h := range due {
		if err := b.exec.TakeBack(ctx, h); err != nil {
			b.t.Fatal(err)
		}
	}
}

func TestTimedMembershipsEnd(t *testing.T) {
	g, a := func() *connectorv1.ObjectRef { return anchored("group", "g-all") }, func() *connectorv1.ObjectRef { return anchored("account", "a-anna") }
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	one, two := start.Add(time.Hour), start.Add(2*time.Hour)
	for name, c := range map[string]struct {
		before []string
		orders [][]*planv1.Change
		at1    bool // still a member after one hour
		at2    bool
	}{
		"made and ended":           {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}}, false, false},
		"was there before":         {[]string{"a-anna"}, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}}, true, true},
		"a longer grant needs it":  {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}, {timed(addMember("y", 0, g(), a()), "g2", two)}}, true, false},
		"a shorter one ends first": {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", two)}, {timed(addMember("y", 0, g(), a()), "g2", one)}}, true, false},
		"a lasting grant needs it": {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}, {addMember("y", 0, g(), a())}}, true, true},
		"same change again":        {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}, {timed(addMember("x", 0, g(), a()), "g1", two)}}, true, false},
		"removed and granted anew": {nil, [][]*planv1.Change{{timed(addMember("x", 0, g(), a()), "g1", one)}, {removeMember("r", 0, g(), a())}, {addMember("y", 0, g(), a())}}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, t.TempDir(), generous)
			b.put(account("anna"), group("all", c.before...))
			for _, changes := range c.orders {
				b.carriedOut(changes...)
			}
			if !slices.Contains(b.object("all").Members, "a-anna") {
				t.Fatal("not a member to begin with")
			}
			for _, step := range []struct {
				at   time.Time
				want bool
			}{{one, c.at1}, {two, c.at2}} {
				b.wall = step.at.Add(time.Second)
				b.takeBackAll()
				b.takeBackAll()
				if got := slices.Contains(b.object("all").Members, "a-anna"); got != step.want {
					t.Fatalf("at %v: member %v, want %v", step.at, got, step.want)
				}
			}
			accepted, settled := len(b.trail(auditv1.Type_TYPE_OBLIGATION_ACCEPTED)), len(b.trail(auditv1.Type_TYPE_OBLIGATION_SETTLED))
			if accepted != settled {
				t.Fatalf("%d obligations accepted and %d settled", accepted, settled)
			}
			if err := b.j.Verify(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
}
