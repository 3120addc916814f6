package admission_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/pki/dsse"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const enforce = agentv1.ConnectorState_MODE_ENFORCE

// Every way in which an order can be wrong is refused with its own code, leaves
// one record and no effect, however often it is delivered.
func TestRefusals(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)-1] ^= 1; return b }
	unknown := func(b []byte) []byte { return append(b, 0xfa, 0x7f, 1, 'x') } // field 2047
	order := func(edit func(*planv1.Order)) admissiontest.Edits { return admissiontest.Edits{Order: edit} }
	manifest := func(edit func(*planv1.Manifest)) admissiontest.Edits { return admissiontest.Edits{Manifest: edit} }
	right := []*planv1.Change{update("c", "a-anna")}
	one := func(c *planv1.Change) []*planv1.Change { return []*planv1.Change{c} }
	var none admissiontest.Edits
	for name, c := range map[string]struct {
		edits   admissiontest.Edits
		changes []*planv1.Change
		code    string
	}{
		"stranger's key":       {admissiontest.Edits{Key: admissiontest.Key(99)}, right, admission.CodeSignature},
		"other payload type":   {admissiontest.Edits{Type: dsse.ChainHead}, right, admission.CodePayloadType},
		"unknown order field":  {admissiontest.Edits{Payload: unknown}, right, admission.CodeUnknownField},
		"unknown chunk field":  {admissiontest.Edits{Chunk: unknown}, right, admission.CodeUnknownField},
		"newer format":         {order(func(o *planv1.Order) { o.Format = 2 }), right, admission.CodeFormat},
		"other trust domain":   {order(func(o *planv1.Order) { o.TrustDomain = "evil.example" }), right, admission.CodeAudience},
		"other tenant":         {order(func(o *planv1.Order) { o.Tenant = "contoso" }), right, admission.CodeAudience},
		"other agent":          {order(func(o *planv1.Order) { o.Agent = "dc2" }), right, admission.CodeAudience},
		"plan of other tenant": {manifest(func(m *planv1.Manifest) { m.Tenant = "contoso" }), right, admission.CodeAudience},
		"plan without agent":   {manifest(func(m *planv1.Manifest) { m.Audiences[0].Agent = "dc2" }), right, admission.CodeAudience},
		"other epoch":          {order(func(o *planv1.Order) { o.Epoch = 2 }), right, admission.CodeEpoch},
		"sequence 0":           {order(func(o *planv1.Order) { o.Sequence = 0 }), right, admission.CodeSequence},
		"expired":              {order(func(o *planv1.Order) { o.Expires = timestamppb.New(o.NotBefore.AsTime().Add(time.Second)) }), right, admission.CodeWindow},
		"too early":            {order(func(o *planv1.Order) { o.NotBefore = timestamppb.New(o.Expires.AsTime().Add(-time.Second)) }), right, admission.CodeWindow},
		"no window":            {order(func(o *planv1.Order) { o.Expires = nil }), right, admission.CodeWindow},
		"other plan":           {order(func(o *planv1.Order) { o.PlanDigest = planv1.Digest(nil) }), right, admission.CodeDigest},
		"changed chunk":        {admissiontest.Edits{Sent: flip}, right, admission.CodeChunk},
		"chunk too much":       {manifest(func(m *planv1.Manifest) { m.Chunks = nil }), right, admission.CodeChunk},
		"chunk missing":        {manifest(func(m *planv1.Manifest) { m.Chunks = append(m.Chunks, m.Chunks[0]) }), right, admission.CodeChunk},
		"wrong count":          {manifest(func(m *planv1.Manifest) { m.Chunks[0].Changes++ }), right, admission.CodeChunk},
		"failed rehearsal":     {order(func(o *planv1.Order) { o.Rehearsal = &planv1.Rehearsal{Verdict: planv1.Rehearsal_VERDICT_FAILED} }), right, admission.CodeRehearsal},
		"no proofs":            {order(func(o *planv1.Order) { o.Proofs = nil }), right, admission.CodeProof},
		"only one act":         {order(func(o *planv1.Order) { o.Proofs = o.Proofs[:1] }), right, admission.CodeProof},
		"proof of other index": {order(func(o *planv1.Order) { o.Proofs[0].Index++ }), right, admission.CodeProof},
		"forged entry":         {order(func(o *planv1.Order) { o.Proofs[0].Entry = flip(o.Proofs[0].Entry) }), right, admission.CodeProof},
		"act of other plan":    {admissiontest.Edits{Acts: func(h []*auditv1.Header) []*auditv1.Header { h[0].PlanDigest = []byte("x"); return h }}, right, admission.CodeProof},
		"no approval":          {order(func(o *planv1.Order) { o.Approvals = nil }), right, admission.CodeApproval},
		"approval of other":    {order(func(o *planv1.Order) { o.Approvals[0].PlanDigest = []byte("x") }), right, admission.CodeApproval},
		"approver not on log":  {order(func(o *planv1.Order) { o.Approvals[0].Actor = "operator:eve" }), right, admission.CodeApproval},
		"maker approves":       {admissiontest.Edits{Acts: func(h []*auditv1.Header) []*auditv1.Header { h[0].Actor = h[1].Actor; return h }}, right, admission.CodeApproval},
		"bad client signature": {order(func(o *planv1.Order) { o.Approvals[0].Kind = planv1.Approval_KIND_CLIENT }), right, admission.CodeApproval},
		"signature missing":    {none, one(enable("c", "a-anna")), admission.CodeApproval},
		"source":               {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.Connector = "hr" })), admission.CodeMode},
		"unknown alias":        {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.Connector = "erp" })), admission.CodeChange},
		"alias not in plan":    {manifest(func(m *planv1.Manifest) { m.Audiences[0].Connectors = nil }), right, admission.CodeChange},
		"change id twice":      {none, []*planv1.Change{update("c", "a-anna"), update("c", "a-bo")}, admission.CodeChange},
		"levels fall":          {none, []*planv1.Change{with(update("c", "a-anna"), func(c *planv1.Change) { c.Level = 1 }), update("d", "a-bo")}, admission.CodeChange},
		"depends on nothing":   {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.DependsOn = []string{"x"} })), admission.CodeChange},
		"circle": {none, []*planv1.Change{with(update("c", "a-anna"), func(c *planv1.Change) { c.DependsOn = []string{"d"} }),
			with(update("d", "a-bo"), func(c *planv1.Change) { c.DependsOn = []string{"c"} })}, admission.CodeChange},
		"secret in plan":    {none, one(password("c", "it", []byte("hunter2"))), admission.CodeChange},
		"unknown recipient": {none, one(password("c", "msp", nil)), admission.CodeChange},
		"operation id":      {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.Operation.Id = "x" })), admission.CodeChange},
		"unknown type":      {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.Operation.Object.Type = "host" })), admission.CodeChange},
		"undeclared": {none, one(with(update("c", "a-anna"), func(c *planv1.Change) {
			c.Operation.Object.Type = "group"
			c.Operation.Action = enable("", "").Operation.Action
		})), admission.CodeChange},
		"object by name": {none, one(with(update("c", "a-anna"), func(c *planv1.Change) {
			c.Operation.Object = &connectorv1.ObjectRef{Type: "account", Name: create("", "x").Operation.GetCreate().Name}
		})), admission.CodeChange},
		"made by an update":  {none, []*planv1.Change{update("c", "a-anna"), with(update("d", ""), func(c *planv1.Change) { c.Operation.Object.Change = "c" })}, admission.CodeChange},
		"end without member": {none, one(with(update("c", "a-anna"), func(c *planv1.Change) { c.EndsAt = timestamppb.New(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)) })), admission.CodeChange},
		"protected":          {none, one(update("c", "a-ceo")), admission.CodeGuardrail},
		"absent object":      {none, one(update("c", "a-nobody")), admission.CodeGuardrail},
		"foreign credential": {none, one(password("c", "it", nil)), admission.CodeGuardrail},
		"over budget":        {none, []*planv1.Change{del("c", "a-anna"), del("d", "a-bo")}, admission.CodeBudget},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, enforce)
			before, err := os.ReadFile(b.state)
			b.check(err)
			d := b.order(c.edits, c.changes...)
			d.Order = "as-fetched"
			for range 3 {
				_, err := b.admit.Admit(context.Background(), d)
				var refused *admission.Refused
				if !errors.As(err, &refused) {
					t.Fatalf("got %v, want a refusal", err)
				}
				if refused.Order == "" {
					t.Error("the refusal names no order: nobody would learn that the plan has ended")
				}
				if refused.Code() != c.code {
					t.Fatalf("got %v, want %s", err, c.code)
				}
			}
			if n := b.count(auditv1.Type_TYPE_ORDER_REFUSED); n != 1 || b.j.Head().Next != 1 {
				t.Errorf("%d records of the refusal, %d in all", n, b.j.Head().Next)
			}
			if b.j.Sequence() != 0 {
				t.Error("a refused order used up its sequence")
			}
			after, err := os.ReadFile(b.state)
			b.check(err)
			if string(before) != string(after) {
				t.Error("the directory was written")
			}
			// The right order still goes in.
			if _, err := b.admit.Admit(context.Background(), b.order(none, update("good", "a-anna"))); err != nil {
				t.Errorf("a right order afterwards: %v", err)
			}
		})
	}
}

