// Package grantstore keeps grants in SQL.
package grantstore

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store implements grant.Store. It has no state of its own.
type Store struct{}

var _ grant.Store = Store{}

// Put implements grant.Store.
func (Store) Put(t tx.Tx, tenant string, g grant.Grant) error {
	_, err := t.Exec(`
		INSERT INTO access_grant (tenant, id, identity, entitlement, cause, reason, ticket, starts, ends, ended)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (tenant, id) DO UPDATE SET ends = excluded.ends, ended = excluded.ended`,
		tenant, g.ID, g.Identity, g.Entitlement, g.Cause, g.Reason, g.Ticket, tx.FormatTime(g.Starts), tx.FormatTime(g.Ends), tx.FormatTime(g.Ended))
	return err
}

const selectGrant = `SELECT id, identity, entitlement, cause, reason, ticket, starts, ends, ended FROM access_grant WHERE tenant = $1`

// Get implements grant.Store.
func (Store) Get(t tx.Tx, tenant, id string) (grant.Grant, error) {
	g, err := scan(t.QueryRow(selectGrant+` AND id = $2`, tenant, id))
	if errors.Is(err, sql.ErrNoRows) {
		return g, fmt.Errorf("%w: %s", grant.ErrNotFound, id)
	}
	return g, err
}

// List implements grant.Store.
func (Store) List(t tx.Tx, tenant, after string, limit int) ([]grant.Grant, error) {
	if limit <= 0 {
		limit = -1
	}
	return tx.Collect(t, scan, selectGrant+` AND id > $2 ORDER BY id LIMIT $3`, tenant, after, limit)
}

func scan(row tx.Scanner) (g grant.Grant, err error) {
	var starts, ends, ended string
	if err := row.Scan(&g.ID, &g.Identity, &g.Entitlement, &g.Cause, &g.Reason, &g.Ticket, &starts, &ends, &ended); err != nil {
		return g, err
	}
	var errs [3]error
	g.Starts, errs[0] = tx.ParseTime(starts)
	g.Ends, errs[1] = tx.ParseTime(ends)
	g.Ended, errs[2] = tx.ParseTime(ended)
	return g, errors.Join(errs[:]...)
}
