// Package planning makes plans: it reads what every earlier stage knows of a
// tenant at one moment, calls the pure planner and rehearsal, and keeps the
// result with the act that made it.
//
// Everything that is not pure about a plan stands here, so that planner and
// rehearsal need no database. Approval takes a plan over by its digest; dispatch
// reads its chunks.
package planning
