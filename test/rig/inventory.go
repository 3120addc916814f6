package rig

import (
	"database/sql"
	"path/filepath"
	"strings"

	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Inventory is what the control plane's database holds of a connector, as
// committed, read without asking the control plane.
type Inventory struct {
	r     *Rig
	alias string
	db    *sql.DB
}

// Inventory opens the inventory of a connector until the test ends.
func (r *Rig) Inventory(alias string) *Inventory {
	r.T.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(r.Dir, "noc", "reeve.db")+"?mode=ro&_pragma=busy_timeout(10000)")
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { _ = db.Close() })
	return &Inventory{r, alias, db}
}

// Header is that of the snapshot which readers see; an empty one before the first.
func (i *Inventory) Header() *planv1.SnapshotHeader {
	i.r.T.Helper()
	var raw []byte
	header := new(planv1.SnapshotHeader)
	err := i.db.QueryRow(`SELECT s.header FROM connector c JOIN snapshot s ON s.tenant = c.tenant AND s.connector = c.alias AND s.seq = c.current
		WHERE c.tenant = $1 AND c.alias = $2`, Tenant, i.alias).Scan(&raw)
	if err == sql.ErrNoRows {
		return header
	}
	if err == nil {
		err = proto.Unmarshal(raw, header)
	}
	if err != nil {
		i.r.T.Fatal(err)
	}
	return header
}

// Objects are those of the given anchors, of all without any, by anchor.
func (i *Inventory) Objects(anchors ...string) map[string]*connectorv1.Object {
	i.r.T.Helper()
	query := `SELECT o.anchor, o.body FROM object o JOIN connector c ON c.tenant = o.tenant AND c.alias = o.connector
		WHERE o.tenant = ? AND o.connector = ? AND o.valid_from <= c.current AND (o.valid_to IS NULL OR o.valid_to > c.current)`
	args := []any{Tenant, i.alias}
	if len(anchors) > 0 {
		query += " AND o.anchor IN (?" + strings.Repeat(", ?", len(anchors)-1) + ")"
		for _, a := range anchors {
			args = append(args, a)
		}
	}
	rows, err := i.db.Query(query, args...)
	if err != nil {
		i.r.T.Fatal(err)
	}
	defer rows.Close()
	out := map[string]*connectorv1.Object{}
	for rows.Next() {
		var anchor string
		var body []byte
		if err := rows.Scan(&anchor, &body); err != nil {
			i.r.T.Fatal(err)
		}
		out[anchor] = new(connectorv1.Object)
		if err := proto.Unmarshal(body, out[anchor]); err != nil {
			i.r.T.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		i.r.T.Fatal(err)
	}
	return out
}
