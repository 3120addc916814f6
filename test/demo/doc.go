// Package demo runs the whole job once, with the real binaries and the commands
// of the README, on a made-up company of 250 people: an estate adopted, a joiner,
// a mover, a leaver, a technician's timed access, a plan that guardrails refuse,
// the offboarding and the proof of it all. It says what happens and leaves the
// files to look at.
package demo
