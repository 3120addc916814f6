// Package auditlog owns each tenant's Merkle log: its entries, its tiles, its
// signed checkpoints with the witnesses' cosignatures, what of a record can be
// erased, and the export a client takes away. One log a tenant; the MSP's own
// holds the acts that belong to no tenant.
//
// The hashing is RFC 6962's through x/mod/sumdb/tlog, the checkpoint C2SP's
// tlog-checkpoint, the tiles C2SP's tlog-tiles. An append is part of the
// transaction of what it records: an act and its record commit together or not
// at all. A checkpoint is signed inside the transaction that makes its tree
// durable and leaves it only after the commit, so nothing is ever promised that
// a crash could take back.
//
// Every context hands acts in through AppendAct, intake hands agents' batches in
// through AppendBatch; agentapi and operatorapi take checkpoints, proofs and
// exports out. Package verify reads an export with no server at all.
package auditlog
