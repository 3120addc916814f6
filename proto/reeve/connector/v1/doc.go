// Package connectorv1 is the contract between agent and connector, and the few
// rules both sides and the planner must agree on to the byte: how values and
// names compare (Canonical, Name.Key) and what an object's digest covers.
//
// It imports nothing of ours. plan/v1 builds on it; the agent and plugins/sdk
// speak it.
package connectorv1
