// Package jointoken owns the one-time token with which an agent joins: 256 random
// bits with a checksum in a text form that survives being copied by hand. The
// control plane's enrollment makes it, shows it once and stores its hash; the
// agent reads it from a file or standard input and presents it in Enroll.
//
// A Token never prints itself: every formatting verb, text or JSON encoding and
// slog shows a fixed placeholder. Reveal is the one way to the text.
package jointoken
