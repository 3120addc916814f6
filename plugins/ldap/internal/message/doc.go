// Package message reads the LDAPMessages (RFC 4511 section 4) that answer a
// search, a bind or StartTLS straight off a connection: one at a time, into
// buffers that are used again, within bounds that a hostile server cannot move.
//
// plugins/ldap hands it a connection and takes entries, references and results.
// It sends nothing and keeps nothing between messages but its buffers. What does
// not follow the grammar and the restrictions of RFC 4511 section 5.1 is an
// error and never a guess.
package message
