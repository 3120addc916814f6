// Package keys owns private and public keys as files: PEM, PKCS#8 for private
// halves and SPKI (RFC 5280, 4.1.2.7) for public ones, written so that a crash
// leaves the old file or the new one and never a torn one, and read only while
// nobody but their owner can read the private half.
//
// It also owns the key ID that every other package uses to name a key. dsse and
// root name keys by it; ca, the agent and `reeve root` keep their keys in files
// through it.
package keys
