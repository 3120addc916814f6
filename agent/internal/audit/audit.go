package audit

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// LocalRoot is the actor of what is commanded on the agent's own host.
const LocalRoot = "local-root"

// Recorder makes the records of one agent. It is immutable.
type Recorder struct {
	// Actor is the agent's SPIFFE ID.
	Actor string
	// Now is the time that records bear, the agent's clock (journal.Clock.Now).
	// Without it records bear the wall clock.
	Now func() time.Time
	// Uncertainty is how far the clock may be off, rounded to milliseconds.
	Uncertainty time.Duration
}

// Context is what a record's header says of the plan it belongs to.
type Context struct {
	PlanDigest    []byte
	PolicyVersion string
	// Subject is the governed identity's random id, or empty.
	Subject string
	Change  string
	Ticket  string
}

// ForChange is the context of one change of an order.
func ForChange(o journal.Order, c *planv1.Change) Context {
	return Context{PlanDigest: o.PlanDigest, PolicyVersion: o.PolicyVersion, Subject: c.GetIdentity(), Change: c.GetId(), Ticket: c.GetTicket()}
}

func (r Recorder) append(tx *journal.Tx, t auditv1.Type, actor string, c Context, body *auditv1.Body) (uint64, error) {
	h := &auditv1.Header{
		Type: t, Actor: actor, Subject: c.Subject, PlanDigest: c.PlanDigest, Change: c.Change,
		PolicyVersion: c.PolicyVersion, Ticket: c.Ticket, UncertaintyMs: uint32(r.Uncertainty.Milliseconds()),
	}
	if r.Now != nil {
		h.At = timestamppb.New(r.Now())
	}
	index, err := tx.Append(h, body)
	if err != nil {
		return 0, fmt.Errorf("record %v: %w", t, err)
	}
	return index, nil
}

func act(verb, object, reason string, details ...*auditv1.Act_Detail) *auditv1.Body {
	return &auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb, Object: object, Reason: reason, Details: details}}}
}

// Detail is one named value of an act.
func Detail(name, value string) *auditv1.Act_Detail {
	return &auditv1.Act_Detail{Name: name, Value: value}
}

// Started records the agent's start.
func (r Recorder) Started(tx *journal.Tx, version, guardrailsDigest string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_AGENT_STARTED, r.Actor, Context{}, act("start", r.Actor, "", Detail("version", version), Detail("guardrails", guardrailsDigest)))
	return err
}

// OrderAdmitted records that a whole order was admitted.
func (r Recorder) OrderAdmitted(tx *journal.Tx, o journal.Order) error {
	_, err := r.append(tx, auditv1.Type_TYPE_ORDER_ADMITTED, r.Actor, Context{PlanDigest: o.PlanDigest, PolicyVersion: o.PolicyVersion},
		&auditv1.Body{Body: &auditv1.Body_Order{Order: &auditv1.OrderEvent{Order: o.ID, Sequence: o.Sequence, GuardrailsDigest: o.GuardrailsDigest}}})
	return err
}

// OrderRefused records that a whole order was refused; refusal is the first
// reason, more is how many others there were.
func (r Recorder) OrderRefused(tx *journal.Tx, c Context, refusal *auditv1.Refusal) error {
	_, err := r.append(tx, auditv1.Type_TYPE_ORDER_REFUSED, r.Actor, c, &auditv1.Body{Body: &auditv1.Body_Refusal{Refusal: refusal}})
	return err
}

// DryRun records that a plan was tried without effect, with its first refusal or
// with one of code ADMITTED.
func (r Recorder) DryRun(tx *journal.Tx, c Context, refusal *auditv1.Refusal) error {
	_, err := r.append(tx, auditv1.Type_TYPE_DRY_RUN, r.Actor, c, &auditv1.Body{Body: &auditv1.Body_Refusal{Refusal: refusal}})
	return err
}

// Receipt records what one change did and returns the record's index.
func (r Recorder) Receipt(tx *journal.Tx, c Context, receipt *auditv1.Receipt) (uint64, error) {
	return r.append(tx, auditv1.Type_TYPE_RECEIPT, r.Actor, c, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: receipt}})
}

// OrderEnded records that every change of an order has its receipt.
func (r Recorder) OrderEnded(tx *journal.Tx, o journal.Order, e *auditv1.OrderEvent) error {
	_, err := r.append(tx, auditv1.Type_TYPE_ORDER_ENDED, r.Actor, Context{PlanDigest: o.PlanDigest, PolicyVersion: o.PolicyVersion},
		&auditv1.Body{Body: &auditv1.Body_Order{Order: e}})
	return err
}

// ObligationAccepted records that the agent will take a membership back.
func (r Recorder) ObligationAccepted(tx *journal.Tx, h journal.Hold) error {
	_, err := r.obligation(tx, auditv1.Type_TYPE_OBLIGATION_ACCEPTED, h, h.Verdict, nil)
	return err
}

// ObligationSettled records how an obligation ended and returns the record's index.
// outcome begins with a word such as "removed"; problem may be nil.
func (r Recorder) ObligationSettled(tx *journal.Tx, h journal.Hold, outcome string, problem *connectorv1.Problem) (uint64, error) {
	return r.obligation(tx, auditv1.Type_TYPE_OBLIGATION_SETTLED, h, outcome, problem)
}

func (r Recorder) obligation(tx *journal.Tx, t auditv1.Type, h journal.Hold, outcome string, problem *connectorv1.Problem) (uint64, error) {
	return r.append(tx, t, r.Actor,
		Context{PlanDigest: h.PlanDigest, PolicyVersion: h.PolicyVersion, Subject: h.Identity, Change: h.Change, Ticket: h.Ticket},
		&auditv1.Body{Body: &auditv1.Body_Obligation{Obligation: &auditv1.ObligationEvent{
			Obligation: h.ID, Grant: h.Grant, Connector: h.Connector, Object: h.Group, Member: h.Member,
			Due: timestamppb.New(h.Due), Outcome: outcome, Problem: problem,
		}}})
}

// Paused records that local root stopped orders.
func (r Recorder) Paused(tx *journal.Tx, reason string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_PAUSED, LocalRoot, Context{}, act("pause", r.Actor, reason))
	return err
}

// Resumed records that local root let orders in again.
func (r Recorder) Resumed(tx *journal.Tx, reason string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_RESUMED, LocalRoot, Context{}, act("resume", r.Actor, reason))
	return err
}

// Left records that local root ended the agent's service to the control plane.
func (r Recorder) Left(tx *journal.Tx, reason string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_LEFT, LocalRoot, Context{}, act("leave", r.Actor, reason))
	return err
}

// ForkSeen records a checkpoint that is not consistent with the last one
// cosigned.
func (r Recorder) ForkSeen(tx *journal.Tx, checkpoint, why string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_FORK_SEEN, r.Actor, Context{}, act("refuse checkpoint", checkpoint, why))
	return err
}

// Clock records what the agent noticed about its clock, or was told by local
// root.
func (r Recorder) Clock(tx *journal.Tx, actor, what string) error {
	_, err := r.append(tx, auditv1.Type_TYPE_CLOCK, actor, Context{}, act("clock", r.Actor, what))
	return err
}
