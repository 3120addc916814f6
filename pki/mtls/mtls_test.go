package mtls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
)

const td = "reeve.example"

var (
	noon  = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	plane = spiffe.ControlPlaneID{TrustDomain: td}
	dc1   = spiffe.AgentID{TrustDomain: td, Tenant: "fabrikam", Agent: "dc1"}
	kari  = spiffe.OperatorID{TrustDomain: td, Name: "kari"}
)

func at(ts time.Time) func() time.Time { return func() time.Time { return ts } }

var atNoon = at(noon)

// still is a source that does not move.
type still struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func (s still) Current() (*tls.Certificate, error) {
	if s.cert == nil {
		return nil, svid.ErrExpired
	}
	return s.cert, nil
}
func (s still) Roots() *x509.CertPool    { return s.roots }
func (s still) Updated() <-chan struct{} { return nil }
func (s still) Close() error             { return nil }

func newCA(t *testing.T, domain string) *ca.CA {
	t.Helper()
	c, err := ca.New(ca.Config{TrustDomain: domain, Now: atNoon})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func source(t *testing.T, c *ca.CA, id spiffe.ID) still {
	t.Helper()
	key := newKey(t)
	csr, err := ca.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	var chain ca.Chain
	switch id := id.(type) {
	case spiffe.AgentID:
		chain, err = c.IssueAgent(csr, id, 0)
	case spiffe.OperatorID:
		chain, err = c.IssueOperator(csr, id, 0)
	case spiffe.ControlPlaneID:
		chain, err = c.IssueServer(csr, id, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return still{&tls.Certificate{Certificate: chain.DER(), PrivateKey: key, Leaf: chain[0]}, c.Pool()}
}

func anyone(spiffe.ID, *x509.Certificate) error { return nil }

// meet runs one handshake, with a byte each way so that a server's refusal, which
// in TLS 1.3 comes after the client is done, reaches the client.
func meet(t *testing.T, serverCfg, clientCfg *tls.Config) (server, client tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		raw, err := l.Accept()
		if err != nil {
			serverErr = err
			return
		}
		conn := tls.Server(raw, serverCfg)
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
		if serverErr = conn.Handshake(); serverErr == nil {
			server = conn.ConnectionState()
			_, serverErr = conn.Write([]byte{1})
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(raw, clientCfg)
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if clientErr = conn.Handshake(); clientErr == nil {
		client = conn.ConnectionState()
		_, clientErr = conn.Read(make([]byte, 1))
	}
	raw.Close()
	<-done
	return server, client, serverErr, clientErr
}

func TestMutual(t *testing.T) {
	c := newCA(t, td)
	var asked []spiffe.ID
	serverCfg := ServerConfig(source(t, c, plane), func(id spiffe.ID, leaf *x509.Certificate) error {
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != id.String() {
			t.Errorf("authorizer got %v with the leaf of %v", id, leaf.URIs)
		}
		asked = append(asked, id)
		return nil
	}, atNoon)
	for _, id := range []spiffe.ID{dc1, kari} {
		server, client, serverErr, clientErr := meet(t, serverCfg, ClientConfig(source(t, c, id), plane, atNoon))
		if serverErr != nil || clientErr != nil {
			t.Fatalf("%v: %v, %v", id, serverErr, clientErr)
		}
		got, leaf, err := PeerOf(server)
		if err != nil || got != id || !leaf.NotAfter.Equal(noon.Add(time.Hour)) {
			t.Errorf("peer %v, %v", got, err)
		}
		if server.Version != tls.VersionTLS13 || client.DidResume || server.DidResume {
			t.Error("not a fresh TLS 1.3 connection")
		}
		if _, _, err := PeerOf(client); !errors.Is(err, ErrPeer) {
			t.Errorf("a client's own state: %v, want ErrPeer", err)
		}
	}
	if len(asked) != 2 || asked[0] != dc1 || asked[1] != kari {
		t.Errorf("authorizer was asked about %v", asked)
	}
}

func TestServerRefuses(t *testing.T) {
	c, other := newCA(t, td), newCA(t, td)
	server := source(t, c, plane)
	agent, operator := source(t, c, dc1), source(t, c, kari)
	no := errors.New("revoked")
	old := ClientConfig(agent, plane, atNoon)
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, tc := range map[string]struct {
		server *tls.Config
		client *tls.Config
		want   error // nil: any refusal
	}{
		"not authorised":       {ServerConfig(server, func(spiffe.ID, *x509.Certificate) error { return no }, atNoon), ClientConfig(agent, plane, atNoon), no},
		"nobody is":            {ServerConfig(server, nil, atNoon), ClientConfig(agent, plane, atNoon), ErrNotAuthorized},
		"operator at agents":   {ServerConfig(server, AgentsOf(td), atNoon), ClientConfig(operator, plane, atNoon), ErrNotAuthorized},
		"agent at operators":   {ServerConfig(server, OperatorsOf(td), atNoon), ClientConfig(agent, plane, atNoon), ErrNotAuthorized},
		"agents of another":    {ServerConfig(server, AgentsOf("elsewhere.example"), atNoon), ClientConfig(agent, plane, atNoon), ErrNotAuthorized},
		"no certificate":       {ServerConfig(server, anyone, atNoon), PinnedClientConfig(c.Pool(), plane, atNoon), nil},
		"another CA":           {ServerConfig(server, anyone, atNoon), ClientConfig(still{source(t, other, dc1).cert, c.Pool()}, plane, atNoon), nil},
		"server as client":     {ServerConfig(server, anyone, atNoon), ClientConfig(server, plane, atNoon), nil},
		"expired":              {ServerConfig(server, anyone, at(noon.Add(2*time.Hour))), ClientConfig(agent, plane, atNoon), nil},
		"not yet valid":        {ServerConfig(server, anyone, at(noon.Add(-2*time.Minute))), ClientConfig(agent, plane, atNoon), nil},
		"TLS 1.2":              {ServerConfig(server, anyone, atNoon), old, nil},
		"own one has expired":  {ServerConfig(still{nil, c.Pool()}, anyone, atNoon), ClientConfig(agent, plane, atNoon), svid.ErrExpired},
		"no roots":             {ServerConfig(still{server.cert, nil}, anyone, atNoon), ClientConfig(agent, plane, atNoon), nil},
		"optional, another CA": {ServerConfigOptionalClient(server, anyone, atNoon), ClientConfig(still{source(t, other, dc1).cert, c.Pool()}, plane, atNoon), nil},
		"optional, refused":    {ServerConfigOptionalClient(server, nil, atNoon), ClientConfig(agent, plane, atNoon), ErrNotAuthorized},
	} {
		_, _, serverErr, clientErr := meet(t, tc.server, tc.client)
		if serverErr == nil || clientErr == nil || tc.want != nil && !errors.Is(serverErr, tc.want) {
			t.Errorf("%s: server %v, client %v, want %v", name, serverErr, clientErr, tc.want)
		}
	}
}

func TestClientRefuses(t *testing.T) {
	c, other, elsewhere := newCA(t, td), newCA(t, td), newCA(t, "elsewhere.example")
	agent := source(t, c, dc1)
	// A server whose operator holds an agent's certificate and lets anyone in.
	impostor := func(s still) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{*s.cert}, MinVersion: tls.VersionTLS13, Time: atNoon}
	}
	web := still{cert: webCertificate(t), roots: c.Pool()}
	for name, tc := range map[string]struct {
		server *tls.Config
		client *tls.Config
	}{
		"agent as server":         {impostor(source(t, c, dc1)), ClientConfig(agent, plane, atNoon)},
		"operator as server":      {impostor(source(t, c, kari)), ClientConfig(agent, plane, atNoon)},
		"another CA":              {impostor(source(t, other, plane)), ClientConfig(agent, plane, atNoon)},
		"another CA, pinned":      {impostor(source(t, other, plane)), PinnedClientConfig(c.Pool(), plane, atNoon)},
		"agent as server, pinned": {impostor(source(t, c, dc1)), PinnedClientConfig(c.Pool(), plane, atNoon)},
		"other trust domain":      {impostor(source(t, elsewhere, spiffe.ControlPlaneID{TrustDomain: "elsewhere.example"})), ClientConfig(agent, plane, atNoon)},
		"no SPIFFE ID":            {impostor(web), PinnedClientConfig(c.Pool(), plane, atNoon)},
		"expired server":          {impostor(source(t, c, plane)), PinnedClientConfig(c.Pool(), plane, at(noon.Add(2*time.Hour)))},
		"no pin at all":           {impostor(source(t, c, plane)), PinnedClientConfig(x509.NewCertPool(), plane, atNoon)},
		"nil pin":                 {impostor(source(t, c, plane)), PinnedClientConfig(nil, plane, atNoon)},
		"other control plane":     {impostor(source(t, c, plane)), PinnedClientConfig(c.Pool(), spiffe.ControlPlaneID{TrustDomain: "elsewhere.example"}, atNoon)},
		"own certificate expired": {ServerConfig(source(t, c, plane), anyone, atNoon), ClientConfig(still{nil, c.Pool()}, plane, atNoon)},
	} {
		if _, _, _, clientErr := meet(t, tc.server, tc.client); clientErr == nil {
			t.Errorf("%s: client went along", name)
		}
	}
}

// webCertificate is an ordinary self-made server certificate without URI.
func webCertificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"127.0.0.1"}, NotBefore: noon.Add(-time.Hour), NotAfter: noon.Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestJoinWithoutCertificate(t *testing.T) {
	c := newCA(t, td)
	serverCfg := ServerConfigOptionalClient(source(t, c, plane), anyone, atNoon)
	server, _, serverErr, clientErr := meet(t, serverCfg, PinnedClientConfig(c.Pool(), plane, atNoon))
	if serverErr != nil || clientErr != nil {
		t.Fatalf("%v, %v", serverErr, clientErr)
	}
	if id, _, err := PeerOf(server); !errors.Is(err, ErrNoPeerCertificate) {
		t.Errorf("peer %v, %v, want ErrNoPeerCertificate", id, err)
	}
	server, _, serverErr, clientErr = meet(t, serverCfg, ClientConfig(source(t, c, dc1), plane, atNoon))
	if id, _, err := PeerOf(server); serverErr != nil || clientErr != nil || err != nil || id != dc1 {
		t.Errorf("with a certificate: %v, %v, %v, %v", id, err, serverErr, clientErr)
	}
}

func TestExporterBinding(t *testing.T) {
	c := newCA(t, td)
	serverCfg, clientCfg := ServerConfig(source(t, c, plane), anyone, atNoon), ClientConfig(source(t, c, dc1), plane, atNoon)
	var seen [][]byte
	for range 2 {
		server, client, serverErr, clientErr := meet(t, serverCfg, clientCfg)
		if serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
		a, errA := ExporterBinding(server)
		b, errB := ExporterBinding(client)
		if errA != nil || errB != nil || len(a) != 32 || !bytes.Equal(a, b) {
			t.Fatalf("%x, %v; %x, %v", a, errA, b, errB)
		}
		seen = append(seen, a)
	}
	if bytes.Equal(seen[0], seen[1]) {
		t.Error("two connections share a binding")
	}
	if _, err := ExporterBinding(tls.ConnectionState{}); !errors.Is(err, ErrPeer) {
		t.Errorf("no handshake: %v, want ErrPeer", err)
	}
}

// whoami answers health checks with what Peer says.
type whoami struct {
	grpc_health_v1.UnimplementedHealthServer
	id  spiffe.ID
	err error
}

func (w *whoami) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	w.id, _, w.err = Peer(ctx)
	return &grpc_health_v1.HealthCheckResponse{}, nil
}

