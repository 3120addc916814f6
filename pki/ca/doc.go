// Package ca owns the built-in certificate authority: one root and three
// intermediates below it, for control planes, operators and agents. Each
// intermediate can sign end certificates only, only in the trust domain (URI name
// constraint), only for its side of TLS (EKU) and only for its kind of party
// (certificate policy, see spiffe.PolicyOID), so that the theft of one does not
// make the others' parties.
//
// The control plane's enrollment issues through it; root documents carry its root
// certificate; mtls checks what it issued. The root key is needed to make
// intermediates only and may be kept elsewhere.
package ca
