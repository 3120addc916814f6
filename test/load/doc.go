// Package load measures the real programs, each figure beside a peer in the same
// run: what is printed is a ratio, nothing is asserted of time. `make bench` runs it
// at the sizes that RESULTS.md tells of; `go test` runs it small, to keep it
// working.
package load