func TestPeerOverGRPC(t *testing.T) {
	c := newCA(t, td)
	for name, tc := range map[string]struct {
		server, client credentials.TransportCredentials
		id             spiffe.ID
		err            error
	}{
		"agent":   {credentials.NewTLS(ServerConfig(source(t, c, plane), AgentsOf(td), atNoon)), credentials.NewTLS(ClientConfig(source(t, c, dc1), plane, atNoon)), dc1, nil},
		"joining": {credentials.NewTLS(ServerConfigOptionalClient(source(t, c, plane), AgentsOf(td), atNoon)), credentials.NewTLS(PinnedClientConfig(c.Pool(), plane, atNoon)), nil, ErrNoPeerCertificate},
		"plain":   {insecure.NewCredentials(), insecure.NewCredentials(), nil, ErrNoPeerCertificate},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s, w := grpc.NewServer(grpc.Creds(tc.server)), &whoami{}
		grpc_health_v1.RegisterHealthServer(s, w)
		served := make(chan error, 1)
		go func() { served <- s.Serve(l) }()
		conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(tc.client))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		_, err = grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		cancel()
		conn.Close()
		s.Stop()
		<-served
		if err != nil || w.id != tc.id || !errors.Is(w.err, tc.err) {
			t.Errorf("%s: %v; peer %v, %v", name, err, w.id, w.err)
		}
	}
	if _, _, err := Peer(t.Context()); !errors.Is(err, ErrNoPeerCertificate) {
		t.Errorf("no request at all: %v", err)
	}
}
