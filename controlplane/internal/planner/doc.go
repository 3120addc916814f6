// Package planner compares what policy wants with what connectors observed and
// writes down the difference as a plan.
//
// Plan is one pure function: it reads its Input and nothing else, and equal
// inputs, in whatever order their parts come, give equal bytes. Onboarding, a
// change, a leaver, the end of a grant and offboarding differ only in inputs.
// Standing makes the same plan from what changed since the last one.
// The ledger's rules (Advance, Settle) stand here too, because what offboarding
// takes back follows from how receipts move the ledger.
//
// Policy hands it Desired states, inventory the snapshots, identity the links,
// ledger its entries; it hands Output to rehearsal, which tries it on the twin,
// and Encoded to approval and signing. It has no SQL, no server and no clock.
package planner
