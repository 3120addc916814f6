package mtls

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

// TestStolenAgentIntermediate: whoever took the agents' intermediate out of the
// CA's directory still makes agents only, whatever marks the leaf wears.
func TestStolenAgentIntermediate(t *testing.T) {
	c := newCA(t, td)
	dir := filepath.Join(t.TempDir(), "ca")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "agent.pem"))
	if err != nil {
		t.Fatal(err)
	}
	keyBlock, rest := pem.Decode(text)
	certBlock, _ := pem.Decode(rest)
	stolenKey, err := keys.ParsePrivate(pem.EncodeToMemory(keyBlock))
	if err != nil {
		t.Fatal(err)
	}
	stolen, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	operators, err := spiffe.PolicyOID(spiffe.KindOperator)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(id spiffe.ID, policies ...x509.OID) *tls.Certificate {
		key := newKey(t)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(9), NotBefore: noon.Add(-time.Minute), NotAfter: noon.Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, URIs: []*url.URL{id.URL()}, Policies: policies,
		}, stolen, key.Public(), stolenKey)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Certificate{Certificate: [][]byte{der, stolen.Raw}, PrivateKey: key}
	}
	server := ServerConfig(source(t, c, plane), anyone, atNoon)
	for name, cert := range map[string]*tls.Certificate{
		"unmarked leaf": forge(kari), "leaf marked as an operator's": forge(kari, operators),
	} {
		if _, _, serverErr, _ := meet(t, server, clientShowing(cert, c.Pool())); !errors.Is(serverErr, spiffe.ErrKind) || !errors.Is(serverErr, ErrPeer) {
			t.Errorf("%s: %v, want ErrKind", name, serverErr)
		}
	}
	if _, _, serverErr, _ := meet(t, server, clientShowing(forge(dc1), c.Pool())); serverErr != nil {
		t.Errorf("the same forger as an agent, to show that the kind made the difference: %v", serverErr)
	}
}
