package journal

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	// The driver registers itself under the name "sqlite".
	_ "modernc.org/sqlite"

	"github.com/reevehq/reeve/pki/chain"
)

// schemaVersion is kept in PRAGMA user_version.
const schemaVersion = 1

var (
	// ErrStopped means that a commit's outcome is not known or that the file
	// failed. Nothing more is written through this handle: the process must end
	// and open the journal again, since retrying fsync after an error loses data.
	ErrStopped = errors.New("the journal has stopped; restart the agent and look at its disk")
	// ErrDiskFull means that too little disk is left for new work. Receipts and
	// obligations still go in, on space kept for them.
	ErrDiskFull = errors.New("too little disk space is left for new work")
	// ErrForged means rows or records that are not what the agent wrote.
	ErrForged = errors.New("the journal holds what the agent did not write")
	// ErrDamaged means a file that SQLite cannot read.
	ErrDamaged = errors.New("the journal's file is damaged")
	// ErrSchema means a journal of a newer version of the agent.
	ErrSchema = errors.New("the journal was written by a newer agent; install that version again")
	// ErrIdentity means a journal of another agent or epoch.
	ErrIdentity = errors.New("the journal belongs to another agent or epoch")
	// ErrLocked means that another process has the journal open.
	ErrLocked = errors.New("another process has the journal open")
	// ErrPurged means records that were purged after they had been proven included.
	ErrPurged = errors.New("these records were purged")
)

// Identity is whose journal it is. A new epoch begins with a new journal.
type Identity struct {
	TrustDomain, Tenant, Agent string
	Epoch                      uint64
}

// Options say where the journal is and on what it stands.
type Options struct {
	// Path of the SQLite file. "PATH.marks" and "PATH.reserve" stand beside it
	// unless MarksPath and ReservePath say otherwise; marks belong on storage
	// that is not backed up together with the file.
	Path, MarksPath, ReservePath string
	Identity                     Identity
	// Key is the agent's audit key (Ed25519). It signs chain heads, and the
	// seal's key is derived from it.
	Key crypto.Signer
	// ReserveBytes are kept on disk for obligations, 8 MiB by default; with less
	// than MinFree bytes free, 32 MiB by default, no new work is taken.
	ReserveBytes int64
	MinFree      uint64
	// Now, Rand and Free are the wall clock, crypto/rand.Reader and the file
	// system's free bytes by default.
	Now  func() time.Time
	Rand io.Reader
	Free func(dir string) (uint64, error)
	Log  *slog.Logger
}

