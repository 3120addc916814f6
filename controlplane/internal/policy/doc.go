// Package policy turns a policy bundle and a tenant's parameters into what
// every identity should have.
//
// It owns the bundle's YAML format (policy/v1), the CEL environment its rules
// are written in, the parameter schema, and the pure functions from a source
// object to a source row and from a Subject with its grants to a Desired state.
// Nothing here reads a clock, a database or a network: equal inputs give equal
// results, on the control plane and on an author's laptop alike.
//
// The identity context hands it observed source objects and gets source rows;
// the planner is handed Desired states, Entitlements and Rules. The command
// line runs bundle tests and policy diffs on the same functions.
package policy
