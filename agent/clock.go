package agent

import (
	"time"

	"github.com/reevehq/reeve/agent/internal/bootclock"
)

// Clock is where the agent gets its time from. Run takes the machine's; a test
// has a program of its own on a clock that it moves. No setting of the program
// leads here.
type Clock struct {
	// Now is the wall clock, After a timer by it.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Boot is the time since the machine started, sleep included, and BootID which
	// start that was.
	Boot   func() time.Duration
	BootID func() (string, error)
}

func machine() Clock {
	return Clock{Now: time.Now, After: time.After, Boot: bootclock.Since, BootID: bootclock.ID}
}