func refusedCode(err error) string {
	var r *admission.Refused
	if errors.As(err, &r) {
		return r.Code()
	}
	return fmt.Sprint(err)
}

func TestReplayAndReordering(t *testing.T) {
	b := newBench(t, enforce)
	ctx := context.Background()
	first := b.order(admissiontest.Edits{}, update("c", "a-anna"))
	second := b.order(admissiontest.Edits{}, update("d", "a-bo"))
	if _, err := b.admit.Admit(ctx, second); err != nil {
		t.Fatal(err)
	}
	if code := refusedCode(must(b.admit.Admit(ctx, first))); code != admission.CodeSequence {
		t.Errorf("an order overtaken by a later one: %s", code)
	}
	again, err := b.admit.Admit(ctx, second)
	if err != nil || !again.Again {
		t.Errorf("the same order again: %v, %v", again, err)
	}
	// The plan of the second in a new envelope.
	_, third := b.msp.Order(b.wall, []string{"hr", "mem"}, []*planv1.Change{update("d", "a-bo")}, admissiontest.Edits{
		Manifest: func(m *planv1.Manifest) {
			var used planv1.Manifest
			b.check(planv1.Decode(second.Manifest, &used))
			proto.Reset(m)
			proto.Merge(m, &used)
		},
	})
	if code := refusedCode(must(b.admit.Admit(ctx, third))); code != admission.CodeReplay {
		t.Errorf("a plan used twice: %s", code)
	}
	stolen := b.order(admissiontest.Edits{Order: func(o *planv1.Order) { o.Order = "order-2" }}, update("e", "a-bo"))
	if code := refusedCode(must(b.admit.Admit(ctx, stolen))); code != admission.CodeReplay {
		t.Errorf("an id used twice: %s", code)
	}
}

