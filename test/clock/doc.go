// Package clock is a clock that a test moves for other processes: a page of memory
// that they share through a file. It runs with the machine's, ahead of it by as
// much as the test says, and stands still at a moment that the test may set.
//
// Its two programs are the agent and the control plane as they ship, but on this
// clock: package main of theirs calls RunOn where the shipped one calls Run. They
// find the file by the environment variable REEVE_TEST_CLOCK, which no shipped
// program reads. Package rig starts them in the place of the real ones.
package clock
