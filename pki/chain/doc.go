// Package chain owns the hash chain in which an agent keeps its records: each
// link commits to everything before it, back to a genesis that names the agent
// and its epoch. Hashing is domain-separated SHA-256 with every part's length
// fixed or written out, so no two histories share a link.
//
// The agent's audit makes links as it commits records and signs the newest one;
// the control plane's intake and the offline verifier walk them with Verifier.
package chain