func must(_ *admission.Admitted, err error) error { return err }

func TestLocalRootStopsOrders(t *testing.T) {
	for name, c := range map[string]struct {
		v    journal.Var
		code string
	}{"paused": {journal.VarPaused, admission.CodePaused}, "frozen": {journal.VarFrozen, admission.CodeClock}, "left": {journal.VarLeft, admission.CodeLeft}} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, enforce)
			ctx := context.Background()
			set := func(value string) {
				b.check(b.j.Commit(ctx, func(tx *journal.Tx) error { return tx.Set(c.v, value) }))
			}
			d := b.order(admissiontest.Edits{}, update("c", "a-anna"))
			set("because")
			if code := refusedCode(must(b.admit.Admit(ctx, d))); code != c.code {
				t.Fatalf("got %s", code)
			}
			set("")
			if _, err := b.admit.Admit(ctx, d); err != nil {
				t.Fatalf("the same order afterwards: %v", err)
			}
		})
	}
	b := newBench(t, enforce)
	b.check(b.j.Quarantine(context.Background(), "an older copy"))
	if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, update("c", "a-anna"))))); code != admission.CodeQuarantined {
		t.Fatalf("got %s", code)
	}
}

func TestModes(t *testing.T) {
	for name, c := range map[string]struct {
		mode   agentv1.ConnectorState_Mode
		change *planv1.Change
		code   string
	}{
		"observe": {agentv1.ConnectorState_MODE_OBSERVE, update("c", "a-anna"), admission.CodeMode},
		"unset":   {agentv1.ConnectorState_MODE_UNSPECIFIED, update("c", "a-anna"), admission.CodeMode},
		"create":  {agentv1.ConnectorState_MODE_ADOPT, create("c", "new"), admission.CodeMode},
		"adopt":   {agentv1.ConnectorState_MODE_ADOPT, update("c", "a-anna"), "<nil>"},
		"enforce": {enforce, create("c", "new"), "<nil>"},
	} {
		b := newBench(t, c.mode)
		if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, c.change)))); code != c.code {
			t.Errorf("%s: %s, want %s", name, code, c.code)
		}
	}
}

