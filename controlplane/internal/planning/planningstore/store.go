// Package planningstore keeps plans in SQL.
package planningstore

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Store implements planning.Store. It has no state of its own.
type Store struct{}

var _ planning.Store = Store{}

// Put implements planning.Store.
func (Store) Put(t tx.Tx, p planning.Plan, chunks []planning.Chunk, creations []planner.Creation) error {
	rehearsal, err := proto.Marshal(p.Rehearsal)
	if err != nil {
		return err
	}
	findings, err := json.Marshal(p.Findings)
	if err != nil {
		return err
	}
	if _, err := t.Exec(`
		INSERT INTO plan (id, tenant, purpose, phase, digest, manifest, rehearsal, findings, changes, people, privileged, operators, made_by, made, entry)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)`,
		p.ID, p.Tenant, int32(p.Purpose), int32(p.Phase), p.Digest, p.Manifest, rehearsal, string(findings),
		p.Changes, p.People, p.Privileged, p.Operators, p.MadeBy, tx.FormatTime(p.Made), int64(p.Entry)); err != nil {
		return fmt.Errorf("store plan %s: %w", p.ID, err)
	}
	for _, c := range chunks {
		if _, err := t.Exec(`INSERT INTO plan_chunk (plan, ordinal, agent, bytes) VALUES ($1, $2, $3, $4)`, p.ID, c.Ordinal, c.Agent, c.Bytes); err != nil {
			return fmt.Errorf("store chunk %d of plan %s: %w", c.Ordinal, p.ID, err)
		}
	}
	for _, c := range creations {
		if _, err := t.Exec(`INSERT INTO plan_creation (plan, change, connector, identity, purpose) VALUES ($1, $2, $3, $4, $5)`,
			p.ID, c.Change, c.Connector, c.Identity, c.Purpose); err != nil {
			return fmt.Errorf("store creation %s of plan %s: %w", c.Change, p.ID, err)
		}
	}
	return nil
}

// Creation implements planning.Store.
func (Store) Creation(t tx.Tx, plan, change string) (planner.Creation, bool, error) {
	c := planner.Creation{Change: change}
	err := t.QueryRow(`SELECT connector, identity, purpose FROM plan_creation WHERE plan = $1 AND change = $2`, plan, change).
		Scan(&c.Connector, &c.Identity, &c.Purpose)
	if errors.Is(err, sql.ErrNoRows) {
		return c, false, nil
	}
	return c, err == nil, err
}

const selectPlan = `
	SELECT id, tenant, purpose, phase, digest, manifest, rehearsal, findings, changes, people, privileged, operators, made_by, made, entry FROM plan`

// Plan implements planning.Store.
func (Store) Plan(t tx.Tx, id string) (planning.Plan, error) {
	p, err := scanPlan(t.QueryRow(selectPlan+` WHERE id = $1`, id))
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("%w: %s", planning.ErrNotFound, id)
	}
	return p, err
}

// ByDigest implements planning.Store.
func (Store) ByDigest(t tx.Tx, digest []byte) (planning.Plan, error) {
	p, err := scanPlan(t.QueryRow(selectPlan+` WHERE digest = $1`, digest))
	if errors.Is(err, sql.ErrNoRows) {
		return p, fmt.Errorf("%w: digest %x", planning.ErrNotFound, digest)
	}
	return p, err
}

// Plans implements planning.Store.
func (Store) Plans(t tx.Tx, tenant, before string, limit int) ([]planning.Plan, error) {
	return tx.Collect(t, scanPlan, selectPlan+` WHERE tenant = $1 AND ($2 = '' OR id < $2) ORDER BY id DESC LIMIT $3`, tenant, before, limit)
}

