package clock

import (
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Variable names the clock's file in a program's environment.
const Variable = "REEVE_TEST_CLOCK"

// page is what the file holds.
type page struct {
	// ahead of the machine's clock, in nanoseconds.
	ahead atomic.Int64
	// still is the moment that is not passed, in nanoseconds of Unix time; 0 is none.
	still atomic.Int64
	// began is when the clock was made, in nanoseconds of Unix time: the start of
	// the machine, for whoever asks.
	began atomic.Int64
}

// Clock is safe for concurrent use, from any number of processes.
type Clock struct {
	page *page
	path string
}

// Make makes a clock that shows the machine's time, in a new file.
func Make(path string) (*Clock, error) {
	if err := os.WriteFile(path, make([]byte, os.Getpagesize()), 0o600); err != nil {
		return nil, fmt.Errorf("make a clock: %w", err)
	}
	c, err := Open(path)
	if err == nil {
		c.page.began.Store(time.Now().UnixNano())
	}
	return c, err
}

// Open shares the clock in the file. It stays mapped until the process ends.
func Open(path string) (*Clock, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the clock: %w", err)
	}
	defer f.Close()
	mapped, err := unix.Mmap(int(f.Fd()), 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("share the clock: %w", err)
	}
	return &Clock{page: (*page)(unsafe.Pointer(&mapped[0])), path: path}, nil
}

// Variable is the clock's file for the environment of a program.
func (c *Clock) Variable() string { return Variable + "=" + c.path }

// Now is the time by this clock.
func (c *Clock) Now() time.Time {
	now := time.Now().Add(time.Duration(c.page.ahead.Load()))
	if still := c.page.still.Load(); still != 0 && now.UnixNano() > still {
		return time.Unix(0, still)
	}
	return now
}

// Boot is the time since the clock was made, as a machine would count it since
// its start.
func (c *Clock) Boot() time.Duration { return c.Now().Sub(time.Unix(0, c.page.began.Load())) }

// BootID names that start.
func (c *Clock) BootID() (string, error) { return "the clock of " + c.path, nil }

// look is how often a timer looks at the clock, which may have been moved.
const look = 5 * time.Millisecond

// After is time.After by this clock.
func (c *Clock) After(d time.Duration) <-chan time.Time {
	due := c.Now().Add(d)
	out := make(chan time.Time, 1)
	go func() {
		for {
			left := due.Sub(c.Now())
			if left <= 0 {
				break
			}
			time.Sleep(min(left, look))
		}
		out <- c.Now()
	}()
	return out
}

// Move lets time pass at once, and run on from there.
func (c *Clock) Move(d time.Duration) {
	c.page.still.Store(0)
	c.page.ahead.Add(int64(d))
}

// MoveTo is Move up to a moment, where the clock then stands still. Time that is
// past already it does not bring back.
func (c *Clock) MoveTo(at time.Time) {
	c.page.still.Store(0)
	if left := at.Sub(c.Now()); left > 0 {
		// Still first, so that nobody sees a moment after it.
		c.page.still.Store(at.UnixNano())
		c.page.ahead.Add(int64(left))
	}
}
