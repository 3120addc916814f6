package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// lifetime is how long an agent may begin an order after it was sent. An agent
// that was away longer gets the plan made anew, from what is there then.
const lifetime = 24 * time.Hour

// Log puts acts into a tenant's log and proves them.
type Log interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
	// Prove seals the log and proves the entries in one checkpoint.
	Prove(t tx.Tx, tenant string, entries []uint64) ([]*planv1.InclusionProof, error)
}

// Agents tells an agent's present epoch.
type Agents interface {
	Epoch(t tx.Tx, tenant, agent string) (uint64, error)
}

// Accounts follows what receipts say of accounts; planning is it.
type Accounts interface {
	Received(t tx.Tx, tenant, plan string, receipt *auditv1.Receipt) error
}

// Signer turns an order into its signed bytes.
type Signer interface {
	Sign(order *planv1.Order) (envelope []byte, err error)
}

// Service is safe for concurrent use.
type Service struct {
	db          *tx.DB
	store       Store
	plans       planning.Store
	log         Log
	agents      Agents
	accounts    Accounts
	signer      Signer
	trustDomain string
	now         func() time.Time
	logger      *slog.Logger
	// waiting is told that something waits for an agent; ended that a plan has.
	waiting func(tenant, agent string)
	changed func(plan string)
	decoded decodedPlans
}

// Config is what a Service works with.
type Config struct {
	DB          *tx.DB
	Store       Store
	Plans       planning.Store
	Log         Log
	Agents      Agents
	Accounts    Accounts
	Signer      Signer
	TrustDomain string
	Now         func() time.Time
	Logger      *slog.Logger
	// Waiting is told that an order or a dry run waits for an agent, Changed that
	// a plan's state changed. Neither may block.
	Waiting func(tenant, agent string)
	Changed func(plan string)
}

// New returns the service.
func New(c Config) *Service {
	return &Service{
		db: c.DB, store: c.Store, plans: c.Plans, log: c.Log, agents: c.Agents, accounts: c.Accounts, signer: c.Signer,
		trustDomain: c.TrustDomain, now: c.Now, logger: c.Logger, waiting: c.Waiting, changed: c.Changed,
	}
}

// Send turns an approved plan into one order an agent. Sending a plan twice is
// harmless: the second finds it running.
func (s *Service) Send(ctx context.Context, plan string) error {
	return s.db.Do(ctx, func(t tx.Tx) error {
		p, err := s.plans.Plan(t, plan)
		if err != nil {
			return err
		}
		if p.Phase != operatorv1.PlanState_PHASE_APPROVED {
			return nil
		}
		if err := s.supersede(t, p); err != nil {
			return err
		}
		approvals, err := s.plans.Approvals(t, plan)
		if err != nil {
			return err
		}
		entries := []uint64{p.Entry}
		var approved []*planv1.Approval
		for _, a := range approvals {
			entries = append(entries, a.Entry)
			approved = append(approved, a.Approval)
		}
		proofs, err := s.log.Prove(t, p.Tenant, entries)
		if err != nil {
			return err
		}
		manifest := new(planv1.Manifest)
		if err := planv1.Decode(p.Manifest, manifest); err != nil {
			return err
		}
		for _, audience := range manifest.GetAudiences() {
			if err := s.send(t, p, audience.GetAgent(), approved, proofs); err != nil {
				return fmt.Errorf("order for agent %s: %w", audience.GetAgent(), err)
			}
		}
		t.OnCommit(func() { s.changed(plan) })
		return s.plans.SetPhase(t, plan, operatorv1.PlanState_PHASE_APPROVED, operatorv1.PlanState_PHASE_RUNNING)
	})
}

