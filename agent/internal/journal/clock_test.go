package journal

import (
	"context"
	"testing"
	"time"
)

// fakeMachine has a wall clock and a boot clock that a test sets.
type fakeMachine struct {
	wall time.Time
	boot time.Duration
	id   string
}

func (m *fakeMachine) clock(j *Journal) *Clock {
	return NewClock(j, ClockOptions{Wall: func() time.Time { return m.wall }, Boot: func() time.Duration { return m.boot }, BootID: m.id})
}

func (m *fakeMachine) pass(d time.Duration) { m.wall, m.boot = m.wall.Add(d), m.boot+d }

func tick(t *testing.T, c *Clock) ClockEvent {
	t.Helper()
	event, err := c.Tick(context.Background(), func(tx *Tx, _ ClockEvent, what string) error { return record(what)(tx) })
	if err != nil {
		t.Fatal(err)
	}
	return event
}

func TestClockNeverRunsBack(t *testing.T) {
	j := open(t, options(t))
	start := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	m := &fakeMachine{wall: start, boot: time.Hour, id: "boot-1"}
	c := m.clock(j)
	if e := tick(t, c); e != ClockSteady {
		t.Fatalf("event %v", e)
	}
	m.pass(10 * time.Minute)
	m.wall = start.Add(-48 * time.Hour) // somebody set it back
	if got := c.Now(); !got.Equal(start.Add(10 * time.Minute)) {
		t.Fatalf("time ran back to %v", got)
	}
	if e := tick(t, c); e != ClockSteady {
		t.Fatalf("event %v", e)
	}
	m.pass(5 * time.Minute)
	if got := c.Now(); !got.Equal(start.Add(15 * time.Minute)) {
		t.Fatalf("after a tick with a clock set back: %v", got)
	}
}

func TestForwardJumpFreezesUntilAccepted(t *testing.T) {
	j := open(t, options(t))
	ctx := context.Background()
	m := &fakeMachine{wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), boot: time.Hour, id: "boot-1"}
	c := m.clock(j)
	tick(t, c)
	m.pass(20 * time.Hour) // asleep, and both clocks know
	if e := tick(t, c); e != ClockSteady {
		t.Fatalf("sleeping is no jump: %v", e)
	}
	m.wall = m.wall.Add(7 * time.Hour)
	if e := tick(t, c); e != ClockJumped {
		t.Fatalf("event %v, want a jump", e)
	}
	head := j.Head().Next
	if e := tick(t, c); e != ClockSteady || j.Head().Next != head {
		t.Fatalf("the same jump was told twice: %v", e)
	}
	if frozen, err := j.Get(ctx, VarFrozen); err != nil || frozen == "" {
		t.Fatalf("not frozen: %v", err)
	}
	if err := c.Accept(ctx, record("accepted")); err != nil {
		t.Fatal(err)
	}
	if frozen, _ := j.Get(ctx, VarFrozen); frozen != "" {
		t.Fatal("still frozen")
	}
	if e := tick(t, c); e != ClockSteady {
		t.Fatalf("event %v after accepting", e)
	}
}

func TestClockBehindAfterRestart(t *testing.T) {
	o := options(t)
	j := open(t, o)
	m := &fakeMachine{wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), boot: time.Hour, id: "boot-1"}
	tick(t, m.clock(j))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	j = open(t, o)
	mark := m.wall
	m.id, m.boot, m.wall = "boot-2", time.Minute, m.wall.AddDate(-2, 0, 0) // an empty battery
	c := m.clock(j)
	if got := c.Now(); !got.Equal(mark) {
		t.Fatalf("time is %v, want the mark", got)
	}
	if e := tick(t, c); e != ClockBehind {
		t.Fatalf("event %v, want behind", e)
	}
	m.pass(time.Hour)
	if got := c.Now(); !got.Equal(mark.Add(time.Hour)) {
		t.Fatalf("time is %v", got)
	}
}
