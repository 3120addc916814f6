package executor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/reevehq/reeve/agent/internal/admission"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// flight is a batch that is under way at its directory, while the next one is read
// and its intents are committed. Two batches that are under way are as independent
// of each other as the changes of one (see pick), so that nothing which is read for
// the later one is for the earlier one to change. All but sending and reading back
// is done by the goroutine that carries the order out.
type flight struct {
	alias string
	c     Connector
	jobs  []*job
	// touched are the objects it is about, as pick has them.
	touched map[string]bool
	// alone is set when nothing else may be under way beside it.
	alone bool

	applied chan struct{} // closed when the directory has answered
	answers []*connectorv1.ApplyResult
	sendErr error
	read    chan struct{} // closed when it was read back, once
	survey  *admission.Survey
	readErr error
}

// depart sends a batch whose intents are durable as soon as the one before was
// answered, and settles that one.
func (r *run) depart(ctx context.Context, alias string, c Connector, jobs []*job) error {
	before := r.flight
	if before != nil {
		<-before.applied
	}
	f := &flight{alias: alias, c: c, jobs: jobs, touched: map[string]bool{}, applied: make(chan struct{}), read: make(chan struct{})}
	for _, j := range jobs {
		f.touched[object(j.change)] = memberships(j.change)
		f.alone = f.alone || r.nesting(j.change)
	}
	go f.fly(ctx)
	r.flight = f
	if before == nil {
		return nil
	}
	return r.arrive(ctx, before, true)
}

func (f *flight) fly(ctx context.Context) {
	defer close(f.read)
	f.answers, f.sendErr = f.c.Directory.Apply(ctx, operations(f.jobs))
	close(f.applied)
	if f.readErr = ctx.Err(); f.readErr == nil {
		f.survey, f.readErr = admission.Look(ctx, f.c.Directory, operations(f.jobs), noGroups())
	}
}

// arrive settles a batch by what was read back and, if asked to, sends again what
// is to be sent again. What is not settled keeps its intents.
func (r *run) arrive(ctx context.Context, f *flight, again bool) error {
	<-f.read
	defer wipe(f.jobs)
	if f.readErr != nil {
		f.survey = nil // reading is tried again, with patience
		if !again {
			return nil
		}
	}
	left, err := r.sent(ctx, f.c, f.jobs, f.answers, f.sendErr, f.survey)
	if again {
		if now := r.flight; now != nil && len(left.away)+len(left.unsure) > 0 {
			<-now.applied // one sending at a time
		}
		err = r.resend(ctx, f.c, f.jobs, left, err)
	}
	for _, j := range f.jobs {
		// What groups hold follows from what was read back, but for names: others
		// may refer to them.
		if j.typ.GetKind() == connectorv1.Kind_KIND_GROUP && (j.op.GetRename() != nil || j.op.GetMove() != nil || j.op.GetDelete() != nil) {
			delete(r.groups, f.alias)
		}
	}
	if err != nil {
		return fmt.Errorf("connector %s: %w", f.alias, err)
	}
	return nil
}

// land waits for what is under way, settles it, and lets others at the directory.
func (r *run) land(ctx context.Context, again bool) error {
	f := r.flight
	r.flight = nil
	var err error
	if f != nil {
		err = r.arrive(ctx, f, again)
	}
	r.release()
	return err
}

// under reports whether a change is under way now.
func (r *run) under(id string) bool {
	_, settled := r.settled[id]
	return r.flight != nil && !settled && r.intents[id] != nil && r.flight.has(id)
}

func (f *flight) has(id string) bool {
	for _, j := range f.jobs {
		if j.change.GetId() == id {
			return true
		}
	}
	return false
}

// turn is the right to work at a directory, from reading to reading back.
type turn struct {
	sync.Mutex
	// waiting are those to whom an order must give way after the batch that is
	// under way: timed removals.
	waiting atomic.Int32
}

// soon waits for the turn and has an order give way.
func (t *turn) soon() {
	t.waiting.Add(1)
	t.Lock()
	t.waiting.Add(-1)
}

// take takes the turn at a directory unless the order has it.
func (r *run) take(alias string) {
	if r.held == alias {
		return
	}
	r.release()
	r.e.turns[alias].Lock()
	r.held = alias
}

func (r *run) release() {
	if r.held != "" {
		r.e.turns[r.held].Unlock()
		r.held = ""
	}
}
