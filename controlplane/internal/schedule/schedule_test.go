package schedule_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/schedule/schedulestore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
)

type zone struct{ *time.Location }

func (z zone) Zone(context.Context, string) (*time.Location, error) { return z.Location, nil }

func TestRoundsFollowTheTenantsClockAndRunOnce(t *testing.T) {
	ctx := context.Background()
	oslo, err := time.LoadLocation("Europe/Oslo")
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	runs := 0
	replica := func() *schedule.Service {
		return schedule.New(db, schedulestore.Store{}, zone{oslo},
			map[string]schedule.Work{"plan": func(context.Context, string) error { runs++; return nil }},
			func() time.Time { return now }, slog.New(slog.DiscardHandler))
	}
	a, b := replica(), replica()
	s, err := a.Add(ctx, schedule.Schedule{Tenant: "fabrikam", Name: "nightly", Cron: "30 4 * * *", Work: "plan"})
	if err != nil {
		t.Fatal(err)
	}
	// The clocks go forward in the night to the 29th: 04:30 is two hours, not
	// one, ahead of UTC.
	if want := time.Date(2026, 3, 29, 2, 30, 0, 0, time.UTC); !s.NextRun.Equal(want) {
		t.Fatalf("next run %s, want %s", s.NextRun.UTC(), want)
	}
	// Three days nobody ran: one run makes up for them, on one replica.
	now = now.AddDate(0, 0, 3)
	for _, r := range []*schedule.Service{a, b, a} {
		if err := r.Tick(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if runs != 1 {
		t.Fatalf("ran %d times", runs)
	}
	list, err := b.List(ctx, "fabrikam")
	if err != nil || len(list) != 1 || list[0].Outcome != "done" || !list[0].NextRun.After(now) {
		t.Fatalf("%+v, %v", list, err)
	}
}

type zones map[string]*time.Location

func (z zones) Zone(_ context.Context, tenant string) (*time.Location, error) {
	if z[tenant] == nil {
		return nil, errors.New("no such tenant")
	}
	return z[tenant], nil
}

// One tenant's trouble keeps no other waiting.
func TestABadScheduleDoesNotStopTheOthers(t *testing.T) {
	ctx := context.Background()
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	now := time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC)
	known := zones{"a": time.UTC, "b": time.UTC, "c": time.UTC}
	var ran []string
	s := schedule.New(db, schedulestore.Store{}, known, map[string]schedule.Work{"plan": func(_ context.Context, tenant string) error {
		ran = append(ran, tenant)
		return errors.New("nothing is observed yet")
	}}, func() time.Time { return now }, slog.New(slog.DiscardHandler))
	for _, tenant := range []string{"a", "b", "c"} {
		if _, err := s.Add(ctx, schedule.Schedule{Tenant: tenant, Name: "x", Cron: "0 * * * *", Work: "plan"}); err != nil {
			t.Fatal(err)
		}
	}
	delete(known, "a")
	now = now.Add(time.Hour)
	if err := s.Tick(ctx); err == nil {
		t.Fatal("nobody heard of the bad one")
	}
	if len(ran) != 2 {
		t.Fatalf("ran for %v", ran)
	}
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	ctx := context.Background()
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	s := schedule.New(db, schedulestore.Store{}, zone{time.UTC}, map[string]schedule.Work{"plan": func(context.Context, string) error { return nil }}, time.Now, slog.New(slog.DiscardHandler))
	for _, bad := range []schedule.Schedule{
		{Tenant: "fabrikam", Name: "x", Cron: "61 * * * *", Work: "plan"},
		{Tenant: "fabrikam", Name: "x", Cron: "* * * * *", Work: "mine"},
		{Tenant: "fabrikam", Cron: "* * * * *", Work: "plan"},
		{Tenant: "fabrikam", Name: "x", Cron: "0 0 30 2 *", Work: "plan"},
	} {
		if _, err := s.Add(ctx, bad); err == nil {
			t.Errorf("%+v was kept", bad)
		}
	}
}
