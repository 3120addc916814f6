// Package enroll is how an agent becomes one and stays one. Join redeems a join
// token: root document by the client's pin, keys made here, each proven over the
// TLS connection. Attestor renews the SVID, and after a lapse proves the identity
// key instead; it is what pki/svid's Renewing source asks.
//
// What must survive a lost answer is on disk before it is sent: a retry carries
// the same keys and the same CSR. statedir holds all of it. session gets the SVID
// source.
package enroll
