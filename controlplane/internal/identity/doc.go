// Package identity owns the governed records of subjects: where they come from
// (source links), what they own on targets (accounts), and the cases that
// correlation must leave to a person.
//
// Inventory hands it objects; policy hands it the mapping of source rows, as the
// Mapper it owns; the planner gets subjects and links from it. Once linked, only
// the anchor decides: a name that changes hands changes nothing.
package identity