func (s *Service) send(t tx.Tx, p planning.Plan, agent string, approvals []*planv1.Approval, proofs []*planv1.InclusionProof) error {
	epoch, err := s.agents.Epoch(t, p.Tenant, agent)
	if err != nil {
		return err
	}
	last, err := s.store.LastSequence(t, p.Tenant, agent, epoch)
	if err != nil {
		return err
	}
	var random [8]byte
	rand.Read(random[:]) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	now := s.now()
	order := &planv1.Order{
		Order: "order-" + hex.EncodeToString(random[:]), PlanDigest: p.Digest, TrustDomain: s.trustDomain, Tenant: p.Tenant,
		Agent: agent, Epoch: epoch, Sequence: last + 1, NotBefore: timestamppb.New(now.Add(-time.Minute)), Expires: timestamppb.New(now.Add(lifetime)),
		Rehearsal: p.Rehearsal, Approvals: approvals, Proofs: proofs,
	}
	envelope, err := s.signer.Sign(order)
	if err != nil {
		return err
	}
	if err := s.store.Put(t, Order{
		ID: order.GetOrder(), Tenant: p.Tenant, Agent: agent, Plan: p.ID, Epoch: epoch, Sequence: order.GetSequence(),
		Envelope: envelope, State: StateWaiting, Expires: order.GetExpires().AsTime(),
	}); err != nil {
		return err
	}
	if _, err := s.log.AppendAct(t, p.Tenant,
		&auditv1.Header{Type: auditv1.Type_TYPE_ORDER_SENT, Actor: "control-plane", PlanDigest: p.Digest},
		&auditv1.Body{Body: &auditv1.Body_Order{Order: &auditv1.OrderEvent{Order: order.GetOrder(), Sequence: order.GetSequence()}}}); err != nil {
		return err
	}
	t.OnCommit(func() { s.waiting(p.Tenant, agent) })
	return nil
}

// supersede takes back what an older plan of the tenant has not begun: the newer
// one was derived from a later look at the same estate. An urgent plan only
// overtakes, since it is about a few people and leaves the rest as it was.
func (s *Service) supersede(t tx.Tx, newer planning.Plan) error {
	if newer.Purpose == planv1.Purpose_PURPOSE_URGENT {
		return nil
	}
	plans, err := s.plans.Plans(t, newer.Tenant, "", 0)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if p.ID == newer.ID || p.Made.After(newer.Made) {
			continue
		}
		switch p.Phase {
		case operatorv1.PlanState_PHASE_WAITING, operatorv1.PlanState_PHASE_APPROVED:
		case operatorv1.PlanState_PHASE_RUNNING:
			untouched, err := s.untouched(t, p.ID)
			if err != nil {
				return err
			}
			if !untouched {
				continue
			}
		default:
			continue
		}
		if err := s.plans.SetPhase(t, p.ID, p.Phase, operatorv1.PlanState_PHASE_SUPERSEDED); err != nil {
			return err
		}
		if _, err := s.log.AppendAct(t, p.Tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_ORDER_SUPERSEDED, Actor: "control-plane", PlanDigest: p.Digest},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "supersede plan", Object: p.ID, Reason: "a newer plan was approved: " + newer.ID}}}); err != nil {
			return err
		}
		t.OnCommit(func() { s.changed(p.ID) })
	}
	return nil
}

// untouched reports whether no agent has fetched an order of the plan; if so its
// orders are taken back.
func (s *Service) untouched(t tx.Tx, plan string) (bool, error) {
	orders, err := s.store.OfPlan(t, plan)
	if err != nil {
		return false, err
	}
	for _, o := range orders {
		if o.State != StateWaiting {
			return false, nil
		}
	}
	for _, o := range orders {
		if err := s.store.SetState(t, o.ID, StateSuperseded, nil); err != nil {
			return false, err
		}
	}
	return true, nil
}

// Recover sends plans whose approval is durable and whose sending was cut off.
func (s *Service) Recover(ctx context.Context) error {
	var approved []string
	err := s.db.View(ctx, func(t tx.Tx) error {
		plans, err := s.plans.Plans(t, "", "", 0)
		for _, p := range plans {
			if p.Phase == operatorv1.PlanState_PHASE_APPROVED {
				approved = append(approved, p.ID)
			}
		}
		return err
	})
	for _, plan := range approved {
		err = errors.Join(err, s.Send(ctx, plan))
	}
	return err
}

// Pending is what waits for an agent: orders it has not ended, by sequence, and
// digests of plans its guardrails were not asked about.
type Pending struct {
	Orders  []string
	DryRuns [][]byte
}

