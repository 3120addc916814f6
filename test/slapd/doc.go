// Package slapd runs a real OpenLDAP server for tests: built from cn=config in
// a folder of its own, listening on loopback only, gone when the test ends.
//
// Tests of connectors and whole-path stories hand it a suffix, data and access
// rules and get back where it listens and who may do everything there. It
// imports nothing of ours. It is no fake: what it answers is what OpenLDAP 2.5
// and later answer.
package slapd
