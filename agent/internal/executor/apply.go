package executor

import (
	"context"
	"fmt"
	"slices"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/plugins/sdk"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// maxTries is how often one operation is sent alone while nobody knows what became of
// it and reading shows that it is not there.
const maxTries = 3

// apply sends jobs, waits for what comes of it, and settles each by what is read
// afterwards.
func (r *run) apply(ctx context.Context, c Connector, jobs []*job) error {
	again, err := r.send(ctx, c, jobs)
	return r.resend(ctx, c, jobs, again, err)
}

// resend sends what of jobs was not settled. What is not there and has no answer of
// its own is sent again in halves, until it stands alone. While the directory is
// away it waits, and then leaves the rest open.
func (r *run) resend(ctx context.Context, c Connector, jobs []*job, again unsent, err error) error {
	for waits := 1; ; waits++ {
		if err != nil || len(again.away)+len(again.unsure) == 0 {
			return err
		}
		rest := slices.Concat(again.away, again.unsure)
		if len(again.away) > 0 {
			said := again.away[0].receipt.GetProblem()
			r.e.o.Log.Warn("directory could not be written", "code", said.GetCode(), "error", said.GetSaid(), "attempt", waits)
			if !r.e.o.Retry(ctx, waits) {
				return fmt.Errorf("%w: %d changes are still to be sent: %s: %s", ErrUnreachable, len(rest), said.GetCode(), said.GetSaid())
			}
		}
		if len(jobs) == 1 || len(again.unsure) == 0 {
			jobs = rest
			again, err = r.send(ctx, c, jobs)
			continue
		}
		// One of them may be what breaks the connection.
		for part := range slices.Chunk(rest, (len(rest)+1)/2) {
			if err := r.apply(ctx, c, part); err != nil {
				return err
			}
		}
		return nil
	}
}

// unsent are the jobs of a batch that were not settled.
type unsent struct {
	// away were refused because the directory cannot be worked with now.
	away []*job
	// unsure are not seen to be there, and nobody knows why.
	unsure []*job
}

// send sends jobs once, reads back, and returns what is to be sent again.
func (r *run) send(ctx context.Context, c Connector, jobs []*job) (unsent, error) {
	answers, sendErr := c.Directory.Apply(ctx, operations(jobs))
	return r.sent(ctx, c, jobs, answers, sendErr, nil)
}

// sent settles jobs by what is read after they were sent, in s or, without, now.
func (r *run) sent(ctx context.Context, c Connector, jobs []*job, answers []*connectorv1.ApplyResult, sendErr error, s *admission.Survey) (unsent, error) {
	if err := ctx.Err(); err != nil {
		return unsent{}, err // intents stand; whoever resumes reads them back
	}
	again, err := r.readBack(ctx, c, jobs, answersByID(answers), sendErr, s)
	if err != nil || len(jobs) > 1 {
		return again, err
	}
	for _, j := range again.unsure {
		if j.tries++; j.tries == maxTries {
			r.settle(j, auditv1.Receipt_RESULT_FAILED, j.receipt.GetProblem())
			return unsent{}, nil
		}
	}
	return again, nil
}

func operations(jobs []*job) []*connectorv1.Operation {
	out := make([]*connectorv1.Operation, len(jobs))
	for i, j := range jobs {
		out[i] = j.op
	}
	return out
}

func answersByID(answers []*connectorv1.ApplyResult) map[string]*connectorv1.ApplyResult {
	out := make(map[string]*connectorv1.ApplyResult, len(answers))
	for _, a := range answers {
		out[a.GetOperationId()] = a
	}
	return out
}

// readBack settles what can be and returns what is to be sent again, with why it is
// not there in its receipt's problem.
func (r *run) readBack(ctx context.Context, c Connector, jobs []*job, answers map[string]*connectorv1.ApplyResult, sendErr error, s *admission.Survey) (unsent, error) {
	together := len(jobs) > 1 && slices.Contains(c.Directory.Capabilities(), connectorv1.Capability_CAPABILITY_TRANSACTIONS)
	unread := jobs
	var again unsent
	for n := 1; ; n++ {
		if s == nil {
			var err error
			if s, err = r.e.look(ctx, c, operations(unread), noGroups()); err != nil {
				return unsent{}, err
			}
		}
		var still []*job
		for _, j := range unread {
			now := observe(j.op, s)
			if now.problem != nil {
				still = append(still, j)
				continue
			}
			j.receipt.After = now.touched(j.op, j.typ, s)
			r.follow(j, now)
			outcome, p := connectorv1.Outcome_OUTCOME_UNKNOWN, problem("UNKNOWN", "no answer", "")
			if a := answers[j.op.GetId()]; a != nil {
				outcome, p = a.GetOutcome(), a.GetProblem()
			} else if sendErr != nil {
				p.Said = fmt.Sprintf("no answer: %v", sendErr)
			}
			switch j.receipt.Problem = p; r.decide(j, now, now.holds(j.op, j.typ, s), outcome, p, together) {
			case verdictAway:
				again.away = append(again.away, j)
			case verdictUnsure:
				again.unsure = append(again.unsure, j)
			}
		}
		if len(still) == 0 {
			return again, nil
		}
		unread, s = still, nil
		if !r.e.o.Retry(ctx, n) {
			return unsent{}, fmt.Errorf("%w: change %s was sent and cannot be read back", ErrUnreachable, still[0].change.GetId())
		}
	}
}

// noGroups is for reading back: guardrails have had their say, and what is above
// groups does not matter any more.
func noGroups() *guardrails.Groups { return guardrails.NewGroups(nil) }

// follow keeps what is known of groups up to date with a new group, or one within
// another; who else is a member has nothing above or below it.
func (r *run) follow(j *job, now observed) {
	groups := r.groups[j.change.GetConnector()]
	if groups == nil || now.object == nil || j.typ.GetKind() != connectorv1.Kind_KIND_GROUP {
		return
	}
	if j.op.GetCreate() != nil || r.nesting(j.change) {
		groups.Put(now.object)
	}
}

// verdict is what reading back came to.
type verdict int

const (
	verdictSettled verdict = iota
	verdictAway            // nothing happened, since the directory is away
	verdictUnsure          // it is not there, and nobody knows why
)

// decide settles a change by what was read, or says that it is to be sent again.
// outcome is what the connector says of it.
func (r *run) decide(j *job, now observed, holds bool, outcome connectorv1.Outcome, p *connectorv1.Problem, together bool) verdict {
	done := outcome == connectorv1.Outcome_OUTCOME_DONE
	unknown := outcome == connectorv1.Outcome_OUTCOME_UNKNOWN || outcome == connectorv1.Outcome_OUTCOME_UNSPECIFIED
	create := j.op.GetCreate() != nil
	credential := j.op.GetSetCredential() != nil || j.op.GetRevokeCredential() != nil
	switch {
	case credential && done && now.object != nil, holds && (done || unknown || j.unsure):
		j.receipt.Anchor = now.anchor(j.receipt.GetAnchor())
		r.settle(j, auditv1.Receipt_RESULT_APPLIED, nil)
	case create && done && now.object != nil:
		// It is ours: the name was free. That values differ is for the next plan.
		j.receipt.Anchor = now.object.GetAnchor()
		r.settle(j, auditv1.Receipt_RESULT_APPLIED, &connectorv1.Problem{Code: "READ_BACK_DIFFERS", Object: now.object.GetName().Text(),
			Said: "the directory made other values of those it was given", Remedy: "observe and plan again", Severity: connectorv1.Severity_SEVERITY_NOTE})
	case create && now.object != nil:
		r.settle(j, auditv1.Receipt_RESULT_CONFLICT, problem("ALREADY_EXISTS", "the name "+now.object.GetName().Text()+" was taken meanwhile", "adopt the object or choose another name"))
	case holds && !create:
		// Refused, and yet it is so: somebody else was faster.
		r.settle(j, auditv1.Receipt_RESULT_ALREADY, p)
	case done:
		r.settle(j, auditv1.Receipt_RESULT_FAILED, problem("READ_BACK", "the directory said done, and reading does not show it", "look at the directory's log, then plan again"))
	case unknown:
		j.unsure = true
		return verdictUnsure
	case outcome == connectorv1.Outcome_OUTCOME_REFUSED && away(p):
		return verdictAway
	case together, outOfTime(p):
		return verdictUnsure
	case outcome == connectorv1.Outcome_OUTCOME_CONFLICT:
		r.settle(j, auditv1.Receipt_RESULT_CONFLICT, p)
	default:
		r.settle(j, auditv1.Receipt_RESULT_FAILED, p)
	}
	return verdictSettled
}

// away reports a problem that says nothing of the change, only that the directory
// cannot be worked with now: the change stays open until it can or time is over.
func away(p *connectorv1.Problem) bool {
	switch p.GetCode() {
	case sdk.CodeUnreachable, sdk.CodeTLSRefused, sdk.CodeBindRefused, sdk.CodeLocked:
		return true
	default:
		return false
	}
}

// outOfTime reports that the connector stopped waiting before the change's turn
// came: with fewer beside it, it may come.
func outOfTime(p *connectorv1.Problem) bool {
	return p.GetCode() == sdk.CodeTimeLimit || p.GetCode() == sdk.CodeCancelled
}
