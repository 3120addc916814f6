// Package connectortest proves that a connector keeps the contract. Run starts
// it as its host would, over the wire, and tries every contract point against
// a real directory that the author's Setup prepares and reads from outside:
// what the connector says of itself is never the only witness.
//
// Only operations that a type declares are tried. Memory is a fake connector
// over a JSON file for the tests of hosts; it passes its own suite.
package connectortest
