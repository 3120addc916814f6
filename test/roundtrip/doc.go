// Package roundtrip proves on a real slapd that what Reeve does to a directory
// can be told beforehand and taken back: a client of thousands of people and
// hundreds of groups is onboarded, changed and offboarded with the real
// binaries, and slapcat before and after is compared to the byte.
//
// It owns the awkward estate, the policies of its testdata, and oracles that say
// in plain Go over the staff list what must be there; they share no code with
// the planner. It drives bin-less: TestMain builds the programs. It uses
// test/slapd and nothing else of ours.
package roundtrip
