// Package siege has no code of its own, only a test that lays siege to the
// guardrails: an attacker who holds every key of the control plane sends validly
// signed orders to an agent's core (admission, executor, journal) on a fake
// directory, and an oracle says of every difference in that directory whether the
// client's agent.yaml allows it.
//
// The oracle shares no line with guardrails. It is written from SECURITY.md, the
// example agent.yaml and the words of `reeve-agent guardrails explain`, and it is
// as dumb as it can be: it knows names as lists of pairs, compares them in loops,
// and never looks at an operation, only at the directory before and after.
//
//	go test ./agent/internal/siege -orders 100000 -seed 1
package siege
