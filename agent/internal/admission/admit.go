package admission

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/pki/dsse"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Admit admits or refuses a whole order. A *Refused error is durable in the
// record chain, as is an admission. Delivered again, an admitted order is answered
// from the journal, and a refused one is judged again, with a second record only
// if the reasons have changed. Other errors (a broken stream, ErrDirectory, the
// journal's, with journal.ErrDiskFull among them) decide nothing: deliver it again.
func (a *Admitter) Admit(ctx context.Context, d Delivery) (*Admitted, error) {
	if err := a.enter(ctx); err != nil {
		return nil, err
	}
	defer a.leave()
	now := a.o.Clock.Now()
	envelope := sha256.Sum256(d.Envelope)
	trust, err := a.o.Trust()
	if err != nil {
		return nil, a.refuse(ctx, d.Order, audit.Context{}, envelope, refusal(CodeRoot, "nobody's signature counts here: %v", err))
	}
	o, r := a.open(d, trust)
	if r != nil {
		return nil, a.refuse(ctx, d.Order, audit.Context{}, envelope, r)
	}
	known, err := a.standing(ctx, o, envelope, now)
	if known != nil || err != nil {
		return known, a.orRefuse(ctx, o, audit.Context{PlanDigest: o.GetPlanDigest()}, envelope, err)
	}
	if string(planv1.Digest(d.Manifest)) != string(o.GetPlanDigest()) {
		return nil, a.refuse(ctx, o.GetOrder(), audit.Context{PlanDigest: o.GetPlanDigest()}, envelope,
			refusal(CodeDigest, "the manifest that came with order %s is not the plan that was signed", o.GetOrder()))
	}
	p, r, err := a.readPlan(d)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return nil, a.refuse(ctx, o.GetOrder(), audit.Context{PlanDigest: o.GetPlanDigest()}, envelope, r)
	}
	for _, id := range o.GetSuperseded() {
		p.overtaken[id] = true
	}
	about := audit.Context{PlanDigest: p.digest, PolicyVersion: p.manifest.GetPolicyVersion()}
	cosigned, err := a.o.Cosigned()
	if err != nil {
		return nil, fmt.Errorf("the checkpoint cosigned last: %w", err)
	}
	signed, r, err := a.acts(ctx, o, p, trust, cosigned, now)
	if err != nil {
		return nil, err
	}
	if r != nil {
		return nil, a.refuse(ctx, o.GetOrder(), about, envelope, r)
	}
	v, err := a.judge(ctx, p, signed, now)
	if err != nil {
		return nil, err
	}
	if len(v.refusals) > 0 {
		return nil, a.refuse(ctx, o.GetOrder(), about, envelope, v.refusals...)
	}
	if err := a.commit(ctx, o, p, v, envelope, now); err != nil {
		return nil, a.orRefuse(ctx, o, about, envelope, err)
	}
	a.o.Log.Info("order admitted", "order", o.GetOrder(), "sequence", o.GetSequence(), "changes", len(p.changes))
	return &Admitted{Order: o.GetOrder(), Changes: len(p.changes)}, nil
}

// DryRun tries a plan without its order: everything Admit checks but envelope,
// audience of the order, sequence, window, proofs and approvals. It changes
// nothing and leaves one DRY_RUN record. A client signature that would be needed
// is told as a refusal of code APPROVAL. Of very many refusals the first are told.
func (a *Admitter) DryRun(ctx context.Context, d Delivery) ([]*auditv1.Refusal, error) {
	if err := a.enter(ctx); err != nil {
		return nil, err
	}
	defer a.leave()
	about := audit.Context{PlanDigest: planv1.Digest(d.Manifest)}
	p, r, err := a.readPlan(d)
	if err != nil {
		return nil, err
	}
	var refusals []*auditv1.Refusal
	if r != nil {
		refusals = append(refusals, r)
	} else {
		about.PolicyVersion = p.manifest.GetPolicyVersion()
		v, err := a.judge(ctx, p, nil, a.o.Clock.Now())
		if err != nil {
			return nil, err
		}
		refusals = v.refusals
	}
	record := refusal(CodeAdmitted, "the plan would be admitted")
	if len(refusals) > 0 {
		record = first(refusals)
	}
	err = a.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		if err := tx.NewWork(); err != nil {
			return err
		}
		return a.o.Audit.DryRun(tx, about, record)
	})
	return bounded(refusals), err
}

