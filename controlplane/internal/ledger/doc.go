// Package ledger keeps what Reeve wrote, value by value: what was there before,
// what it wrote last and whose cause it was. Offboarding is derived from it. The
// rules by which receipts and snapshots move it are planner.Advance and
// planner.Settle; this package stores what they say.
//
// intake hands in receipts, inventory complete snapshots; planning reads the
// whole, rehearsal and identity's explanations an object's part.
package ledger
