// Package operatorapi serves the operator API: gRPC on a local socket and over
// mTLS, and REST with the same methods. It turns requests into calls of the
// contexts and their errors into problems with a remedy; it decides nothing.
//
// Everybody who calls is one Principal, whether known by a socket's peer or by
// an SVID. The CLI, scripts and the console are its clients.
package operatorapi
