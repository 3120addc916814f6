// Package config is agent.yaml: the one file by which a client tells its agent
// what it may reach, what may leave the network and what it may change. File is
// the documented struct, Load reads it strictly.
//
// The client's administrator writes the file; nothing that arrives over the
// network ever does. agent.Run hands the parts on: connectors to pluginhost,
// guardrails to admission and executor, recipients and secret references to
// secrets, the control plane's address and pin to enroll and session.
package config
