// Package e2e tells Reeve's stories with the programs as they are shipped: typed
// commands, real processes, real files, a real slapd, and what people read.
//
// testdata/script holds the stories that read well as a list of commands; each
// runs in a folder of its own. Where a story needs code, as for REST calls or a
// rotating Workload API, it is a Go test beside them. testdata/estate is the
// small client that most of them begin with. A story waits for what it needs and
// never for a time; what it asserts is what a person or a script at the other
// end relies on: sentences, exit codes, files.
package e2e
