// Package faults tells what becomes of a plan when something breaks in the
// middle of it: processes killed with SIGKILL, connections cut, disks full, state
// copied or put back, values changed by others. Every story runs the three real
// programs over package rig and ends by looking at the whole from outside: the
// target files, parsed by the test itself, are what policy says; the exported
// log verifies and tells each change once; after the offboarding the files are to
// the byte what they were and the ledger is empty.
//
// TestCrash kills at the system calls of one small plan after the other, under
// strace, and keeps an account of its own: the changes that were asked for, every
// value that came or went in the files, slapd's own audit log, and the exported
// log. RESULTS.md has the figures of a run; -kills N has more of it (make faults).
//
// The network is a proxy of the test's: it cuts after so many bytes, delays,
// half-closes, hangs, sends segments twice, and lets nothing pass for days. Days
// pass at once: agent and control plane are the real ones on a clock that the
// story moves (package clock). What no network can do, since TLS is between, a
// relay with both sides' keys does: it says everything twice and late. A renewal or
// an enrolment it cannot hand on, since their proofs are of one connection; what
// comes twice there is told by enrollment's own tests.
//
// It has no code but tests; nothing imports it.
package faults
