// Package roundtrip proves on a real slapd that what Reeve does to a directory
// can be told beforehand and taken back: a client of thousands of people and
// hundreds of groups is onboarded, changed and offboarded with the real
// programs, and slapcat before and after is compared to the byte.
//
// It owns the awkward estate, the policies in testdata, and oracles that say in
// plain Go over the staff list what must be there; they share no code with the
// planner. Its tests build the programs and drive them as a user does; it imports
// test/slapd and nothing else of ours, and nobody imports it.
package roundtrip
