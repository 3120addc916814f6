// Package bootclock reads the machine's own count of time since it started,
// sleep included, and which start that was. Nobody can set it, so the journal's
// clock holds the wall clock against it. agent.Run hands it to journal.NewClock.
package bootclock
