// Package ledgerstore keeps ledger's entries in SQL: the place in columns, the
// rest as JSON, since only the planner reads it. Only wiring imports it.
package ledgerstore