// An order that comes while its connector is being started waits for it, and is
// not sent back to be fetched again.
func TestOrderWaitsForItsConnector(t *testing.T) {
	b := newBench(t, enforce)
	b.dir.started, b.dir.asked = make(chan struct{}), make(chan struct{}, 100)
	order, admitted := b.order(admissiontest.Edits{}, update("c", "a-anna")), make(chan error, 1)
	go func() {
		_, err := b.admit.Admit(context.Background(), order)
		admitted <- err
	}()
	select {
	case <-b.dir.asked:
	case err := <-admitted:
		t.Fatalf("it did not wait: %v", err)
	}
	close(b.dir.started)
	if err := <-admitted; err != nil {
		t.Fatal(err)
	}
}

func TestLostDirectoryOrStreamDecidesNothing(t *testing.T) {
	b := newBench(t, enforce)
	ctx := context.Background()
	d := b.order(admissiontest.Edits{}, update("c", "a-anna"))
	b.dir.broken = true
	if _, err := b.admit.Admit(ctx, d); !errors.Is(err, admission.ErrDirectory) {
		t.Fatalf("got %v", err)
	}
	b.dir.broken = false
	cut := errors.New("cut")
	broken := d
	broken.Chunks = func(yield func([]byte, error) bool) { yield(nil, cut) }
	if _, err := b.admit.Admit(ctx, broken); !errors.Is(err, cut) {
		t.Fatalf("got %v", err)
	}
	if b.j.Head().Next != 0 {
		t.Fatal("something was recorded")
	}
	if _, err := b.admit.Admit(ctx, d); err != nil {
		t.Fatal(err)
	}
}

func TestForkedLogIsRefused(t *testing.T) {
	b := newBench(t, enforce)
	d := b.order(admissiontest.Edits{}, update("c", "a-anna"))
	forked := b.msp.Checkpoint(true)
	b.cosigned = forked
	if code := refusedCode(must(b.admit.Admit(context.Background(), d))); code != admission.CodeProof {
		t.Fatalf("got %s", code)
	}
}

// The log an order shows must be the one that was cosigned, whichever is newer.
func TestForkedLogIsRefusedAtAnySize(t *testing.T) {
	ctx := context.Background()
	for _, newer := range []bool{false, true} {
		b := newBench(t, enforce)
		// Entries before, so that the order's own checkpoint is not the first.
		b.order(admissiontest.Edits{}, update("c", "a-anna"))
		before, forked := b.msp.Checkpoint(false), b.msp.Checkpoint(true)
		d := b.order(admissiontest.Edits{}, update("c", "a-anna"))
		if newer {
			b.order(admissiontest.Edits{}, update("c", "a-anna"))
			before, forked = b.msp.Checkpoint(false), b.msp.Checkpoint(true)
		}
		b.cosigned = forked
		if code := refusedCode(must(b.admit.Admit(ctx, d))); code != admission.CodeProof {
			t.Fatalf("cosigned newer %v: got %q", newer, code)
		}
		b.cosigned, b.noGrowth = before, errors.New("no session")
		if _, err := b.admit.Admit(ctx, d); !errors.Is(err, b.noGrowth) {
			t.Fatalf("cosigned newer %v: without a proof the order must wait: %v", newer, err)
		}
		b.noGrowth = nil
		if _, err := b.admit.Admit(ctx, d); err != nil {
			t.Fatalf("cosigned newer %v: %v", newer, err)
		}
	}
}

