// Package tlogproof owns what is said and proven about the tenants' Merkle logs:
// checkpoints (C2SP tlog-checkpoint) as signed notes, cosignatures of witnesses
// (C2SP tlog-cosignature, cosignature/v1), and inclusion and consistency proofs
// (RFC 6962 hashing, through golang.org/x/mod/sumdb/tlog).
//
// The control plane's auditlog signs checkpoints, every agent cosigns those of
// its tenant as a witness, and agents and the offline verifier check proofs, all
// through here. Storing tiles and making proofs are the log's own work.
package tlogproof
