package auditlog

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	// ErrNotFound means that the tenant's log has no such entry, or that there is
	// no such log; the two are not told apart.
	ErrNotFound = errors.New("no such log entry")
	// ErrConflict means that the log's head moved under a writer.
	ErrConflict = errors.New("log head moved meanwhile")
	// ErrCorrupt means that what is stored contradicts itself. Nothing is
	// appended to such a log.
	ErrCorrupt = errors.New("log is corrupt")
	// ErrKept means that a record cannot be erased because verification needs it.
	ErrKept = errors.New("record is needed for verification and cannot be erased")
	// ErrCosignature means a witness signature that does not verify.
	ErrCosignature = errors.New("cosignature does not verify")
)

// format is the value of auditv1.Header.format.
const format = 1

// SaltSize of every record is in bytes. The salt hides bodies that could be guessed;
// since both are hashed one after the other, another size would move octets from one
// into the other.
const SaltSize = 16

// Log is every tenant's log. It is safe for concurrent use; two transactions
// that append to one log at once are told apart by the head's compare-and-swap.
type Log struct {
	db     *tx.DB
	store  Store
	signer note.Signer
	roots  RootDocuments
	domain string
	now    func() time.Time
	log    *slog.Logger

	// Randomness is read under a lock because test sources are plain readers.
	mu   sync.Mutex
	rand io.Reader
}

// RootDocuments gives the root document envelopes from the first, verbatim, for
// exports.
type RootDocuments interface {
	Envelopes() ([][]byte, error)
}

// Config is what New needs.
type Config struct {
	DB    *tx.DB
	Store Store
	// Signer is one of the root document's checkpoint keys, under its name there.
	Signer      note.Signer
	Roots       RootDocuments
	TrustDomain string
	Now         func() time.Time
	// Rand gives salts.
	Rand io.Reader
	Log  *slog.Logger
}

// New returns the logs of one control plane.
func New(c Config) *Log {
	return &Log{db: c.DB, store: c.Store, signer: c.Signer, roots: c.Roots, domain: c.TrustDomain, now: c.Now, rand: c.Rand, log: c.Log}
}

// Origin is the first line of the checkpoints of the tenant's log.
func (l *Log) Origin(tenant string) string { return Origin(l.domain, tenant) }

// Origin is the first line of the checkpoints of a tenant's log:
// "<trust domain>/tenant/<tenant>".
func Origin(trustDomain, tenant string) string { return trustDomain + "/tenant/" + tenant }

// Leaf is one entry to be: an auditv1.Entry, encoded once by planv1.Encode.
type Leaf []byte

// Append puts leaves at the end of the tenant's log, in order, and returns the
// index of the first. They are durable with the transaction.
func (l *Log) Append(t tx.Tx, tenant string, leaves []Leaf) (first uint64, err error) {
	if len(leaves) == 0 {
		return 0, errors.New("append nothing to a log")
	}
	head, err := l.store.Head(t, tenant)
	if err != nil {
		return 0, err
	}
	tree := newTiles(t, l.store, tenant, head.Size)
	for _, leaf := range leaves {
		if err := tree.push(tlog.RecordHash(leaf)); err != nil {
			return 0, err
		}
	}
	if err := tree.flush(); err != nil {
		return 0, err
	}
	if err := l.store.PutPart(t, tenant, Part{First: head.Size, Count: uint64(len(leaves)), Entries: packEntries(leaves)}); err != nil {
		return 0, err
	}
	return head.Size, l.store.Grow(t, tenant, head.Size, tree.size)
}

// AppendAct appends a record of the control plane's own: an operator's act, a
// key's begin or end, an agent's revocation. h carries type, subject, actor,
// plan digest, change, policy version and ticket as far as they apply; format,
// time, tenant and body hash are set here. b is what can be erased later.
func (l *Log) AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error) {
	body, err := planv1.Encode(b)
	if err != nil {
		return 0, fmt.Errorf("encode record body: %w", err)
	}
	salt := make([]byte, SaltSize)
	l.mu.Lock()
	_, err = io.ReadFull(l.rand, salt)
	l.mu.Unlock()
	if err != nil {
		return 0, fmt.Errorf("read randomness for a salt: %w", err)
	}
	full := proto.CloneOf(h)
	full.Format, full.At, full.Tenant, full.BodyHash = format, timestamppb.New(l.now()), tenant, BodyHash(salt, body)
	header, err := planv1.Encode(full)
	if err != nil {
		return 0, fmt.Errorf("encode record header: %w", err)
	}
	leaf, err := planv1.Encode(&auditv1.Entry{Header: header})
	if err != nil {
		return 0, fmt.Errorf("encode log entry: %w", err)
	}
	index, err = l.Append(t, tenant, []Leaf{leaf})
	if err != nil {
		return 0, err
	}
	return index, l.store.PutBody(t, tenant, index, salt, body)
}

// BatchLeaves are the entries that a batch becomes.
func BatchLeaves(b *auditv1.Batch) ([]Leaf, error) {
	leaves := make([]Leaf, len(b.GetRecords()))
	for i, r := range b.GetRecords() {
		leaf, err := planv1.Encode(&auditv1.Entry{Agent: b.GetAgent(), Epoch: b.GetEpoch(), Index: b.GetFirst() + uint64(i), Header: r.GetHeader()})
		if err != nil {
			return nil, fmt.Errorf("encode log entry: %w", err)
		}
		leaves[i] = leaf
	}
	return leaves, nil
}

// AppendBatch appends an agent's records, which intake has verified, and keeps
// the signed batch verbatim. encoded is the marshalled batch, leaves are its
// BatchLeaves.
func (l *Log) AppendBatch(t tx.Tx, tenant string, b *auditv1.Batch, encoded []byte, leaves []Leaf) (first uint64, err error) {
	first, err = l.Append(t, tenant, leaves)
	if err != nil {
		return 0, err
	}
	return first, l.store.PutBatch(t, tenant, StoredBatch{
		First: first, Count: uint64(len(leaves)), Agent: b.GetAgent(), Epoch: b.GetEpoch(), Chain: b.GetFirst(), Batch: encoded,
	})
}

// Size is the number of entries in the tenant's log; 0 where there is none.
func (l *Log) Size(t tx.Tx, tenant string) (uint64, error) {
	h, err := l.store.Head(t, tenant)
	return h.Size, err
}

// BodyHash is SHA-256 over salt and body: what a header keeps of them.
func BodyHash(salt, body []byte) []byte {
	h := sha256.New()
	h.Write(salt)
	h.Write(body)
	return h.Sum(nil)
}
