package mtls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/reevehq/reeve/pki/spiffe"
)

// ExporterLabel is the label under which a challenge is bound to a connection.
const ExporterLabel = "EXPORTER-reeve-attest-v1"

const bindingSize = 32

// Peer is PeerOf the connection that a gRPC request came in on. Without a TLS
// connection it wraps ErrNoPeerCertificate.
func Peer(ctx context.Context) (spiffe.ID, *x509.Certificate, error) {
	state, err := State(ctx)
	if err != nil {
		return nil, nil, err
	}
	return PeerOf(state)
}

// State is the TLS state of the connection that a gRPC request came in on.
func State(ctx context.Context) (tls.ConnectionState, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return tls.ConnectionState{}, fmt.Errorf("%w: not a gRPC request", ErrNoPeerCertificate)
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok {
		return tls.ConnectionState{}, fmt.Errorf("%w: not a TLS connection", ErrNoPeerCertificate)
	}
	return info.State, nil
}

// PeerOf is the ID and leaf certificate of the client of a connection that a
// configuration of this package accepted. It believes only what a server verified:
// a state without verified chains, as on a client's side or from any other kind of
// configuration, wraps ErrPeer. A client that showed no certificate wraps
// ErrNoPeerCertificate. The caller ends the connection at the leaf's NotAfter.
func PeerOf(state tls.ConnectionState) (spiffe.ID, *x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, nil, ErrNoPeerCertificate
	}
	if !state.HandshakeComplete || len(state.VerifiedChains) == 0 {
		return nil, nil, fmt.Errorf("%w: certificate was not verified", ErrPeer)
	}
	leaf := state.PeerCertificates[0]
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	return id, leaf, nil
}

// ExporterBinding is 32 bytes that both ends of one TLS 1.3 connection know and no
// other connection has (RFC 8446, 7.5, as RFC 9266 uses it, under ExporterLabel).
// Signed within an answer to a challenge they keep the answer from being relayed.
func ExporterBinding(state tls.ConnectionState) ([]byte, error) {
	if state.Version != tls.VersionTLS13 || !state.HandshakeComplete {
		return nil, fmt.Errorf("%w: exporter needs a complete TLS 1.3 handshake", ErrPeer)
	}
	b, err := state.ExportKeyingMaterial(ExporterLabel, nil, bindingSize)
	if err != nil {
		return nil, fmt.Errorf("export keying material: %w", err)
	}
	return b, nil
}
