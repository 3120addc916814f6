// Package statedir is the layout of the agent's state folder: where keys, SVID,
// journal, root documents and checkpoints lie, who may read them and how they
// are replaced without ever being half written.
//
// enroll fills it at the join, session and the SVID source keep it current, the
// journal owns its own file in it. Roots holds the root documents and lets only
// what the client's pin leads to be used.
package statedir
