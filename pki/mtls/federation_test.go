package mtls

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net/url"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/spiffe"
)

// federated knows roots of other trust domains, too.
type federated struct {
	still
	authorities map[string][]*x509.Certificate
}

func (f federated) Authorities() map[string][]*x509.Certificate { return f.authorities }

// foreignCA issues as SPIRE does: one self-signed CA without marks, both EKUs.
type foreignCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newForeignCA(t *testing.T) foreignCA {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return foreignCA{cert, key}
}

func (f foreignCA) issue(t *testing.T, uris ...*url.URL) still {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, URIs: uris,
	}, f.cert, key.Public(), f.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(f.cert)
	return still{&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool}
}

// TestFederation: a federated trust domain's CA, marks or not, names agents of its
// own domain and nobody else.
func TestFederation(t *testing.T) {
	msp, spire := newCA(t, td), newForeignCA(t)
	const foreign = "fabrikam.example"
	authorities := map[string][]*x509.Certificate{td: msp.Bundle(), foreign: {spire.cert}}
	server := federated{source(t, msp, plane), authorities}
	foreignAgent := spiffe.AgentID{TrustDomain: foreign, Tenant: "fabrikam", Agent: "dc1"}
	for name, tc := range map[string]struct {
		uris []*url.URL
		ok   bool
	}{
		"its own agent":      {[]*url.URL{foreignAgent.URL()}, true},
		"the MSP's agent":    {[]*url.URL{dc1.URL()}, false},
		"the MSP's operator": {[]*url.URL{kari.URL()}, false},
		"its own operator":   {[]*url.URL{spiffe.OperatorID{TrustDomain: foreign, Name: "kari"}.URL()}, false},
		"control plane":      {[]*url.URL{plane.URL()}, false},
		"unknown domain":     {[]*url.URL{spiffe.AgentID{TrustDomain: "x.example", Tenant: "a", Agent: "b"}.URL()}, false},
		"two names":          {[]*url.URL{foreignAgent.URL(), foreignAgent.URL()}, false},
		"no name":            {nil, false},
	} {
		client := spire.issue(t, tc.uris...)
		state, _, serverErr, _ := meet(t, ServerConfig(server, anyone, atNoon), clientShowing(client.cert, msp.Pool()))
		if (serverErr == nil) != tc.ok {
			t.Errorf("%s: %v", name, serverErr)
		}
		if id, _, err := PeerOf(state); tc.ok && (err != nil || id != foreignAgent) {
			t.Errorf("%s: %v, %v", name, id, err)
		}
	}
	// The other way round: an agent in the client's domain knows the MSP's roots
	// by federation, and takes the control plane by its exact ID only.
	agent := federated{spire.issue(t, foreignAgent.URL()), authorities}
	if _, _, serverErr, clientErr := meet(t, ServerConfig(server, anyone, atNoon), ClientConfig(agent, plane, atNoon)); serverErr != nil || clientErr != nil {
		t.Errorf("federated agent: %v, %v", serverErr, clientErr)
	}
	forged := spire.issue(t, plane.URL())
	impostor := &tls.Config{Certificates: []tls.Certificate{*forged.cert}, MinVersion: tls.VersionTLS13, Time: atNoon}
	if _, _, _, clientErr := meet(t, impostor, ClientConfig(agent, plane, atNoon)); !errors.Is(clientErr, ErrPeer) {
		t.Errorf("the client's CA as the MSP's control plane: %v, want ErrPeer", clientErr)
	}
}

// clientShowing is a test client that shows whatever certificate it has.
func clientShowing(cert *tls.Certificate, roots *x509.CertPool) *tls.Config {
	cfg := PinnedClientConfig(roots, plane, atNoon)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return cfg
}
