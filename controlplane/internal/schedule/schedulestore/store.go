// Package schedulestore keeps schedules in SQL.
package schedulestore

import (
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store implements schedule.Store. It has no state of its own.
type Store struct{}

var _ schedule.Store = Store{}

// Put implements schedule.Store.
func (Store) Put(t tx.Tx, s schedule.Schedule) error {
	_, err := t.Exec(`
		INSERT INTO schedule (tenant, name, cron, work, next_run) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, name) DO UPDATE SET cron = excluded.cron, work = excluded.work, next_run = excluded.next_run`,
		s.Tenant, s.Name, s.Cron, s.Work, tx.FormatTime(s.NextRun))
	return err
}

const selectSchedule = `SELECT tenant, name, cron, work, next_run, last_run, outcome FROM schedule`

// List implements schedule.Store.
func (Store) List(t tx.Tx, tenant string) ([]schedule.Schedule, error) {
	return tx.Collect(t, scan, selectSchedule+` WHERE tenant = $1 ORDER BY name`, tenant)
}

// Remove implements schedule.Store.
func (Store) Remove(t tx.Tx, tenant, name string) error {
	res, err := t.Exec(`DELETE FROM schedule WHERE tenant = $1 AND name = $2`, tenant, name)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 1 {
		return err
	}
	return fmt.Errorf("%w: %s", schedule.ErrNotFound, name)
}

// Due implements schedule.Store.
func (Store) Due(t tx.Tx, at time.Time) ([]schedule.Schedule, error) {
	return tx.Collect(t, scan, selectSchedule+` WHERE next_run <= $1 ORDER BY next_run, tenant, name`, tx.FormatTime(at))
}

// Claim implements schedule.Store.
func (Store) Claim(t tx.Tx, s schedule.Schedule, next time.Time) (bool, error) {
	res, err := t.Exec(`UPDATE schedule SET next_run = $4, last_run = $3 WHERE tenant = $1 AND name = $2 AND next_run = $3`,
		s.Tenant, s.Name, tx.FormatTime(s.NextRun), tx.FormatTime(next))
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// SetOutcome implements schedule.Store.
func (Store) SetOutcome(t tx.Tx, tenant, name, outcome string) error {
	_, err := t.Exec(`UPDATE schedule SET outcome = $3 WHERE tenant = $1 AND name = $2`, tenant, name, outcome)
	return err
}

func scan(row tx.Scanner) (s schedule.Schedule, err error) {
	var next, last string
	if err := row.Scan(&s.Tenant, &s.Name, &s.Cron, &s.Work, &next, &last, &s.Outcome); err != nil {
		return s, err
	}
	var errs [2]error
	s.NextRun, errs[0] = tx.ParseTime(next)
	s.LastRun, errs[1] = tx.ParseTime(last)
	return s, errors.Join(errs[:]...)
}