// Pending returns what waits for an agent. It is asked again at every connect, so
// everything in it is delivered until it is done.
func (s *Service) Pending(ctx context.Context, tenant, agent string) (Pending, error) {
	var p Pending
	err := s.db.View(ctx, func(t tx.Tx) error {
		orders, err := s.store.Open(t, tenant, agent)
		if err != nil {
			return err
		}
		for _, o := range orders {
			p.Orders = append(p.Orders, o.ID)
		}
		plans, err := s.plans.Plans(t, tenant, "", 0)
		if err != nil {
			return err
		}
		for _, plan := range plans {
			if plan.Phase != operatorv1.PlanState_PHASE_WAITING || plan.Changes == 0 {
				continue
			}
			waits, err := s.waitsForDryRun(t, plan, agent)
			if err != nil {
				return err
			}
			if waits {
				p.DryRuns = append(p.DryRuns, plan.Digest)
			}
		}
		return nil
	})
	return p, err
}

func (s *Service) waitsForDryRun(t tx.Tx, plan planning.Plan, agent string) (bool, error) {
	chunks, err := s.plans.Chunks(t, plan.ID, agent)
	if err != nil || len(chunks) == 0 {
		return false, err
	}
	done, err := s.plans.DryRuns(t, plan.ID)
	for _, d := range done {
		if d.Agent == agent {
			return false, err
		}
	}
	return true, err
}

// Parcel is what an agent fetches; every part is verbatim.
type Parcel struct {
	// Envelope is nil for a dry run.
	Envelope []byte
	Manifest []byte
	Chunks   [][]byte
}

// Fetch returns an order of the agent's, ErrNotFound for anybody else's.
func (s *Service) Fetch(ctx context.Context, tenant, agent, order string) (Parcel, error) {
	var parcel Parcel
	err := s.db.Do(ctx, func(t tx.Tx) error {
		o, err := s.store.Order(t, order)
		if err != nil {
			return err
		}
		if o.Tenant != tenant || o.Agent != agent || o.State == StateSuperseded {
			return fmt.Errorf("%w: %s", ErrNotFound, order)
		}
		p, err := s.plans.Plan(t, o.Plan)
		if err != nil {
			return err
		}
		if parcel, err = s.parcel(t, p, agent); err != nil {
			return err
		}
		parcel.Envelope = o.Envelope
		if o.State != StateWaiting {
			return nil
		}
		return s.store.SetState(t, order, StateFetched, nil)
	})
	return parcel, err
}

// FetchDryRun returns the agent's part of a plan by digest.
func (s *Service) FetchDryRun(ctx context.Context, tenant, agent string, digest []byte) (Parcel, error) {
	var parcel Parcel
	err := s.db.View(ctx, func(t tx.Tx) error {
		p, err := s.plans.ByDigest(t, digest)
		if err != nil || p.Tenant != tenant {
			return fmt.Errorf("%w: plan %x", ErrNotFound, digest)
		}
		parcel, err = s.parcel(t, p, agent)
		return err
	})
	return parcel, err
}

func (s *Service) parcel(t tx.Tx, p planning.Plan, agent string) (Parcel, error) {
	chunks, err := s.plans.Chunks(t, p.ID, agent)
	parcel := Parcel{Manifest: p.Manifest}
	for _, c := range chunks {
		parcel.Chunks = append(parcel.Chunks, c.Bytes)
	}
	if err == nil && len(chunks) == 0 {
		err = fmt.Errorf("%w: plan %s has nothing for agent %s", ErrNotFound, p.ID, agent)
	}
	return parcel, err
}

// DryRan takes an agent's answer to a dry run.
func (s *Service) DryRan(ctx context.Context, tenant, agent string, digest []byte, guardrails string, refusals []*auditv1.Refusal) error {
	return s.db.Do(ctx, func(t tx.Tx) error {
		p, err := s.plans.ByDigest(t, digest)
		if err != nil || p.Tenant != tenant {
			return fmt.Errorf("%w: plan %x", ErrNotFound, digest)
		}
		t.OnCommit(func() { s.changed(p.ID) })
		return s.plans.PutDryRun(t, p.ID, planning.DryRun{Agent: agent, Guardrails: guardrails, Refusals: refusals})
	})
}

