package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// Run tends until ctx ends, at once and then every interval. What fails is
// logged and tried again: one tenant's trouble keeps no other waiting.
func (s *Service) Run(ctx context.Context, interval time.Duration) {
	for {
		if err := s.Tend(ctx); err != nil && ctx.Err() == nil {
			s.logger.Error("orders could not be tended", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-s.after(interval):
		}
	}
}

// Tend sends plans whose approval is durable and whose sending was cut off, and
// takes back orders whose end can never come, so that no plan runs for ever.
func (s *Service) Tend(ctx context.Context) error {
	var approved []string
	var open []Order
	err := s.db.View(ctx, func(t tx.Tx) error {
		plans, err := s.plans.InPhase(t, "", operatorv1.PlanState_PHASE_APPROVED)
		if err != nil {
			return err
		}
		for _, p := range plans {
			approved = append(approved, p.ID)
		}
		open, err = s.store.Open(t, "", "")
		return err
	})
	for _, plan := range approved {
		if e := s.Send(ctx, plan); e != nil {
			err = errors.Join(err, fmt.Errorf("send plan %s: %w", plan, e))
		}
	}
	for _, o := range open {
		if e := s.db.Do(ctx, func(t tx.Tx) error { return s.lapse(t, o.ID) }); e != nil {
			err = errors.Join(err, fmt.Errorf("order %s: %w", o.ID, e))
		}
	}
	return err
}

// lapse takes an order back whose end can never come: it expired before its
// agent fetched it, its agent has ended, or its agent lost the journal that it
// would have ended it in. What such an agent did before shows in the next
// snapshot.
func (s *Service) lapse(t tx.Tx, id string) error {
	o, err := s.store.Order(t, id)
	if err != nil || o.State != StateWaiting && o.State != StateFetched {
		return err
	}
	epoch, live, err := s.agents.Epoch(t, o.Tenant, o.Agent)
	if err != nil {
		return err
	}
	var why string
	switch {
	case !live:
		why = "agent " + o.Agent + " has ended"
	case epoch != o.Epoch:
		why = fmt.Sprintf("agent %s began epoch %d, the order is for epoch %d", o.Agent, epoch, o.Epoch)
	case o.State == StateWaiting && !s.now().Before(o.Expires):
		why = "agent " + o.Agent + " did not fetch it before it expired"
	default:
		return nil
	}
	p, err := s.plans.Plan(t, o.Plan)
	if err != nil {
		return err
	}
	if err := s.store.SetState(t, o.ID, StateSuperseded, nil); err != nil {
		return err
	}
	if err := s.superseded(t, p, "take back order", o.ID, why); err != nil {
		return err
	}
	t.OnCommit(func() { s.changed(p.ID) })
	return s.settle(t, p.ID)
}
