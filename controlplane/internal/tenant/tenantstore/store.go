package tenantstore

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store is tenant.Store over SQL.
type Store struct{}

const columns = `id, name, owner, zone, state, msp, created`

// Insert implements tenant.Store.
func (Store) Insert(t tx.Tx, n tenant.Tenant) error {
	msp := 0
	if n.MSP {
		msp = 1
	}
	res, err := t.Exec(`INSERT INTO tenant (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING`,
		n.ID, n.Name, n.Owner, n.Zone, string(n.State), msp, n.Created.UnixMicro())
	if err != nil {
		return fmt.Errorf("insert tenant %s: %w", n.ID, err)
	}
	if rows, err := res.RowsAffected(); err != nil {
		return err
	} else if rows == 0 {
		return fmt.Errorf("%w: %s; choose another", tenant.ErrExists, n.ID)
	}
	return nil
}

// Get implements tenant.Store.
func (Store) Get(t tx.Tx, id string) (tenant.Tenant, error) {
	n, err := scan(t.QueryRow(`SELECT `+columns+` FROM tenant WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return tenant.Tenant{}, tenant.ErrNotFound
	}
	return n, err
}

// List implements tenant.Store.
func (Store) List(t tx.Tx, after string, limit int) ([]tenant.Tenant, error) {
	rows, err := t.Query(`SELECT `+columns+` FROM tenant WHERE id > $1 ORDER BY id LIMIT $2`, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list tenants: %w", err)
	}
	defer rows.Close()
	var list []tenant.Tenant
	for rows.Next() {
		n, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// SetState implements tenant.Store.
func (Store) SetState(t tx.Tx, id string, from, to tenant.State) error {
	res, err := t.Exec(`UPDATE tenant SET state = $3 WHERE id = $1 AND state = $2`, id, string(from), string(to))
	if err != nil {
		return fmt.Errorf("set state of tenant %s: %w", id, err)
	}
	if rows, err := res.RowsAffected(); err != nil {
		return err
	} else if rows == 0 {
		return fmt.Errorf("%w: tenant %s is no longer %s", tenant.ErrConflict, id, from)
	}
	return nil
}

func scan(row interface{ Scan(...any) error }) (tenant.Tenant, error) {
	var n tenant.Tenant
	var state string
	var created int64
	if err := row.Scan(&n.ID, &n.Name, &n.Owner, &n.Zone, &state, &n.MSP, &created); err != nil {
		return tenant.Tenant{}, err
	}
	n.State, n.Created = tenant.State(state), time.UnixMicro(created).UTC()
	return n, nil
}
