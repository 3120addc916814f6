// Package sshsig verifies signatures that people make with `ssh-keygen -Y sign`
// (OpenSSH's PROTOCOL.sshsig): the client's approvals of plans and of changes to
// the root document. Keys are Ed25519, ECDSA and both kinds of FIDO security key,
// listed as in an allowed_signers file; RSA, DSA and certificates are refused.
//
// The agent's admission hands in the statement it built itself and the approvers
// of agent.yaml. Making signatures is left to ssh-keygen, which knows the
// person's agent and hardware.
package sshsig