// Change returns the planned change that an agent carried out under an order, nil
// for one that no plan of that agent holds.
func (s *Service) Change(t tx.Tx, tenant, agent, order, change string) (*planv1.Change, error) {
	o, err := s.store.Order(t, order)
	if errors.Is(err, ErrNotFound) || err == nil && (o.Tenant != tenant || o.Agent != agent) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	changes, err := s.decoded.of(o.Plan, func() ([]planning.Chunk, error) { return s.plans.Chunks(t, o.Plan, "") })
	return changes[change], err
}

// Received takes a record that an agent sent, in intake's transaction: a receipt
// of a change, the end of an order, or its refusal.
func (s *Service) Received(t tx.Tx, tenant, agent string, entry uint64, body *auditv1.Body, typ auditv1.Type) error {
	var id string
	switch b := body.GetBody().(type) {
	case *auditv1.Body_Receipt:
		id = b.Receipt.GetOrder()
	case *auditv1.Body_Order:
		id = b.Order.GetOrder()
	case *auditv1.Body_Refusal:
		id = b.Refusal.GetOrder()
	}
	if id == "" {
		return nil
	}
	o, err := s.store.Order(t, id)
	if errors.Is(err, ErrNotFound) || err == nil && (o.Tenant != tenant || o.Agent != agent) {
		// The record is kept by the log whatever it speaks of; it moves nothing.
		s.logger.Warn("record names an order that is not the agent's", "tenant", tenant, "agent", agent, "order", id)
		return nil
	}
	if err != nil {
		return err
	}
	t.OnCommit(func() { s.changed(o.Plan) })
	switch typ {
	case auditv1.Type_TYPE_RECEIPT:
		if err := s.accounts.Received(t, tenant, o.Plan, body.GetReceipt()); err != nil {
			return err
		}
		return s.store.PutReceipt(t, tenant, o.Plan, Receipt{Change: body.GetReceipt().GetChange(), Entry: entry, Receipt: body.GetReceipt()})
	case auditv1.Type_TYPE_ORDER_ENDED:
		if err := s.store.SetState(t, id, StateEnded, body.GetOrder()); err != nil {
			return err
		}
		return s.settle(t, o.Plan)
	case auditv1.Type_TYPE_ORDER_REFUSED:
		if o.State == StateEnded || o.State == StateRefused {
			return nil
		}
		if err := s.store.SetState(t, id, StateRefused, nil); err != nil {
			return err
		}
		return s.settle(t, o.Plan)
	}
	return nil
}

// settle ends the plan when every order of it has ended.
func (s *Service) settle(t tx.Tx, plan string) error {
	orders, err := s.store.OfPlan(t, plan)
	if err != nil {
		return err
	}
	to := operatorv1.PlanState_PHASE_REFUSED
	for _, o := range orders {
		switch o.State {
		case StateWaiting, StateFetched:
			return nil
		case StateEnded:
			to = operatorv1.PlanState_PHASE_ENDED
		}
	}
	err = s.plans.SetPhase(t, plan, operatorv1.PlanState_PHASE_RUNNING, to)
	if errors.Is(err, planning.ErrPhase) {
		return nil
	}
	return err
}

// State adds up a plan's orders and receipts.
func (s *Service) State(t tx.Tx, p planning.Plan) (*operatorv1.PlanState, error) {
	state := &operatorv1.PlanState{Phase: p.Phase, Total: uint32(p.Changes)}
	receipts, err := s.store.Receipts(t, p.ID)
	for _, r := range receipts {
		switch r.Receipt.GetResult() {
		case auditv1.Receipt_RESULT_APPLIED:
			state.Applied++
		case auditv1.Receipt_RESULT_ALREADY:
			state.Already++
		case auditv1.Receipt_RESULT_CONFLICT:
			state.Conflicts++
		case auditv1.Receipt_RESULT_SKIPPED, auditv1.Receipt_RESULT_SUPERSEDED:
			state.Skipped++
		case auditv1.Receipt_RESULT_REFUSED:
			state.Refused++
		default:
			state.Failed++
		}
	}
	return state, err
}
