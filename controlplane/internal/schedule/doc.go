// Package schedule owns work that comes round: rows with a cron expression and
// the time of the next run, claimed by compare-and-swap so that a round runs
// once however many replicas look.
//
// It hands due work to the functions it was given; it knows no other context. A
// round missed while nobody ran is made up for once, not once for every miss.
package schedule