// maxRefusals is how many refusals of a dry run are told: guardrails that do not
// fit refuse every change, and the answer has to fit into a message.
const maxRefusals = 1000

func bounded(refusals []*auditv1.Refusal) []*auditv1.Refusal {
	n := len(refusals) - maxRefusals
	if n <= 0 {
		return refusals
	}
	last := refusal(refusals[maxRefusals].GetCode(), "there are %d more refusals, which are not told", n)
	return append(refusals[:maxRefusals:maxRefusals], last)
}

func (a *Admitter) enter(ctx context.Context) error {
	select {
	case a.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (a *Admitter) leave() { <-a.gate }

// open verifies the envelope and reads the order within it.
func (a *Admitter) open(d Delivery, trust Trust) (*planv1.Order, *auditv1.Refusal) {
	payload, _, err := dsse.Verify(d.Envelope, dsse.Order, trust.PlanKeys, 1)
	switch {
	case errors.Is(err, dsse.ErrPayloadType):
		return nil, refusal(CodePayloadType, "what arrived as an order is signed as something else: %v", err)
	case err != nil:
		return nil, refusal(CodeSignature, "the order is not signed by a plan key of the root document: %v", err)
	}
	o := &planv1.Order{}
	if err := planv1.Decode(payload, o); err != nil {
		return nil, refusal(CodeUnknownField, "the order cannot be read: %v; update the agent if the control plane is newer", err)
	}
	id := a.o.Journal.Identity()
	switch {
	case o.GetFormat() != 1 || o.GetOrder() == "" || len(o.GetOrder()) > 256:
		return nil, refusal(CodeFormat, "the order has format %d, this agent knows 1, or it has no usable id; update the agent", o.GetFormat())
	case o.GetTrustDomain() != id.TrustDomain || o.GetTenant() != id.Tenant || o.GetAgent() != id.Agent:
		return nil, refusal(CodeAudience, "order %s is for another agent than %s of tenant %s in %s", o.GetOrder(), id.Agent, id.Tenant, id.TrustDomain)
	case o.GetEpoch() != id.Epoch:
		return nil, refusal(CodeEpoch, "order %s is for epoch %d of this agent, which is in epoch %d", o.GetOrder(), o.GetEpoch(), id.Epoch)
	case o.GetRehearsal().GetVerdict() == planv1.Rehearsal_VERDICT_FAILED:
		return nil, refusal(CodeRehearsal, "the rehearsal of order %s failed", o.GetOrder())
	}
	return o, nil
}

// standing looks at the order beside those before it. It returns the order's
// state if this very order was admitted before.
func (a *Admitter) standing(ctx context.Context, o *planv1.Order, envelope [32]byte, now time.Time) (known *Admitted, err error) {
	err = a.o.Journal.View(ctx, func(tx *journal.Tx) error {
		before, found, err := tx.Order(o.GetOrder())
		if err != nil {
			return err
		}
		if found {
			if string(before.EnvelopeDigest) != string(envelope[:]) {
				return refusedWith(refusal(CodeReplay, "the id of order %s was used before, for another one", o.GetOrder()))
			}
			known = &Admitted{Order: before.ID, Changes: before.Changes, Again: true, Ended: before.Ended}
			return nil
		}
		if r, err := a.local(tx); err != nil || r != nil {
			return errors.Join(err, refusedWith(r))
		}
		used, err := tx.PlanUsed(o.GetPlanDigest())
		if err != nil {
			return err
		}
		switch {
		case used != "":
			return refusedWith(refusal(CodeReplay, "the plan of order %s was carried out before, by order %s; a plan is used once", o.GetOrder(), used))
		case o.GetSequence() <= a.o.Journal.Sequence():
			return refusedWith(refusal(CodeSequence, "order %s has sequence %d, and %d was admitted already", o.GetOrder(), o.GetSequence(), a.o.Journal.Sequence()))
		case o.GetNotBefore() == nil || o.GetExpires() == nil || now.Before(o.GetNotBefore().AsTime()) || !now.Before(o.GetExpires().AsTime()):
			return refusedWith(refusal(CodeWindow, "order %s may run from %s to %s, and here it is %s; look at both clocks", o.GetOrder(),
				o.GetNotBefore().AsTime().UTC().Format(time.RFC3339), o.GetExpires().AsTime().UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)))
		}
		return nil
	})
	return known, err
}

// local says whether the agent itself takes no orders now.
func (a *Admitter) local(tx *journal.Tx) (*auditv1.Refusal, error) {
	if reason := a.o.Journal.Quarantined(); reason != "" {
		return refusal(CodeQuarantined, "the agent takes no orders: %s; run `reeve-agent recover`", reason), nil
	}
	for _, v := range []struct {
		name           journal.Var
		code, sentence string
	}{
		{journal.VarLeft, CodeLeft, "the client has ended this agent's service: %s"},
		{journal.VarPaused, CodePaused, "orders are paused at the client: %s; `reeve-agent resume` lets them in again"},
		{journal.VarFrozen, CodeClock, "orders are frozen: %s"},
	} {
		reason, err := tx.Get(v.name)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			return refusal(v.code, v.sentence, reason), nil
		}
	}
	return nil, nil
}

