package executor

import (
	"context"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// notAgain is the result of a change that was sent before a crash, is not to be
// sent again, and is not seen to be there. A credential cannot be seen: nobody knows
// whether the first one took effect, so the receipt says so and keeps it.
func notAgain(j *job, draft *auditv1.Receipt, p *connectorv1.Problem, result auditv1.Receipt_Result) (auditv1.Receipt_Result, *connectorv1.Problem) {
	if draft == nil || j.op.GetSetCredential() == nil && j.op.GetRevokeCredential() == nil {
		return result, p
	}
	j.receipt.Sealed = draft.GetSealed()
	return auditv1.Receipt_RESULT_FAILED, problem("UNKNOWN", "it was sent before a restart, may have taken effect, and is not sent again: "+p.GetSaid(), "try the sealed credential, then plan again")
}

// readIntents settles what was sent and is seen to be there, and sends nothing.
// What is not there stays open.
func (r *run) readIntents(ctx context.Context) error {
	byAlias := map[string][]*planv1.Change{}
	for _, change := range r.changes {
		if r.intents[change.GetId()] != nil {
			byAlias[change.GetConnector()] = append(byAlias[change.GetConnector()], change)
		}
	}
	var errs []error
	for alias, changes := range byAlias {
		c, ok := r.e.o.Connectors[alias]
		if !ok {
			errs = append(errs, fmt.Errorf("%w: connector %s is not in agent.yaml any more", ErrUnreachable, alias))
			continue
		}
		errs = append(errs, r.readIntentsOf(ctx, alias, c, changes))
	}
	return errors.Join(errs...)
}

func (r *run) readIntentsOf(ctx context.Context, alias string, c Connector, changes []*planv1.Change) error {
	r.take(alias)
	defer r.release()
	var jobs []*job
	var operations []*connectorv1.Operation
	for _, change := range changes {
		j := r.newJob(change)
		missing, err := r.resolve(ctx, j)
		if err != nil {
			return err
		}
		if missing == "" {
			jobs, operations = append(jobs, j), append(operations, j.op)
		}
	}
	s, err := r.e.look(ctx, c, operations, guardrails.NewGroups(nil))
	if err != nil {
		return fmt.Errorf("connector %s: %w", alias, err)
	}
	for _, j := range jobs {
		j.typ = s.Type(j.op.GetObject().GetType())
		if now := observe(j.op, s); now.problem == nil {
			r.found(j, now, s)
		}
	}
	return nil
}

// found settles a change that was sent before a crash if it is there.
func (r *run) found(j *job, now observed, s *admission.Survey) bool {
	draft := r.intents[j.change.GetId()]
	if draft == nil || !now.holds(j.op, j.typ, s) {
		return false
	}
	j.receipt.Before, j.receipt.After = draft.GetBefore(), now.touched(j.op, j.typ, s)
	j.receipt.Anchor = now.anchor(j.receipt.GetAnchor())
	r.settle(j, auditv1.Receipt_RESULT_APPLIED, nil)
	return true
}
