// Package dsse owns signed envelopes: DSSE version 1 in its JSON encoding, with
// Ed25519 signatures over the pre-authentication encoding (PAE). Payloads are
// opaque bytes here: marshalled once by whoever signs, carried verbatim ever
// after. A verifier states which payload type it wants, and gets no byte of a
// payload of another type or one with too few signatures.
//
// root signs root documents with it, the control plane's signing its orders,
// the agent's audit its chain heads. A key signs one payload type only; which
// keys may sign which type is for the root document and the key history to say.
package dsse
