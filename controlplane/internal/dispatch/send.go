package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
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
		manifest := new(planv1.Manifest)
		if err := planv1.Decode(p.Manifest, manifest); err != nil {
			return err
		}
		for _, audience := range manifest.GetAudiences() {
			if _, live, err := s.agents.Epoch(t, p.Tenant, audience.GetAgent()); err != nil {
				return err
			} else if !live {
				return s.withdraw(t, p, "agent "+audience.GetAgent()+" has ended and cannot carry it out")
			}
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
	epoch, _, err := s.agents.Epoch(t, p.Tenant, agent)
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
	plans, err := s.plans.InPhase(t, newer.Tenant,
		operatorv1.PlanState_PHASE_WAITING, operatorv1.PlanState_PHASE_APPROVED, operatorv1.PlanState_PHASE_RUNNING)
	if err != nil {
		return err
	}
	for _, p := range plans {
		if p.ID == newer.ID || p.Made.After(newer.Made) {
			continue
		}
		if p.Phase == operatorv1.PlanState_PHASE_RUNNING {
			untouched, err := s.untouched(t, p.ID)
			if err != nil {
				return err
			}
			if !untouched {
				continue
			}
		}
		if err := s.withdraw(t, p, "a newer plan was approved: "+newer.ID); err != nil {
			return err
		}
	}
	return nil
}

// withdraw ends a plan of which nothing was begun, with a record that says why.
func (s *Service) withdraw(t tx.Tx, p planning.Plan, why string) error {
	if err := s.plans.SetPhase(t, p.ID, p.Phase, operatorv1.PlanState_PHASE_SUPERSEDED); err != nil {
		return err
	}
	t.OnCommit(func() { s.changed(p.ID) })
	return s.superseded(t, p, "supersede plan", p.ID, why)
}

func (s *Service) superseded(t tx.Tx, p planning.Plan, verb, object, why string) error {
	_, err := s.log.AppendAct(t, p.Tenant,
		&auditv1.Header{Type: auditv1.Type_TYPE_ORDER_SUPERSEDED, Actor: "control-plane", PlanDigest: p.Digest},
		&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb, Object: object, Reason: why}}})
	return err
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
