package intakestore

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/chain"
)

// ErrMoved means that the chain has another length than its writer believed.
var ErrMoved = errors.New("chain moved meanwhile")

// Store is intake.Store and enrollment.Chains over SQL.
type Store struct{}

// Head implements intake.Store and enrollment.Chains.
func (Store) Head(t tx.Tx, tenant, agent string, epoch uint64) (chain.Head, bool, error) {
	var h chain.Head
	var link []byte
	err := t.QueryRow(`SELECT length, link FROM chain WHERE tenant = $1 AND agent = $2 AND epoch = $3`, tenant, agent, epoch).Scan(&h.Next, &link)
	if errors.Is(err, sql.ErrNoRows) {
		return chain.Head{}, false, nil
	}
	if err == nil && copy(h.Link[:], link) != chain.Size {
		err = fmt.Errorf("link of %d bytes", len(link))
	}
	if err != nil {
		return chain.Head{}, false, fmt.Errorf("read chain of %s/%s: %w", tenant, agent, err)
	}
	return h, true, nil
}

// Advance implements intake.Store.
func (Store) Advance(t tx.Tx, tenant, agent string, epoch, from uint64, to chain.Head) error {
	statement := `UPDATE chain SET length = $5, link = $6 WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND length = $4`
	if from == 0 {
		// Every argument has its place in the text, for drivers that count them.
		statement = `INSERT INTO chain (tenant, agent, epoch, length, link) SELECT $1, $2, $3, $5, $6 WHERE $4 = 0 ON CONFLICT DO NOTHING`
	}
	res, err := t.Exec(statement, tenant, agent, epoch, from, to.Next, to.Link[:])
	if err != nil {
		return fmt.Errorf("move chain of %s/%s: %w", tenant, agent, err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n != 1 {
		return ErrMoved
	}
	return nil
}
