// Package agentapi is where agents connect: the gRPC services of agent/v1 over
// mutual TLS. It decides who is calling, by the exact registered name in the
// verified SVID and by nothing in a request, holds the live connections so that
// a revoked agent's can be cut, and turns errors into status codes, which no
// other context does.
//
// It hands on: joins and renewals to enrollment, snapshots to Observations
// (inventory), records to Records (intake), order fetches to Orders (dispatch),
// checkpoints and cosignatures between auditlog and the agents. dispatch and
// inventory hand directives for live sessions to Registry.
package agentapi
