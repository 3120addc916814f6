package enrollmentstore

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Store is enrollment.Store over SQL.
type Store struct{}

// PutInvite implements enrollment.Store.
func (Store) PutInvite(t tx.Tx, i enrollment.Invite) error {
	if _, err := t.Exec(`DELETE FROM agent_invite WHERE tenant = $1 AND agent = $2 AND used IS NULL`, i.Tenant, i.Agent); err != nil {
		return fmt.Errorf("replace invitation: %w", err)
	}
	_, err := t.Exec(`INSERT INTO agent_invite (tenant, agent, token_hash, expires) VALUES ($1, $2, $3, $4)`,
		i.Tenant, i.Agent, i.TokenHash[:], i.Expires.UnixMicro())
	if err != nil {
		return fmt.Errorf("store invitation: %w", err)
	}
	return nil
}

// Invite implements enrollment.Store.
func (Store) Invite(t tx.Tx, hash [32]byte) (enrollment.Invite, error) {
	i := enrollment.Invite{TokenHash: hash}
	var expires int64
	err := t.QueryRow(`SELECT tenant, agent, expires, used, answer FROM agent_invite WHERE token_hash = $1`, hash[:]).
		Scan(&i.Tenant, &i.Agent, &expires, &i.Used, &i.Answer)
	if errors.Is(err, sql.ErrNoRows) {
		return enrollment.Invite{}, enrollment.ErrToken
	}
	if err != nil {
		return enrollment.Invite{}, fmt.Errorf("read invitation: %w", err)
	}
	i.Expires = at(expires)
	return i, nil
}

// UseInvite implements enrollment.Store.
func (Store) UseInvite(t tx.Tx, hash [32]byte, used, answer []byte) (bool, error) {
	n, err := exec(t, `UPDATE agent_invite SET used = $2, answer = $3 WHERE token_hash = $1 AND used IS NULL`, hash[:], used, answer)
	return n == 1, err
}

const columns = `tenant, agent, spiffe_id, state, epoch, counter, csr_digest, certificates, quarantine, version, created, seen`

