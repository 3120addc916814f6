package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/internal/golden"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

const td = "reeve.example"

var (
	noon  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	agent = spiffe.AgentID{TrustDomain: td, Tenant: "fabrikam", Agent: "dc1"}
	kari  = spiffe.OperatorID{TrustDomain: td, Name: "kari"}
	plane = spiffe.ControlPlaneID{TrustDomain: td}
)

func at(ts time.Time) func() time.Time { return func() time.Time { return ts } }

func newCA(t *testing.T, now func() time.Time) *CA {
	t.Helper()
	c, err := New(Config{TrustDomain: td, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func request(t *testing.T) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	return csr, key
}

func verify(c *CA, chain Chain, usage x509.ExtKeyUsage, now time.Time) error {
	inter := x509.NewCertPool()
	for _, cert := range chain[1:] {
		inter.AddCert(cert)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: c.Pool(), Intermediates: inter, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
	return err
}

func TestIssue(t *testing.T) {
	c := newCA(t, at(noon))
	csr, key := request(t)
	for name, tc := range map[string]struct {
		issue func() (Chain, error)
		id    spiffe.ID
		yes   x509.ExtKeyUsage
		no    x509.ExtKeyUsage
	}{
		"agent":    {func() (Chain, error) { return c.IssueAgent(csr, agent, 0) }, agent, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		"operator": {func() (Chain, error) { return c.IssueOperator(csr, kari, 0) }, kari, x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		"server":   {func() (Chain, error) { return c.IssueServer(csr, plane, 0) }, plane, x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	} {
		chain, err := tc.issue()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		leaf := chain[0]
		if id, err := spiffe.FromCertificate(leaf); err != nil || id != tc.id {
			t.Errorf("%s: ID %v, %v", name, id, err)
		}
		if err := verify(c, chain, tc.yes, noon); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := verify(c, chain, tc.no, noon); err == nil {
			t.Errorf("%s: verifies for the other side of TLS", name)
		}
		if err := spiffe.CheckKind(chain, tc.id.Kind()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !key.PublicKey.Equal(leaf.PublicKey) || leaf.IsCA || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
			t.Errorf("%s: key or names are not as asked", name)
		}
		if !leaf.NotBefore.Equal(noon.Add(-time.Minute)) || !leaf.NotAfter.Equal(noon.Add(time.Hour)) {
			t.Errorf("%s: valid %v to %v", name, leaf.NotBefore, leaf.NotAfter)
		}
		if verify(c, chain, tc.yes, noon.Add(-2*time.Minute)) == nil || verify(c, chain, tc.yes, noon.Add(time.Hour+time.Second)) == nil {
			t.Errorf("%s: verifies outside of its time", name)
		}
	}
}

// TestRequestNamesAreIgnored: whatever a request asks for, its key is all it gives.
func TestRequestNamesAreIgnored(t *testing.T) {
	c := newCA(t, at(noon))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: "control-plane"}, URIs: []*url.URL{plane.URL()}, DNSNames: []string{"msp.example"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := c.IssueAgent(csr, agent, 0)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := spiffe.FromCertificate(chain[0]); err != nil || id != agent || len(chain[0].DNSNames) != 0 || chain[0].Subject.CommonName != "" {
		t.Errorf("request's names got through: %v, %v, %v", id, err, chain[0].Subject)
	}
}

func TestIssueRefuses(t *testing.T) {
	c := newCA(t, at(noon))
	good, _ := request(t)
	of := func(key crypto.Signer, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		csr, err := NewRequest(key)
		if err != nil {
			t.Fatal(err)
		}
		return csr
	}
	_, edKey, edErr := ed25519.GenerateKey(rand.Reader)
	p384, p384Err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	changed := bytes.Clone(good)
	changed[len(changed)-1] ^= 1
	foreign := agent
	foreign.TrustDomain = "elsewhere.example"
	odd := agent
	odd.Agent = "dc1/../dc2"
	for name, tc := range map[string]struct {
		csr  []byte
		id   spiffe.AgentID
		ttl  time.Duration
		want error
	}{
		"no request":    {nil, agent, 0, ErrRequest},
		"bad signature": {changed, agent, 0, ErrRequest},
		"trailing data": {append(bytes.Clone(good), 0), agent, 0, ErrRequest},
		"large":         {make([]byte, maxRequest+1), agent, 0, ErrRequest},
		"Ed25519":       {of(edKey, edErr), agent, 0, ErrRequest},
		"P-384":         {of(p384, p384Err), agent, 0, ErrRequest},
		"foreign":       {good, foreign, 0, ErrID},
		"odd name":      {good, odd, 0, ErrID},
		"negative":      {good, agent, -time.Second, ErrTTL},
		"long":          {good, agent, MaxTTL + time.Second, ErrTTL},
	} {
		if chain, err := c.IssueAgent(tc.csr, tc.id, tc.ttl); !errors.Is(err, tc.want) || chain != nil {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
	for _, name := range []string{"", "Upper.example", "10.0.0.1", "a..b", ".a"} {
		if _, err := New(Config{TrustDomain: name}); !errors.Is(err, spiffe.ErrTrustDomain) {
			t.Errorf("trust domain %q: %v", name, err)
		}
	}
}

// TestStolenIntermediate: the agents' intermediate key makes no operator, no
// server, no CA and nobody in another trust domain.
func TestStolenIntermediate(t *testing.T) {
	c := newCA(t, at(noon))
	stolen := c.intermediates[spiffe.KindAgent]
	_, key := request(t)
	forge := func(template *x509.Certificate) Chain {
		t.Helper()
		cert, err := c.create(template, stolen.cert, key.Public(), stolen.key)
		if err != nil {
			t.Fatal(err)
		}
		return Chain{cert, stolen.cert}
	}
	client := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	asOperator := forge(&x509.Certificate{NotAfter: noon.Add(time.Hour), ExtKeyUsage: client, URIs: []*url.URL{kari.URL()}})
	if err := spiffe.CheckKind(asOperator, spiffe.KindOperator); !errors.Is(err, spiffe.ErrKind) {
		t.Errorf("as operator: %v, want ErrKind", err)
	}
	asServer := forge(&x509.Certificate{NotAfter: noon.Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, URIs: []*url.URL{plane.URL()}})
	if verify(c, asServer, x509.ExtKeyUsageServerAuth, noon) == nil {
		t.Error("as server: verifies")
	}
	foreign := spiffe.AgentID{TrustDomain: "elsewhere.example", Tenant: "a", Agent: "b"}
	if verify(c, forge(&x509.Certificate{NotAfter: noon.Add(time.Hour), ExtKeyUsage: client, URIs: []*url.URL{foreign.URL()}}), x509.ExtKeyUsageClientAuth, noon) == nil {
		t.Error("in another trust domain: verifies")
	}
	edKey, err := keys.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sub, err := c.create(&x509.Certificate{NotAfter: noon.Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, stolen.cert, edKey.Public(), stolen.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := c.create(&x509.Certificate{NotAfter: noon.Add(time.Hour), ExtKeyUsage: client, URIs: []*url.URL{kari.URL()}}, sub, key.Public(), edKey)
	if err != nil {
		t.Fatal(err)
	}
	if verify(c, Chain{leaf, sub, stolen.cert}, x509.ExtKeyUsageClientAuth, noon) == nil {
		t.Error("through a CA of its own: verifies")
	}
}

func TestSaveLoad(t *testing.T) {
	c := newCA(t, at(noon))
	dir := filepath.Join(t.TempDir(), "ca")
	if err := c.Save(dir); err != nil {
		t.Fatal(err)
	}
	if err := c.Save(dir); !errors.Is(err, ErrStore) {
		t.Errorf("saving over a CA: %v, want ErrStore", err)
	}
	if err := os.Remove(filepath.Join(dir, rootKeyFile)); err != nil {
		t.Fatal(err)
	}
	back, err := Load(dir, Config{TrustDomain: td, Now: at(noon)})
	if err != nil {
		t.Fatal(err)
	}
	csr, _ := request(t)
	chain, err := back.IssueAgent(csr, agent, time.Minute)
	if err != nil || verify(c, chain, x509.ExtKeyUsageClientAuth, noon) != nil {
		t.Errorf("loaded CA does not issue for the same root: %v", err)
	}
	if err := back.Rotate(spiffe.KindAgent); back.HasRootKey() || !errors.Is(err, ErrNoRootKey) {
		t.Errorf("rotate without root key: %v, want ErrNoRootKey", err)
	}
	if _, err := Load(dir, Config{TrustDomain: "elsewhere.example"}); !errors.Is(err, ErrStore) {
		t.Errorf("another trust domain: %v, want ErrStore", err)
	}
	agentFile := filepath.Join(dir, "agent.pem")
	text, err := os.ReadFile(agentFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "operator.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, Config{TrustDomain: td}); !errors.Is(err, ErrStore) {
		t.Errorf("the agents' intermediate as the operators': %v, want ErrStore", err)
	}
	if err := os.Chmod(agentFile, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := c.SaveIntermediate(dir, spiffe.KindOperator); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, Config{TrustDomain: td}); !errors.Is(err, keys.ErrPermissions) {
		t.Errorf("readable by all: %v, want ErrPermissions", err)
	}
	if err := newCA(t, at(noon)).SaveIntermediate(dir, spiffe.KindAgent); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, Config{TrustDomain: td}); !errors.Is(err, ErrStore) {
		t.Errorf("intermediate of another root: %v, want ErrStore", err)
	}
}

func TestExpiryAndRotation(t *testing.T) {
	now := noon
	c := newCA(t, func() time.Time { return now })
	csr, _ := request(t)
	now = c.Expiry(spiffe.KindAgent).Add(-time.Minute)
	old, err := c.IssueAgent(csr, agent, time.Hour)
	if err != nil || old[0].NotAfter.After(c.Expiry(spiffe.KindAgent)) {
		t.Fatalf("outlives its intermediate: %v", err)
	}
	if err := c.Rotate(spiffe.KindAgent); err != nil {
		t.Fatal(err)
	}
	fresh, err := c.IssueAgent(csr, agent, time.Hour)
	if err != nil || fresh[1].Equal(old[1]) {
		t.Fatalf("rotation changed nothing: %v", err)
	}
	for _, chain := range []Chain{old, fresh} {
		if err := verify(c, chain, x509.ExtKeyUsageClientAuth, now); err != nil {
			t.Error(err)
		}
	}
	now = c.Expiry(spiffe.KindOperator).Add(time.Second)
	if _, err := c.IssueOperator(csr, kari, 0); !errors.Is(err, ErrExpired) {
		t.Errorf("expired intermediate: %v, want ErrExpired", err)
	}
}

// counter is a stream that differs in every byte position that is asked for.
type counter struct{ n byte }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		c.n = c.n*167 + 13
		p[i] = c.n
	}
	return len(p), nil
}

// TestGolden pins the bytes of certificates: Ed25519 signatures are fixed by key
// and content.
func TestGolden(t *testing.T) {
	c, err := New(Config{TrustDomain: td, Now: at(noon), Rand: &counter{}})
	if err != nil {
		t.Fatal(err)
	}
	csrHex, err := os.ReadFile(filepath.Join("testdata", "request.hex"))
	if err != nil {
		t.Fatal(err)
	}
	csr, err := hex.DecodeString(string(bytes.TrimSpace(csrHex)))
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "root.pem", []byte(c.BundlePEM()[0]))
	for name, issue := range map[string]func() (Chain, error){"agent": func() (Chain, error) { return c.IssueAgent(csr, agent, 0) }} {
		chain, err := issue()
		if err != nil {
			t.Fatal(err)
		}
		golden.Check(t, name+"-chain.pem", chain.PEM())
	}
}

// TestOpenSSLReads: another implementation accepts the golden chain.
func TestOpenSSLReads(t *testing.T) {
	out, err := exec.Command("openssl", "verify", "-attime", "1795262400", "-purpose", "sslclient", "-x509_strict",
		"-CAfile", "testdata/root.pem", "-untrusted", "testdata/agent-chain.pem", "testdata/agent-chain.pem").CombinedOutput()
	if err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
