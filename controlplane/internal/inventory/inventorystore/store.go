// Package inventorystore keeps inventory in SQL.
package inventorystore

import (
	"database/sql"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Store implements inventory.Store. It has no state of its own.
type Store struct{}

var _ inventory.Store = Store{}

// PutConnector implements inventory.Store.
func (Store) PutConnector(t tx.Tx, c inventory.Connector) error {
	state, err := proto.Marshal(c.State)
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO connector (tenant, alias, agent, state, fingerprint) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, alias) DO UPDATE SET agent = excluded.agent, state = excluded.state, fingerprint = excluded.fingerprint`,
		c.Tenant, c.Alias, c.Agent, state, c.Fingerprint)
	return err
}

const selectConnector = `
	SELECT c.tenant, c.alias, c.agent, c.state, c.fingerprint, c.confirmed, c.suspended, c.rebind, c.current, c.receiving, c.receiving_id, c.digests, c.whole,
	       s.header, s.method, s.problems
	FROM connector c
	LEFT JOIN snapshot s ON s.tenant = c.tenant AND s.connector = c.alias AND s.seq = c.current
	WHERE c.tenant = $1`

// Connector implements inventory.Store.
func (Store) Connector(t tx.Tx, tenant, alias string) (inventory.Connector, error) {
	c, err := scan(t.QueryRow(selectConnector+` AND c.alias = $2`, tenant, alias))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("%w: %s", inventory.ErrNotFound, alias)
	}
	return c, err
}

// Connectors implements inventory.Store.
func (Store) Connectors(t tx.Tx, tenant string) ([]inventory.Connector, error) {
	return tx.Collect(t, scan, selectConnector+` ORDER BY c.alias`, tenant)
}

func scan(row tx.Scanner) (inventory.Connector, error) {
	c := inventory.Connector{State: new(agentv1.ConnectorState)}
	var state, header, problems []byte
	var method sql.NullString
	err := row.Scan(&c.Tenant, &c.Alias, &c.Agent, &state, &c.Fingerprint, &c.Confirmed, &c.Suspended, &c.Rebind,
		&c.Current, &c.Receiving, &c.ReceivingID, &c.Set, &c.Whole, &header, &method, &problems)
	if err != nil {
		return c, err
	}
	if err := proto.Unmarshal(state, c.State); err != nil {
		return c, fmt.Errorf("decode connector %s: %w", c.Alias, err)
	}
	if header == nil {
		return c, nil
	}
	c.Header = new(planv1.SnapshotHeader)
	end := new(agentv1.SnapshotEnd)
	if err := errors.Join(proto.Unmarshal(header, c.Header), proto.Unmarshal(problems, end)); err != nil {
		return c, fmt.Errorf("decode snapshot of %s: %w", c.Alias, err)
	}
	c.Method, c.Problems = method.String, end.GetProblems()
	return c, nil
}

// SetConfirmed implements inventory.Store.
func (Store) SetConfirmed(t tx.Tx, tenant, alias, fingerprint string) error {
	_, err := t.Exec(`UPDATE connector SET confirmed = $3 WHERE tenant = $1 AND alias = $2`, tenant, alias, fingerprint)
	return err
}

// SetSuspended implements inventory.Store.
func (Store) SetSuspended(t tx.Tx, tenant, alias, reason string) error {
	_, err := t.Exec(`UPDATE connector SET suspended = $3 WHERE tenant = $1 AND alias = $2`, tenant, alias, reason)
	return err
}

// SetRebind implements inventory.Store.
func (Store) SetRebind(t tx.Tx, tenant, alias string, rebind bool) error {
	_, err := t.Exec(`UPDATE connector SET rebind = $3 WHERE tenant = $1 AND alias = $2`, tenant, alias, rebind)
	return err
}

// BeginSnapshot implements inventory.Store.
func (Store) BeginSnapshot(t tx.Tx, tenant, alias string, seq int64, id string) error {
	var current, abandoned int64
	if err := t.QueryRow(`SELECT current, receiving FROM connector WHERE tenant = $1 AND alias = $2`, tenant, alias).Scan(&current, &abandoned); err != nil {
		return err
	}
	if abandoned != 0 {
		// These read every row of the connector.
		for _, undo := range []string{
			`DELETE FROM object WHERE tenant = $1 AND connector = $2 AND valid_from > $3`,
			`UPDATE object SET valid_to = NULL WHERE tenant = $1 AND connector = $2 AND valid_to > $3`,
		} {
			if _, err := t.Exec(undo, tenant, alias, current); err != nil {
				return err
			}
		}
	}
	_, err := t.Exec(`UPDATE connector SET receiving = $3, receiving_id = $4 WHERE tenant = $1 AND alias = $2`, tenant, alias, seq, id)
	return err
}

// CloseAll implements inventory.Store.
func (Store) CloseAll(t tx.Tx, tenant, alias string, seq int64) error {
	_, err := t.Exec(`UPDATE object SET valid_to = $3 WHERE tenant = $1 AND connector = $2 AND valid_to IS NULL`, tenant, alias, seq)
	return err
}

// PutObjects implements inventory.Store.
func (s Store) PutObjects(t tx.Tx, tenant, alias string, seq int64, objects []inventory.Object, ended func(string, [32]byte)) error {
	closeOld, err := t.Prepare(closeLive)
	if err != nil {
		return err
	}
	defer closeOld.Close()
	// A batch may be sent again after a lost acknowledgement.
	drop, err := t.Prepare(`DELETE FROM object WHERE tenant = $1 AND connector = $2 AND anchor = $3 AND valid_to IS NULL AND valid_from = $4 RETURNING digest`)
	if err != nil {
		return err
	}
	defer drop.Close()
	insert, err := t.Prepare(`
		INSERT INTO object (tenant, connector, anchor, type, digest, body, valid_from) VALUES ($1, $2, $3, $4, $5, $6, $7)`)
	if err != nil {
		return err
	}
	defer insert.Close()
	for _, o := range objects {
		if err := end(drop.QueryRow(tenant, alias, o.Anchor, seq), o.Anchor, ended); err != nil {
			return err
		}
		if err := end(closeOld.QueryRow(tenant, alias, o.Anchor, seq), o.Anchor, ended); err != nil {
			return err
		}
		if _, err := insert.Exec(tenant, alias, o.Anchor, o.Type, o.Digest[:], o.Body, seq); err != nil {
			return err
		}
	}
	return nil
}

// end tells the digest of the row that ended, if there was one.
func end(row *sql.Row, anchor string, ended func(string, [32]byte)) error {
	var raw []byte
	if err := row.Scan(&raw); errors.Is(err, sql.ErrNoRows) {
		return nil
	} else if err != nil {
		return err
	}
	digest, err := digestOf(anchor, raw)
	if err == nil {
		ended(anchor, digest)
	}
	return err
}

func digestOf(anchor string, raw []byte) (digest [32]byte, err error) {
	if copy(digest[:], raw) != len(digest) {
		return digest, fmt.Errorf("object %s has a digest of %d bytes", anchor, len(raw))
	}
	return digest, nil
}

const closeLive = `UPDATE object SET valid_to = $4 WHERE tenant = $1 AND connector = $2 AND anchor = $3 AND valid_to IS NULL RETURNING digest`

// CloseObjects implements inventory.Store.
func (Store) CloseObjects(t tx.Tx, tenant, alias string, seq int64, anchors []string, ended func(string, [32]byte)) error {
	for _, anchor := range anchors {
		if err := end(t.QueryRow(closeLive, tenant, alias, anchor, seq), anchor, ended); err != nil {
			return err
		}
	}
	return nil
}

// Reopen implements inventory.Store.
func (Store) Reopen(t tx.Tx, tenant, alias string, seq int64) error {
	_, err := t.Exec(`
		UPDATE object SET valid_to = NULL
		WHERE tenant = $1 AND connector = $2 AND valid_to = $3 AND valid_from < $3
		  AND anchor NOT IN (SELECT anchor FROM object WHERE tenant = $1 AND connector = $2 AND valid_to IS NULL)`, tenant, alias, seq)
	return err
}

// EndSnapshot implements inventory.Store.
func (Store) EndSnapshot(t tx.Tx, tenant, alias string, seq int64, end *agentv1.SnapshotEnd, set []byte) error {
	header, err := proto.Marshal(end.GetHeader())
	if err != nil {
		return err
	}
	rest, err := proto.Marshal(&agentv1.SnapshotEnd{Problems: end.GetProblems()})
	if err != nil {
		return err
	}
	if _, err := t.Exec(`
		INSERT INTO snapshot (tenant, connector, seq, header, method, problems) VALUES ($1, $2, $3, $4, $5, $6)`,
		tenant, alias, seq, header, end.GetMethod(), rest); err != nil {
		return err
	}
	_, err = t.Exec(`
		UPDATE connector SET current = $3, receiving = 0, receiving_id = '', digests = $4 WHERE tenant = $1 AND alias = $2`, tenant, alias, seq, set)
	return err
}

// SetWhole implements inventory.Store.
func (Store) SetWhole(t tx.Tx, tenant, alias, snapshot string) error {
	_, err := t.Exec(`UPDATE connector SET whole = $3 WHERE tenant = $1 AND alias = $2`, tenant, alias, snapshot)
	return err
}

const live = ` FROM object WHERE tenant = $1 AND connector = $2 AND valid_from <= $3 AND (valid_to IS NULL OR valid_to > $3)`

// Objects implements inventory.Store.
func (Store) Objects(t tx.Tx, tenant, alias string, seq int64, f func(inventory.Object) error) error {
	rows, err := t.Query(`SELECT anchor, type, digest, body`+live+` ORDER BY anchor`, tenant, alias, seq)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		o, err := scanObject(rows)
		if err != nil {
			return err
		}
		if err := f(o); err != nil {
			return err
		}
	}
	return rows.Err()
}

// ObjectsAfter implements inventory.Store.
func (Store) ObjectsAfter(t tx.Tx, tenant, alias string, seq int64, after string, limit int) ([]inventory.Object, error) {
	return tx.Collect(t, scanObject, `SELECT anchor, type, digest, body`+live+` AND anchor > $4 ORDER BY anchor LIMIT $5`, tenant, alias, seq, after, limit)
}

// Digests implements inventory.Store.
func (Store) Digests(t tx.Tx, tenant, alias string, seq int64, f func(string, [32]byte)) error {
	rows, err := t.Query(`SELECT anchor, digest`+live, tenant, alias, seq)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var anchor string
		var raw []byte
		if err := rows.Scan(&anchor, &raw); err != nil {
			return err
		}
		digest, err := digestOf(anchor, raw)
		if err != nil {
			return err
		}
		f(anchor, digest)
	}
	return rows.Err()
}

// Object implements inventory.Store.
func (Store) Object(t tx.Tx, tenant, alias string, seq int64, anchor string) (inventory.Object, bool, error) {
	o, err := scanObject(t.QueryRow(`SELECT anchor, type, digest, body`+live+` AND anchor = $4`, tenant, alias, seq, anchor))
	if errors.Is(err, sql.ErrNoRows) {
		return o, false, nil
	}
	return o, err == nil, err
}

func scanObject(row tx.Scanner) (o inventory.Object, err error) {
	var digest []byte
	if err := row.Scan(&o.Anchor, &o.Type, &digest, &o.Body); err != nil {
		return o, err
	}
	o.Digest, err = digestOf(o.Anchor, digest)
	return o, err
}

// Prune implements inventory.Store.
func (Store) Prune(t tx.Tx, tenant, alias string, seq int64) error {
	if _, err := t.Exec(`DELETE FROM object WHERE tenant = $1 AND connector = $2 AND valid_to <= $3`, tenant, alias, seq); err != nil {
		return err
	}
	_, err := t.Exec(`DELETE FROM snapshot WHERE tenant = $1 AND connector = $2 AND seq < $3`, tenant, alias, seq)
	return err
}
