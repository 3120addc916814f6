// Package mtls owns the answer to "who is at the other end": TLS 1.3 configurations
// that verify X.509-SVIDs against the roots of the trust domain that the SVID
// itself names, by SPIFFE ID, side of TLS and kind of intermediate, never by DNS
// name; and the way from a connection to the verified ID.
//
// It is handed an svid.Source or the root document's CA roots. Servers hand the
// ID on to an Authorizer, which knows who is registered and not revoked; request
// handlers take tenant and principal from Peer alone.
package mtls
