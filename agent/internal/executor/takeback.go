package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// ErrOwed means that a membership could not be taken back now.
var ErrOwed = errors.New("the membership is still to be taken back")

// TakeBack ends a hold: it removes the membership if a hold made it and no other
// needs it, reads back, and records OBLIGATION_SETTLED. Guardrails, pause and
// budgets do not matter to it. An error means that the hold is still owed. A hold
// that is gone is left alone, and so is one whose add has not happened yet, unless
// it was handed the end of another.
func (e *Executor) TakeBack(ctx context.Context, h journal.Hold) error {
	c, ok := e.o.Connectors[h.Connector]
	if !ok {
		return fmt.Errorf("%w: connector %s is not in agent.yaml any more; put it back until the obligation is settled", ErrOwed, h.Connector)
	}
	e.turns[h.Connector].soon()
	defer e.turns[h.Connector].Unlock()
	now, found, others, err := e.standing(ctx, h)
	if err != nil || !found || now.State != journal.HoldOpen && !now.Made {
		return err
	}
	if len(others) > 0 {
		heir := others[0]
		return e.settleHold(ctx, now, "kept: grant "+heir.Grant+" needs the membership too", func(tx *journal.Tx, _ uint64) error {
			if !now.Made {
				return nil
			}
			heir.Made = true
			return tx.PutHold(heir)
		})
	}
	if !now.Made {
		return e.settleHold(ctx, now, "left: the membership was there before the grant", nil)
	}
	outcome, err := e.remove(ctx, c, now)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOwed, err)
	}
	return e.settleHold(ctx, now, outcome, func(tx *journal.Tx, record uint64) error { return keepEnd(tx, record, now) })
}

// keepEnd keeps beside the applied receipts that the membership has ended: should
// somebody give it again, it is theirs, and leaving must not take it.
func keepEnd(tx *journal.Tx, record uint64, h journal.Hold) error {
	kept, err := planv1.Encode(&auditv1.Receipt{
		Order: h.Order, Change: h.Change, Connector: h.Connector, Anchor: h.Group, Type: h.GroupType, Member: h.Member, Grant: h.Grant,
		Operation: connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER, Cause: planv1.Cause_CAUSE_MSP,
		Result: auditv1.Receipt_RESULT_APPLIED, Before: &auditv1.Touched{Exists: true, Member: true}, After: &auditv1.Touched{Exists: true},
	})
	if err != nil {
		return fmt.Errorf("encode the membership's end: %w", err)
	}
	return tx.KeepEffect(record, kept)
}

// standing returns the hold as it is, and the other holds that need the
// membership beyond now.
func (e *Executor) standing(ctx context.Context, h journal.Hold) (now journal.Hold, found bool, others []journal.Hold, err error) {
	err = e.o.Journal.View(ctx, func(tx *journal.Tx) error {
		if now, found, err = tx.HoldNow(h); err != nil || !found {
			return err
		}
		others, err = tx.HoldsOf(now)
		return err
	})
	at := e.o.Clock.Now()
	others = slices.DeleteFunc(others, func(o journal.Hold) bool {
		return o.ID == now.ID || o.Timed() && !at.Before(o.Due)
	})
	// The one that lasts longest takes over: those without end stand last.
	slices.Reverse(others)
	return now, found, others, err
}

func (e *Executor) settleHold(ctx context.Context, h journal.Hold, outcome string, within func(tx *journal.Tx, record uint64) error) error {
	return e.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		if err := tx.DropHold(h); err != nil {
			return err
		}
		record, err := e.o.Audit.ObligationSettled(tx, h, outcome, nil)
		if err != nil || within == nil {
			return err
		}
		return within(tx, record)
	})
}

// remove takes the member out of the group and returns how that went, or an error
// if the membership is, or may be, still there.
func (e *Executor) remove(ctx context.Context, c Connector, h journal.Hold) (outcome string, err error) {
	op := &connectorv1.Operation{
		Id: h.ID, Object: &connectorv1.ObjectRef{Type: h.GroupType, Anchor: h.Group},
		Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: &connectorv1.ObjectRef{Type: h.MemberType, Anchor: h.Member}}},
	}
	// No patience here: whoever owes it comes again, and has others to remove.
	s, err := admission.Look(ctx, c.Directory, []*connectorv1.Operation{op}, guardrails.NewGroups(nil))
	if err != nil {
		return "", err
	}
	there, err := isThere(op, s)
	if err != nil {
		return "", err
	}
	if !there {
		return "gone: somebody else removed the membership", nil
	}
	answers, sendErr := c.Directory.Apply(ctx, []*connectorv1.Operation{op})
	if s, err = e.look(ctx, c, []*connectorv1.Operation{op}, guardrails.NewGroups(nil)); err != nil {
		return "", err
	}
	if there, err = isThere(op, s); err != nil {
		return "", err
	}
	if !there {
		return "removed", nil
	}
	if a := answersByID(answers)[op.GetId()]; a != nil && a.GetProblem() != nil {
		return "", fmt.Errorf("%s: %s", a.GetProblem().GetCode(), a.GetProblem().GetSaid())
	}
	return "", errors.Join(errors.New("it was sent, and the membership is still there"), sendErr)
}

func isThere(op *connectorv1.Operation, s *admission.Survey) (bool, error) {
	now := observe(op, s)
	if now.problem != nil {
		return false, fmt.Errorf("%s: %s", now.problem.GetCode(), now.problem.GetSaid())
	}
	return now.object != nil && now.member != nil && isMember(now.object, now.member, s.Type(op.GetObject().GetType())), nil
}
