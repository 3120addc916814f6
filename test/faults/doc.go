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
// What can be doubled only inside TLS, and so not from here, is told by tests
// where it happens: an order or chunk that comes twice by admission's
// TestReplayAndReordering and executor's TestSecondDeliveryDoesNothing, a
// directive that comes twice by session's TestOrdersRunOneByOneAndOnce, a batch
// that comes twice by intake's TestBatchesComeInOnceAndAreProven and
// TestAnyShippingEndsWithTheChain, an acknowledgement that is lost by session's
// TestRecordsAreShippedOnceWhateverIsCut.
//
// It has no code but tests; nothing imports it.
package faults
