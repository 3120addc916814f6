package intake

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// ErrStopped means that the service is shutting down; the agent ships again.
var ErrStopped = fmt.Errorf("intake is stopping: %w", context.Canceled)

// answer says how far a chain is durable.
type answer struct {
	length    uint64
	gap, fork bool
	// placed is where the batch's new records are; nil when all were there before.
	placed *placed
	err    error
}

// placed is what a batch became in the log, with what proves it. The group's
// transaction fills in what is below.
type placed struct {
	first  uint64
	leaves []auditlog.Leaf

	sealed      *auditlog.Sealed
	consistency [][]byte
	err         error
}

// Ship takes a batch of an authorised agent in and returns when it is durable,
// with proofs. What was there already is proven again. On a gap the answer holds
// the length to go on from and no proofs. Errors: ErrMalformed, ErrSignature,
// ErrEpoch, ErrQuarantined, ErrFork, enrollment's, and auditlog.ErrNotFound when the agent
// cosigned more than the log holds.
func (s *Service) Ship(ctx context.Context, tenant, agent string, b *auditv1.Batch, cosigned uint64) (*agentv1.ShipRecordsResponse, error) {
	leave, err := s.lanes.Enter(ctx, tenant)
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := check(s.TrustDomain, tenant, agent, b)
	if err != nil {
		return nil, err
	}
	s.foresee(tenant, agent, r)
	ship := &shipment{tenant: tenant, agent: agent, read: r, cosigned: cosigned, done: make(chan answer, 1)}
	s.queue.put(ship)
	var a answer
	select {
	case a = <-ship.done:
	case <-ctx.Done():
		ship.gone.Store(true)
		return nil, ctx.Err()
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case a.fork:
		return nil, ErrFork
	case a.gap:
		return &agentv1.ShipRecordsResponse{Epoch: b.GetEpoch(), Length: a.length}, nil
	case a.placed != nil && len(a.placed.leaves) == len(b.GetRecords()):
		return a.placed.prove(b.GetEpoch(), a.length)
	}
	return s.prove(ctx, tenant, agent, b, a.length, cosigned)
}

// prove is Service.prove for records that the group has just placed, without the
// database.
func (p *placed) prove(epoch, length uint64) (*agentv1.ShipRecordsResponse, error) {
	if p.err != nil {
		return nil, p.err
	}
	proofs, err := p.sealed.Inclusions(p.first, p.leaves)
	if err != nil {
		return nil, err
	}
	return &agentv1.ShipRecordsResponse{
		Epoch: epoch, Length: length, Checkpoint: p.sealed.Checkpoint.Note, Consistency: p.consistency, Proofs: proofs,
	}, nil
}

// Run commits what Ship hands in, tenants together, until ctx ends. While one
// transaction is being made durable the next group gathers.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.queue.wake:
		}
		for group := s.queue.take(); len(group) > 0; group = s.queue.take() {
			s.commit(ctx, group)
		}
	}
}

// commit runs a group in one transaction, each batch in a savepoint, so that one
// that fails takes no other with it.
func (s *Service) commit(ctx context.Context, group []*shipment) {
	var answers []answer
	err := s.DB.Do(ctx, func(t tx.Tx) error {
		answers = make([]answer, len(group))
		for i, ship := range group {
			if answers[i], answers[i].err = s.one(t, ship); answers[i].err != nil && ctx.Err() != nil {
				return answers[i].err
			}
		}
		return s.seal(t, group, answers)
	})
	for i, ship := range group {
		if err != nil && answers[i].err == nil {
			answers[i] = answer{err: fmt.Errorf("records are not stored: %w", err)}
			if ctx.Err() != nil {
				answers[i].err = ErrStopped
			}
		}
		ship.done <- answers[i]
	}
}

// seal signs one checkpoint for each tenant of the group and reads what proves
// what was placed.
func (s *Service) seal(t tx.Tx, group []*shipment, answers []answer) error {
	sealed := map[string]*auditlog.Sealed{}
	for i, ship := range group {
		if answers[i].err != nil || answers[i].gap {
			continue
		}
		under := sealed[ship.tenant]
		if under == nil {
			var err error
			if under, err = s.Log.SealTree(t, ship.tenant); err != nil {
				return err
			}
			sealed[ship.tenant] = under
		}
		if p := answers[i].placed; p != nil {
			p.sealed = under
			if p.consistency, p.err = under.Consistency(ship.cosigned); p.err != nil {
				p.err = fmt.Errorf("from the cosigned size %d: %w", ship.cosigned, p.err)
			}
			if err := under.Hold(p.first, uint64(len(p.leaves))); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) one(t tx.Tx, ship *shipment) (a answer, err error) {
	if _, err := t.Exec(`SAVEPOINT batch`); err != nil {
		return answer{}, err
	}
	defer func() {
		// A receiver's bug must not stop every tenant's intake.
		if p := recover(); p != nil {
			s.Logger.Error("panic while taking records in", "tenant", ship.tenant, "agent", ship.agent, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("internal error while taking records in")
		}
		statement := `RELEASE SAVEPOINT batch`
		if err != nil {
			statement = `ROLLBACK TO SAVEPOINT batch`
		}
		if _, e := t.Exec(statement); e != nil {
			err = errors.Join(err, e)
		}
	}()
	return s.take(t, ship.tenant, ship.agent, ship.read)
}