// judge checks changes, modes and guardrails; an order and a dry run share it.
func (a *Admitter) judge(ctx context.Context, p *plan, signed []string, now time.Time) (*verdict, error) {
	refusals, err := a.shape(ctx, p, now)
	if err != nil {
		return nil, err
	}
	if len(refusals) > 0 {
		return &verdict{refusals: refusals}, nil
	}
	return a.limits(ctx, p, signed, now)
}

// commit makes the admission durable, whole.
func (a *Admitter) commit(ctx context.Context, o *planv1.Order, p *plan, v *verdict, envelope [32]byte, now time.Time) error {
	order := journal.Order{
		ID: o.GetOrder(), Sequence: o.GetSequence(), PlanDigest: p.digest, EnvelopeDigest: envelope[:],
		PolicyVersion: p.manifest.GetPolicyVersion(), Manifest: p.raw, Superseded: o.GetSuperseded(), Expires: o.GetExpires().AsTime(),
		Chunks: len(p.chunks), Changes: len(p.changes), GuardrailsDigest: a.GuardrailsDigest(), Signed: v.signed,
	}
	return a.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		if err := tx.NewWork(); err != nil {
			return err
		}
		// What local root said while the plan was read counts.
		if r, err := a.local(tx); err != nil || r != nil {
			return errors.Join(err, refusedWith(r))
		}
		if err := tx.PutOrder(order); err != nil {
			return err
		}
		for i, chunk := range p.chunks {
			if err := tx.PutChunk(order.ID, i, chunk); err != nil {
				return err
			}
		}
		if err := tx.SetSequence(order.Sequence); err != nil {
			return err
		}
		if err := tx.UsePlan(p.digest, order.ID); err != nil {
			return err
		}
		if err := tx.DropCharges(now.Add(-24 * time.Hour)); err != nil {
			return err
		}
		if err := tx.PutCharges(order.ID, v.charges); err != nil {
			return err
		}
		if err := a.o.Audit.OrderAdmitted(tx, order); err != nil {
			return err
		}
		for _, c := range p.live() {
			if c.GetEndsAt() == nil {
				continue
			}
			if err := a.accept(tx, order, c); err != nil {
				return err
			}
		}
		return nil
	})
}

