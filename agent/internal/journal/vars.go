package journal

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Var names a single value that the journal keeps for another part of the agent.
type Var string

const (
	// VarPaused holds the reason when `reeve-agent pause` stopped orders.
	VarPaused Var = "paused"
	// VarFrozen holds the reason when the clock jumped forward.
	VarFrozen Var = "frozen"
	// VarLeft is set once the agent has left.
	VarLeft Var = "left"
)

// Set stores a value; empty removes it.
func (tx *Tx) Set(name Var, value string) error {
	if value == "" {
		return tx.del("vars", rowKey("var", string(name)))
	}
	return tx.put("vars", rowKey("var", string(name)), 0, value)
}

// Get returns a stored value, empty if there is none.
func (tx *Tx) Get(name Var) (value string, err error) {
	_, err = tx.get("vars", rowKey("var", string(name)), &value)
	return value, err
}

// Get is Tx.Get on its own.
func (j *Journal) Get(ctx context.Context, name Var) (value string, err error) {
	err = j.View(ctx, func(tx *Tx) error {
		value, err = tx.Get(name)
		return err
	})
	return value, err
}

// Observation is what is kept of a connector's last observation, together with
// the digests of its objects.
type Observation struct {
	// Snapshot is the control plane's last acknowledged one; empty for none.
	Snapshot string
	// Cursor is where changes can be read from, in the connector's words; empty
	// when they cannot. It holds for Scope only.
	Cursor []byte
	Scope  string
	// Set is the digest over the objects (connectorv1.SetDigest).
	Set []byte
}

// SetObservation remembers a connector's last observation.
func (tx *Tx) SetObservation(connector string, o Observation) error {
	return tx.put("vars", rowKey("observation", connector), 0, o)
}

// Observation returns what SetObservation stored, the zero value if nothing.
func (tx *Tx) Observation(connector string) (o Observation, err error) {
	_, err = tx.get("vars", rowKey("observation", connector), &o)
	return o, err
}

// PutObserved remembers the digest of an object as the control plane holds it.
// These rows are not sealed: the snapshot's set digest shows a wrong one, and the
// snapshot is then sent anew.
func (tx *Tx) PutObserved(connector, anchor string, digest [32]byte) error {
	return tx.exec("INSERT INTO observed (connector, anchor, digest) VALUES ($1, $2, $3) ON CONFLICT (connector, anchor) DO UPDATE SET digest = excluded.digest", connector, anchor, digest[:])
}

// PutObservedAll is PutObserved for many, many in one statement: SQLite takes
// longer to prepare one than to carry it out.
func (tx *Tx) PutObservedAll(connector string, digests iter.Seq2[string, [32]byte]) error {
	for chunk := range chunks(digests, observedAtOnce) {
		var query strings.Builder
		query.WriteString("INSERT INTO observed (connector, anchor, digest) VALUES ")
		args := []any{connector}
		for i, o := range chunk {
			if i > 0 {
				query.WriteByte(',')
			}
			fmt.Fprintf(&query, "($1, $%d, $%d)", 2*i+2, 2*i+3)
			args = append(args, o.anchor, o.digest[:])
		}
		query.WriteString(" ON CONFLICT (connector, anchor) DO UPDATE SET digest = excluded.digest")
		if err := tx.exec(query.String(), args...); err != nil {
			return err
		}
	}
	return nil
}

// observedAtOnce is how many objects one statement stores; SQLite's least limit
// is 999 parameters.
const observedAtOnce = 200

type observed struct {
	anchor string
	digest [32]byte
}

// chunks gathers at most size pairs at a time, in memory that is used again.
func chunks(pairs iter.Seq2[string, [32]byte], size int) iter.Seq[[]observed] {
	return func(yield func([]observed) bool) {
		var chunk []observed
		for anchor, digest := range pairs {
			if chunk = append(chunk, observed{anchor, digest}); len(chunk) == size {
				if !yield(chunk) {
					return
				}
				chunk = chunk[:0]
			}
		}
		if len(chunk) > 0 {
			yield(chunk)
		}
	}
}

