// Package session keeps the agent connected and does what crosses the wire. Link
// holds the connection: it dials again after a loss and moves to a new one when
// the SVID was renewed, losing nothing. Shipper sends records and believes they
// are kept only when the log proves it. Witness cosigns checkpoints and refuses
// a forked log. Orders fetches what waits and hands it on, one at a time.
//
// It takes records from the journal, and hands orders to admission, demands to
// observe to observation, and new root documents to statedir. It decides
// nothing about orders.
package session
