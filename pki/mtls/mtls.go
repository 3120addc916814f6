package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
)

var (
	// ErrPeer means that the other end's certificate does not prove who it is.
	ErrPeer = errors.New("peer's identity is not proven")
	// ErrNotAuthorized means a proven peer that has no business here.
	ErrNotAuthorized = errors.New("peer is not authorised")
	// ErrNoPeerCertificate means that the peer showed no certificate.
	ErrNoPeerCertificate = errors.New("peer has no certificate")
)

// Authorizer decides whether a proven peer may connect at all. It is called
// within the handshake, once per connection, and should not block for long.
type Authorizer func(id spiffe.ID, leaf *x509.Certificate) error

// AgentsOf lets every agent of a trust domain in. It is for endpoints that look
// up what is registered with each request, and for tests.
func AgentsOf(trustDomain string) Authorizer {
	return func(id spiffe.ID, _ *x509.Certificate) error {
		if id.Kind() != spiffe.KindAgent || id.Domain() != trustDomain {
			return fmt.Errorf("%w: %v is no agent of %s", ErrNotAuthorized, id, trustDomain)
		}
		return nil
	}
}

// OperatorsOf lets every operator of a trust domain in.
func OperatorsOf(trustDomain string) Authorizer {
	return func(id spiffe.ID, _ *x509.Certificate) error {
		if id.Kind() != spiffe.KindOperator || id.Domain() != trustDomain {
			return fmt.Errorf("%w: %v is no operator of %s", ErrNotAuthorized, id, trustDomain)
		}
		return nil
	}
}

// ServerConfig is for servers that talk to parties with a certificate only. Own
// certificate and roots are asked of source for each connection. A nil authorize
// refuses everybody.
func ServerConfig(source svid.Source, authorize Authorizer, now func() time.Time) *tls.Config {
	return serverConfig(source, authorize, now, tls.RequireAndVerifyClientCert)
}

// ServerConfigOptionalClient is ServerConfig for an endpoint where agents join: a
// client without certificate gets through, and Peer says so; one with a
// certificate is held to the same rules.
func ServerConfigOptionalClient(source svid.Source, authorize Authorizer, now func() time.Time) *tls.Config {
	return serverConfig(source, authorize, now, tls.VerifyClientCertIfGiven)
}

func serverConfig(source svid.Source, authorize Authorizer, now func() time.Time, auth tls.ClientAuthType) *tls.Config {
	s := serving{source: source, authorize: authorize, now: now, auth: auth}
	cfg := base(now)
	cfg.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.config() }
	// crypto/tls wants a certificate in the outer configuration, too.
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return source.Current() }
	return cfg
}

// ClientConfig is for a party with a certificate that connects to a control plane.
// The host name that was dialled plays no part.
func ClientConfig(source svid.Source, server spiffe.ControlPlaneID, now func() time.Time) *tls.Config {
	cfg := base(now)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return source.Current() }
	verifyServer(cfg, server, now, func() (*roots, error) {
		own, err := source.Current()
		if err != nil {
			return nil, err
		}
		return rootsOf(source, own)
	})
	return cfg
}

// PinnedClientConfig is for an agent that joins and has no certificate yet:
// caRoots are those of a root document that was verified by its pin.
func PinnedClientConfig(caRoots *x509.CertPool, server spiffe.ControlPlaneID, now func() time.Time) *tls.Config {
	cfg := base(now)
	verifyServer(cfg, server, now, func() (*roots, error) {
		return &roots{own: server.TrustDomain, pools: map[string]*x509.CertPool{server.TrustDomain: caRoots}}, nil
	})
	return cfg
}

func verifyServer(cfg *tls.Config, server spiffe.ControlPlaneID, now func() time.Time, rootsNow func() (*roots, error)) {
	// crypto/tls can verify a server by host name only; VerifyConnection below
	// does all of its work instead, on every connection.
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		r, err := rootsNow()
		if err != nil {
			return err
		}
		id, err := r.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth, now())
		if err != nil {
			return err
		}
		if id != server {
			return fmt.Errorf("%w: server is %v, expected %v", ErrNotAuthorized, id, server)
		}
		return nil
	}
}

func base(now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		Time:       now,
		NextProtos: []string{"h2", "http/1.1"},
		// A resumed session would stand for a certificate that was checked earlier.
		SessionTicketsDisabled: true,
	}
}
