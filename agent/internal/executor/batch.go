package executor

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/secrets"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// maxPreImages bounds the pre-images of one batch in bytes, since its receipts
// travel together.
const maxPreImages = 1 << 20

// batch reads, judges and commits intents, all while the batch before may be under
// way, and then sends. Its receipts go into the commit after the next.
func (r *run) batch(ctx context.Context, changes []*planv1.Change) error {
	alias := changes[0].GetConnector()
	c, ok := r.e.o.Connectors[alias]
	if !ok {
		for _, change := range changes {
			if r.intents[change.GetId()] != nil {
				return fmt.Errorf("%w: change %s was sent, and the connector %s is not in agent.yaml any more; put it back until the order has ended", ErrUnreachable, change.GetId(), alias)
			}
			r.settle(r.newJob(change), auditv1.Receipt_RESULT_REFUSED, problem("CONNECTOR", "the connector "+alias+" is not in agent.yaml any more", "plan again"))
		}
		return nil
	}
	r.take(alias)
	var jobs []*job
	for _, change := range changes {
		j := r.newJob(change)
		if missing, err := r.resolve(ctx, j); err != nil {
			return err
		} else if missing != "" {
			r.settle(j, auditv1.Receipt_RESULT_SKIPPED, problem("DEPENDENCY", "what change "+missing+" was to create does not exist", "plan again"))
			continue
		}
		jobs = append(jobs, j)
	}
	if len(jobs) == 0 {
		return nil
	}
	survey, err := r.e.look(ctx, c, operations(jobs), r.groups[alias])
	if err != nil {
		return fmt.Errorf("connector %s: %w", alias, err)
	}
	r.groups[alias] = survey.Groups()
	send, err := r.judge(ctx, c, survey, jobs)
	if err != nil {
		return err
	}
	if err := r.makeSecrets(send); err != nil {
		wipe(send)
		return err
	}
	if err := r.commit(ctx, send, false); err != nil || len(send) == 0 {
		wipe(send)
		return err
	}
	return r.depart(ctx, alias, c, send)
}

// look is admission.Look with patience.
func (e *Executor) look(ctx context.Context, c Connector, operations []*connectorv1.Operation, groups *guardrails.Groups) (*admission.Survey, error) {
	for n := 1; ; n++ {
		s, err := admission.Look(ctx, c.Directory, operations, groups)
		if err == nil || ctx.Err() != nil {
			return s, errors.Join(err, ctx.Err())
		}
		if !errors.Is(err, admission.ErrDirectory) {
			return nil, err
		}
		e.o.Log.Warn("directory could not be read", "error", err, "attempt", n)
		if !e.o.Retry(ctx, n) {
			return nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
		}
	}
}

// resolve puts anchors in the place of changes. It returns the first change whose
// object does not exist.
func (r *run) resolve(ctx context.Context, j *job) (missing string, err error) {
	j.op = proto.CloneOf(j.change.GetOperation())
	j.op.Id = j.change.GetId()
	refs := append([]*connectorv1.ObjectRef{j.op.GetObject()}, j.op.GetCreate().GetMembers()...)
	for _, d := range j.op.GetUpdate().GetDeltas() {
		refs = append(append(refs, d.GetAddRefs()...), d.GetRemoveRefs()...)
	}
	refs = append(refs, j.op.GetAddMember().GetMember(), j.op.GetRemoveMember().GetMember())
	for _, ref := range refs {
		if ref.GetChange() == "" {
			continue
		}
		anchor, known := r.created[ref.GetChange()]
		if !known {
			err := r.e.o.Journal.View(ctx, func(tx *journal.Tx) error {
				made, found, err := tx.CreatedBy(ref.GetChange())
				if found && made.Connector == j.change.GetConnector() && made.Type == ref.GetType() {
					anchor = made.Anchor
				}
				return err
			})
			if err != nil {
				return "", err
			}
		}
		if anchor == "" {
			return ref.GetChange(), nil
		}
		ref.Anchor, ref.Change = anchor, ""
	}
	j.receipt.Anchor = j.op.GetObject().GetAnchor()
	j.receipt.Member = memberRef(j.op).GetAnchor()
	return "", nil
}

