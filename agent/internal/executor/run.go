package executor

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Run carries an order out to its end, from wherever it was left. An order that
// has ended is no error. Changes that were sent before a crash are read back
// before anything else is done about them. It returns ErrPaused, ErrUnreachable,
// ctx's error or the journal's with the order left open.
func (e *Executor) Run(ctx context.Context, order string) error {
	e.order.Lock()
	defer e.order.Unlock()
	r, err := e.load(ctx, order)
	if err != nil || r.order.Ended {
		return err
	}
	err = r.run(ctx)
	if err != nil && len(r.pending) > 0 && !errors.Is(err, journal.ErrStopped) {
		// What is known is kept, even though the order stays open.
		err = errors.Join(err, r.commit(context.WithoutCancel(ctx), nil, false))
	}
	return err
}

// Resume runs every open order, by sequence. It goes on after an order that stays
// open and returns the errors joined.
func (e *Executor) Resume(ctx context.Context) error {
	var open []journal.Order
	err := e.o.Journal.View(ctx, func(tx *journal.Tx) (err error) {
		open, err = tx.OpenOrders()
		return err
	})
	if err != nil {
		return err
	}
	var errs []error
	for _, o := range open {
		if err := e.Run(ctx, o.ID); err != nil {
			errs = append(errs, fmt.Errorf("order %s: %w", o.ID, err))
			if ctx.Err() != nil || errors.Is(err, journal.ErrStopped) {
				break
			}
		}
	}
	return errors.Join(errs...)
}

// run is one order being carried out.
type run struct {
	e       *Executor
	order   journal.Order
	changes []*planv1.Change
	// settled has the result of every change that has one; intents the drafts of
	// those that were sent and have none.
	settled map[string]auditv1.Receipt_Result
	intents map[string]*auditv1.Receipt
	// pending are settled changes whose receipts wait for the next commit.
	pending   []*job
	created   map[string]string // change -> anchor
	overtaken map[string]bool
	groups    map[string]*guardrails.Groups // by alias, as read for this level
	flight    *flight                       // nil when nothing is under way
	held      string                        // the alias whose turn the order has
}

// job is one change on its way through a batch.
type job struct {
	change  *planv1.Change
	op      *connectorv1.Operation // with anchors in place of changes
	typ     *connectorv1.ObjectType
	receipt *auditv1.Receipt
	tries   int // times sent alone
	// unsure is set once it was sent with no answer: what is there later is ours.
	unsure bool
}

