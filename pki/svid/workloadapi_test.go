package svid_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	"github.com/reevehq/reeve/pki/svid/fakeworkloadapi"
)

var (
	plane = spiffe.ControlPlaneID{TrustDomain: "reeve.example"}
	dc1   = spiffe.AgentID{TrustDomain: "reeve.example", Tenant: "fabrikam", Agent: "dc1"}
)

func newCA(t *testing.T, domain string) *ca.CA {
	t.Helper()
	c, err := ca.New(ca.Config{TrustDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, cfg fakeworkloadapi.Config) (*fakeworkloadapi.Server, *svid.WorkloadAPI) {
	t.Helper()
	cfg.Socket = filepath.Join(t.TempDir(), "s")
	fake, err := fakeworkloadapi.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(fake.Close)
	source, err := svid.NewWorkloadAPI(svid.WorkloadAPIConfig{Addr: fake.Addr(), Accept: func(id spiffe.ID) bool { return id == cfg.ID }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := source.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	return fake, source
}

// echo is a TLS server that lives through the whole test and tells each client
// the serial number under which it knows it.
type echo struct {
	l  net.Listener
	wg sync.WaitGroup
}

func newEcho(t *testing.T, cfg *tls.Config) *echo {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{l: l}
	e.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			e.wg.Go(func() { e.handle(conn.(*tls.Conn)) })
		}
	})
	t.Cleanup(func() { l.Close(); e.wg.Wait() })
	return e
}

func (e *echo) handle(conn *tls.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for {
		if _, err := in.ReadString('\n'); err != nil {
			return
		}
		id, leaf, err := mtls.PeerOf(conn.ConnectionState())
		if err != nil {
			fmt.Fprintf(conn, "error %v\n", err)
			continue
		}
		fmt.Fprintf(conn, "%v %x\n", id, leaf.SerialNumber)
	}
}

func (e *echo) dial(cfg *tls.Config) (*tls.Conn, error) {
	return tls.Dial("tcp", e.l.Addr().String(), cfg)
}

func ask(conn *tls.Conn) (string, error) {
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintln(conn, "who am I"); err != nil {
		return "", err
	}
	return bufio.NewReader(conn).ReadString('\n')
}

// TestRotationOnBothSides: one server and one client configuration, made once,
// live on two Workload APIs that rotate every second; both sides must come to use
// new certificates on new connections, while an old connection goes on.
func TestRotationOnBothSides(t *testing.T) {
	authority := newCA(t, "reeve.example")
	_, serverSource := serve(t, fakeworkloadapi.Config{CA: authority, ID: plane, Every: time.Second})
	_, clientSource := serve(t, fakeworkloadapi.Config{CA: authority, ID: dc1, Every: time.Second})
	e := newEcho(t, mtls.ServerConfig(serverSource, mtls.AgentsOf("reeve.example"), time.Now))
	clientConfig := mtls.ClientConfig(clientSource, plane, time.Now)

	longLived, err := e.dial(clientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer longLived.Close()
	first, err := ask(longLived)
	if err != nil {
		t.Fatal(err)
	}
	servers, clients := map[string]bool{}, map[string]bool{}
	deadline := time.After(60 * time.Second)
	for len(servers) < 3 || len(clients) < 3 {
		serverChanged, clientChanged := serverSource.Updated(), clientSource.Updated()
		conn, err := e.dial(clientConfig)
		if err != nil {
			t.Fatalf("a connection failed during rotation: %v", err)
		}
		who, err := ask(conn)
		if err != nil {
			t.Fatalf("a connection broke during rotation: %v", err)
		}
		clients[who] = true
		servers[conn.ConnectionState().PeerCertificates[0].SerialNumber.String()] = true
		conn.Close()
		if again, err := ask(longLived); err != nil || again != first {
			t.Fatalf("the old connection changed: %q, %v", again, err)
		}
		select {
		case <-serverChanged:
		case <-clientChanged:
		case <-deadline:
			t.Fatalf("saw %d certificates of the server and %d of the client", len(servers), len(clients))
		}
	}
}

// TestNewRoots: the CA is replaced under running parties.
func TestNewRoots(t *testing.T) {
	old, next := newCA(t, "reeve.example"), newCA(t, "reeve.example")
	serverFake, serverSource := serve(t, fakeworkloadapi.Config{CA: old, ID: plane})
	clientFake, clientSource := serve(t, fakeworkloadapi.Config{CA: old, ID: dc1})
	e := newEcho(t, mtls.ServerConfig(serverSource, mtls.AgentsOf("reeve.example"), time.Now))
	clientConfig := mtls.ClientConfig(clientSource, plane, time.Now)
	connect := func() error {
		conn, err := e.dial(clientConfig)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = ask(conn)
		return err
	}
	swap := func(f *fakeworkloadapi.Server, s svid.Source, c *ca.CA, bundle []*x509.Certificate) {
		changed := s.Updated()
		f.SetCA(c, bundle)
		<-changed
	}
	both := append(old.Bundle(), next.Bundle()...)
	for _, step := range []func(){
		func() {},
		func() { swap(serverFake, serverSource, old, both); swap(clientFake, clientSource, old, both) },
		func() { swap(clientFake, clientSource, next, both) },
		func() { swap(serverFake, serverSource, next, next.Bundle()) },
		func() { swap(clientFake, clientSource, next, next.Bundle()) },
	} {
		step()
		if err := connect(); err != nil {
			t.Fatal(err)
		}
	}
	swap(clientFake, clientSource, old, next.Bundle())
	if err := connect(); err == nil {
		t.Error("the retired CA is still believed")
	}
}

func TestFederation(t *testing.T) {
	msp, client := newCA(t, "reeve.example"), newCA(t, "fabrikam.example")
	foreignAgent := spiffe.AgentID{TrustDomain: "fabrikam.example", Tenant: "fabrikam", Agent: "dc1"}
	_, serverSource := serve(t, fakeworkloadapi.Config{CA: msp, ID: plane, Federated: map[string][]*x509.Certificate{"fabrikam.example": client.Bundle()}})
	msps := map[string][]*x509.Certificate{"reeve.example": msp.Bundle()}
	allow := func(spiffe.ID, *x509.Certificate) error { return nil }
	e := newEcho(t, mtls.ServerConfig(serverSource, allow, time.Now))

	_, agentSource := serve(t, fakeworkloadapi.Config{CA: client, ID: foreignAgent, Federated: msps})
	conn, err := e.dial(mtls.ClientConfig(agentSource, plane, time.Now))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if who, err := ask(conn); err != nil || who[:len(foreignAgent.String())] != foreignAgent.String() {
		t.Errorf("%q, %v", who, err)
	}
	_, operatorSource := serve(t, fakeworkloadapi.Config{CA: client, ID: spiffe.OperatorID{TrustDomain: "fabrikam.example", Name: "kari"}, Federated: msps})
	bad, err := e.dial(mtls.ClientConfig(operatorSource, plane, time.Now))
	if err == nil {
		_, err = ask(bad)
		bad.Close()
	}
	if err == nil {
		t.Error("an operator of a federated trust domain got in")
	}
}

// TestOutlivesTheAPI: an API that goes away takes no certificate with it, and is
// found again when it comes back.
func TestOutlivesTheAPI(t *testing.T) {
	authority := newCA(t, "reeve.example")
	cfg := fakeworkloadapi.Config{Socket: filepath.Join(t.TempDir(), "s"), CA: authority, ID: dc1}
	fake, err := fakeworkloadapi.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	source, err := svid.NewWorkloadAPI(svid.WorkloadAPIConfig{Addr: fake.Addr(), Accept: func(id spiffe.ID) bool { return id == dc1 }})
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if err := source.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	before, err := source.Current()
	if err != nil {
		t.Fatal(err)
	}
	changed := source.Updated()
	fake.Close()
	if after, err := source.Current(); err != nil || !after.Leaf.Equal(before.Leaf) || source.Roots() == nil {
		t.Errorf("the certificate went with the API: %v", err)
	}
	if fake, err = fakeworkloadapi.Start(cfg); err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	select {
	case <-changed:
	case <-ctx.Done():
		t.Fatal("the API came back and was not found")
	}
	if after, err := source.Current(); err != nil || after.Leaf.Equal(before.Leaf) {
		t.Errorf("no new certificate after the API came back: %v", err)
	}
}

func TestNobodyForThisParty(t *testing.T) {
	fake, err := fakeworkloadapi.Start(fakeworkloadapi.Config{Socket: filepath.Join(t.TempDir(), "s"), CA: newCA(t, "reeve.example"), ID: dc1})
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	asked := make(chan spiffe.ID, 10)
	source, err := svid.NewWorkloadAPI(svid.WorkloadAPIConfig{Addr: fake.Addr(), Accept: func(id spiffe.ID) bool { asked <- id; return false }})
	if err != nil {
		t.Fatal(err)
	}
	if id := <-asked; id != dc1 {
		t.Errorf("asked about %v", id)
	}
	if err := source.Close(); err != nil {
		t.Error(err)
	}
	if _, err := source.Current(); !errors.Is(err, svid.ErrClosed) {
		t.Errorf("%v, want ErrClosed", err)
	}
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
