package journal

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Tx is one transaction, valid within the function it was handed to and by that
// goroutine only.
type Tx struct {
	j        *Journal
	ctx      context.Context
	tx       *sql.Tx
	readOnly bool
	low      bool

	head, base chain.Head
	sum        sum
	marks      marks
	quarantine string
	appended   bool
	sealed     bool // something under the seal changed
	marked     bool // something in the marks changed
	err        error
}

// Commit runs fn in a transaction and makes it durable: when it returns nil, all
// that fn wrote survives a power cut, and one signature covers the records it
// appended. An error of fn, or ErrDiskFull, means that nothing was written. An
// error that wraps ErrStopped means that nobody knows, or that the journal is
// forged or damaged (ErrForged), and that it takes nothing more until it is
// opened again. fn runs once. A ctx that ends while fn
// runs does not tear the commit.
func (j *Journal) Commit(ctx context.Context, fn func(*Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if stopped := j.Stopped(); stopped != nil {
		return fmt.Errorf("%w: %w", ErrStopped, stopped)
	}
	low, err := j.space()
	if err != nil {
		return err
	}
	whole := context.WithoutCancel(ctx)
	sqlTx, err := j.write.BeginTx(whole, nil)
	if err != nil {
		return j.stop(err)
	}
	done := false
	defer func() {
		if !done { // fn panicked
			_ = sqlTx.Rollback()
		}
	}()
	tx := &Tx{j: j, ctx: whole, tx: sqlTx, low: low, head: j.head, base: j.base, sum: j.sum, marks: j.marks, quarantine: j.quarantine}
	fnErr := fn(tx)
	if fnErr == nil {
		fnErr = tx.err
	}
	if fnErr == nil {
		fnErr = tx.finish()
	}
	if fnErr != nil {
		done = true
		if err := sqlTx.Rollback(); err != nil {
			return j.stop(errors.Join(fnErr, err))
		}
		if tx.err == nil {
			return fnErr
		}
		if isFull(tx.err) {
			return fmt.Errorf("%w: %w", ErrDiskFull, tx.err)
		}
		return j.stop(fnErr)
	}
	done = true
	if err := sqlTx.Commit(); err != nil {
		_ = sqlTx.Rollback()
		return j.stop(err)
	}
	j.state.Lock()
	j.head, j.base, j.sum, j.marks, j.quarantine = tx.head, tx.base, tx.sum, tx.marks, tx.quarantine
	j.state.Unlock()
	if tx.marked || j.marksDirty {
		j.saveMarks()
	}
	return nil
}

// View runs fn on one consistent state and writes nothing. It works on a journal
// that has stopped, and stops one of which a row turns out to be forged or a page
// damaged: what else it holds cannot be worked with either.
func (j *Journal) View(ctx context.Context, fn func(*Tx) error) error {
	sqlTx, err := j.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	defer func() { _ = sqlTx.Rollback() }() // nothing to keep
	tx := &Tx{j: j, ctx: ctx, tx: sqlTx, readOnly: true}
	err = fn(tx)
	// What a row is found to be counts, whatever fn makes of it.
	for _, found := range []error{tx.err, err} {
		if errors.Is(found, ErrForged) || isDamaged(found) {
			return j.stop(found)
		}
	}
	return err
}

// stop ends all work for the first error it is given.
func (j *Journal) stop(err error) error {
	err = damage(err)
	j.state.Lock()
	defer j.state.Unlock()
	if j.stopped == nil {
		j.stopped = err
		j.o.Log.Error("journal stopped", "error", err)
		close(j.done)
	}
	return fmt.Errorf("%w: %w", ErrStopped, err)
}

func isFull(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_FULL
}

// damage adds ErrDamaged to what SQLite says of a file that it cannot read.
func damage(err error) error {
	if isDamaged(err) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

func isDamaged(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && (e.Code()&0xff == sqlite3.SQLITE_CORRUPT || e.Code()&0xff == sqlite3.SQLITE_NOTADB)
}

// Now is the time that the journal's clock shows, for records.
func (tx *Tx) Now() time.Time { return tx.j.o.Now() }

// NewWork refuses with ErrDiskFull when too little disk is left: callers ask
// before they write what could also wait.
func (tx *Tx) NewWork() error {
	if tx.low {
		return fmt.Errorf("%w in %s; free some, nothing else needs doing", ErrDiskFull, tx.j.o.Path)
	}
	return nil
}

// Append adds a record to the chain. header gets format, tenant, time (unless
// set), and the body's salted hash; body may be nil. The record's leaf in the
// chain is the header, which commits to the body, so that a body can be erased.
// It returns the record's index.
func (tx *Tx) Append(header *auditv1.Header, body *auditv1.Body) (uint64, error) {
	if body == nil {
		body = &auditv1.Body{}
	}
	encodedBody, err := planv1.Encode(body)
	if err != nil {
		return 0, fmt.Errorf("encode record body: %w", err)
	}
	salt := make([]byte, saltSize)
	if _, err := io.ReadFull(tx.j.o.Rand, salt); err != nil {
		return 0, fmt.Errorf("read randomness for a salt: %w", err)
	}
	header.Format = 1
	header.Tenant = tx.j.o.Identity.Tenant
	if header.At == nil {
		header.At = timestamppb.New(tx.Now())
	}
	header.BodyHash = bodyHash(salt, encodedBody)
	leaf, err := planv1.Encode(header)
	if err != nil {
		return 0, fmt.Errorf("encode record header: %w", err)
	}
	index := tx.head.Next
	link := chain.Link(tx.head.Link, index, leaf)
	if err := tx.exec("INSERT INTO records (idx, header, salt, body, link) VALUES ($1, $2, $3, $4, $5)", int64(index), leaf, salt, blob(encodedBody), link[:]); err != nil {
		return 0, err
	}
	tx.head = chain.Head{Next: index + 1, Link: link}
	tx.appended, tx.sealed = true, true
	return index, nil
}

// finish signs the head once and renews the seal.
func (tx *Tx) finish() error {
	if tx.appended {
		id := tx.j.o.Identity
		payload, err := planv1.Encode(&auditv1.ChainHead{
			Format: 1, TrustDomain: id.TrustDomain, Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch,
			Length: tx.head.Next, Hash: tx.head.Link[:], At: timestamppb.New(tx.Now()),
		})
		if err != nil {
			return fmt.Errorf("encode chain head: %w", err)
		}
		envelope, err := dsse.Sign(dsse.ChainHead, payload, tx.j.o.Key)
		if err != nil {
			return fmt.Errorf("sign chain head: %w", err)
		}
		if err := tx.exec("INSERT INTO heads (length, envelope) VALUES ($1, $2)", int64(tx.head.Next), envelope); err != nil {
			return err
		}
	}
	if tx.sealed {
		return tx.seal()
	}
	return nil
}

// exec runs a statement. Its errors end the transaction whatever fn
// does about them.
func (tx *Tx) exec(query string, args ...any) error {
	if tx.readOnly {
		return errors.New("journal: write in a View")
	}
	if tx.err != nil {
		return tx.err
	}
	if _, err := tx.tx.ExecContext(tx.ctx, query, args...); err != nil {
		tx.err = fmt.Errorf("write journal: %w", err)
	}
	return tx.err
}
