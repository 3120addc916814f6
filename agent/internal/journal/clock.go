package journal

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// TimeMark is a moment as both clocks showed it.
type TimeMark struct {
	Wall time.Time `json:"wall"`
	// Boot is the time since the machine started, sleep included, and BootID
	// which start that was.
	Boot   time.Duration `json:"boot"`
	BootID string        `json:"boot_id"`
}

// DefaultJump is how far the wall clock may run ahead of boot time between two
// ticks.
const DefaultJump = 6 * time.Hour

// ClockOptions are the clocks that a Clock compares.
type ClockOptions struct {
	// Wall is time.Now by default.
	Wall func() time.Time
	// Boot is the machine's boot clock; both are required.
	Boot   func() time.Duration
	BootID string
	// Jump is DefaultJump if 0.
	Jump time.Duration
}

// Clock is the agent's only notion of time: max(wall clock, saved mark + boot
// time elapsed), so that it does not run back with a wall clock that was set
// back, or with a restored journal. The control plane is never asked for the
// time. It is safe for concurrent use.
type Clock struct {
	j *Journal
	o ClockOptions

	// ticking keeps ticks apart. It is not mu, since records made within a commit
	// ask for the time.
	ticking sync.Mutex
	mu      sync.Mutex
	mark    TimeMark
}

// ClockEvent is what a tick found out.
type ClockEvent int

const (
	// ClockSteady: nothing to report.
	ClockSteady ClockEvent = iota
	// ClockJumped: the wall clock ran ahead of boot time by more than Jump. New
	// orders are frozen (VarFrozen) until Accept.
	ClockJumped
	// ClockBehind: after a restart of the machine the wall clock is behind the
	// mark. How long the machine was off cannot be known: timed grants end now.
	ClockBehind
)

// NewClock starts from the mark that the journal holds.
func NewClock(j *Journal, o ClockOptions) *Clock {
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Jump == 0 {
		o.Jump = DefaultJump
	}
	j.state.RLock()
	defer j.state.RUnlock()
	return &Clock{j: j, o: o, mark: j.marks.Time}
}

// Now returns max(wall clock, mark + boot time elapsed). It may be called within
// a commit.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	mark := c.mark
	c.mu.Unlock()
	wall := c.o.Wall()
	least := mark.Wall
	if mark.BootID == c.o.BootID {
		if elapsed := c.o.Boot() - mark.Boot; elapsed > 0 {
			least = least.Add(elapsed)
		}
	}
	if wall.Before(least) {
		return least
	}
	return wall
}

// Tick compares the clocks and saves the mark; it is called at start and about
// every half minute. within runs in the same commit, with what was found; it
// writes the record of it. A jump does not move the mark until Accept.
func (c *Clock) Tick(ctx context.Context, within func(*Tx, ClockEvent, string) error) (ClockEvent, error) {
	c.ticking.Lock()
	defer c.ticking.Unlock()
	c.mu.Lock()
	mark := c.mark
	c.mu.Unlock()
	wall, boot := c.o.Wall(), c.o.Boot()
	event, reason := ClockSteady, ""
	if !mark.Wall.IsZero() {
		ahead := wall.Sub(mark.Wall)
		sameBoot := mark.BootID == c.o.BootID
		switch {
		case sameBoot && ahead-(boot-mark.Boot) > c.o.Jump:
			event = ClockJumped
			reason = fmt.Sprintf("the clock ran ahead by %v while the machine counted %v; run `reeve-agent clock accept` if it is right now", ahead.Round(time.Second), (boot - mark.Boot).Round(time.Second))
		case !sameBoot && ahead < 0:
			event = ClockBehind
			reason = fmt.Sprintf("after a restart of the machine the clock is %v behind the last time seen; timed grants were ended", (-ahead).Round(time.Second))
		}
	}
	next := TimeMark{Wall: c.Now(), Boot: boot, BootID: c.o.BootID}
	err := c.j.Commit(ctx, func(tx *Tx) error {
		frozen, err := tx.Get(VarFrozen)
		if err != nil {
			return err
		}
		if event == ClockJumped {
			if frozen != "" {
				event = ClockSteady // known already
				return nil
			}
			if err := tx.Set(VarFrozen, reason); err != nil {
				return err
			}
			return within(tx, event, reason)
		}
		if event == ClockBehind {
			if err := within(tx, event, reason); err != nil {
				return err
			}
		}
		tx.marks.Time = next
		return tx.putMarks()
	})
	if err != nil {
		return event, err
	}
	c.reload()
	return event, nil
}

// Accept takes the wall clock as right after a jump and lets orders in again. It
// is a local command. within runs in the same commit.
func (c *Clock) Accept(ctx context.Context, within func(*Tx) error) error {
	c.ticking.Lock()
	defer c.ticking.Unlock()
	next := TimeMark{Wall: c.Now(), Boot: c.o.Boot(), BootID: c.o.BootID}
	err := c.j.Commit(ctx, func(tx *Tx) error {
		if err := tx.Set(VarFrozen, ""); err != nil {
			return err
		}
		tx.marks.Time = next
		if err := tx.putMarks(); err != nil {
			return err
		}
		return within(tx)
	})
	if err != nil {
		return err
	}
	c.reload()
	return nil
}

func (c *Clock) reload() {
	c.j.state.RLock()
	mark := c.j.marks.Time
	c.j.state.RUnlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = mark
}
