// Package enrollmentstore keeps enrollment's rows in SQL: agents, invitations
// and keys. Only wiring imports it.
package enrollmentstore
