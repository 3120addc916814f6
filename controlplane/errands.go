package controlplane

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// errands runs what follows from a committed transaction, one at a time and each
// at most once however often it is asked for before it began. Whatever it does
// can be found again in the database, so losing it in a crash costs a moment.
type errands struct {
	mu      sync.Mutex
	waiting map[string]func(context.Context) error
	order   []string
	// later are the errands that wait for their time.
	later map[string]bool
	wake  chan struct{}
	log   *slog.Logger
}

func newErrands(log *slog.Logger) *errands {
	return &errands{waiting: map[string]func(context.Context) error{}, later: map[string]bool{}, wake: make(chan struct{}, 1), log: log}
}

// ask has f run soon; name says which errand it is. It never blocks.
func (e *errands) ask(name string, f func(context.Context) error) {
	e.mu.Lock()
	if e.waiting[name] == nil {
		e.waiting[name] = f
		e.order = append(e.order, name)
	}
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// askLater is ask when some time has passed, once for all that is asked for until
// then.
func (e *errands) askLater(wait time.Duration, name string, f func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.later[name] {
		return
	}
	e.later[name] = true
	time.AfterFunc(wait, func() {
		e.mu.Lock()
		delete(e.later, name)
		e.mu.Unlock()
		e.ask(name, f)
	})
}

func (e *errands) next() (string, func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.order) == 0 {
		return "", nil
	}
	name := e.order[0]
	e.order = e.order[1:]
	f := e.waiting[name]
	delete(e.waiting, name)
	return name, f
}

// run runs errands until ctx ends.
func (e *errands) run(ctx context.Context) {
	for {
		for name, f := e.next(); f != nil; name, f = e.next() {
			if err := f(ctx); err != nil && ctx.Err() == nil {
				e.log.Error("errand failed", "errand", name, "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		}
	}
}