func (e *Executor) load(ctx context.Context, id string) (*run, error) {
	r := &run{
		e: e, settled: map[string]auditv1.Receipt_Result{}, intents: map[string]*auditv1.Receipt{},
		created: map[string]string{}, overtaken: map[string]bool{}, groups: map[string]*guardrails.Groups{},
	}
	err := e.o.Journal.View(ctx, func(tx *journal.Tx) error {
		var found bool
		var err error
		if r.order, found, err = tx.Order(id); err != nil {
			return err
		}
		if !found {
			return fmt.Errorf("%w: %s", ErrNoOrder, id)
		}
		chunks, err := tx.Chunks(id)
		if err != nil {
			return err
		}
		for _, raw := range chunks {
			var c planv1.Chunk
			if err := planv1.Decode(raw, &c); err != nil {
				return fmt.Errorf("chunk of order %s in the journal: %w", id, err)
			}
			r.changes = append(r.changes, c.GetChanges()...)
		}
		progress, err := tx.Progress(id)
		if err != nil {
			return err
		}
		for change, p := range progress {
			if p.Settled {
				r.settled[change] = auditv1.Receipt_Result(p.Result)
				continue
			}
			draft := &auditv1.Receipt{}
			if err := planv1.Decode(p.Receipt, draft); err != nil {
				return fmt.Errorf("intent of change %s in the journal: %w", change, err)
			}
			r.intents[change] = draft
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, id := range r.order.Superseded {
		r.overtaken[id] = true
	}
	return r, nil
}

func (r *run) run(ctx context.Context) error {
	for len(r.changes) > len(r.settled) {
		err := r.carryOut(ctx)
		if err != nil {
			// What came of what is under way is kept, and not sent again.
			err = errors.Join(err, r.land(ctx, false))
			if errors.Is(err, ErrPaused) {
				err = errors.Join(err, r.readIntents(ctx))
			}
			return err
		}
		clear(r.groups)
	}
	if err := r.commit(ctx, nil, true); err != nil {
		return err
	}
	r.progress(0, true)
	return nil
}

// carryOut carries the lowest level that is open out to its end.
func (r *run) carryOut(ctx context.Context) error {
	level, todo := r.level()
	todo = byGroup(todo)
	for len(todo) > 0 {
		if err := r.mayGoOn(ctx); err != nil {
			return err
		}
		if r.held != "" && r.e.turns[r.held].waiting.Load() > 0 {
			if err := r.land(ctx, true); err != nil {
				return err
			}
		}
		todo = r.withoutHopeless(todo)
		batch := r.pick(todo)
		var err error
		switch {
		case len(batch) > 0:
			err = r.batch(ctx, batch)
		case r.flight != nil:
			err = r.land(ctx, true)
		case len(todo) > 0:
			err = fmt.Errorf("order %s: %d changes of level %d wait for each other", r.order.ID, len(todo), level)
		}
		if err != nil {
			return err
		}
		todo = r.open(todo)
		r.progress(level, false)
	}
	return r.land(ctx, true)
}

func (r *run) progress(level uint32, ended bool) {
	r.e.o.Progress(Progress{Order: r.order.ID, Total: len(r.changes), Done: len(r.settled), Level: level, Ended: ended})
}

// level returns the lowest level with open changes, and those.
func (r *run) level() (uint32, []*planv1.Change) {
	open := r.open(r.changes)
	level := open[0].GetLevel() // admission saw to it that levels ascend
	end := 0
	for end < len(open) && open[end].GetLevel() == level {
		end++
	}
	return level, open[:end]
}

func (r *run) open(changes []*planv1.Change) []*planv1.Change {
	var out []*planv1.Change
	for _, c := range changes {
		if _, done := r.settled[c.GetId()]; !done {
			out = append(out, c)
		}
	}
	return out
}

func (r *run) mayGoOn(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if reason := r.e.o.Journal.Quarantined(); reason != "" {
		return fmt.Errorf("%w (in quarantine: %s)", ErrPaused, reason)
	}
	for _, v := range []journal.Var{journal.VarPaused, journal.VarLeft} {
		reason, err := r.e.o.Journal.Get(ctx, v)
		if err != nil {
			return err
		}
		if reason != "" {
			return fmt.Errorf("%w (%s)", ErrPaused, reason)
		}
	}
	return nil
}

// withoutHopeless settles what will not be tried: overtaken changes, those whose
// dependencies failed, and everything once the order has met too many conflicts
// or its time is over. What was sent before a crash is never among them: it must
// be read back.
func (r *run) withoutHopeless(todo []*planv1.Change) []*planv1.Change {
	now := r.e.o.Clock.Now()
	conflicts, limit := r.count(auditv1.Receipt_RESULT_CONFLICT), r.e.o.MaxConflicts
	if limit == 0 {
		limit = max(20, len(r.changes)/10)
	}
	var out []*planv1.Change
	for _, c := range todo {
		if r.intents[c.GetId()] != nil {
			out = append(out, c)
			continue
		}
		failed := ""
		for _, id := range admission.Dependencies(c) {
			if result, done := r.settled[id]; done && result != auditv1.Receipt_RESULT_APPLIED && result != auditv1.Receipt_RESULT_ALREADY {
				failed = id
			}
		}
		switch {
		case r.overtaken[c.GetId()]:
			r.settle(r.newJob(c), auditv1.Receipt_RESULT_SUPERSEDED, problem("SUPERSEDED", "a newer plan has overtaken this change", ""))
		case failed != "":
			r.settle(r.newJob(c), auditv1.Receipt_RESULT_SKIPPED, problem("DEPENDENCY", "change "+failed+", on which it depends, was not carried out", "plan again"))
		case conflicts > limit:
			r.settle(r.newJob(c), auditv1.Receipt_RESULT_SKIPPED, problem("TOO_MANY_CONFLICTS", fmt.Sprintf("the order was stopped after %d conflicts", conflicts), "observe and plan again: the directory is not as the plan took it to be"))
		default:
			if p := r.over(c, now); p != nil {
				r.settle(r.newJob(c), auditv1.Receipt_RESULT_SKIPPED, p)
				continue
			}
			out = append(out, c)
		}
	}
	return out
}

// over says that the time for sending a change is over, or nothing.
func (r *run) over(c *planv1.Change, now time.Time) *connectorv1.Problem {
	if !now.Before(r.order.Expires) {
		return problem("EXPIRED", "the order's time was over before this change was reached", "plan again")
	}
	if c.GetEndsAt() != nil && !now.Before(c.GetEndsAt().AsTime()) {
		return problem("ENDED", "the grant ended at "+c.GetEndsAt().AsTime().UTC().Format(time.RFC3339)+", before it began", "")
	}
	return nil
}

func (r *run) count(result auditv1.Receipt_Result) int {
	n := 0
	for _, have := range r.settled {
		if have == result {
			n++
		}
	}
	return n
}

func (r *run) newJob(c *planv1.Change) *job {
	op := c.GetOperation()
	return &job{change: c, op: op, receipt: &auditv1.Receipt{
		Order: r.order.ID, Change: c.GetId(), Connector: c.GetConnector(), Anchor: op.GetObject().GetAnchor(), Cause: c.GetCause(), Grant: c.GetGrant(),
		Operation: op.Kind(), Type: op.GetObject().GetType(), Recipient: op.GetSetCredential().GetRecipient(),
	}}
}

// settle gives a change its result; the receipt waits for the next commit.
func (r *run) settle(j *job, result auditv1.Receipt_Result, p *connectorv1.Problem) {
	j.receipt.Result, j.receipt.Problem = result, p
	r.settled[j.change.GetId()] = result
	delete(r.intents, j.change.GetId())
	r.pending = append(r.pending, j)
	if result == auditv1.Receipt_RESULT_APPLIED && j.op.GetCreate() != nil {
		r.created[j.change.GetId()] = j.receipt.GetAnchor()
	}
}

func problem(code, said, remedy string) *connectorv1.Problem {
	return &connectorv1.Problem{Code: code, Said: said, Remedy: remedy, Severity: connectorv1.Severity_SEVERITY_ERROR}
}
