package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func clock() time.Time { return testNow }

func newCA(t *testing.T, domain string) *ca.CA {
	t.Helper()
	c, err := ca.New(ca.Config{TrustDomain: domain, Now: clock})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// issue returns a certificate for id, as a source and as files of PEM.
func issue(t *testing.T, c *ca.CA, id spiffe.ID) (source fileSource, cert, key, roots string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewRequest(k)
	if err != nil {
		t.Fatal(err)
	}
	var chain ca.Chain
	switch id := id.(type) {
	case spiffe.OperatorID:
		chain, err = c.IssueOperator(csr, id, 0)
	case spiffe.ControlPlaneID:
		chain, err = c.IssueServer(csr, id, 0)
	case spiffe.AgentID:
		chain, err = c.IssueAgent(csr, id, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := keys.MarshalPrivate(k)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string][]byte{"cert.pem": chain.PEM(), "key.pem": text, "ca.pem": []byte(strings.Join(c.BundlePEM(), "\n"))} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source = fileSource{cert: &tls.Certificate{Certificate: chain.DER(), PrivateKey: k, Leaf: chain[0]}, roots: c.Pool(), now: clock}
	return source, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "ca.pem")
}

// TestNetwork: over a network both sides prove who they are by SPIFFE ID.
func TestNetwork(t *testing.T) {
	const domain = "reeve.example"
	plane := newCA(t, domain)
	server, _, _, _ := issue(t, plane, spiffe.ControlPlaneID{TrustDomain: domain})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeOperator{tenants: []*operatorv1.Tenant{{Id: "fabrikam"}}}
	authorize := func(id spiffe.ID, leaf *x509.Certificate) error { return mtls.OperatorsOf(domain)(id, leaf) }
	f.serve(t, l, credentials.NewTLS(mtls.ServerConfig(server, authorize, clock)))

	_, cert, key, roots := issue(t, plane, spiffe.OperatorID{TrustDomain: domain, Name: "kari"})
	_, agentCert, agentKey, _ := issue(t, plane, spiffe.AgentID{TrustDomain: domain, Tenant: "fabrikam", Agent: "dc1"})
	_, strangerCert, strangerKey, strangerRoots := issue(t, newCA(t, domain), spiffe.OperatorID{TrustDomain: domain, Name: "kari"})
	for _, c := range []struct {
		name string
		args []string
		late time.Duration
		code int
	}{
		{name: "operator", args: []string{"--cert", cert, "--key", key, "--ca", roots}, code: ExitDone},
		{name: "named trust domain", args: []string{"--cert", cert, "--key", key, "--ca", roots, "--trust-domain", domain}, code: ExitDone},
		{name: "other trust domain", args: []string{"--cert", cert, "--key", key, "--ca", roots, "--trust-domain", "other.example"}, code: ExitUnreachable},
		{name: "agent's certificate", args: []string{"--cert", agentCert, "--key", agentKey, "--ca", roots}, code: ExitUnreachable},
		{name: "stranger's certificate", args: []string{"--cert", strangerCert, "--key", strangerKey, "--ca", roots}, code: ExitUnreachable},
		{name: "stranger's roots", args: []string{"--cert", cert, "--key", key, "--ca", strangerRoots}, code: ExitUnreachable},
		{name: "certificate has ended", args: []string{"--cert", cert, "--key", key, "--ca", roots}, late: 1000 * time.Hour, code: ExitUnreachable},
		{name: "another's key", args: []string{"--cert", cert, "--key", agentKey, "--ca", roots}, code: ExitFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out, errs stream
			env := testEnv(strings.NewReader(""), &out, &errs, false)
			env.Now = func() time.Time { return testNow.Add(c.late) }
			code := Run(t.Context(), append([]string{"--server", l.Addr().String(), "tenant", "list"}, c.args...), env)
			if code != c.code {
				t.Fatalf("exit code %d, want %d\n%s\n%s", code, c.code, out.String(), errs.String())
			}
			if code == ExitUnreachable && !strings.Contains(errs.String(), "--cert") {
				t.Errorf("the remedy does not speak of certificates:\n%s", errs.String())
			}
		})
	}
}
