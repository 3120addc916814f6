// Package localapi is how the commands of a local administrator reach the
// running agent: named calls with JSON in and out, over a unix socket of mode
// 0600 in the state folder. Who may open the socket is root, or the agent's own
// user, who owns the journal anyway.
//
// The command line calls; agent.Run serves. There is no way to it from the
// network.
package localapi
