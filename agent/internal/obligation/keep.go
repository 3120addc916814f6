package obligation

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reevehq/reeve/agent/internal/journal"
)

// firstPause is the wait after the first failed attempt at a removal, longestPause
// the longest: a directory that comes back is not kept waiting. It is never given
// up.
const (
	firstPause   = 5 * time.Second
	longestPause = 45 * time.Second
)

// Run looks after obligations until ctx ends or the journal stops. Kick wakes it.
// It does not look at pause, quarantine or the control plane. Connectors are
// attended to side by side: one that hangs delays no removal on another.
func (k *Keeper) Run(ctx context.Context) error {
	stopped := make(chan error, 1)
	busy := map[string]bool{} // guarded by mu
	var mu sync.Mutex
	var working sync.WaitGroup
	defer working.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tick := k.o.After(k.o.Every)
	for {
		due, err := k.due(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, journal.ErrStopped):
			return err
		case err != nil:
			k.o.Log.Error("obligations could not be looked after", "error", err)
		}
		for connector, holds := range due {
			mu.Lock()
			taken := busy[connector]
			busy[connector] = true
			mu.Unlock()
			if taken {
				continue
			}
			working.Go(func() {
				_, err := k.settle(ctx, holds)
				mu.Lock()
				defer mu.Unlock()
				busy[connector] = false
				switch {
				case errors.Is(err, journal.ErrStopped):
					select {
					case stopped <- err:
					default:
					}
				case err != nil && ctx.Err() == nil:
					k.o.Log.Error("obligations could not be looked after", "connector", connector, "error", err)
				}
			})
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-stopped:
			return err
		case <-tick:
			tick = k.o.After(k.o.Every)
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

// due compares the clock and returns the holds whose time has come, by connector
// and due time.
func (k *Keeper) due(ctx context.Context) (map[string][]journal.Hold, error) {
	if err := k.tickClock(ctx); err != nil {
		return nil, err
	}
	now := k.o.Clock.Now()
	due := map[string][]journal.Hold{}
	err := k.o.Journal.View(ctx, func(tx *journal.Tx) error {
		timed, err := tx.TimedHolds()
		for _, h := range timed {
			if (h.State == journal.HoldOpen || h.Made) && !now.Before(h.Due) {
				due[h.Connector] = append(due[h.Connector], h)
			}
		}
		return err
	})
	return due, err
}

// settle settles the due holds of one connector, each once, and returns how many
// are still owed. One that fails does not keep the others.
func (k *Keeper) settle(ctx context.Context, due []journal.Hold) (owed int, err error) {
	for _, h := range due {
		now := k.o.Clock.Now()
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
		if err := k.postpone(ctx, h, k.o.Clock.Now()); err != nil {
			return owed, err
		}
	}
	return owed, nil
}

// postpone sets the next attempt: after firstPause, then twice as long each time,
// up to longestPause.
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
