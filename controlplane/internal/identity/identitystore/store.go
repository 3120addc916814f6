// Package identitystore keeps identities in SQL.
package identitystore

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store implements identity.Store. It has no state of its own.
type Store struct{}

var _ identity.Store = Store{}

// Put implements identity.Store.
func (Store) Put(t tx.Tx, tenant string, i identity.Identity) error {
	attributes, err := json.Marshal(i.Attributes)
	if err != nil {
		return err
	}
	references, err := json.Marshal(i.References)
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO identity (tenant, id, kind, label, attributes, refs, suspended, starts, ends, missing, missing_since)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (tenant, id) DO UPDATE SET kind = excluded.kind, label = excluded.label, attributes = excluded.attributes, refs = excluded.refs,
			suspended = excluded.suspended, starts = excluded.starts, ends = excluded.ends,
			missing = excluded.missing, missing_since = excluded.missing_since`,
		tenant, i.ID, i.Kind, i.Label, string(attributes), string(references), i.Suspended, tx.FormatTime(i.Starts), tx.FormatTime(i.Ends), i.Missing, tx.FormatTime(i.MissingSince))
	return err
}

const selectIdentity = `SELECT id, kind, label, attributes, refs, suspended, starts, ends, missing, missing_since FROM identity WHERE tenant = $1`

// Get implements identity.Store.
func (Store) Get(t tx.Tx, tenant, id string) (identity.Identity, error) {
	i, err := scanIdentity(t.QueryRow(selectIdentity+` AND id = $2`, tenant, id))
	if errors.Is(err, sql.ErrNoRows) {
		return i, fmt.Errorf("%w: %s", identity.ErrNotFound, id)
	}
	return i, err
}

// List implements identity.Store.
func (Store) List(t tx.Tx, tenant, after string, limit int) ([]identity.Identity, error) {
	if limit <= 0 {
		limit = -1
	}
	return tx.Collect(t, scanIdentity, selectIdentity+` AND id > $2 ORDER BY id LIMIT $3`, tenant, after, limit)
}

func scanIdentity(row tx.Scanner) (i identity.Identity, err error) {
	var attributes, references, starts, ends, since string
	if err := row.Scan(&i.ID, &i.Kind, &i.Label, &attributes, &references, &i.Suspended, &starts, &ends, &i.Missing, &since); err != nil {
		return i, err
	}
	if err := errors.Join(json.Unmarshal([]byte(attributes), &i.Attributes), json.Unmarshal([]byte(references), &i.References)); err != nil {
		return i, fmt.Errorf("decode attributes of identity %s: %w", i.ID, err)
	}
	var errs [3]error
	i.Starts, errs[0] = tx.ParseTime(starts)
	i.Ends, errs[1] = tx.ParseTime(ends)
	i.MissingSince, errs[2] = tx.ParseTime(since)
	return i, errors.Join(errs[:]...)
}

// PutLink implements identity.Store.
func (Store) PutLink(t tx.Tx, tenant string, l identity.Link) error {
	said, err := json.Marshal(l.Said)
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO source_link (tenant, connector, anchor, identity, snapshot, said, missing, missing_since) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (tenant, connector, anchor) DO UPDATE SET identity = excluded.identity, snapshot = excluded.snapshot,
			said = excluded.said, missing = excluded.missing, missing_since = excluded.missing_since`,
		tenant, l.Connector, l.Anchor, l.Identity, l.Snapshot, string(said), l.Missing, tx.FormatTime(l.MissingSince))
	return err
}

// DeleteLink implements identity.Store.
func (Store) DeleteLink(t tx.Tx, tenant, connector, anchor string) error {
	_, err := t.Exec(`DELETE FROM source_link WHERE tenant = $1 AND connector = $2 AND anchor = $3`, tenant, connector, anchor)
	return err
}

// Links implements identity.Store.
func (Store) Links(t tx.Tx, tenant string) ([]identity.Link, error) {
	return tx.Collect(t, scanLink, selectLink+` ORDER BY connector, anchor`, tenant)
}

// LinksOf implements identity.Store.
func (Store) LinksOf(t tx.Tx, tenant, first, last string) ([]identity.Link, error) {
	return tx.Collect(t, scanLink, selectLink+` AND identity BETWEEN $2 AND $3 ORDER BY identity, connector, anchor`, tenant, first, last)
}

const selectLink = `SELECT connector, anchor, identity, snapshot, said, missing, missing_since FROM source_link WHERE tenant = $1`

