// Package agent is the program in the client's network, put together. Run is the
// whole of it: the command line, and under `run` everything that stays up.
//
// The way of an order through it: session fetches it, admission admits it into
// the journal or refuses it, executor carries it out through pluginhost's
// connectors, audit records every effect, session ships the records. Beside it
// obligation ends timed access, observation tells what the directories hold,
// enroll keeps the certificate fresh, localapi lets the client's administrator in.
//
// connectors.go alone knows the built-in connectors; no other package of ours
// imports this one but cmd/reeve-agent, and a program of the tests that runs it on
// another clock.
package agent