// accept takes on the obligation to end a timed membership.
func (a *Admitter) accept(tx *journal.Tx, order journal.Order, c *planv1.Change) error {
	h := HoldOf(order, c)
	h.State = journal.HoldPending
	h.Verdict = "the guardrails allow the membership; its end is owed whatever comes later"
	// What is owed already must not be written over, whoever chooses ids.
	if _, taken, err := tx.HoldNow(h); err != nil {
		return err
	} else if taken {
		return refusedWith(refusal(CodeReplay, "the obligation %s of change %s was taken on before, for another order", h.ID, c.GetId()))
	}
	if err := tx.PutHold(h); err != nil {
		return err
	}
	return a.o.Audit.ObligationAccepted(tx, h)
}

// HoldOf is the hold that an add_member makes.
func HoldOf(order journal.Order, c *planv1.Change) journal.Hold {
	group, member := c.GetOperation().GetObject(), c.GetOperation().GetAddMember().GetMember()
	h := journal.Hold{
		ID: order.ID + "/" + c.GetId(), Order: order.ID, Change: c.GetId(), Grant: c.GetGrant(), Identity: c.GetIdentity(), Connector: c.GetConnector(),
		GroupType: group.GetType(), Group: group.GetAnchor(), MemberType: member.GetType(), Member: member.GetAnchor(),
		PlanDigest: order.PlanDigest, PolicyVersion: order.PolicyVersion, Ticket: c.GetTicket(),
	}
	if c.GetEndsAt() != nil {
		h.Due = c.GetEndsAt().AsTime()
	}
	return h
}

// refusedWith carries a refusal out of a transaction; nil for nil.
func refusedWith(r *auditv1.Refusal) error {
	if r == nil {
		return nil
	}
	return &Refused{Refusals: []*auditv1.Refusal{r}}
}

// orRefuse records the refusal that err is, and returns other errors as they are.
func (a *Admitter) orRefuse(ctx context.Context, o *planv1.Order, about audit.Context, envelope [32]byte, err error) error {
	var refused *Refused
	if errors.As(err, &refused) {
		return a.refuse(ctx, o.GetOrder(), about, envelope, refused.Refusals...)
	}
	return err
}

// refuse records a refusal and returns it as an error. The same refusal of the
// same envelope is recorded once.
func (a *Admitter) refuse(ctx context.Context, order string, about audit.Context, envelope [32]byte, refusals ...*auditv1.Refusal) error {
	codes := make([][3]string, len(refusals))
	for i, r := range refusals {
		r.Order = order
		codes[i] = [3]string{r.GetCode(), r.GetChange(), r.GetRule()}
	}
	encoded, err := json.Marshal(codes)
	if err != nil {
		return fmt.Errorf("encode refusals: %w", err)
	}
	digest := sha256.Sum256(encoded)
	about.Change = refusals[0].GetChange()
	err = a.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		// Refusals can be had without end; what is owed needs the disk's rest.
		if err := tx.NewWork(); err != nil {
			return err
		}
		before, err := tx.Refusal(envelope[:])
		if err != nil || string(before) == string(digest[:]) {
			return err
		}
		if err := tx.PutRefusal(envelope[:], digest[:]); err != nil {
			return err
		}
		return a.o.Audit.OrderRefused(tx, about, first(refusals))
	})
	if err != nil {
		return err
	}
	a.o.Log.Warn("order refused", "order", order, "code", refusals[0].GetCode(), "refusals", len(refusals))
	return &Refused{Order: order, Refusals: refusals}
}

// first is the refusal that is recorded: the first one, saying how many more.
func first(refusals []*auditv1.Refusal) *auditv1.Refusal {
	r := &auditv1.Refusal{
		Order: refusals[0].GetOrder(), Code: refusals[0].GetCode(), Change: refusals[0].GetChange(),
		Rule: refusals[0].GetRule(), Sentence: refusals[0].GetSentence(),
	}
	if n := len(refusals) - 1; n > 0 {
		r.Sentence += fmt.Sprintf(" (and %d more)", n)
	}
	return r
}