// A membership's end that is owed must not be written over by an order whose ids
// are made to fit: "o" with change "x/y", and "o/x" with change "y".
func TestAnObligationIsNotWrittenOver(t *testing.T) {
	b := newBench(t, enforce)
	timed := func(id string, end time.Duration) *planv1.Change {
		return with(change(id, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "group", Anchor: "g-all"},
			Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: account("a-anna")}}}), func(c *planv1.Change) {
			c.Grant, c.EndsAt = "g", timestamppb.New(b.wall.Add(end))
		})
	}
	named := func(id string) admissiontest.Edits {
		return admissiontest.Edits{Order: func(o *planv1.Order) { o.Order = id }}
	}
	if _, err := b.admit.Admit(context.Background(), b.order(named("o"), timed("x/y", time.Hour))); err != nil {
		t.Fatal(err)
	}
	if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(named("o/x"), timed("y", 2*time.Hour))))); code != admission.CodeReplay {
		t.Fatalf("got %q", code)
	}
	b.check(b.j.View(context.Background(), func(tx *journal.Tx) error {
		holds, err := tx.TimedHolds()
		if err == nil && (len(holds) != 1 || !holds[0].Due.Equal(b.wall.Add(time.Hour))) {
			t.Errorf("owed are %v", holds)
		}
		return err
	}))
}

// A group that lists a name already makes a member of whoever gets it.
func TestANameThatAGroupOutOfReachListsIsRefused(t *testing.T) {
	b := newBench(t, enforce)
	b.dir.more = []*connectorv1.Object{{Type: "group", Anchor: "g-x", Members: []string{"dn:login=old,ou=staff"},
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("cn", "admins")}}}}
	if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, create("c", "old"))))); code != admission.CodeGuardrail {
		t.Fatalf("got %q", code)
	}
	if _, err := b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, create("c", "new"))); err != nil {
		t.Fatal(err)
	}
}

func TestAPlanThatWouldFillTheMemoryIsRefused(t *testing.T) {
	b := newBench(t, enforce)
	d := b.order(admissiontest.Edits{Manifest: func(m *planv1.Manifest) { m.Chunks[0].Size = 1 << 30 }}, update("c", "a-anna"))
	read := false
	d.Chunks = func(yield func([]byte, error) bool) { read = true }
	if code := refusedCode(must(b.admit.Admit(context.Background(), d))); code != admission.CodeChunk || read {
		t.Fatalf("got %q, read %v", code, read)
	}
}

// Guardrails that do not fit refuse every change of a large plan: the answer still
// fits into a message.
func TestVeryManyRefusalsOfADryRunAreBounded(t *testing.T) {
	b := newBench(t, enforce)
	var changes []*planv1.Change
	for n := range 3000 {
		changes = append(changes, with(create(fmt.Sprint(n), fmt.Sprint("x", n)), func(c *planv1.Change) {
			c.Operation.GetCreate().Name.Components[1].Parts[0].Value = "elsewhere"
		}))
	}
	refusals, err := b.admit.DryRun(context.Background(), b.order(admissiontest.Edits{}, changes...))
	b.check(err)
	if n := len(refusals); n < 2 || n > 1001 || !strings.Contains(refusals[n-1].GetSentence(), "more refusals") {
		t.Fatalf("%d refusals", n)
	}
}

// Refusals can be had without end: they leave the disk's rest to what is owed.
func TestRefusalsDoNotFillTheDisk(t *testing.T) {
	b := newBench(t, enforce)
	b.free = 0
	if _, err := b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, del("c", "a-ceo"))); !errors.Is(err, journal.ErrDiskFull) {
		t.Fatalf("got %v", err)
	}
	if _, err := b.admit.DryRun(context.Background(), b.order(admissiontest.Edits{}, del("c", "a-ceo"))); !errors.Is(err, journal.ErrDiskFull) {
		t.Fatalf("got %v", err)
	}
	if b.j.Head().Next != 0 {
		t.Fatal("something was recorded")
	}
}

// A conflict tells what an attribute holds, so orders cannot ask about attributes
// that they may not write.
func TestExpectationsAskNothingBesideTheChange(t *testing.T) {
	b := newBench(t, enforce)
	asking := func(attribute string) *planv1.Change {
		return with(update("c", "a-anna"), func(c *planv1.Change) {
			c.Operation.Expect = []*connectorv1.Assertion{{Attribute: attribute, Values: [][]byte{[]byte("guess")}}}
		})
	}
	if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, asking("mail"))))); code != admission.CodeChange {
		t.Fatalf("got %q", code)
	}
	if _, err := b.admit.Admit(context.Background(), b.order(admissiontest.Edits{}, asking("displayName"))); err != nil {
		t.Fatal(err)
	}
}
