package ledgerstore

import (
	"encoding/json"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Store is ledger.Store over SQL.
type Store struct{}

// kept is what an entry holds beside its place.
type kept struct {
	Type       string    `json:"type"`
	Before     [][]byte  `json:"before,omitempty"`
	BeforeName []byte    `json:"before_name,omitempty"`
	Last       [][]byte  `json:"last,omitempty"`
	LastName   []byte    `json:"last_name,omitempty"`
	Identity   string    `json:"identity,omitempty"`
	Change     string    `json:"change,omitempty"`
	Rule       string    `json:"rule,omitempty"`
	Grant      string    `json:"grant,omitempty"`
	EndsAt     time.Time `json:"ends_at,omitzero"`
	Additive   bool      `json:"additive,omitempty"`
	Diverged   bool      `json:"diverged,omitempty"`
	Keys       []string  `json:"keys,omitempty"`
	Place      int       `json:"place,omitempty"`
}

const (
	columns = `connector, anchor, item, attribute, value, member, cause, entry`
	order   = ` ORDER BY connector, anchor, item, attribute, value, member, cause`
)

// Page implements ledger.Store.
func (Store) Page(t tx.Tx, tenant, connector, anchor, member string) ([]planner.Entry, error) {
	return list(t, `WHERE tenant = $1 AND connector = $2 AND anchor = $3 AND member = $4`+order, tenant, connector, anchor, member)
}

// Object implements ledger.Store.
func (Store) Object(t tx.Tx, tenant, connector, anchor string) ([]planner.Entry, error) {
	return list(t, `WHERE tenant = $1 AND connector = $2 AND (anchor = $3 OR (member = $3 AND member <> ''))`+order, tenant, connector, anchor)
}

// Written implements ledger.Store.
func (Store) Written(t tx.Tx, tenant, connector string, before time.Time) ([]planner.Entry, error) {
	// The layers of an item are judged together or not at all.
	return list(t, `WHERE tenant = $1 AND connector = $2 AND NOT EXISTS (
		SELECT 1 FROM ledger newer
		WHERE newer.tenant = ledger.tenant AND newer.connector = ledger.connector AND newer.anchor = ledger.anchor AND newer.item = ledger.item
		  AND newer.attribute = ledger.attribute AND newer.value = ledger.value AND newer.member = ledger.member AND newer.written >= $3)`+order,
		tenant, connector, before.UnixMicro())
}

// Identity implements ledger.Store.
func (Store) Identity(t tx.Tx, tenant, identity string) ([]planner.Entry, error) {
	return list(t, `WHERE tenant = $1 AND identity = $2 AND identity <> ''`+order, tenant, identity)
}

// After implements ledger.Store.
func (Store) After(t tx.Tx, tenant string, k ledger.Key, limit int) ([]planner.Entry, error) {
	return list(t, `WHERE tenant = $1 AND (connector, anchor, item, attribute, value, member, cause) > ($2, $3, $4, $5, $6, $7, $8)`+order+` LIMIT $9`,
		tenant, k.Connector, k.Anchor, string(k.Item), k.Attribute, []byte(k.Value), k.Member, int(k.Cause), limit)
}

// Put implements ledger.Store.
func (Store) Put(t tx.Tx, tenant string, e planner.Entry, written time.Time) error {
	rest, err := encode(e)
	if err != nil {
		return err
	}
	moment := int64(0)
	if !written.IsZero() {
		moment = written.UnixMicro()
	}
	_, err = t.Exec(`INSERT INTO ledger (tenant, connector, anchor, item, attribute, value, member, cause, written, identity, entry)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (tenant, connector, anchor, item, attribute, value, member, cause) DO UPDATE SET
		written = CASE WHEN excluded.written = 0 THEN ledger.written ELSE excluded.written END, identity = excluded.identity, entry = excluded.entry`,
		tenant, e.Connector, e.Anchor, string(e.Item), e.Attribute, []byte(e.Value), e.Member, int(e.Cause), moment, e.Identity, rest)
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

// Delete implements ledger.Store.
func (Store) Delete(t tx.Tx, tenant string, k ledger.Key) error {
	_, err := t.Exec(`DELETE FROM ledger WHERE tenant = $1 AND connector = $2 AND anchor = $3 AND item = $4 AND attribute = $5
		AND value = $6 AND member = $7 AND cause = $8`, tenant, k.Connector, k.Anchor, string(k.Item), k.Attribute, []byte(k.Value), k.Member, int(k.Cause))
	if err != nil {
		return fmt.Errorf("write ledger: %w", err)
	}
	return nil
}

func list(t tx.Tx, where string, args ...any) ([]planner.Entry, error) {
	rows, err := t.Query(`SELECT `+columns+` FROM ledger `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	defer rows.Close()
	var out []planner.Entry
	for rows.Next() {
		var e planner.Entry
		var item string
		var cause int32
		var value, rest []byte
		if err := rows.Scan(&e.Connector, &e.Anchor, &item, &e.Attribute, &value, &e.Member, &cause, &rest); err != nil {
			return nil, err
		}
		e.Value, e.Item, e.Cause = string(value), planner.Item(item), planv1.Cause(cause)
		if err := decode(rest, &e); err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, rows.Err()
}

func encode(e planner.Entry) ([]byte, error) {
	k := kept{Type: e.Type, Before: e.Before, Last: e.Last, Identity: e.Identity, Change: e.Change, Rule: e.Rule, Grant: e.Grant, EndsAt: e.EndsAt.UTC(), Additive: e.Additive, Diverged: e.Diverged, Keys: e.Keys, Place: e.Place}
	if e.EndsAt.IsZero() {
		k.EndsAt = time.Time{}
	}
	var err error
	if k.BeforeName, err = encodeName(e.BeforeName); err != nil {
		return nil, err
	}
	if k.LastName, err = encodeName(e.LastName); err != nil {
		return nil, err
	}
	return json.Marshal(k)
}

func decode(b []byte, e *planner.Entry) error {
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("%w: %w", ledger.ErrCorrupt, err)
	}
	e.Type, e.Before, e.Last, e.Identity, e.Change, e.Rule, e.Grant = k.Type, k.Before, k.Last, k.Identity, k.Change, k.Rule, k.Grant
	e.EndsAt, e.Additive, e.Diverged, e.Keys, e.Place = k.EndsAt, k.Additive, k.Diverged, k.Keys, k.Place
	var err error
	if e.BeforeName, err = decodeName(k.BeforeName); err != nil {
		return err
	}
	e.LastName, err = decodeName(k.LastName)
	return err
}

// encodeName keeps a name that is not there apart from one without components.
func encodeName(n *connectorv1.Name) ([]byte, error) {
	if n == nil {
		return nil, nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(n)
	return append([]byte{1}, b...), err
}

func decodeName(b []byte) (*connectorv1.Name, error) {
	if len(b) == 0 {
		return nil, nil
	}
	n := &connectorv1.Name{}
	if err := proto.Unmarshal(b[1:], n); err != nil {
		return nil, fmt.Errorf("%w: %w", ledger.ErrCorrupt, err)
	}
	return n, nil
}