// judge settles what needs no sending and returns the rest, with pre-images.
func (r *run) judge(ctx context.Context, c Connector, s *admission.Survey, jobs []*job) ([]*job, error) {
	alias := jobs[0].change.GetConnector()
	var pins map[string]string
	here := map[string]bool{}
	err := r.e.o.Journal.View(ctx, func(tx *journal.Tx) (err error) {
		if pins, err = tx.Pins(alias); err != nil {
			return err
		}
		for _, j := range jobs {
			anchor := j.op.GetObject().GetAnchor()
			if here[anchor], err = tx.CreatedHere(alias, anchor); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, anchor := range r.created {
		here[anchor] = true
	}
	guarded, err := s.Guarded(ctx, c.Guardrails.Anchors(pins), operations(jobs))
	if err != nil {
		return nil, fmt.Errorf("%w: connector %s: %w", ErrUnreachable, alias, err)
	}
	checker := c.Guardrails.Checker(c.Directory.Types(), c.Directory.CaseRule(), pins)
	checker.Guard(guarded)
	var send []*job
	size := 0
	for _, j := range jobs {
		j.typ = s.Type(j.op.GetObject().GetType())
		resolved := &planv1.Change{Id: j.change.GetId(), Operation: j.op, EndsAt: j.change.GetEndsAt()}
		subject := s.Subject(resolved, func(string) *connectorv1.Object { return nil }, func(anchor string) bool { return here[anchor] })
		must, err := r.mustSend(j, s, func() []guardrails.Refusal { return r.refusals(checker, subject) })
		if err != nil {
			return nil, err
		}
		if !must {
			continue
		}
		// What does not fit any more stays open and comes with the next batch.
		if size += proto.Size(j.receipt); size > maxPreImages && len(send) > 0 {
			break
		}
		send = append(send, j)
	}
	return send, nil
}

// refusals are why the guardrails do not allow the change as things are now. What
// needs an approver's signature may have come to be so by an earlier change.
func (r *run) refusals(checker *guardrails.Checker, s guardrails.Subject) []guardrails.Refusal {
	refused := checker.Check(s, r.e.o.Clock.Now())
	if len(refused) > 0 {
		return refused
	}
	if rule := checker.NeedsSignature(s); rule != "" && !slices.ContainsFunc(r.order.Signed, checker.Approves) {
		return []guardrails.Refusal{{Change: s.Change.GetId(), Rule: rule, Sentence: "as things are now the change needs an approver's signature, and the order has none"}}
	}
	return nil
}

// mustSend decides, on what was read, whether the change is to be sent. If not it
// is settled. An error means that it was sent before a crash and cannot be read.
func (r *run) mustSend(j *job, s *admission.Survey, check func() []guardrails.Refusal) (bool, error) {
	now := observe(j.op, s)
	draft := r.intents[j.change.GetId()]
	if now.problem != nil && draft != nil {
		return false, fmt.Errorf("%w: change %s was sent and cannot be read back: %s", ErrUnreachable, j.change.GetId(), now.problem.GetSaid())
	}
	if away(now.problem) {
		return false, fmt.Errorf("%w: %s: %s", ErrUnreachable, now.problem.GetCode(), now.problem.GetSaid())
	}
	if now.problem != nil {
		r.settle(j, auditv1.Receipt_RESULT_FAILED, now.problem)
		return false, nil
	}
	if r.found(j, now, s) {
		return false, nil
	}
	j.receipt.Before = now.touched(j.op, j.typ, s)
	settle := func(result auditv1.Receipt_Result, p *connectorv1.Problem) (bool, error) {
		j.receipt.After = j.receipt.Before
		r.settle(j, result, p)
		return false, nil
	}
	if now.object == nil && j.op.GetCreate() == nil {
		if j.op.GetDelete() != nil {
			return settle(auditv1.Receipt_RESULT_ALREADY, nil)
		}
		return settle(auditv1.Receipt_RESULT_CONFLICT, problem("NOT_FOUND", "the object is not there", "observe and plan again"))
	}
	if memberRef(j.op) != nil && now.member == nil {
		return settle(auditv1.Receipt_RESULT_CONFLICT, problem("NOT_FOUND", "the member is not there", "observe and plan again"))
	}
	if draft != nil && r.over(j.change, r.e.o.Clock.Now()) != nil {
		return settle(notAgain(j, draft, r.over(j.change, r.e.o.Clock.Now()), auditv1.Receipt_RESULT_SKIPPED))
	}
	if refused := check(); len(refused) > 0 {
		return settle(notAgain(j, draft, problem("GUARDRAIL", refused[0].Sentence, "see rule "+refused[0].Rule+" in agent.yaml"), auditv1.Receipt_RESULT_REFUSED))
	}
	if now.holds(j.op, j.typ, s) && j.op.GetCreate() == nil {
		return settle(auditv1.Receipt_RESULT_ALREADY, nil)
	}
	if p := now.conflict(j.op, j.typ, s); p != nil {
		return settle(auditv1.Receipt_RESULT_CONFLICT, p)
	}
	return true, nil
}

// makeSecrets generates and seals the secrets of a batch before anything of it is
// written or sent.
func (r *run) makeSecrets(send []*job) error {
	for _, j := range send {
		set := j.op.GetSetCredential()
		if set == nil {
			continue
		}
		secret, err := secrets.GeneratePassword(r.e.o.Rand, int(set.GetLength()))
		if err != nil {
			return fmt.Errorf("change %s: %w", j.change.GetId(), err)
		}
		if j.receipt.Sealed, err = r.e.o.Recipients.Seal(set.GetRecipient(), secret); err != nil {
			return fmt.Errorf("change %s: %w", j.change.GetId(), err)
		}
		set.Secret = secret.Reveal()
	}
	return nil
}

// wipe forgets secrets that were sent, or will not be.
func wipe(jobs []*job) {
	for _, j := range jobs {
		if set := j.op.GetSetCredential(); set != nil {
			clear(set.Secret)
			set.Secret = nil
		}
	}
}
