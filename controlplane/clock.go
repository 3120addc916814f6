package controlplane

import "time"

// Clock is where the control plane gets its time from. Run takes the machine's; a
// test has a program of its own on a clock that it moves. No setting of the
// program leads here.
type Clock struct {
	// Now is the wall clock, After a timer by it.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
}

func machine() Clock { return Clock{Now: time.Now, After: time.After} }