// PutAgent implements enrollment.Store.
func (Store) PutAgent(t tx.Tx, a enrollment.Agent) error {
	_, err := exec(t, `INSERT INTO agent (`+columns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
		ON CONFLICT (tenant, agent) DO UPDATE SET spiffe_id = excluded.spiffe_id, state = excluded.state, epoch = excluded.epoch,
		counter = excluded.counter, csr_digest = excluded.csr_digest, certificates = excluded.certificates,
		quarantine = excluded.quarantine, version = excluded.version, seen = excluded.seen`,
		a.Tenant, a.ID, a.SPIFFE, string(a.State), a.Epoch, a.Counter, a.CSRDigest, a.Certificates, a.Quarantine, a.Version, micro(a.Created), micro(a.Seen))
	return err
}

// Agent implements enrollment.Store.
func (Store) Agent(t tx.Tx, tenant, id string) (enrollment.Agent, error) {
	return found(t.QueryRow(`SELECT `+columns+` FROM agent WHERE tenant = $1 AND agent = $2`, tenant, id))
}

// BySPIFFE implements enrollment.Store.
func (Store) BySPIFFE(t tx.Tx, id string) (enrollment.Agent, error) {
	return found(t.QueryRow(`SELECT `+columns+` FROM agent WHERE spiffe_id = $1`, id))
}

// Agents implements enrollment.Store.
func (Store) Agents(t tx.Tx, tenant, after string, limit int) ([]enrollment.Agent, error) {
	rows, err := t.Query(`SELECT `+columns+` FROM agent WHERE tenant = $1 AND agent > $2 ORDER BY agent LIMIT $3`, tenant, after, limit)
	if err != nil {
		return nil, fmt.Errorf("list agents: %w", err)
	}
	defer rows.Close()
	var list []enrollment.Agent
	for rows.Next() {
		a, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// Advance implements enrollment.Store.
func (Store) Advance(t tx.Tx, tenant, id string, from uint64, csrDigest, certificates []byte) (bool, error) {
	n, err := exec(t, `UPDATE agent SET counter = counter + 1, csr_digest = $4, certificates = $5 WHERE tenant = $1 AND agent = $2 AND counter = $3`,
		tenant, id, from, csrDigest, certificates)
	return n == 1, err
}

// SetState implements enrollment.Store.
func (Store) SetState(t tx.Tx, tenant, id string, to enrollment.State) error {
	return must(exec(t, `UPDATE agent SET state = $3 WHERE tenant = $1 AND agent = $2`, tenant, id, string(to)))
}

// SetQuarantine implements enrollment.Store.
func (Store) SetQuarantine(t tx.Tx, tenant, id, reason string) error {
	return must(exec(t, `UPDATE agent SET quarantine = $3 WHERE tenant = $1 AND agent = $2`, tenant, id, reason))
}

// SetSeen implements enrollment.Store.
func (Store) SetSeen(t tx.Tx, tenant, id, version string, seen time.Time) error {
	return must(exec(t, `UPDATE agent SET version = $3, seen = $4 WHERE tenant = $1 AND agent = $2`, tenant, id, version, micro(seen)))
}

// PutKeys implements enrollment.Store.
func (Store) PutKeys(t tx.Tx, keys []enrollment.Key) error {
	for _, k := range keys {
		if _, err := exec(t, `INSERT INTO agent_key (tenant, agent, epoch, purpose, public_key, begun) VALUES ($1, $2, $3, $4, $5, $6)`,
			k.Tenant, k.Agent, k.Epoch, int(k.Purpose), k.Public, micro(k.Begun)); err != nil {
			return err
		}
	}
	return nil
}

// Keys implements enrollment.Store.
func (Store) Keys(t tx.Tx, tenant, id string, epoch uint64) ([]enrollment.Key, error) {
	rows, err := t.Query(`SELECT purpose, public_key, begun, ended FROM agent_key WHERE tenant = $1 AND agent = $2 AND epoch = $3 ORDER BY purpose`, tenant, id, epoch)
	if err != nil {
		return nil, fmt.Errorf("read agent keys: %w", err)
	}
	defer rows.Close()
	var list []enrollment.Key
	for rows.Next() {
		k := enrollment.Key{Tenant: tenant, Agent: id, Epoch: epoch}
		var purpose int32
		var begun, ended int64
		if err := rows.Scan(&purpose, &k.Public, &begun, &ended); err != nil {
			return nil, err
		}
		k.Purpose, k.Begun, k.Ended = auditv1.KeyEvent_Purpose(purpose), at(begun), at(ended)
		list = append(list, k)
	}
	return list, rows.Err()
}

// EndKeys implements enrollment.Store.
func (Store) EndKeys(t tx.Tx, tenant, id string, epoch uint64, ended time.Time) (int, error) {
	return exec(t, `UPDATE agent_key SET ended = $4 WHERE tenant = $1 AND agent = $2 AND epoch = $3 AND ended = 0`, tenant, id, epoch, micro(ended))
}

// KeyHolder implements enrollment.Store.
func (Store) KeyHolder(t tx.Tx, public []byte) (tenant, id string, ok bool, err error) {
	err = t.QueryRow(`SELECT tenant, agent FROM agent_key WHERE public_key = $1 ORDER BY begun LIMIT 1`, public).Scan(&tenant, &id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", false, nil
	}
	return tenant, id, err == nil, err
}

func found(row *sql.Row) (enrollment.Agent, error) {
	a, err := scan(row)
	if errors.Is(err, sql.ErrNoRows) {
		return enrollment.Agent{}, enrollment.ErrNotFound
	}
	return a, err
}

func scan(row interface{ Scan(...any) error }) (enrollment.Agent, error) {
	var a enrollment.Agent
	var state string
	var created, seen int64
	err := row.Scan(&a.Tenant, &a.ID, &a.SPIFFE, &state, &a.Epoch, &a.Counter, &a.CSRDigest, &a.Certificates, &a.Quarantine, &a.Version, &created, &seen)
	if err != nil {
		return enrollment.Agent{}, err
	}
	a.State, a.Created, a.Seen = enrollment.State(state), at(created), at(seen)
	return a, nil
}

func exec(t tx.Tx, statement string, args ...any) (int, error) {
	res, err := t.Exec(statement, args...)
	if err != nil {
		return 0, fmt.Errorf("write enrollment: %w", err)
	}
	n, err := res.RowsAffected()
	return int(n), err
}

func must(n int, err error) error {
	if err == nil && n == 0 {
		return enrollment.ErrNotFound
	}
	return err
}

func micro(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func at(micro int64) time.Time {
	if micro == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micro).UTC()
}
