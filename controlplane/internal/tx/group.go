package tx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"
)

const (
	// groupSize is how many callbacks share one transaction, and so one fsync.
	groupSize = 64
	// patience is how long a transaction takes more callbacks in, so that a quick
	// one does not wait for many long ones.
	patience = 5 * time.Millisecond
)

// errGone means that SQLite rolled back a whole transaction, as it does when the
// disk is full, and with it the work of others that had succeeded.
var errGone = errors.New("the shared transaction was rolled back")

// group is one transaction that callbacks share, one after the other, each in its
// caller's goroutine.
type group struct {
	*sql.Tx
	// begun is zero for one that takes nobody else in.
	begun time.Time
	size  int
	// done is closed when it is known whether the group is durable, which it is
	// when err is nil.
	done chan struct{}
	err  error
}

// writer hands the one writing connection from caller to caller, in order of
// asking. Who waits when another is through joins its transaction.
type writer struct {
	pool     *sql.DB
	patience time.Duration

	mu    sync.Mutex
	taken bool
	queue []chan *group
}

// enter waits for the caller's turn; nil means to begin a group.
func (w *writer) enter(ctx context.Context) (*group, error) {
	w.mu.Lock()
	if !w.taken {
		w.taken = true
		w.mu.Unlock()
		return nil, nil
	}
	turn := make(chan *group, 1)
	w.queue = append(w.queue, turn)
	w.mu.Unlock()
	select {
	case g := <-turn:
		return g, nil
	case <-ctx.Done():
	}
	if !w.withdraw(turn) {
		// The turn came meanwhile and belongs to the next.
		w.leave(<-turn)
	}
	return nil, ctx.Err()
}

func (w *writer) withdraw(turn chan *group) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, other := range w.queue {
		if other == turn {
			w.queue = append(w.queue[:i], w.queue[i+1:]...)
			return true
		}
	}
	return false
}

// leave ends the caller's turn: the next joins the group, or it is committed.
func (w *writer) leave(g *group) {
	if g != nil {
		if g.err == nil && g.size < groupSize && time.Since(g.begun) < w.patience && w.pass(g) {
			return
		}
		g.end()
	}
	w.pass(nil)
}

// pass gives the turn to the next, or reports that nobody waits. The connection is
// free when there is no group to end either.
func (w *writer) pass(g *group) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) == 0 {
		w.taken = g != nil
		return false
	}
	w.queue[0] <- g
	w.queue = w.queue[1:]
	return true
}

// end makes the group durable, or undoes all of it once it has an error.
func (g *group) end() {
	if g.err != nil {
		_ = g.Rollback()
	} else if err := g.Commit(); err != nil {
		g.err = fmt.Errorf("commit transaction: %w", err)
	}
	close(g.done)
}

// do runs f in a transaction that others may share, and returns when it is
// durable or has left nothing.
func (w *writer) do(ctx context.Context, f func(Tx) error) error {
	committed, err := w.once(ctx, f, false)
	if errors.Is(err, errGone) {
		committed, err = w.once(ctx, f, true)
	}
	if err != nil {
		return err
	}
	for _, wake := range committed {
		wake()
	}
	return nil
}

// once is do without a second attempt; apart means not to join others.
func (w *writer) once(ctx context.Context, f func(Tx) error, apart bool) (committed []func(), err error) {
	g, err := w.enter(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin transaction: %w", err)
	}
	if g != nil && apart {
		g.end()
		g = nil
	}
	if g == nil {
		// No caller's end may undo the others' work, hence no context.
		begun, err := w.pool.BeginTx(context.Background(), nil)
		if err != nil {
			w.pass(nil)
			return nil, fmt.Errorf("begin transaction: %w", err)
		}
		g = &group{Tx: begun, done: make(chan struct{})}
		if !apart {
			g.begun = time.Now()
		}
	}
	if err := w.turn(ctx, g, Tx{Tx: g.Tx, committed: &committed}, f); err != nil {
		return nil, err
	}
	<-g.done
	return committed, g.err
}

// turn is one caller's part of the group. After a panic in f, too, the next gets
// its turn.
func (w *writer) turn(ctx context.Context, g *group, t Tx, f func(Tx) error) (err error) {
	first, ended := g.size == 0, false
	g.size++
	defer func() {
		if err == nil && ended {
			err = ctx.Err()
		}
		switch {
		case first && (err != nil || !ended):
			// Nobody else's work is in it.
			g.err = errGone
		case !first:
			g.err = g.close(err == nil && ended)
		}
		w.leave(g)
	}()
	if !first {
		if _, err := g.Exec(`SAVEPOINT turn`); err != nil {
			ended = true
			return fmt.Errorf("begin transaction: %w", err)
		}
	}
	err = f(t)
	ended = true
	return err
}

// close keeps or undoes what was done since the savepoint. When it cannot, the
// transaction is gone.
func (g *group) close(keep bool) error {
	if !keep {
		if _, err := g.Exec(`ROLLBACK TO SAVEPOINT turn`); err != nil {
			return fmt.Errorf("%w: %w", errGone, err)
		}
	}
	if _, err := g.Exec(`RELEASE SAVEPOINT turn`); err != nil {
		return fmt.Errorf("%w: %w", errGone, err)
	}
	return nil
}
