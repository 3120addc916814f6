package schedule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/reevehq/reeve/controlplane/internal/tx"
)

var (
	ErrNotFound = errors.New("schedule not found")
	// ErrInvalid is returned for a schedule that cannot be kept; the error says
	// what is wrong with it.
	ErrInvalid = errors.New("schedule refused")
)

// Schedule is one round of work for a tenant.
type Schedule struct {
	Tenant, Name string
	// Cron has five fields (robfig/cron's standard form), in the tenant's zone.
	Cron    string
	Work    string
	NextRun time.Time
	LastRun time.Time
	// Outcome of the last run: "done" or an error's sentence.
	Outcome string
}

// Store keeps schedules in the caller's transaction.
type Store interface {
	Put(t tx.Tx, s Schedule) error
	List(t tx.Tx, tenant string) ([]Schedule, error)
	// Remove returns ErrNotFound for a name the tenant does not have.
	Remove(t tx.Tx, tenant, name string) error
	// Due returns schedules whose next run is not after at, in that order.
	Due(t tx.Tx, at time.Time) ([]Schedule, error)
	// Claim moves the next run and reports whether it still was from.
	Claim(t tx.Tx, s Schedule, next time.Time) (bool, error)
	SetOutcome(t tx.Tx, tenant, name, outcome string) error
}

// Zones tells a tenant's time zone.
type Zones interface {
	Zone(ctx context.Context, tenant string) (*time.Location, error)
}

// Work is what a schedule can run.
type Work func(ctx context.Context, tenant string) error

// Service is safe for concurrent use.
type Service struct {
	db    *tx.DB
	store Store
	zones Zones
	work  map[string]Work
	now   func() time.Time
	log   *slog.Logger
}

// New returns the service; work names what a schedule can run.
func New(db *tx.DB, store Store, zones Zones, work map[string]Work, now func() time.Time, log *slog.Logger) *Service {
	return &Service{db: db, store: store, zones: zones, work: work, now: now, log: log}
}

// Add keeps a schedule, in place of one of the same name.
func (s *Service) Add(ctx context.Context, sched Schedule) (Schedule, error) {
	if sched.Name == "" {
		return sched, fmt.Errorf("%w: it has no name", ErrInvalid)
	}
	if s.work[sched.Work] == nil {
		return sched, fmt.Errorf("%w: there is no work called %q; say observe or plan", ErrInvalid, sched.Work)
	}
	next, err := s.next(ctx, sched)
	if err != nil {
		return sched, err
	}
	sched.NextRun = next
	return sched, s.db.Do(ctx, func(t tx.Tx) error { return s.store.Put(t, sched) })
}

// List returns a tenant's schedules by name.
func (s *Service) List(ctx context.Context, tenant string) (list []Schedule, err error) {
	err = s.db.View(ctx, func(t tx.Tx) error {
		list, err = s.store.List(t, tenant)
		return err
	})
	return list, err
}

// Remove ends a schedule.
func (s *Service) Remove(ctx context.Context, tenant, name string) error {
	return s.db.Do(ctx, func(t tx.Tx) error { return s.store.Remove(t, tenant, name) })
}

// next returns the first run after now, in the tenant's zone.
func (s *Service) next(ctx context.Context, sched Schedule) (time.Time, error) {
	parsed, err := cron.ParseStandard(sched.Cron)
	if err != nil {
		return time.Time{}, fmt.Errorf("%w: cron expression %q: %w", ErrInvalid, sched.Cron, err)
	}
	zone, err := s.zones.Zone(ctx, sched.Tenant)
	if err != nil {
		return time.Time{}, err
	}
	next := parsed.Next(s.now().In(zone))
	if next.IsZero() {
		return next, fmt.Errorf("%w: cron expression %q never comes round", ErrInvalid, sched.Cron)
	}
	return next, nil
}

// Run runs due work until ctx ends, looking every interval.
func (s *Service) Run(ctx context.Context, interval time.Duration) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if err := s.Tick(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("schedules could not be run", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Tick runs what is due now.
func (s *Service) Tick(ctx context.Context) error {
	var due []Schedule
	if err := s.db.View(ctx, func(t tx.Tx) (err error) {
		due, err = s.store.Due(t, s.now())
		return err
	}); err != nil {
		return err
	}
	var failed error
	for _, sched := range due {
		next, err := s.next(ctx, sched)
		if err != nil {
			// It must not keep the others waiting.
			failed = errors.Join(failed, fmt.Errorf("schedule %s of %s: %w", sched.Name, sched.Tenant, err))
			continue
		}
		var mine bool
		if err := s.db.Do(ctx, func(t tx.Tx) (err error) {
			mine, err = s.store.Claim(t, sched, next)
			return err
		}); err != nil {
			return err
		}
		if !mine {
			continue
		}
		outcome := "done"
		if err := s.work[sched.Work](ctx, sched.Tenant); err != nil {
			outcome = err.Error()
			s.log.Warn("scheduled work failed", "tenant", sched.Tenant, "schedule", sched.Name, "error", err)
		}
		if err := s.db.Do(ctx, func(t tx.Tx) error { return s.store.SetOutcome(t, sched.Tenant, sched.Name, outcome) }); err != nil {
			return err
		}
	}
	return failed
}