// InPhase implements planning.Store.
func (Store) InPhase(t tx.Tx, tenant string, phases ...planning.Phase) ([]planning.Plan, error) {
	var all []planning.Plan
	for _, phase := range phases {
		list, err := tx.Collect(t, scanPlan, selectPlan+` WHERE phase = $1 AND ($2 = '' OR tenant = $2)`, int32(phase), tenant)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	slices.SortFunc(all, func(a, b planning.Plan) int { return strings.Compare(b.ID, a.ID) })
	return all, nil
}

// ChangeKey implements planning.Store.
func (Store) ChangeKey(t tx.Tx, tenant string, fresh []byte) (key []byte, err error) {
	if _, err := t.Exec(`INSERT INTO change_key (tenant, key) VALUES ($1, $2) ON CONFLICT DO NOTHING`, tenant, fresh); err != nil {
		return nil, err
	}
	err = t.QueryRow(`SELECT key FROM change_key WHERE tenant = $1`, tenant).Scan(&key)
	return key, err
}

func scanPlan(row tx.Scanner) (p planning.Plan, err error) {
	var rehearsal []byte
	var findings, made string
	var entry int64
	if err := row.Scan(&p.ID, &p.Tenant, &p.Purpose, &p.Phase, &p.Digest, &p.Manifest, &rehearsal, &findings,
		&p.Changes, &p.People, &p.Privileged, &p.Operators, &p.MadeBy, &made, &entry); err != nil {
		return p, err
	}
	p.Entry = uint64(entry)
	p.Rehearsal = new(planv1.Rehearsal)
	if err := errors.Join(proto.Unmarshal(rehearsal, p.Rehearsal), json.Unmarshal([]byte(findings), &p.Findings)); err != nil {
		return p, fmt.Errorf("decode plan %s: %w", p.ID, err)
	}
	p.Made, err = tx.ParseTime(made)
	return p, err
}

// Chunks implements planning.Store.
func (Store) Chunks(t tx.Tx, plan, agent string) ([]planning.Chunk, error) {
	return tx.Collect(t, scanChunk, `SELECT ordinal, agent, bytes FROM plan_chunk WHERE plan = $1 AND ($2 = '' OR agent = $2) ORDER BY ordinal`, plan, agent)
}

// Chunk implements planning.Store.
func (Store) Chunk(t tx.Tx, plan string, ordinal int) (planning.Chunk, bool, error) {
	c, err := scanChunk(t.QueryRow(`SELECT ordinal, agent, bytes FROM plan_chunk WHERE plan = $1 AND ordinal = $2`, plan, ordinal))
	if errors.Is(err, sql.ErrNoRows) {
		return c, false, nil
	}
	return c, err == nil, err
}

func scanChunk(row tx.Scanner) (c planning.Chunk, err error) {
	err = row.Scan(&c.Ordinal, &c.Agent, &c.Bytes)
	return c, err
}

// SetPhase implements planning.Store.
func (Store) SetPhase(t tx.Tx, plan string, from, to planning.Phase) error {
	res, err := t.Exec(`UPDATE plan SET phase = $3 WHERE id = $1 AND phase = $2`, plan, int32(from), int32(to))
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w: %s", planning.ErrPhase, plan)
}

// PutDryRun implements planning.Store.
func (Store) PutDryRun(t tx.Tx, plan string, d planning.DryRun) error {
	refusals, err := proto.Marshal(&agentv1.ReportProgressRequest{Refusals: d.Refusals})
	if err != nil {
		return err
	}
	_, err = t.Exec(`
		INSERT INTO plan_dry_run (plan, agent, guardrails, refusals) VALUES ($1, $2, $3, $4)
		ON CONFLICT (plan, agent) DO UPDATE SET guardrails = excluded.guardrails, refusals = excluded.refusals`,
		plan, d.Agent, d.Guardrails, refusals)
	return err
}

// DryRuns implements planning.Store.
func (Store) DryRuns(t tx.Tx, plan string) ([]planning.DryRun, error) {
	return tx.Collect(t, func(row tx.Scanner) (d planning.DryRun, err error) {
		var refusals []byte
		if err := row.Scan(&d.Agent, &d.Guardrails, &refusals); err != nil {
			return d, err
		}
		report := new(agentv1.ReportProgressRequest)
		err = proto.Unmarshal(refusals, report)
		d.Refusals = report.GetRefusals()
		return d, err
	}, `SELECT agent, guardrails, refusals FROM plan_dry_run WHERE plan = $1 ORDER BY agent`, plan)
}

// PutApproval implements planning.Store.
func (Store) PutApproval(t tx.Tx, plan string, a planning.Approval) error {
	approval, err := proto.Marshal(a.Approval)
	if err != nil {
		return err
	}
	_, err = t.Exec(`INSERT INTO plan_approval (plan, actor, approval, entry) VALUES ($1, $2, $3, $4)`,
		plan, a.Approval.GetActor(), approval, int64(a.Entry))
	return err
}

// Approvals implements planning.Store.
func (Store) Approvals(t tx.Tx, plan string) ([]planning.Approval, error) {
	return tx.Collect(t, func(row tx.Scanner) (planning.Approval, error) {
		a := planning.Approval{Approval: new(planv1.Approval)}
		var approval []byte
		var entry int64
		if err := row.Scan(&approval, &entry); err != nil {
			return a, err
		}
		a.Entry = uint64(entry)
		return a, proto.Unmarshal(approval, a.Approval)
	}, `SELECT approval, entry FROM plan_approval WHERE plan = $1 ORDER BY actor`, plan)
}
