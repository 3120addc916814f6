package intake

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// ErrStopped means that the service is shutting down; the agent ships again.
var ErrStopped = fmt.Errorf("intake is stopping: %w", context.Canceled)

// groupSize is how many batches share one transaction, and so one fsync.
const groupSize = 64

// shipment is a batch on its way through the group.
type shipment struct {
	tenant, agent string
	read          *read
	done          chan answer
}

// answer says how far a chain is durable.
type answer struct {
	length    uint64
	gap, fork bool
	err       error
}

// Ship takes a batch of an authorised agent in and returns when it is durable,
// with proofs. What was there already is proven again. On a gap the answer holds
// the length to go on from and no proofs. Errors: ErrMalformed, ErrSignature,
// ErrEpoch, ErrQuarantined, ErrFork, enrollment's, and auditlog.ErrNotFound when the agent
// cosigned more than the log holds.
func (s *Service) Ship(ctx context.Context, tenant, agent string, b *auditv1.Batch, cosigned uint64) (*agentv1.ShipRecordsResponse, error) {
	r, err := check(s.TrustDomain, tenant, agent, b)
	if err != nil {
		return nil, err
	}
	ship := &shipment{tenant: tenant, agent: agent, read: r, done: make(chan answer, 1)}
	select {
	case s.queue <- ship:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var a answer
	select {
	case a = <-ship.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	switch {
	case a.err != nil:
		return nil, a.err
	case a.fork:
		return nil, ErrFork
	case a.gap:
		return &agentv1.ShipRecordsResponse{Epoch: b.GetEpoch(), Length: a.length}, nil
	}
	return s.prove(ctx, tenant, agent, b, a.length, cosigned)
}

// Run commits what Ship hands in, tenants together, until ctx ends. While one
// transaction is being made durable the next group gathers.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case first := <-s.queue:
			group := []*shipment{first}
			for len(group) < groupSize {
				select {
				case more := <-s.queue:
					group = append(group, more)
					continue
				default:
				}
				break
			}
			s.commit(ctx, group)
		}
	}
}

// commit runs a group in one transaction, each batch in a savepoint, so that one
// that fails takes no other with it.
func (s *Service) commit(ctx context.Context, group []*shipment) {
	answers := make([]answer, len(group))
	err := s.DB.Do(ctx, func(t tx.Tx) error {
		changed := map[string]bool{}
		for i, ship := range group {
			a, err := s.one(t, ship)
			if err != nil {
				answers[i] = answer{err: err}
				if ctx.Err() != nil {
					return err
				}
				continue
			}
			answers[i] = a
			if !a.gap {
				changed[ship.tenant] = true
			}
		}
		for tenant := range changed {
			if _, err := s.Log.Seal(t, tenant); err != nil {
				return err
			}
		}
		return nil
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
