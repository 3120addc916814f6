package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/dispatch/dispatchstore"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// The fakes stand for the log, the agents' registry, the plan key and planning.
type (
	fakeLog      struct{ acts []auditv1.Type }
	fakeAgents   map[string]uint64
	fakeSigner   struct{ orders []*planv1.Order }
	fakeAccounts struct{ receipts int }
)

func (f *fakeLog) AppendAct(_ tx.Tx, _ string, h *auditv1.Header, _ *auditv1.Body) (uint64, error) {
	f.acts = append(f.acts, h.GetType())
	return uint64(len(f.acts) - 1), nil
}

func (f *fakeLog) Prove(_ tx.Tx, _ string, entries []uint64) (proofs []*planv1.InclusionProof, _ error) {
	for _, e := range entries {
		proofs = append(proofs, &planv1.InclusionProof{Index: e})
	}
	return proofs, nil
}

func (f fakeAgents) Epoch(_ tx.Tx, _, agent string) (uint64, bool, error) {
	return f[agent], f[agent] > 0, nil
}

func (f *fakeSigner) Sign(o *planv1.Order) ([]byte, error) {
	f.orders = append(f.orders, proto.CloneOf(o))
	return []byte("signed " + o.GetOrder()), nil
}

func (f *fakeAccounts) Received(tx.Tx, string, string, *auditv1.Receipt) error {
	f.receipts++
	return nil
}

type desk struct {
	*dispatch.Service
	t        *testing.T
	db       *tx.DB
	approval *approval.Service
	log      *fakeLog
	signer   *fakeSigner
	agents   fakeAgents
	now      time.Time
	plans    int
	// operators who must approve.
	operators int
}

func open(t *testing.T, solo bool) *desk {
	t.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{t: t, db: db, log: new(fakeLog), signer: new(fakeSigner), agents: fakeAgents{"dc1": 1, "dc2": 3}, now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return d.now }
	d.Service = dispatch.New(dispatch.Config{
		DB: db, Store: dispatchstore.Store{}, Plans: planningstore.Store{}, Log: d.log, Agents: d.agents,
		Accounts: new(fakeAccounts), Signer: d.signer, TrustDomain: "reeve.example", Now: clock, Logger: slog.New(slog.DiscardHandler),
		Waiting: func(string, string) {}, Changed: func(string) {},
	})
	d.approval = approval.New(db, planningstore.Store{}, d.log, clock, solo, func(string) {})
	return d
}

// plan keeps a waiting plan with one change for each agent, made by kari.
func (d *desk) plan(purpose planv1.Purpose, agents ...string) planning.Plan {
	d.t.Helper()
	d.plans++
	d.now = d.now.Add(time.Minute)
	manifest := &planv1.Manifest{Format: 1, Plan: fmt.Sprintf("plan-%03d", d.plans), Tenant: "fabrikam", AsOf: timestamppb.New(d.now)}
	var chunks []planning.Chunk
	for i, agent := range agents {
		manifest.Audiences = append(manifest.Audiences, &planv1.Audience{Agent: agent, Connectors: []string{"corp"}})
		encoded, err := planv1.Encode(&planv1.Chunk{Changes: []*planv1.Change{{
			Id: fmt.Sprintf("c%d-%s", d.plans, agent), Connector: "corp",
			Operation: &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "user", Anchor: "a"}, Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}},
		}}})
		if err != nil {
			d.t.Fatal(err)
		}
		chunks = append(chunks, planning.Chunk{Ordinal: i, Agent: agent, Bytes: encoded})
	}
	encoded, err := planv1.Encode(manifest)
	if err != nil {
		d.t.Fatal(err)
	}
	p := planning.Plan{
		ID: manifest.GetPlan(), Tenant: "fabrikam", Purpose: purpose, Phase: operatorv1.PlanState_PHASE_WAITING, Digest: planv1.Digest(encoded),
		Manifest: encoded, Rehearsal: &planv1.Rehearsal{Verdict: planv1.Rehearsal_VERDICT_ROUND_TRIP}, Changes: len(agents), Operators: d.operators, MadeBy: "operator:kari", Made: d.now,
	}
	if err := d.db.Do(context.Background(), func(t tx.Tx) error { return planningstore.Store{}.Put(t, p, chunks, nil) }); err != nil {
		d.t.Fatal(err)
	}
	return p
}

