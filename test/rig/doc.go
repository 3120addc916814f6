// Package rig runs Reeve's three programs as child processes for stories that
// look at them only from outside: a control plane in a folder of its own, one
// agent of one client, the client's files as targets, and the operator's command
// line with `-o json` in between. Any process may be killed at any moment.
//
// It owns processes, the client's estate and the reading of an exported log; the
// stories (package faults) hand it what is to happen and assert what came of it.
// It types the commands that test/demo types, and asserts nothing but that
// commands which must succeed do. Of ours it imports only the contracts. Waiting
// is always for a condition, never for a time.
package rig