func scanLink(row tx.Scanner) (l identity.Link, err error) {
	var said, since string
	if err := row.Scan(&l.Connector, &l.Anchor, &l.Identity, &l.Snapshot, &said, &l.Missing, &since); err != nil {
		return l, err
	}
	if err := json.Unmarshal([]byte(said), &l.Said); err != nil {
		return l, fmt.Errorf("decode what %s said of %s: %w", l.Connector, l.Identity, err)
	}
	l.MissingSince, err = tx.ParseTime(since)
	return l, err
}

// PutAccount implements identity.Store.
func (Store) PutAccount(t tx.Tx, tenant string, a identity.Account) error {
	_, err := t.Exec(`
		INSERT INTO account (tenant, connector, anchor, identity, purpose, type, created) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (tenant, connector, anchor) DO UPDATE SET identity = excluded.identity, purpose = excluded.purpose,
			type = excluded.type, created = excluded.created`,
		tenant, a.Connector, a.Anchor, a.Identity, a.Purpose, a.Type, a.Created)
	return err
}

// DeleteAccount implements identity.Store.
func (Store) DeleteAccount(t tx.Tx, tenant, connector, anchor string) error {
	_, err := t.Exec(`DELETE FROM account WHERE tenant = $1 AND connector = $2 AND anchor = $3`, tenant, connector, anchor)
	return err
}

// Accounts implements identity.Store.
func (Store) Accounts(t tx.Tx, tenant string) ([]identity.Account, error) {
	return tx.Collect(t, scanAccount, selectAccount+` ORDER BY connector, anchor`, tenant)
}

// AccountsOf implements identity.Store.
func (Store) AccountsOf(t tx.Tx, tenant, first, last string) ([]identity.Account, error) {
	return tx.Collect(t, scanAccount, selectAccount+` AND identity BETWEEN $2 AND $3 ORDER BY identity, connector, anchor`, tenant, first, last)
}

// Account implements identity.Store.
func (Store) Account(t tx.Tx, tenant, connector, anchor string) (identity.Account, bool, error) {
	a, err := scanAccount(t.QueryRow(selectAccount+` AND connector = $2 AND anchor = $3`, tenant, connector, anchor))
	if errors.Is(err, sql.ErrNoRows) {
		return a, false, nil
	}
	return a, err == nil, err
}

const selectAccount = `SELECT connector, anchor, identity, purpose, type, created FROM account WHERE tenant = $1`

func scanAccount(row tx.Scanner) (a identity.Account, err error) {
	err = row.Scan(&a.Connector, &a.Anchor, &a.Identity, &a.Purpose, &a.Type, &a.Created)
	return a, err
}

// PutCase implements identity.Store.
func (Store) PutCase(t tx.Tx, tenant string, c identity.Case) error {
	candidates, err := json.Marshal(c.Candidates)
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO open_case (tenant, id, kind, connector, type, purpose, subject, candidates, sentence, opened, decision)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (tenant, id) DO UPDATE SET decision = excluded.decision`,
		tenant, c.ID, string(c.Kind), c.Connector, c.Type, c.Purpose, c.Subject, string(candidates), c.Sentence, tx.FormatTime(c.Opened), c.Decision)
	return err
}

const selectCase = `SELECT id, kind, connector, type, purpose, subject, candidates, sentence, opened, decision FROM open_case WHERE tenant = $1`

// Case implements identity.Store.
func (Store) Case(t tx.Tx, tenant, id string) (identity.Case, error) {
	c, err := scanCase(t.QueryRow(selectCase+` AND id = $2`, tenant, id))
	if errors.Is(err, sql.ErrNoRows) {
		return c, fmt.Errorf("%w: %s", identity.ErrCaseNotFound, id)
	}
	return c, err
}

// Cases implements identity.Store.
func (Store) Cases(t tx.Tx, tenant string, decided bool) ([]identity.Case, error) {
	return tx.Collect(t, scanCase, selectCase+` AND ($2 OR decision = '') ORDER BY id`, tenant, decided)
}

func scanCase(row tx.Scanner) (c identity.Case, err error) {
	var candidates, opened string
	if err := row.Scan(&c.ID, &c.Kind, &c.Connector, &c.Type, &c.Purpose, &c.Subject, &candidates, &c.Sentence, &opened, &c.Decision); err != nil {
		return c, err
	}
	if err := json.Unmarshal([]byte(candidates), &c.Candidates); err != nil {
		return c, fmt.Errorf("decode case %s: %w", c.ID, err)
	}
	c.Opened, err = tx.ParseTime(opened)
	return c, err
}
