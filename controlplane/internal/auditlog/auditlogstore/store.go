package auditlogstore

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store is auditlog.Store over SQL.
type Store struct{}

// Head implements auditlog.Store.
func (Store) Head(t tx.Tx, tenant string) (auditlog.Head, error) {
	var h auditlog.Head
	var at int64
	err := t.QueryRow(`SELECT size, sealed, checkpoint, sealed_at FROM log_head WHERE tenant = $1`, tenant).
		Scan(&h.Size, &h.Checkpoint.Size, &h.Checkpoint.Note, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return auditlog.Head{}, nil
	}
	if err != nil {
		return auditlog.Head{}, fmt.Errorf("read log head of %s: %w", tenant, err)
	}
	if h.Checkpoint.Note != "" {
		h.Checkpoint.At = time.UnixMicro(at).UTC()
	}
	return h, nil
}

// Grow implements auditlog.Store.
func (Store) Grow(t tx.Tx, tenant string, from, to uint64) error {
	statement := `UPDATE log_head SET size = $3 WHERE tenant = $1 AND size = $2`
	if from == 0 {
		statement = `INSERT INTO log_head (tenant, size) VALUES ($1, $3)
			ON CONFLICT (tenant) DO UPDATE SET size = excluded.size WHERE log_head.size = $2`
	}
	return one(t, auditlog.ErrConflict, statement, tenant, from, to)
}

// Seal implements auditlog.Store.
func (Store) Seal(t tx.Tx, tenant string, c auditlog.Checkpoint) error {
	return one(t, auditlog.ErrConflict, `UPDATE log_head SET sealed = $2, checkpoint = $3, sealed_at = $4 WHERE tenant = $1 AND sealed <= $2 AND size >= $2`,
		tenant, c.Size, c.Note, c.At.UnixMicro())
}

// Tile implements auditlog.Store.
func (Store) Tile(t tx.Tx, tenant string, level int, n uint64) ([]byte, error) {
	var hashes []byte
	err := t.QueryRow(`SELECT hashes FROM log_tile WHERE tenant = $1 AND level = $2 AND n = $3`, tenant, level, n).Scan(&hashes)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read tile %d/%d of %s: %w", level, n, tenant, err)
	}
	return hashes, nil
}

// PutTile implements auditlog.Store.
func (Store) PutTile(t tx.Tx, tenant string, level int, n uint64, hashes []byte) error {
	return one(t, auditlog.ErrConflict, `INSERT INTO log_tile (tenant, level, n, hashes) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, level, n) DO UPDATE SET hashes = excluded.hashes`, tenant, level, n, hashes)
}

// PutPart implements auditlog.Store.
func (Store) PutPart(t tx.Tx, tenant string, p auditlog.Part) error {
	return one(t, auditlog.ErrConflict, `INSERT INTO log_part (tenant, first, count, entries) VALUES ($1, $2, $3, $4)`,
		tenant, p.First, p.Count, p.Entries)
}

