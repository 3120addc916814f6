package executor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// commit makes the waiting receipts durable together with the intents of the next
// batch and, at the end, the order's end. With little disk left receipts go in and
// intents do not: it then returns journal.ErrDiskFull and the order stays open.
func (r *run) commit(ctx context.Context, send []*job, end bool) error {
	if len(r.pending) == 0 && len(send) == 0 && !end {
		return nil
	}
	var low error
	err := r.e.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		for _, j := range r.pending {
			if err := r.putReceipt(tx, j); err != nil {
				return err
			}
		}
		if len(send) > 0 {
			if low = tx.NewWork(); low != nil {
				return nil
			}
		}
		for _, j := range send {
			if err := r.putIntent(tx, j); err != nil {
				return err
			}
		}
		if !end {
			return nil
		}
		if err := tx.EndOrder(r.order, r.e.o.Clock.Now()); err != nil {
			return err
		}
		return r.e.o.Audit.OrderEnded(tx, r.order, r.summary())
	})
	if err != nil {
		return err
	}
	r.pending = nil
	if low != nil {
		return low
	}
	for _, j := range send {
		r.intents[j.change.GetId()] = j.receipt
	}
	r.order.Ended = r.order.Ended || end
	return nil
}

func (r *run) summary() *auditv1.OrderEvent {
	return &auditv1.OrderEvent{
		Order: r.order.ID, Sequence: r.order.Sequence, GuardrailsDigest: r.order.GuardrailsDigest,
		Applied:   uint32(r.count(auditv1.Receipt_RESULT_APPLIED)),
		Already:   uint32(r.count(auditv1.Receipt_RESULT_ALREADY)),
		Conflicts: uint32(r.count(auditv1.Receipt_RESULT_CONFLICT)),
		Skipped:   uint32(r.count(auditv1.Receipt_RESULT_SKIPPED) + r.count(auditv1.Receipt_RESULT_SUPERSEDED)),
		Refused:   uint32(r.count(auditv1.Receipt_RESULT_REFUSED)),
		Failed:    uint32(r.count(auditv1.Receipt_RESULT_FAILED)),
	}
}

func (r *run) putIntent(tx *journal.Tx, j *job) error {
	draft, err := planv1.Encode(j.receipt)
	if err != nil {
		return fmt.Errorf("encode intent: %w", err)
	}
	if err := tx.PutProgress(r.order.ID, j.change.GetId(), journal.Progress{Receipt: draft}); err != nil {
		return err
	}
	if j.op.GetAddMember() == nil {
		return nil
	}
	// From now on another grant's end must leave the membership alone.
	h, _, err := r.hold(tx, j)
	if err != nil {
		return err
	}
	return tx.PutHold(h)
}

// hold returns the hold of an add_member under its anchors, as it stands (found)
// or new.
func (r *run) hold(tx *journal.Tx, j *job) (h journal.Hold, found bool, err error) {
	accepted := admission.HoldOf(r.order, j.change)
	accepted.State = journal.HoldPending
	h, found, err = tx.HoldNow(accepted)
	if err != nil {
		return h, false, err
	}
	resolved := accepted
	resolved.Group, resolved.Member = j.op.GetObject().GetAnchor(), j.op.GetAddMember().GetMember().GetAnchor()
	if resolved.Group == accepted.Group && resolved.Member == accepted.Member {
		if found {
			return h, true, nil
		}
		return accepted, false, nil
	}
	if found {
		if err := tx.DropHold(h); err != nil {
			return h, false, err
		}
		h.Group, h.Member = resolved.Group, resolved.Member
		return h, true, nil
	}
	if h, found, err = tx.HoldNow(resolved); err != nil || found {
		return h, found, err
	}
	return resolved, false, nil
}

