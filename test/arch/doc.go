// Package arch holds the import rules of the house, each with its reason, as a
// test. A rule that stands in the way is changed here, with a reason, or not at
// all.
package arch
