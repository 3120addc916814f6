package dispatch

import (
	"errors"

	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Change returns the planned change that a receipt of an agent is about; nil
// with ok true for what the agent did by itself, under no order of the tenant's.
// ok is false for a receipt that may move nothing: it names another agent's
// order, or a change that is not in the order's part of the plan, or not as
// planned.
func (s *Service) Change(t tx.Tx, tenant, agent string, receipt *auditv1.Receipt) (change *planv1.Change, ok bool, err error) {
	o, err := s.store.Order(t, receipt.GetOrder())
	if errors.Is(err, ErrNotFound) || err == nil && o.Tenant != tenant {
		return nil, true, nil
	}
	if err != nil || o.Agent != agent {
		return nil, false, err
	}
	change, err = s.changeOf(t, o, receipt)
	return change, change != nil, err
}

// changeOf is the change of the order that a receipt speaks of, nil when the
// receipt says it did something else.
func (s *Service) changeOf(t tx.Tx, o Order, receipt *auditv1.Receipt) (*planv1.Change, error) {
	changes, err := s.decoded.of(o.Plan, o.Agent, func() ([]planning.Chunk, error) { return s.plans.Chunks(t, o.Plan, o.Agent) })
	change := changes[receipt.GetChange()]
	if err != nil || change == nil {
		return nil, err
	}
	op := change.GetOperation()
	if change.GetConnector() != receipt.GetConnector() || op.Kind() != receipt.GetOperation() {
		return nil, nil
	}
	switch op.Kind() {
	case connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE:
		// The anchor comes with the effect, and may follow the name where a
		// directory has nothing better.
	default:
		if planned := op.GetObject().GetAnchor(); planned != "" && receipt.GetAnchor() != "" && planned != receipt.GetAnchor() {
			return nil, nil
		}
	}
	return change, nil
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
		receipt := body.GetReceipt()
		planned, err := s.changeOf(t, o, receipt)
		if err != nil {
			return err
		}
		if planned == nil {
			s.logger.Warn("receipt is not of a change of its order", "tenant", tenant, "agent", agent, "order", id)
			return nil
		}
		if err := s.accounts.Received(t, tenant, o.Plan, receipt); err != nil {
			return err
		}
		return s.store.PutReceipt(t, tenant, o.Plan, Receipt{Change: receipt.GetChange(), Entry: entry, Receipt: receipt})
	case auditv1.Type_TYPE_ORDER_ENDED:
		if err := s.store.SetState(t, id, StateEnded, body.GetOrder()); err != nil {
			return err
		}
		return s.settle(t, o.Plan)
	case auditv1.Type_TYPE_ORDER_REFUSED:
		if o.State == StateEnded || o.State == StateRefused {
			return nil
		}
		if err := s.store.SetRefused(t, id, body.GetRefusal()); err != nil {
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
