package tx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"
)

func numbers(t *testing.T) *DB {
	t.Helper()
	dsn := "file:" + filepath.Join(t.TempDir(), "numbers.db") + "?_pragma=journal_mode(WAL)&_txlock=immediate"
	write, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	write.SetMaxOpenConns(1)
	if _, err := write.Exec(`CREATE TABLE number (n INTEGER PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	read, err := sql.Open("sqlite", dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := New(write, read)
	// Who joins whom must not hang on how busy the machine is.
	db.write.patience = time.Hour
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func put(t Tx, n int) error {
	_, err := t.Exec(`INSERT INTO number (n) VALUES ($1)`, n)
	return err
}

func (db *DB) list(t *testing.T) string {
	t.Helper()
	var list []int
	err := db.View(t.Context(), func(x Tx) (err error) {
		list, err = Collect(x, func(s Scanner) (n int, err error) { return n, s.Scan(&n) }, `SELECT n FROM number ORDER BY n`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(list)
}

// queued runs the callbacks so that all of them wait for one that has the turn,
// in order, and returns their errors.
func (db *DB) queued(t *testing.T, ctxs []context.Context, all ...func(Tx) error) []error {
	t.Helper()
	errs := make([]error, len(all))
	var wait sync.WaitGroup
	var once sync.Once
	err := db.Do(t.Context(), func(Tx) error {
		// It may run again, when one of those that wait takes its transaction down.
		once.Do(func() { db.start(ctxs, all, errs, &wait) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wait.Wait()
	return errs
}

func (db *DB) start(ctxs []context.Context, all []func(Tx) error, errs []error, wait *sync.WaitGroup) {
	for i, f := range all {
		wait.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					errs[i] = fmt.Errorf("panic: %v", p)
				}
			}()
			errs[i] = db.Do(ctxs[i], f)
		})
		for waiting := 0; waiting <= i; time.Sleep(time.Millisecond) {
			db.write.mu.Lock()
			waiting = len(db.write.queue)
			db.write.mu.Unlock()
		}
	}
}

// One that fails, panics, ends early or gives up takes no other's work with it,
// and nobody is told of a commit that was not.
func TestGroupKeepsApart(t *testing.T) {
	db := numbers(t)
	boom := errors.New("boom")
	ending, end := context.WithCancel(t.Context())
	var woken sync.Map
	ok := func(n int) func(Tx) error {
		return func(x Tx) error { x.OnCommit(func() { woken.Store(n, true) }); return put(x, n) }
	}
	all := []func(Tx) error{
		ok(0),
		func(x Tx) error { return errors.Join(ok(1)(x), boom) },
		func(x Tx) error { return errors.Join(ok(2)(x), put(x, 2)) },
		ok(3),
		func(x Tx) error { _ = ok(4)(x); panic("here") },
		func(x Tx) error { end(); return ok(5)(x) },
		ok(6),
	}
	ctxs := make([]context.Context, len(all))
	for i := range ctxs {
		ctxs[i] = t.Context()
	}
	ctxs[5] = ending
	errs := db.queued(t, ctxs, all...)
	if got := db.list(t); got != "[0 3 6]" {
		t.Errorf("kept %s", got)
	}
	for i, err := range errs {
		kept := i%3 == 0
		if _, told := woken.Load(i); told != kept || (err == nil) != kept {
			t.Errorf("callback %d: told %v, error %v", i, told, err)
		}
	}
	if !errors.Is(errs[1], boom) || !errors.Is(errs[5], context.Canceled) {
		t.Errorf("errors are %v", errs)
	}
}

// Those that wait share one transaction: the last to join sees what the first
// wrote before any of it is durable.
func TestGroupSharesATransaction(t *testing.T) {
	db := numbers(t)
	var early string
	ctxs := []context.Context{t.Context(), t.Context()}
	errs := db.queued(t, ctxs,
		func(x Tx) error { return put(x, 1) },
		func(x Tx) error { early = db.list(t); return put(x, 2) })
	if errs[0] != nil || errs[1] != nil || early != "[]" || db.list(t) != "[1 2]" {
		t.Errorf("errors %v, durable while the second ran: %s, after all: %s", errs, early, db.list(t))
	}
}

// SQLite may roll a whole transaction back under one of the callbacks. The
// others' work is done again and not lost.
func TestGroupOutlivesARollback(t *testing.T) {
	db := numbers(t)
	ctxs := []context.Context{t.Context(), t.Context(), t.Context()}
	full := errors.New("disk is full")
	errs := db.queued(t, ctxs,
		func(x Tx) error { return put(x, 1) },
		func(x Tx) error { _, err := x.Exec(`ROLLBACK`); return errors.Join(full, err) },
		func(x Tx) error { return put(x, 3) })
	if errs[0] != nil || !errors.Is(errs[1], full) || errs[2] != nil || db.list(t) != "[1 3]" {
		t.Errorf("errors %v, kept %s", errs, db.list(t))
	}
}

// Whoever gives up waiting leaves the turn to the next.
func TestGroupGivingUp(t *testing.T) {
	db := numbers(t)
	var wait sync.WaitGroup
	for i := range 400 {
		ctx, cancel := context.WithCancel(t.Context())
		wait.Go(func() {
			err := db.Do(ctx, func(x Tx) error { return put(x, i) })
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		if i%3 == 0 {
			wait.Go(cancel)
		} else {
			defer cancel()
		}
	}
	wait.Wait()
	if err := db.Do(t.Context(), func(x Tx) error { return put(x, 1000) }); err != nil {
		t.Fatal(err)
	}
}