// DropObserved forgets one object, or with an empty anchor all of a connector.
func (tx *Tx) DropObserved(connector, anchor string) error {
	if anchor == "" {
		return tx.exec("DELETE FROM observed WHERE connector = $1", connector)
	}
	return tx.exec("DELETE FROM observed WHERE connector = $1 AND anchor = $2", connector, anchor)
}

// Observed returns the digest remembered of an object.
func (tx *Tx) Observed(connector, anchor string) (digest [32]byte, found bool, err error) {
	var raw []byte
	err = tx.tx.QueryRowContext(tx.ctx, "SELECT digest FROM observed WHERE connector = $1 AND anchor = $2", connector, anchor).Scan(&raw)
	if errors.Is(err, sql.ErrNoRows) {
		return digest, false, nil
	}
	if err != nil {
		return digest, false, tx.fail(err)
	}
	return digest, copy(digest[:], raw) == len(digest), nil
}

// ObservedAll returns anchor -> digest of a connector, ascending by anchor.
func (tx *Tx) ObservedAll(connector string) iter.Seq2[string, [32]byte] {
	return func(yield func(string, [32]byte) bool) {
		rows, err := tx.tx.QueryContext(tx.ctx, "SELECT anchor, digest FROM observed WHERE connector = $1 ORDER BY anchor", connector)
		if err != nil {
			_ = tx.fail(err)
			return
		}
		defer rows.Close()
		for rows.Next() {
			var anchor string
			var raw sql.RawBytes
			if err := rows.Scan(&anchor, &raw); err != nil {
				_ = tx.fail(err)
				return
			}
			var digest [32]byte
			copy(digest[:], raw)
			if !yield(anchor, digest) {
				return
			}
		}
		if err := rows.Err(); err != nil {
			_ = tx.fail(err)
		}
	}
}

// KeepEffect keeps a receipt that counts (encoded auditv1.Receipt) beside the chain.
// It is not purged with the spool: what it changed from is what `leave` and
// offboarding go back to. Later epochs keep it.
func (tx *Tx) KeepEffect(index uint64, receipt []byte) error {
	// Each epoch counts its records anew.
	return tx.put("effects", rowKey(fmt.Sprintf("%020d", tx.j.o.Identity.Epoch), fmt.Sprintf("%020d", index)), int64(index), bytes.Clone(receipt))
}

// Effects returns every kept receipt, oldest first.
func (tx *Tx) Effects() ([][]byte, error) {
	rows, err := tx.rows("effects", "", 0)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(rows))
	for i, r := range rows {
		out[i] = r.body
	}
	return out, nil
}

// Count returns the number of a connector's observed objects.
func (tx *Tx) Count(connector string) (n uint64, err error) {
	if err := tx.tx.QueryRowContext(tx.ctx, "SELECT count(*) FROM observed WHERE connector = $1", connector).Scan(&n); err != nil {
		return 0, tx.fail(err)
	}
	return n, nil
}

func (tx *Tx) stringMap(table string, first string) (map[string]string, error) {
	rows, err := tx.rows(table, rowKey(first), 0)
	if err != nil {
		return nil, err
	}
	prefix := len(rowKey(first))
	out := make(map[string]string, len(rows))
	for _, r := range rows {
		key, err := strconv.Unquote(r.key[prefix : len(r.key)-1])
		if err != nil {
			return nil, fmt.Errorf("journal key %q: %w", r.key, err)
		}
		var v string
		if err := decodeRow(r.body, &v); err != nil {
			return nil, err
		}
		out[key] = v
	}
	return out, nil
}

func sortBySequence(orders []Order) {
	slices.SortFunc(orders, func(a, b Order) int { return cmp.Compare(a.Sequence, b.Sequence) })
}
