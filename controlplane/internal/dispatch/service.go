package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Log puts acts into a tenant's log and proves them.
type Log interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
	// Prove seals the log and proves the entries in one checkpoint.
	Prove(t tx.Tx, tenant string, entries []uint64) ([]*planv1.InclusionProof, error)
}

// Agents tells an agent's present epoch. live is false for one that has ended:
// nothing reaches it and nothing of it will come any more.
type Agents interface {
	Epoch(t tx.Tx, tenant, agent string) (epoch uint64, live bool, err error)
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
	after       func(time.Duration) <-chan time.Time
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
	// After is a timer by that clock.
	After  func(time.Duration) <-chan time.Time
	Logger *slog.Logger
	// Waiting is told that an order or a dry run waits for an agent, Changed that
	// a plan's state changed. Neither may block.
	Waiting func(tenant, agent string)
	Changed func(plan string)
}

// New returns the service.
func New(c Config) *Service {
	return &Service{
		db: c.DB, store: c.Store, plans: c.Plans, log: c.Log, agents: c.Agents, accounts: c.Accounts, signer: c.Signer,
		trustDomain: c.TrustDomain, now: c.Now, after: c.After, logger: c.Logger, waiting: c.Waiting, changed: c.Changed,
	}
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
		plans, err := s.plans.InPhase(t, tenant, operatorv1.PlanState_PHASE_WAITING)
		if err != nil {
			return err
		}
		for _, plan := range plans {
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
	if concerned, err := concerns(plan, agent); err != nil || !concerned {
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

// concerns reports whether a plan has changes for an agent.
func concerns(p planning.Plan, agent string) (bool, error) {
	manifest := new(planv1.Manifest)
	if err := planv1.Decode(p.Manifest, manifest); err != nil {
		return false, fmt.Errorf("manifest of plan %s: %w", p.ID, err)
	}
	return slices.ContainsFunc(manifest.GetAudiences(), func(a *planv1.Audience) bool { return a.GetAgent() == agent }), nil
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
		p, err := s.ofTenant(t, tenant, digest)
		if err != nil {
			return err
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

// ofTenant finds a plan by digest; another tenant's is not there.
func (s *Service) ofTenant(t tx.Tx, tenant string, digest []byte) (planning.Plan, error) {
	p, err := s.plans.ByDigest(t, digest)
	if errors.Is(err, planning.ErrNotFound) || err == nil && p.Tenant != tenant {
		return planning.Plan{}, fmt.Errorf("%w: plan %x", ErrNotFound, digest)
	}
	return p, err
}

// DryRan takes an agent's answer to a dry run.
func (s *Service) DryRan(ctx context.Context, tenant, agent string, digest []byte, guardrails string, refusals []*auditv1.Refusal) error {
	return s.db.Do(ctx, func(t tx.Tx) error {
		p, err := s.ofTenant(t, tenant, digest)
		if err != nil {
			return err
		}
		concerned, err := concerns(p, agent)
		if err != nil {
			return err
		}
		if !concerned {
			return fmt.Errorf("%w: plan %s has nothing for agent %s", ErrNotFound, p.ID, agent)
		}
		t.OnCommit(func() { s.changed(p.ID) })
		return s.plans.PutDryRun(t, p.ID, planning.DryRun{Agent: agent, Guardrails: guardrails, Refusals: refusals})
	})
}

// State adds up a plan's orders and receipts.
func (s *Service) State(t tx.Tx, p planning.Plan) (*operatorv1.PlanState, error) {
	state := &operatorv1.PlanState{Phase: p.Phase, Total: uint32(p.Changes)}
	results, err := s.store.Results(t, p.ID)
	for result, n := range results {
		switch result {
		case auditv1.Receipt_RESULT_APPLIED:
			state.Applied += n
		case auditv1.Receipt_RESULT_ALREADY:
			state.Already += n
		case auditv1.Receipt_RESULT_CONFLICT:
			state.Conflicts += n
		case auditv1.Receipt_RESULT_SKIPPED, auditv1.Receipt_RESULT_SUPERSEDED:
			state.Skipped += n
		case auditv1.Receipt_RESULT_REFUSED:
			state.Refused += n
		default:
			state.Failed += n
		}
	}
	return state, err
}
