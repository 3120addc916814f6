// Package dispatchstore keeps orders and receipts in SQL.
package dispatchstore

import (
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Store implements dispatch.Store. It has no state of its own.
type Store struct{}

var _ dispatch.Store = Store{}

// Put implements dispatch.Store.
func (Store) Put(t tx.Tx, o dispatch.Order) error {
	_, err := t.Exec(`
		INSERT INTO dispatch_order (id, tenant, agent, plan, epoch, sequence, envelope, state, expires, summary)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		o.ID, o.Tenant, o.Agent, o.Plan, int64(o.Epoch), int64(o.Sequence), o.Envelope, string(o.State), tx.FormatTime(o.Expires), []byte{})
	if err != nil {
		return fmt.Errorf("store order %s: %w", o.ID, err)
	}
	return nil
}

const selectOrder = `SELECT id, tenant, agent, plan, epoch, sequence, envelope, state, expires, summary, refusal FROM dispatch_order`

// Order implements dispatch.Store.
func (Store) Order(t tx.Tx, id string) (dispatch.Order, error) {
	o, err := scan(t.QueryRow(selectOrder+` WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return o, fmt.Errorf("%w: %s", dispatch.ErrNotFound, id)
	}
	return o, err
}

// OfPlan implements dispatch.Store.
func (Store) OfPlan(t tx.Tx, plan string) ([]dispatch.Order, error) {
	return tx.Collect(t, scan, selectOrder+` WHERE plan = $1 ORDER BY agent`, plan)
}

// Open implements dispatch.Store.
func (Store) Open(t tx.Tx, tenant, agent string) ([]dispatch.Order, error) {
	return tx.Collect(t, scan, selectOrder+`
		WHERE state IN ('waiting', 'fetched') AND ($1 = '' AND $2 = '' OR tenant = $1 AND agent = $2) ORDER BY epoch, sequence`, tenant, agent)
}

// SetState implements dispatch.Store.
func (Store) SetState(t tx.Tx, id string, state dispatch.State, summary *auditv1.OrderEvent) error {
	// A nil message marshals to nil, which SQL takes for NULL.
	encoded, err := proto.MarshalOptions{}.MarshalAppend([]byte{}, summary)
	if err != nil {
		return err
	}
	_, err = t.Exec(`UPDATE dispatch_order SET state = $2, summary = $3 WHERE id = $1`, id, string(state), encoded)
	return err
}

// SetRefused implements dispatch.Store.
func (Store) SetRefused(t tx.Tx, id string, why *auditv1.Refusal) error {
	encoded, err := proto.MarshalOptions{}.MarshalAppend([]byte{}, why)
	if err != nil {
		return err
	}
	_, err = t.Exec(`UPDATE dispatch_order SET state = $2, refusal = $3 WHERE id = $1`, id, string(dispatch.StateRefused), encoded)
	return err
}

// LastSequence implements dispatch.Store.
func (Store) LastSequence(t tx.Tx, tenant, agent string, epoch uint64) (uint64, error) {
	var last int64
	err := t.QueryRow(`SELECT COALESCE(MAX(sequence), 0) FROM dispatch_order WHERE tenant = $1 AND agent = $2 AND epoch = $3`,
		tenant, agent, int64(epoch)).Scan(&last)
	return uint64(last), err
}

func scan(row tx.Scanner) (o dispatch.Order, err error) {
	var epoch, sequence int64
	var expires string
	var summary, refusal []byte
	if err := row.Scan(&o.ID, &o.Tenant, &o.Agent, &o.Plan, &epoch, &sequence, &o.Envelope, &o.State, &expires, &summary, &refusal); err != nil {
		return o, err
	}
	o.Epoch, o.Sequence, o.Summary = uint64(epoch), uint64(sequence), new(auditv1.OrderEvent)
	o.Refusal = new(auditv1.Refusal)
	if err := errors.Join(proto.Unmarshal(summary, o.Summary), proto.Unmarshal(refusal, o.Refusal)); err != nil {
		return o, fmt.Errorf("decode end of order %s: %w", o.ID, err)
	}
	o.Expires, err = tx.ParseTime(expires)
	return o, err
}

// PutReceipt implements dispatch.Store.
func (Store) PutReceipt(t tx.Tx, tenant, plan string, r dispatch.Receipt) error {
	receipt, err := proto.Marshal(r.Receipt)
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO change_receipt (plan, change, tenant, entry, receipt, result) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (plan, change) DO UPDATE SET entry = excluded.entry, receipt = excluded.receipt, result = excluded.result`,
		plan, r.Change, tenant, int64(r.Entry), receipt, int64(r.Receipt.GetResult()))
	return err
}

// Results implements dispatch.Store.
func (Store) Results(t tx.Tx, plan string) (map[auditv1.Receipt_Result]uint32, error) {
	type count struct{ result, changes int64 }
	list, err := tx.Collect(t, func(row tx.Scanner) (c count, err error) {
		return c, row.Scan(&c.result, &c.changes)
	}, `SELECT result, count(*) FROM change_receipt WHERE plan = $1 GROUP BY result`, plan)
	out := make(map[auditv1.Receipt_Result]uint32, len(list))
	for _, c := range list {
		out[auditv1.Receipt_Result(c.result)] = uint32(c.changes)
	}
	return out, err
}

// Receipt implements dispatch.Store.
func (Store) Receipt(t tx.Tx, plan, change string) (dispatch.Receipt, bool, error) {
	r, err := scanReceipt(t.QueryRow(`SELECT change, entry, receipt FROM change_receipt WHERE plan = $1 AND change = $2`, plan, change))
	if errors.Is(err, sql.ErrNoRows) {
		return dispatch.Receipt{}, false, nil
	}
	return r, err == nil, err
}

// OfOpenOrders implements dispatch.Store.
func (Store) OfOpenOrders(t tx.Tx, tenant, connector string) ([]dispatch.Receipt, error) {
	all, err := tx.Collect(t, scanReceipt, `
		SELECT change, entry, receipt FROM change_receipt
		WHERE tenant = $1 AND plan IN (SELECT plan FROM dispatch_order WHERE tenant = $1 AND state IN ('waiting', 'fetched'))
		ORDER BY entry`, tenant)
	return slices.DeleteFunc(all, func(r dispatch.Receipt) bool { return r.Receipt.GetConnector() != connector }), err
}

// Find implements dispatch.Store.
func (Store) Find(t tx.Tx, tenant, change string) ([]dispatch.Receipt, error) {
	return tx.Collect(t, scanReceipt, `SELECT change, entry, receipt FROM change_receipt WHERE tenant = $1 AND change = $2 ORDER BY entry`, tenant, change)
}

func scanReceipt(row tx.Scanner) (dispatch.Receipt, error) {
	r := dispatch.Receipt{Receipt: new(auditv1.Receipt)}
	var entry int64
	var receipt []byte
	if err := row.Scan(&r.Change, &entry, &receipt); err != nil {
		return r, err
	}
	r.Entry = uint64(entry)
	return r, proto.Unmarshal(receipt, r.Receipt)
}
