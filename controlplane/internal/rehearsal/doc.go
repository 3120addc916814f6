// Package rehearsal tries a plan, and the offboarding derived from it, before
// anybody approves it.
//
// It owns the twin: every connector's last snapshot in memory, on which changes
// have the effect that the connector declares. Rehearse runs the plan there,
// plans again, which must find nothing to do, offboards, and compares what is
// left with where it began.
//
// The twin takes a directory to keep its references whole: a renamed object is
// followed by the groups and attributes that name it, a deleted one leaves them.
// New accounts come into being disabled where their type can be disabled. What
// the directory adds by itself (numbers, SIDs, times) the twin does not have.
//
// The planner hands it inputs; it hands the result to approval and signing. It
// has no SQL, no server and no clock.
package rehearsal
