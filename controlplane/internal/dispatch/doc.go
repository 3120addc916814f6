// Package dispatch sends approved plans to agents as signed, sequenced orders and
// follows them until their records say that they have ended.
//
// Approval hands it plans by id; the agent API asks it what waits for an agent
// and streams it; intake hands it the receipts. An order is delivered again until
// its end is on record, so losing a message costs nothing.
package dispatch
