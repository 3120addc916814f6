package obligation

import (
	"context"
	"log/slog"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
)

// Remover takes a membership back; executor.Executor is one.
type Remover interface {
	// TakeBack settles a hold or returns why it is still owed.
	TakeBack(ctx context.Context, h journal.Hold) error
}

// Options are what a Keeper stands on; all but Every, After and Log are required.
type Options struct {
	Journal *journal.Journal
	Clock   *journal.Clock
	Audit   audit.Recorder
	Remover Remover
	// Every is how often the clock is compared and holds are looked at; 15s by
	// default, which keeps an end within the 60 s that are promised.
	Every time.Duration
	// After is a timer by the clock that Clock compares; time.After by default.
	After func(time.Duration) <-chan time.Time
	Log   *slog.Logger
}

// Keeper keeps the agent's obligations. It has no state of its own: all is in the
// journal.
type Keeper struct {
	o    Options
	kick chan struct{}
}

// New returns a Keeper.
func New(o Options) *Keeper {
	if o.Every == 0 {
		o.Every = 15 * time.Second
	}
	if o.After == nil {
		o.After = time.After
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Keeper{o: o, kick: make(chan struct{}, 1)}
}
