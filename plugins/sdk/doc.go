// Package sdk is what a connector's author builds on. The author says what the
// connector is (Connector), opens an instance from settings (Settings.Decode)
// and implements the abilities the directory has (Observer, Reader, Applier,
// ChangeReader, Watcher); Serve does the rest over the wire: handshake and
// mutual TLS, batching with back-pressure, counting, completeness, refusal of
// whatever the instance does not declare, and panics that become problems.
//
// The agent hands over through plugins/sdk/host, which starts the process and
// speaks connector/v1; PROTOCOL.md tells the same to authors in other
// languages. plugins/sdk/connectortest proves an implementation.
//
// Standard output belongs to the handshake: a connector logs through
// Logger(ctx) or to standard error, never to standard output.
package sdk