// Parts implements auditlog.Store.
func (Store) Parts(t tx.Tx, tenant string, from uint64, limit int) ([]auditlog.Part, error) {
	rows, err := t.Query(`SELECT first, count, entries FROM log_part WHERE tenant = $1
		AND first >= COALESCE((SELECT MAX(first) FROM log_part WHERE tenant = $1 AND first <= $2), $2)
		ORDER BY first LIMIT $3`, tenant, from, limit)
	if err != nil {
		return nil, fmt.Errorf("read log entries of %s: %w", tenant, err)
	}
	defer rows.Close()
	var out []auditlog.Part
	for rows.Next() {
		var p auditlog.Part
		if err := rows.Scan(&p.First, &p.Count, &p.Entries); err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, rows.Err()
}

// PutBody implements auditlog.Store.
func (Store) PutBody(t tx.Tx, tenant string, entry uint64, salt, body []byte) error {
	if body == nil {
		body = []byte{}
	}
	return one(t, auditlog.ErrConflict, `INSERT INTO log_body (tenant, entry, salt, body) VALUES ($1, $2, $3, $4)`, tenant, entry, salt, body)
}

// Bodies implements auditlog.Store.
func (Store) Bodies(t tx.Tx, tenant string, from, to uint64) (map[uint64]auditlog.SaltedBody, error) {
	rows, err := t.Query(`SELECT entry, salt, body FROM log_body WHERE tenant = $1 AND entry >= $2 AND entry < $3`, tenant, from, to)
	if err != nil {
		return nil, fmt.Errorf("read record bodies of %s: %w", tenant, err)
	}
	defer rows.Close()
	out := map[uint64]auditlog.SaltedBody{}
	for rows.Next() {
		var entry uint64
		var b auditlog.SaltedBody
		if err := rows.Scan(&entry, &b.Salt, &b.Body); err != nil {
			return nil, err
		}
		out[entry] = b
	}
	return out, rows.Err()
}

// EraseBody implements auditlog.Store.
func (Store) EraseBody(t tx.Tx, tenant string, entry uint64) error {
	return one(t, auditlog.ErrNotFound, `UPDATE log_body SET salt = NULL, body = NULL WHERE tenant = $1 AND entry = $2`, tenant, entry)
}

// PutBatch implements auditlog.Store.
func (Store) PutBatch(t tx.Tx, tenant string, b auditlog.StoredBatch) error {
	return one(t, auditlog.ErrConflict, `INSERT INTO log_batch (tenant, first, count, agent, epoch, chain, batch) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tenant, b.First, b.Count, b.Agent, b.Epoch, b.Chain, b.Batch)
}

// Batches implements auditlog.Store.
func (Store) Batches(t tx.Tx, tenant string, from uint64, limit int) ([]auditlog.StoredBatch, error) {
	return batches(t, tenant, `SELECT first, count, agent, epoch, chain, batch FROM log_batch WHERE tenant = $1
		AND first >= COALESCE((SELECT MAX(first) FROM log_batch WHERE tenant = $1 AND first <= $2), $2) AND first + count > $2
		ORDER BY first LIMIT $3`, tenant, from, limit)
}

// BatchesOf implements auditlog.Store.
func (Store) BatchesOf(t tx.Tx, tenant, agent string, epoch, from uint64, limit int) ([]auditlog.StoredBatch, error) {
	return batches(t, tenant, `SELECT first, count, agent, epoch, chain, batch FROM log_batch WHERE tenant = $1 AND agent = $2 AND epoch = $3
		AND chain >= COALESCE((SELECT MAX(chain) FROM log_batch WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND chain <= $4), $4)
		AND chain + count > $4 ORDER BY chain LIMIT $5`, tenant, agent, epoch, from, limit)
}

func batches(t tx.Tx, tenant, query string, args ...any) ([]auditlog.StoredBatch, error) {
	rows, err := t.Query(query, args...)
	if err != nil {
		return nil, fmt.Errorf("read batches of %s: %w", tenant, err)
	}
	defer rows.Close()
	var out []auditlog.StoredBatch
	for rows.Next() {
		var b auditlog.StoredBatch
		if err := rows.Scan(&b.First, &b.Count, &b.Agent, &b.Epoch, &b.Chain, &b.Batch); err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, rows.Err()
}

// ReplaceBatch implements auditlog.Store.
func (Store) ReplaceBatch(t tx.Tx, tenant string, first uint64, batch []byte) error {
	return one(t, auditlog.ErrNotFound, `UPDATE log_batch SET batch = $3 WHERE tenant = $1 AND first = $2`, tenant, first, batch)
}

// PutCosignature implements auditlog.Store.
func (Store) PutCosignature(t tx.Tx, tenant string, c auditlog.Cosignature) error {
	return one(t, auditlog.ErrConflict, `INSERT INTO log_cosignature (tenant, witness, size, line, refused, at) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, witness) DO UPDATE SET size = excluded.size, line = excluded.line, refused = excluded.refused, at = excluded.at`,
		tenant, c.Witness, c.Size, c.Line, c.Refused, c.At.UnixMicro())
}

// Cosignatures implements auditlog.Store.
func (Store) Cosignatures(t tx.Tx, tenant string) ([]auditlog.Cosignature, error) {
	rows, err := t.Query(`SELECT witness, size, line, refused, at FROM log_cosignature WHERE tenant = $1 ORDER BY witness`, tenant)
	if err != nil {
		return nil, fmt.Errorf("read cosignatures of %s: %w", tenant, err)
	}
	defer rows.Close()
	var out []auditlog.Cosignature
	for rows.Next() {
		var c auditlog.Cosignature
		var at int64
		if err := rows.Scan(&c.Witness, &c.Size, &c.Line, &c.Refused, &at); err != nil {
			return nil, err
		}
		c.At = time.UnixMicro(at).UTC()
		out = append(out, c)
	}
	return out, rows.Err()
}

// one runs a statement that must touch a row; none is answered by otherwise.
func one(t tx.Tx, otherwise error, statement string, args ...any) error {
	res, err := t.Exec(statement, args...)
	if err != nil {
		return fmt.Errorf("write log: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		return otherwise
	}
	return nil
}
