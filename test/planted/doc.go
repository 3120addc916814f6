// Package planted tests the tests. Each entry of the files under bugs takes one
// protection away from the product, as a small patch that still compiles, and
// names the tests that must fail on it. Run plants them one at a time in an
// overlay (go help build, -overlay), so the tree is never touched, and runs the
// named tests: first with nothing planted, when all must pass, then with each bug,
// when a test must fail as a test and not for want of a build. Programs that tests
// build for themselves get the bug too, by GOFLAGS.
//
// `make planted` runs it; RESULTS.md holds the last run. `make test` only checks
// that every entry still fits the code. It hands to nobody.
package planted
