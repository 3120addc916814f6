// Package spiffe owns the names of the parties: agents, operators and control
// planes, each as its own type, so that a function which wants an agent cannot
// be handed an operator. A name is read from a certificate or a string here and
// nowhere else.
//
// The grammar is that of the SPIFFE-ID standard, narrowed to one canonical
// spelling per name: two IDs are the same party exactly if they are equal as
// strings. It also owns the certificate policy OIDs that mark which of the CA's
// intermediates may speak for which kind of party.
//
// ca hands names in when it issues; mtls hands verified names to authorisers.
package spiffe
