// Package cli is the command line of the MSP's operators, `reeve NOUN VERB`. It
// is a client of the operator API and of nothing else of the control plane;
// `policy test` and `audit verify` run offline, on the functions that the
// control plane itself uses.
//
// The operator hands it arguments; it hands requests to operatorapi over a
// local socket or mTLS. It decides nothing about tenants: it shows what the
// control plane says, asks where a person must look, and turns problems into
// sentences and exit codes (exit.go has all of them).
//
// Two rules hold for everything it prints. Text that comes from a directory, a
// file or the server passes clean, so that no name can move a cursor or reorder
// its neighbours. And with -o json standard output carries one JSON document,
// the response as protojson, and standard error carries problems as JSON.
package cli
