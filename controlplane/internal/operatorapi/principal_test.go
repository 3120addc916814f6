package operatorapi

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// TestOnlyAnOperatorsCertificateIsAnOperators: who got past the handshake is still
// asked who they are. The listener lets operators in alone; this is the wall behind
// it.
func TestOnlyAnOperatorsCertificateIsAnOperators(t *testing.T) {
	with := func(id string, verified bool) context.Context {
		uri, err := url.Parse(id)
		if err != nil {
			t.Fatal(err)
		}
		leaf := &x509.Certificate{URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature}
		state := tls.ConnectionState{HandshakeComplete: true, PeerCertificates: []*x509.Certificate{leaf}}
		if verified {
			state.VerifiedChains = [][]*x509.Certificate{{leaf}}
		}
		return peer.NewContext(context.Background(), &peer.Peer{AuthInfo: credentials.TLSInfo{State: state}})
	}
	for id, want := range map[string]string{
		"spiffe://msp.example/operator/kari":             "operator:kari",
		"spiffe://msp.example/tenant/fabrikam/agent/dc1": "",
		"spiffe://msp.example/control-plane":             "",
		"spiffe://msp.example/operator/kari/more":        "",
	} {
		ctx, err := authenticate(with(id, true))
		switch {
		case want == "" && status.Code(err) != codes.Unauthenticated:
			t.Errorf("%s was let in: %v", id, err)
		case want != "" && (err != nil || actor(ctx) != want):
			t.Errorf("%s: %v, as %q", id, err, actor(ctx))
		}
		if _, err := authenticate(with(id, false)); status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s, unverified, was let in: %v", id, err)
		}
	}
}
