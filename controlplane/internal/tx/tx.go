package tx

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
)

// ErrAlreadyDone is returned by DB.Once when the operation id was committed
// before.
var ErrAlreadyDone = errors.New("operation was committed before")

// DB is an open store: one writer and a pool of readers. It is safe for
// concurrent use.
type DB struct {
	write *writer
	read  *sql.DB
	// closeOnce keeps Close harmless when wiring fails half way.
	closeOnce sync.Once
}

// New takes ownership of both pools. On SQLite write has exactly one
// connection and begins immediate transactions, so writers queue here and not
// in SQLite's busy handler.
func New(write, read *sql.DB) *DB {
	return &DB{write: &writer{pool: write, patience: patience}, read: read}
}

// Tx is one transaction, valid only inside the callback that got it and not safe
// for concurrent use.
type Tx struct {
	*sql.Tx
	committed *[]func()
}

// OnCommit runs f after the transaction is durable. It is for waking somebody
// up, never for work that must happen: a crash between the two loses it.
func (t Tx) OnCommit(f func()) {
	*t.committed = append(*t.committed, f)
}

// Do runs f in a read-write transaction, which is durable when Do returns nil. f
// may run again and must have no effect outside of the transaction, nor wait for
// another caller of Do: those that ask at once share a transaction and its fsync,
// each with a savepoint of its own, so that one that fails takes no other with it.
func (db *DB) Do(ctx context.Context, f func(Tx) error) error {
	return db.write.do(ctx, f)
}

// Once is Do for an operation that a caller may send twice or whose commit got
// lost on the way back: it runs at most once for an id, and answers
// ErrAlreadyDone after that.
func (db *DB) Once(ctx context.Context, id string, f func(Tx) error) error {
	return db.Do(ctx, func(t Tx) error {
		res, err := t.Exec(`INSERT INTO operation (id) VALUES ($1) ON CONFLICT DO NOTHING`, id)
		if err != nil {
			return fmt.Errorf("remember operation %s: %w", id, err)
		}
		if n, err := res.RowsAffected(); err != nil {
			return err
		} else if n == 0 {
			return ErrAlreadyDone
		}
		return f(t)
	})
}

// View runs f on one consistent snapshot. Writing in it fails.
func (db *DB) View(ctx context.Context, f func(Tx) error) error {
	begun, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	// There is nothing to commit, and after a panic in f the connection is free.
	defer begun.Rollback() //nolint:errcheck // the first error is the one that matters
	var never []func()
	return f(Tx{Tx: begun, committed: &never})
}

// Close waits for the transactions under way and closes both pools.
func (db *DB) Close() error {
	var err error
	db.closeOnce.Do(func() { err = errors.Join(db.read.Close(), db.write.pool.Close()) })
	return err
}
