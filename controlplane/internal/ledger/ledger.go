package ledger

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// ErrCorrupt means a stored entry that cannot be read.
var ErrCorrupt = errors.New("ledger entry is corrupt")

// Key is an entry's place. Keys are unique within a tenant.
type Key struct {
	Connector, Anchor string
	Item              planner.Item
	Attribute, Value  string
	Member            string
	Cause             planv1.Cause
}

// KeyOf is the entry's place.
func KeyOf(e planner.Entry) Key {
	return Key{e.Connector, e.Anchor, e.Item, e.Attribute, e.Value, e.Member, e.Cause}
}

// Store keeps entries. Methods work inside one transaction and are durable with
// it. Lists are sorted by Key, which is planner.CompareEntries.
type Store interface {
	// Page is what a receipt on one object, or on one membership, can touch.
	Page(t tx.Tx, tenant, connector, anchor, member string) ([]planner.Entry, error)
	// Object is everything about one object, memberships in groups among it.
	Object(t tx.Tx, tenant, connector, anchor string) ([]planner.Entry, error)
	// Written is a connector's entries of writes before a moment.
	Written(t tx.Tx, tenant, connector string, before time.Time) ([]planner.Entry, error)
	// Identity is everything that was written for one identity.
	Identity(t tx.Tx, tenant, identity string) ([]planner.Entry, error)
	// After returns up to limit entries after a key; the zero Key is before all.
	After(t tx.Tx, tenant string, after Key, limit int) ([]planner.Entry, error)
	// Put inserts or replaces an entry; a zero written keeps the stored moment.
	Put(t tx.Tx, tenant string, e planner.Entry, written time.Time) error
	Delete(t tx.Tx, tenant string, k Key) error
}

// Ledger is the ledgers of all tenants. It is safe for concurrent use.
type Ledger struct {
	db    *tx.DB
	store Store
}

// New returns the ledger.
func New(db *tx.DB, store Store) *Ledger { return &Ledger{db: db, store: store} }

// Apply moves the tenant's ledger by one receipt. change is the plan's, or nil
// for what an agent did by itself. written is when it happened by the agent's
// clock. Intake calls it once a receipt, inside the transaction that makes the
// receipt's record durable.
func (l *Ledger) Apply(t tx.Tx, tenant string, look planner.Look, change *planv1.Change, r *auditv1.Receipt, written time.Time) error {
	if r.GetAnchor() == "" {
		return nil
	}
	var before []planner.Entry
	var err error
	if r.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_DELETE {
		before, err = l.store.Object(t, tenant, r.GetConnector(), r.GetAnchor())
	} else {
		before, err = l.store.Page(t, tenant, r.GetConnector(), r.GetAnchor(), r.GetMember())
	}
	if err != nil {
		return err
	}
	return l.replace(t, tenant, before, planner.Advance(before, look, change, r), written)
}

// Settle moves the tenant's ledger by a connector's complete snapshot. Entries
// written after observed are left alone: the snapshot does not know them.
func (l *Ledger) Settle(t tx.Tx, tenant string, conn planner.Connector, observed time.Time) error {
	before, err := l.store.Written(t, tenant, conn.Alias, observed)
	if err != nil {
		return err
	}
	return l.replace(t, tenant, before, planner.Settle(before, conn), time.Time{})
}

// replace writes the difference between two states of a part of the ledger.
func (l *Ledger) replace(t tx.Tx, tenant string, before, after []planner.Entry, written time.Time) error {
	stay := make(map[Key]planner.Entry, len(after))
	for _, e := range after {
		stay[KeyOf(e)] = e
	}
	had := make(map[Key]planner.Entry, len(before))
	for _, e := range before {
		had[KeyOf(e)] = e
		if _, ok := stay[KeyOf(e)]; !ok {
			if err := l.store.Delete(t, tenant, KeyOf(e)); err != nil {
				return err
			}
		}
	}
	for _, e := range after {
		if old, ok := had[KeyOf(e)]; ok && reflect.DeepEqual(old, e) {
			continue
		}
		if err := l.store.Put(t, tenant, e, written); err != nil {
			return err
		}
	}
	return nil
}

// All returns the tenant's whole ledger, sorted, as planner.Input wants it.
func (l *Ledger) All(t tx.Tx, tenant string) ([]planner.Entry, error) {
	var all []planner.Entry
	for after := (Key{}); ; {
		list, err := l.store.After(t, tenant, after, 1000)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
		if len(list) < 1000 {
			return all, nil
		}
		after = KeyOf(list[len(list)-1])
	}
}

// List returns up to limit entries after a key, sorted; limit is clamped to
// 1..1000.
func (l *Ledger) List(ctx context.Context, tenant string, after Key, limit int) (list []planner.Entry, err error) {
	limit = min(max(limit, 1), 1000)
	err = l.db.View(ctx, func(t tx.Tx) error { list, err = l.store.After(t, tenant, after, limit); return err })
	return list, err
}

// Object returns what the ledger remembers of one object, sorted.
func (l *Ledger) Object(t tx.Tx, tenant, connector, anchor string) ([]planner.Entry, error) {
	return l.store.Object(t, tenant, connector, anchor)
}

// Identity returns what the ledger remembers for one identity, sorted.
func (l *Ledger) Identity(t tx.Tx, tenant, identity string) ([]planner.Entry, error) {
	return l.store.Identity(t, tenant, identity)
}