func (o *Options) defaults() {
	if o.MarksPath == "" {
		o.MarksPath = o.Path + ".marks"
	}
	if o.ReservePath == "" {
		o.ReservePath = o.Path + ".reserve"
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 8 << 20
	}
	if o.MinFree == 0 {
		o.MinFree = 32 << 20
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.Free == nil {
		o.Free = freeSpace
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

// Journal is safe for concurrent use; commits run one after another.
type Journal struct {
	o      Options
	public ed25519.PublicKey
	rowKey []byte
	lock   *os.File
	write  *sql.DB
	read   *sql.DB

	mu   sync.Mutex    // held for a whole Commit
	done chan struct{} // closed when it stops

	state      sync.RWMutex // guards what follows
	stopped    error
	head       chain.Head
	base       chain.Head // the first record still held follows it
	sum        sum
	marks      marks
	marksDirty bool
	quarantine string
}

// Open opens the journal, making it if there is none. It checks the seal, all
// rows under it and the newest part of the chain. A journal that is behind its marks is opened in
// quarantine (see Quarantined): it can be read and shipped, but admission takes
// no order. Errors wrap ErrLocked, ErrSchema, ErrIdentity, ErrDamaged or
// ErrForged.
func Open(ctx context.Context, o Options) (*Journal, error) {
	o.defaults()
	public, ok := o.Key.Public().(ed25519.PublicKey)
	if !ok {
		return nil, fmt.Errorf("open journal: the audit key is not Ed25519: %T", o.Key.Public())
	}
	rowKey, err := sealKey(o.Key)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	lock, err := lockFile(o.Path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open journal %s: %w", o.Path, err)
	}
	j := &Journal{o: o, public: public, rowKey: rowKey, lock: lock, done: make(chan struct{})}
	if err := j.open(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal %s: %w", o.Path, damage(err)), j.Close())
	}
	return j, nil
}

func (j *Journal) open(ctx context.Context) error {
	_, statErr := os.Stat(j.o.Path)
	fresh := errors.Is(statErr, os.ErrNotExist)
	if fresh {
		// SQLite would make it with the umask's mode.
		f, err := os.OpenFile(j.o.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	var err error
	dsn := "file:" + filepath.ToSlash(j.o.Path) + "?_pragma=busy_timeout(5000)&_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=trusted_schema(OFF)&_pragma=cell_size_check(ON)&_pragma=temp_store(MEMORY)"
	if j.write, err = sql.Open("sqlite", dsn+"&_txlock=immediate"); err != nil {
		return err
	}
	j.write.SetMaxOpenConns(1)
	if j.read, err = sql.Open("sqlite", dsn+"&_pragma=query_only(ON)"); err != nil {
		return err
	}
	j.read.SetMaxOpenConns(4)
	var version int
	if err := j.write.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	switch {
	case version > schemaVersion:
		return fmt.Errorf("%w (schema %d, this agent knows %d)", ErrSchema, version, schemaVersion)
	case version == 0:
		if err := j.create(ctx); err != nil {
			return err
		}
	}
	if err := j.load(ctx); err != nil {
		return err
	}
	if err := j.checkTail(ctx); err != nil {
		return err
	}
	if err := j.compareMarks(ctx); err != nil {
		return err
	}
	return j.reserve()
}

// Close releases the file. It waits for a running Commit.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	var errs []error
	for _, db := range []*sql.DB{j.read, j.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
		j.lock = nil
	}
	j.state.Lock()
	defer j.state.Unlock()
	if j.stopped == nil {
		j.stopped = errors.New("closed")
	}
	return errors.Join(errs...)
}

// Head is how far the chain has come.
func (j *Journal) Head() chain.Head {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.head
}

// Purged is how far records were purged: the first one still held has index Next.
func (j *Journal) Purged() chain.Head {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.base
}

// Identity is whose journal it is.
func (j *Journal) Identity() Identity { return j.o.Identity }

// Sequence is the highest sequence of an order admitted in this epoch.
func (j *Journal) Sequence() uint64 {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.marks.Sequence
}

// RootVersion is the highest root document version that was accepted.
func (j *Journal) RootVersion() uint64 {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.marks.RootVersion
}

// Quarantined says why no order may be taken until `reeve-agent recover`; empty
// when nothing is wrong.
func (j *Journal) Quarantined() string {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.quarantine
}

// Stopped is the first error that made the journal stop, nil while it works.
func (j *Journal) Stopped() error {
	j.state.RLock()
	defer j.state.RUnlock()
	return j.stopped
}

// Done is closed when the journal stops because of an error: the process must end
// then, and be started again.
func (j *Journal) Done() <-chan struct{} { return j.done }

const ddl = `
CREATE TABLE records (idx INTEGER PRIMARY KEY, header BLOB NOT NULL, salt BLOB NOT NULL, body BLOB NOT NULL, link BLOB NOT NULL) STRICT;
CREATE TABLE heads (length INTEGER PRIMARY KEY, envelope BLOB NOT NULL) STRICT;
CREATE TABLE seal (id INTEGER PRIMARY KEY CHECK (id = 1), length INTEGER NOT NULL, link BLOB NOT NULL,
	base_length INTEGER NOT NULL, base_link BLOB NOT NULL, sum BLOB NOT NULL, mac BLOB NOT NULL) STRICT;
CREATE TABLE observed (connector TEXT NOT NULL, anchor TEXT NOT NULL, digest BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX observed_anchor ON observed (connector, anchor);
`

// tables are the sealed ones; all have the same shape: a key, a time to order or
// select by, and a body.
var tables = []string{"vars", "orders", "chunks", "progress", "anchors", "created", "holds", "charges", "plans", "refusals", "pins", "effects"}

func (j *Journal) create(ctx context.Context) error {
	tx, err := j.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // no effect after Commit
	statements := ddl
	for _, t := range tables {
		statements += "CREATE TABLE " + t + " (key TEXT PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL, mac BLOB NOT NULL) STRICT, WITHOUT ROWID;\n"
	}
	statements += "CREATE INDEX charges_at ON charges (at);\nCREATE INDEX holds_at ON holds (at);\n"
	if _, err := tx.ExecContext(ctx, statements); err != nil {
		return err
	}
	id := j.o.Identity
	j.head = chain.Head{Link: chain.Genesis(id.TrustDomain, id.Tenant, id.Agent, id.Epoch)}
	j.base = j.head
	t := &Tx{j: j, ctx: ctx, tx: tx, head: j.head, base: j.base}
	if err := t.put("vars", rowKey("identity"), 0, id); err != nil {
		return err
	}
	if err := t.seal(); err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion)); err != nil {
		return err
	}
	return tx.Commit()
}

// load brings the sealed head and the marks into memory.
func (j *Journal) load(ctx context.Context) error {
	head, base, total, err := j.readSeal(ctx, j.write)
	if err != nil {
		return err
	}
	j.head, j.base, j.sum = head, base, total
	return j.View(ctx, func(tx *Tx) error {
		var id Identity
		found, err := tx.get("vars", rowKey("identity"), &id)
		if err != nil {
			return err
		}
		if !found || id != j.o.Identity {
			return fmt.Errorf("%w: it is of spiffe://%s/tenant/%s/agent/%s in epoch %d", ErrIdentity, id.TrustDomain, id.Tenant, id.Agent, id.Epoch)
		}
		if _, err := tx.get("vars", rowKey("marks"), &j.marks); err != nil {
			return err
		}
		_, err = tx.get("vars", rowKey("quarantine"), &j.quarantine)
		return err
	})
}
