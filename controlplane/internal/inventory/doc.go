// Package inventory owns what the connectors of a tenant look like and what they
// observed: connectors with their fingerprints, snapshots, objects.
//
// The agent API hands it connector states and observation deltas. Identity
// correlates its objects; planning reads whole snapshots from it. A snapshot is
// seen as a whole or not at all: its rows carry a number above the connector's
// current one until the last delta is durable.
package inventory