func (r *run) putReceipt(tx *journal.Tx, j *job) error {
	index, err := r.e.o.Audit.Receipt(tx, audit.ForChange(r.order, j.change), r.shipped(j))
	if err != nil {
		return err
	}
	result := j.receipt.GetResult()
	if err := tx.PutProgress(r.order.ID, j.change.GetId(), journal.Progress{Settled: true, Result: int32(result)}); err != nil {
		return err
	}
	// An add that found its membership there gives it its cause: leaving must know.
	if result == auditv1.Receipt_RESULT_APPLIED || result == auditv1.Receipt_RESULT_ALREADY && j.op.GetAddMember() != nil {
		kept, err := planv1.Encode(j.receipt)
		if err != nil {
			return fmt.Errorf("encode receipt: %w", err)
		}
		if err := tx.KeepEffect(index, kept); err != nil {
			return err
		}
		if j.op.GetCreate() != nil && result == auditv1.Receipt_RESULT_APPLIED {
			if err := tx.PutCreated(journal.Created{Connector: j.change.GetConnector(), Type: j.receipt.GetType(), Anchor: j.receipt.GetAnchor(), Change: j.change.GetId()}); err != nil {
				return err
			}
		}
	}
	switch {
	case j.op.GetDelete() != nil && (result == auditv1.Receipt_RESULT_APPLIED || result == auditv1.Receipt_RESULT_ALREADY):
		return tx.DropCreated(j.change.GetConnector(), j.receipt.GetAnchor())
	case j.change.GetOperation().GetAddMember() != nil:
		return r.settleHold(tx, j, result)
	case j.op.GetRemoveMember() != nil && (result == auditv1.Receipt_RESULT_APPLIED || result == auditv1.Receipt_RESULT_ALREADY):
		return r.endHolds(tx, j)
	}
	return nil
}

// shipped is the receipt as it leaves the network. What a create or delete shows
// of an object beyond what the plan itself named goes only as far as observations
// do; the kept effect has it whole.
func (r *run) shipped(j *job) *auditv1.Receipt {
	create := j.op.GetCreate()
	if create == nil && j.op.GetDelete() == nil {
		return j.receipt
	}
	out := proto.CloneOf(j.receipt)
	for _, t := range []*auditv1.Touched{out.GetBefore(), out.GetAfter()} {
		if t == nil {
			continue
		}
		seen := &connectorv1.Object{Type: j.receipt.GetType(), Attributes: slices.Clone(t.GetAttributes())}
		if c, ok := r.e.o.Connectors[j.change.GetConnector()]; ok {
			c.Directory.Released(seen)
		}
		t.Attributes = slices.DeleteFunc(t.Attributes, func(a *connectorv1.Attribute) bool {
			same := func(b *connectorv1.Attribute) bool { return strings.EqualFold(a.GetName(), b.GetName()) }
			return !slices.ContainsFunc(seen.Attributes, same) && !slices.ContainsFunc(create.GetAttributes(), same)
		})
	}
	return out
}

// settleHold opens the hold of a membership that is there, and voids one that is
// not.
func (r *run) settleHold(tx *journal.Tx, j *job, result auditv1.Receipt_Result) error {
	h, found, err := r.hold(tx, j)
	if err != nil {
		return err
	}
	switch result {
	case auditv1.Receipt_RESULT_APPLIED:
		h.State, h.Made = journal.HoldOpen, true
		return tx.PutHold(h)
	case auditv1.Receipt_RESULT_ALREADY:
		h.State = journal.HoldOpen
		return tx.PutHold(h)
	}
	if h.Made {
		// It was handed the end of a membership that another grant made, in the
		// belief that it would need it. Now it is owed at once.
		h.State, h.Due = journal.HoldOpen, r.e.o.Clock.Now()
		return tx.PutHold(h)
	}
	if !found {
		return nil
	}
	if err := tx.DropHold(h); err != nil || !h.Timed() {
		return err
	}
	_, err = r.e.o.Audit.ObligationSettled(tx, h, "void: the membership was not made", j.receipt.GetProblem())
	return err
}

// endHolds settles every hold of a membership that a plan has ended.
func (r *run) endHolds(tx *journal.Tx, j *job) error {
	holds, err := tx.HoldsOf(journal.Hold{Connector: j.change.GetConnector(), Group: j.op.GetObject().GetAnchor(), Member: memberRef(j.op).GetAnchor()})
	if err != nil {
		return err
	}
	for _, h := range holds {
		if h.State != journal.HoldOpen {
			continue
		}
		if err := tx.DropHold(h); err != nil {
			return err
		}
		if h.Timed() {
			if _, err := r.e.o.Audit.ObligationSettled(tx, h, "ended: a plan removed the membership", nil); err != nil {
				return err
			}
		}
	}
	return nil
}