// send approves a plan as ola and sends it.
func (d *desk) send(p planning.Plan, agents ...string) {
	d.t.Helper()
	ctx := context.Background()
	for _, agent := range agents {
		if err := d.DryRan(ctx, "fabrikam", agent, p.Digest, "g", nil); err != nil {
			d.t.Fatal(err)
		}
	}
	if err := d.approval.Approve(ctx, p.ID, p.Digest, "operator:ola", ""); err != nil {
		d.t.Fatal(err)
	}
	// Sending is taken up again after a crash: twice must be once.
	for range 2 {
		if err := d.Send(ctx, p.ID); err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *desk) phase(p planning.Plan) planning.Phase {
	d.t.Helper()
	var got planning.Plan
	if err := d.db.View(context.Background(), func(t tx.Tx) (err error) {
		got, err = planningstore.Store{}.Plan(t, p.ID)
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return got.Phase
}

func (d *desk) pending(agent string) []string {
	d.t.Helper()
	p, err := d.Pending(context.Background(), "fabrikam", agent)
	if err != nil {
		d.t.Fatal(err)
	}
	return p.Orders
}

func (d *desk) received(tenant, agent string, typ auditv1.Type, body *auditv1.Body) {
	d.t.Helper()
	if err := d.db.Do(context.Background(), func(t tx.Tx) error { return d.Received(t, tenant, agent, 7, body, typ) }); err != nil {
		d.t.Fatal(err)
	}
}

func ended(order string) *auditv1.Body {
	return &auditv1.Body{Body: &auditv1.Body_Order{Order: &auditv1.OrderEvent{Order: order, Applied: 1}}}
}

func TestAnOrderIsDeliveredUntilItsEndIsOnRecord(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1", "dc2")
	if got, err := d.Pending(ctx, "fabrikam", "dc1"); err != nil || len(got.DryRuns) != 1 || len(got.Orders) != 0 {
		t.Fatalf("before approval: %+v, %v", got, err)
	}
	d.send(p, "dc1", "dc2")
	if len(d.signer.orders) != 2 {
		t.Fatalf("%d orders were signed", len(d.signer.orders))
	}
	for _, o := range d.signer.orders {
		if o.GetSequence() != 1 || len(o.GetProofs()) != 2 || len(o.GetApprovals()) != 1 || o.GetEpoch() != map[string]uint64{"dc1": 1, "dc2": 3}[o.GetAgent()] {
			t.Fatalf("order %+v", o)
		}
	}
	order := d.pending("dc1")[0]
	for range 2 {
		parcel, err := d.Fetch(ctx, "fabrikam", "dc1", order)
		if err != nil || string(parcel.Envelope) != "signed "+order || len(parcel.Chunks) != 1 {
			t.Fatalf("%+v, %v", parcel, err)
		}
		if got := d.pending("dc1"); !slices.Equal(got, []string{order}) {
			t.Fatalf("a fetched order does not wait any more: %v", got)
		}
	}
	for _, stranger := range [][2]string{{"fabrikam", "dc2"}, {"contoso", "dc1"}} {
		if _, err := d.Fetch(ctx, stranger[0], stranger[1], order); !errors.Is(err, dispatch.ErrNotFound) {
			t.Fatalf("%v fetched another's order: %v", stranger, err)
		}
		d.received(stranger[0], stranger[1], auditv1.Type_TYPE_ORDER_ENDED, ended(order))
	}
	if len(d.pending("dc1")) != 1 {
		t.Fatal("another agent's word ended the order")
	}
	d.received("fabrikam", "dc1", auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: &auditv1.Receipt{
		Order: order, Change: "c1-dc1", Connector: "corp", Operation: connectorv1.OperationKind_OPERATION_KIND_DISABLE, Anchor: "a", Result: auditv1.Receipt_RESULT_APPLIED,
	}}})
	for range 2 {
		d.received("fabrikam", "dc1", auditv1.Type_TYPE_ORDER_ENDED, ended(order))
	}
	if len(d.pending("dc1")) != 0 || d.phase(p) != operatorv1.PlanState_PHASE_RUNNING {
		t.Fatal("the plan ended before its other agent's order")
	}
	d.received("fabrikam", "dc2", auditv1.Type_TYPE_ORDER_ENDED, ended(d.pending("dc2")[0]))
	if d.phase(p) != operatorv1.PlanState_PHASE_ENDED {
		t.Fatal("the plan has not ended")
	}
}

func TestNewerPlansOvertakeWhatHasNotBegun(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	begun := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	d.send(begun, "dc1")
	if _, err := d.Fetch(ctx, "fabrikam", "dc1", d.pending("dc1")[0]); err != nil {
		t.Fatal(err)
	}
	waiting := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	unsent := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc2")
	d.send(unsent, "dc2")
	if d.phase(waiting) != operatorv1.PlanState_PHASE_SUPERSEDED {
		t.Fatal("an older waiting plan can still be approved")
	}
	stale := d.pending("dc2")[0]
	urgent := d.plan(planv1.Purpose_PURPOSE_URGENT, "dc1")
	d.send(urgent, "dc1")
	if d.phase(unsent) != operatorv1.PlanState_PHASE_RUNNING || len(d.pending("dc1")) != 2 {
		t.Fatal("an urgent plan only overtakes")
	}
	newest := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc2")
	d.send(newest, "dc2")
	if d.phase(unsent) != operatorv1.PlanState_PHASE_SUPERSEDED || d.phase(begun) != operatorv1.PlanState_PHASE_RUNNING {
		t.Fatalf("unsent is %v, begun is %v", d.phase(unsent), d.phase(begun))
	}
	if _, err := d.Fetch(ctx, "fabrikam", "dc2", stale); !errors.Is(err, dispatch.ErrNotFound) {
		t.Fatalf("an overtaken order can still be fetched: %v", err)
	}
	last := d.signer.orders[len(d.signer.orders)-1]
	if last.GetSequence() != 2 {
		t.Fatalf("sequence %d after an overtaken order", last.GetSequence())
	}
}

func TestRefusedOrdersEndTheirPlan(t *testing.T) {
	d := open(t, false)
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	d.send(p, "dc1")
	order := d.pending("dc1")[0]
	d.received("fabrikam", "dc1", auditv1.Type_TYPE_ORDER_REFUSED, &auditv1.Body{Body: &auditv1.Body_Refusal{Refusal: &auditv1.Refusal{Order: order, Code: "WINDOW"}}})
	if d.phase(p) != operatorv1.PlanState_PHASE_REFUSED {
		t.Fatalf("phase %v", d.phase(p))
	}
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		o, err := dispatchstore.Store{}.Order(t, order)
		if err == nil && o.Refusal.GetCode() != "WINDOW" {
			err = fmt.Errorf("the order does not say why it was refused: %v", o.Refusal)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func TestTwoOperatorsAreTwo(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	d.operators = 2
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	if err := d.DryRan(ctx, "fabrikam", "dc1", p.Digest, "g", nil); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		actor string
		want  error
		phase planning.Phase
	}{
		{"operator:kari", approval.ErrMaker, operatorv1.PlanState_PHASE_WAITING},
		{"operator:ola", nil, operatorv1.PlanState_PHASE_WAITING},
		{"operator:ola", approval.ErrTwice, operatorv1.PlanState_PHASE_WAITING},
		{"operator:per", nil, operatorv1.PlanState_PHASE_APPROVED},
	} {
		if err := d.approval.Approve(ctx, p.ID, p.Digest, step.actor, ""); !errors.Is(err, step.want) || d.phase(p) != step.phase {
			t.Fatalf("%s: %v, plan is %v", step.actor, err, d.phase(p))
		}
		// Nothing goes out before the last word.
		if err := d.Send(ctx, p.ID); step.phase == operatorv1.PlanState_PHASE_WAITING && (err != nil || len(d.signer.orders) != 0) {
			t.Fatalf("sent after %s: %v", step.actor, err)
		}
	}
	if len(d.signer.orders) != 1 || len(d.signer.orders[0].GetApprovals()) != 2 || len(d.signer.orders[0].GetProofs()) != 3 {
		t.Fatalf("orders %v", d.signer.orders)
	}
}

func TestApprovalIsOfWhatWasDisplayedByAnother(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	refuse := func(what string, p planning.Plan, digest []byte, actor string, want error) {
		t.Helper()
		if err := d.approval.Approve(ctx, p.ID, digest, actor, ""); !errors.Is(err, want) {
			t.Fatalf("%s: %v", what, err)
		}
		if d.phase(p) != operatorv1.PlanState_PHASE_WAITING {
			t.Fatalf("%s moved the plan", what)
		}
	}
	p := d.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	refuse("before the guardrails were asked", p, p.Digest, "operator:ola", approval.ErrBlocked)
	refusals := []*auditv1.Refusal{{Code: "GUARDRAIL", Sentence: "login=anna is protected"}}
	if err := d.DryRan(ctx, "fabrikam", "dc1", p.Digest, "g", refusals); err != nil {
		t.Fatal(err)
	}
	refuse("against the guardrails", p, p.Digest, "operator:ola", approval.ErrBlocked)
	if err := d.DryRan(ctx, "contoso", "dc1", p.Digest, "g", nil); !errors.Is(err, dispatch.ErrNotFound) {
		t.Fatalf("another tenant's agent answered: %v", err)
	}
	if err := d.DryRan(ctx, "fabrikam", "dc1", p.Digest, "g2", nil); err != nil {
		t.Fatal(err)
	}
	refuse("another digest", p, append(slices.Clone(p.Digest[1:]), 0), "operator:ola", approval.ErrDigest)
	refuse("the maker", p, p.Digest, "operator:kari", approval.ErrMaker)
	if err := d.approval.Approve(ctx, p.ID, p.Digest, "operator:ola", ""); err != nil {
		t.Fatal(err)
	}
	if err := d.approval.Approve(ctx, p.ID, p.Digest, "operator:per", ""); !errors.Is(err, planning.ErrPhase) {
		t.Fatalf("approved twice: %v", err)
	}
	if err := d.approval.Reject(ctx, p.ID, "operator:per", ""); !errors.Is(err, planning.ErrPhase) {
		t.Fatalf("rejected after approval: %v", err)
	}
	if !slices.Equal(d.log.acts, []auditv1.Type{auditv1.Type_TYPE_PLAN_APPROVED}) {
		t.Fatalf("on record: %v", d.log.acts)
	}
	alone := open(t, true)
	q := alone.plan(planv1.Purpose_PURPOSE_CHANGE, "dc1")
	if err := alone.DryRan(ctx, "fabrikam", "dc1", q.Digest, "g", nil); err != nil {
		t.Fatal(err)
	}
	if err := alone.approval.Approve(ctx, q.ID, q.Digest, "operator:kari", ""); err != nil {
		t.Fatalf("an MSP of one: %v", err)
	}
}
