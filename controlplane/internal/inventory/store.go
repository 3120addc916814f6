package inventory

import (
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Store keeps connectors, snapshots and objects. Every method works in the
// caller's transaction; nothing of another tenant is ever returned.
type Store interface {
	// PutConnector inserts or updates a reported connector. Confirmation and
	// snapshots of an existing one stay.
	PutConnector(t tx.Tx, c Connector) error
	// Connector returns ErrNotFound for an alias the tenant does not have.
	Connector(t tx.Tx, tenant, alias string) (Connector, error)
	// Connectors returns the tenant's connectors sorted by alias.
	Connectors(t tx.Tx, tenant string) ([]Connector, error)
	SetConfirmed(t tx.Tx, tenant, alias, fingerprint string) error
	SetSuspended(t tx.Tx, tenant, alias, reason string) error
	SetRebind(t tx.Tx, tenant, alias string, rebind bool) error

	// BeginSnapshot makes seq the snapshot being received and takes back what an
	// abandoned one left.
	BeginSnapshot(t tx.Tx, tenant, alias string, seq int64, id string) error
	// CloseAll ends every live row at seq: the start of a full snapshot.
	CloseAll(t tx.Tx, tenant, alias string, seq int64) error
	// PutObjects adds rows at seq and ends the ones they replace, whose digests it
	// tells.
	PutObjects(t tx.Tx, tenant, alias string, seq int64, objects []Object, ended func(anchor string, digest [32]byte)) error
	// CloseObjects ends rows at seq and tells their digests.
	CloseObjects(t tx.Tx, tenant, alias string, seq int64, anchors []string, ended func(anchor string, digest [32]byte)) error
	// Reopen takes back every end at seq that no new row replaced: what an
	// incomplete read did not see is still there as far as anybody knows.
	Reopen(t tx.Tx, tenant, alias string, seq int64) error
	// EndSnapshot makes seq the current snapshot, with the digest over its objects
	// as connectorv1.SetDigest writes it.
	EndSnapshot(t tx.Tx, tenant, alias string, seq int64, end *agentv1.SnapshotEnd, set []byte) error
	// SetWhole remembers the snapshot that was last read whole and complete.
	SetWhole(t tx.Tx, tenant, alias, snapshot string) error

	// Objects calls f for every live object at seq in ascending order of anchor.
	Objects(t tx.Tx, tenant, alias string, seq int64, f func(Object) error) error
	// ObjectsAfter returns up to limit live objects at seq whose anchors come after
	// the given one, in ascending order of anchor.
	ObjectsAfter(t tx.Tx, tenant, alias string, seq int64, after string, limit int) ([]Object, error)
	// Digests calls f for every live object at seq, in any order.
	Digests(t tx.Tx, tenant, alias string, seq int64, f func(anchor string, digest [32]byte)) error
	// Object returns one live object at seq; ok is false when there is none.
	Object(t tx.Tx, tenant, alias string, seq int64, anchor string) (o Object, ok bool, err error)
	// Prune removes rows that ended at or before seq and the headers of snapshots
	// before it: who needs one later has it in the log and in plans.
	Prune(t tx.Tx, tenant, alias string, seq int64) error
}
