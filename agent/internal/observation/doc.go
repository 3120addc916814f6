// Package observation tells the control plane what the directories hold: it
// reads a connector whole, strips what may not leave, compares digest by digest
// with what the control plane has acknowledged, and pushes the difference. Where
// the connector can tell what changed since a cursor it reads only that, and reads
// whole again from time to time.
//
// pluginhost hands over objects, the journal keeps the acknowledged digests
// and, with them, the cursor,
// session lends the connection and passes on directives to observe. A read that
// stopped half way is sent as incomplete and removes nothing. Objects are held
// only while they wait in the send window; of the rest the anchor and digest.
package observation
