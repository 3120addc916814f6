package obligation

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
)

// longestPause bounds the wait between attempts at one removal. It is never given
// up.
const longestPause = 5 * time.Minute

// firstPause is the wait after the first failed attempt.
const firstPause = 5 * time.Second

// Run looks after obligations until ctx ends or the journal stops. Kick wakes it.
// It does not look at pause, quarantine or the control plane.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(k.o.Every)
	defer ticker.Stop()
	for {
		if _, err := k.Tick(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(err, journal.ErrStopped) {
				return err
			}
			k.o.Log.Error("obligations could not be looked after", "error", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		case <-k.kick:
		}
	}
}

// Kick asks Run to look now, for instance after an order has ended. It does not
// wait.
func (k *Keeper) Kick() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

// Tick compares the clock and settles what is due, once. It returns the number of
// holds that are due and still owed. One that fails does not keep the others.
func (k *Keeper) Tick(ctx context.Context) (owed int, err error) {
	if err := k.tickClock(ctx); err != nil {
		return 0, err
	}
	now := k.o.Clock.Now()
	var due []journal.Hold
	err = k.o.Journal.View(ctx, func(tx *journal.Tx) error {
		timed, err := tx.TimedHolds()
		for _, h := range timed {
			if (h.State == journal.HoldOpen || h.Made) && !now.Before(h.Due) {
				due = append(due, h)
			}
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, h := range due {
		if now.Before(h.NotBefore) {
			owed++
			continue
		}
		err := k.o.Remover.TakeBack(ctx, h)
		if err == nil {
			continue
		}
		if ctx.Err() != nil || errors.Is(err, journal.ErrStopped) {
			return owed + 1, err
		}
		owed++
		k.o.Log.Error("timed access could not be removed and will be tried again", "hold", h.ID, "connector", h.Connector, "attempt", h.Attempts+1, "error", err)
		if err := k.postpone(ctx, h, now); err != nil {
			return owed, err
		}
	}
	return owed, nil
}

// postpone sets the next attempt: 5 s, then twice as long each time, up to 5
// minutes.
func (k *Keeper) postpone(ctx context.Context, h journal.Hold, now time.Time) error {
	return k.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		h, found, err := tx.HoldNow(h)
		if err != nil || !found {
			return err
		}
		h.NotBefore = now.Add(min(firstPause<<min(h.Attempts, 10), longestPause))
		h.Attempts++
		return tx.PutHold(h)
	})
}

// tickClock saves the clock's mark. A clock behind its mark after a restart ends
// every timed grant, since nobody knows how long the machine was off.
func (k *Keeper) tickClock(ctx context.Context) error {
	event, err := k.o.Clock.Tick(ctx, func(tx *journal.Tx, event journal.ClockEvent, what string) error {
		if err := k.o.Audit.Clock(tx, k.o.Audit.Actor, what); err != nil {
			return err
		}
		if event != journal.ClockBehind {
			return nil
		}
		return k.endAll(tx)
	})
	if err != nil {
		return fmt.Errorf("save the clock's mark: %w", err)
	}
	switch event {
	case journal.ClockJumped:
		k.o.Log.Warn("the clock jumped ahead, new orders are frozen")
	case journal.ClockBehind:
		k.o.Log.Warn("the clock is behind its mark, timed grants were ended")
	}
	return nil
}

func (k *Keeper) endAll(tx *journal.Tx) error {
	timed, err := tx.TimedHolds()
	if err != nil {
		return err
	}
	for _, h := range timed {
		// The epoch's start: due by any clock.
		h.Due, h.NotBefore = time.Unix(1, 0).UTC(), time.Time{}
		if err := tx.PutHold(h); err != nil {
			return err
		}
	}
	return nil
}

// AcceptClock takes the clock as right after a jump and lets orders in again: the
// local command. It is recorded.
func (k *Keeper) AcceptClock(ctx context.Context) error {
	return k.o.Clock.Accept(ctx, func(tx *journal.Tx) error {
		return k.o.Audit.Clock(tx, audit.LocalRoot, "the clock was accepted as right")
	})
}
