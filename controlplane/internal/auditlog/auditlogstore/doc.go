// Package auditlogstore keeps auditlog's rows in SQL: heads, tiles, parts,
// bodies, batches and cosignatures. Only wiring imports it.
package auditlogstore
