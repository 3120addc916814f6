// Package pki heads the trust library: everything that both sides of the wire
// need in order to decide what to believe. It holds no server, no SQL and no
// message types, so the control plane, the agent and the offline verifier link
// the same code.
//
// The packages below it: spiffe (names), keys (key files), dsse (envelopes),
// root (the root document), ca (issuing), svid (renewing sources), mtls (who is
// on the other end), chain (the agents' hash chain), tlogproof (checkpoints and
// proofs of the Merkle log), sshsig (client approvals), jointoken (joining).
//
// Keys that sign are Ed25519; keys that terminate TLS are ECDSA P-256.
package pki
