// Package hostile drives a staff list of hostile names through the real agent into
// the real control plane and looks at every way out: the database holds them to the
// byte, whatever prints them prints no character that acts on a terminal, and a
// plan gives each of them an account of exactly that name or says why not.
//
// It owns the names; package rig runs the programs. `go test ./test/hostile -names
// 100000` is the full measure.
package hostile
