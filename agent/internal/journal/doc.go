// Package journal owns everything the agent must not forget: the chain of records
// and its spool, orders with their chunks and progress, holds (memberships with
// their ends), budgets, high-water marks, the clock's mark, what was observed. It
// is one SQLite file (WAL, synchronous=FULL) with a single writer.
//
// One Commit is one transaction and one fsync: what happened and what is intended
// next become durable together, and the chain's head is signed once over all of
// it. Rows beside the chain are sealed: each carries a keyed hash, and a keyed sum
// over all of them stands with the chain's head, so that a forged, missing or
// restored row is found.
//
// It is a foundation: admission, executor, obligation and session hand over to it
// and it calls none of them.
package journal
