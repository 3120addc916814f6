// Package intake takes agents' records in. A batch is checked as a whole
// (signature by the epoch's enrolled audit key, strict decoding, body hashes,
// continuation of the chain) and then, in one transaction, appended to the
// tenant's log, kept verbatim, and told to whoever acts on it. What came before
// is acknowledged again with no second effect; a gap is answered with where to
// go on; a fork suspends the agent and says so.
//
// Tenants take turns at the one writer. Signatures are checked before a batch's turn
// and proofs made after it, beside the writer.
//
// agentapi hands batches in. They go to auditlog and, receipt by receipt, to
// ledger and to the Receivers that wiring names: dispatch, identity, grant.
package intake
