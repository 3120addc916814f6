package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

const domain = "reeve.local"

// simAgent is a simulated agent: real keys, a real SVID, real mTLS, and nothing
// behind them.
type simAgent struct {
	tenant, name string
	identity     ed25519.PrivateKey
	spki         [3][]byte
	proofs       [3]ed25519.PrivateKey
	counter      uint64
	cert         *tls.Certificate
	roots        *x509.CertPool

	conn   *grpc.ClientConn
	stream grpc.BidiStreamingClient[agentv1.SessionRequest, agentv1.SessionResponse]
}

func (a *simAgent) Current() (*tls.Certificate, error) { return a.cert, nil }
func (a *simAgent) Roots() *x509.CertPool              { return a.roots }
func (a *simAgent) Updated() <-chan struct{}           { return nil }
func (a *simAgent) Close() error                       { return nil }

func newSimAgent(tenant, name string, roots *x509.CertPool) (*simAgent, error) {
	a := &simAgent{tenant: tenant, name: name, roots: roots, counter: 1}
	for i := range a.spki {
		public, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if a.spki[i], err = x509.MarshalPKIXPublicKey(public); err != nil {
			return nil, err
		}
		a.proofs[i] = private
	}
	a.identity = a.proofs[0]
	return a, nil
}

// connect is one TLS connection with gRPC on it, and its exporter.
func connect(address string, config *tls.Config) (*grpc.ClientConn, []byte, error) {
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return nil, nil, err
	}
	exporter, err := mtls.ExporterBinding(conn.ConnectionState())
	if err != nil {
		return nil, nil, err
	}
	var taken atomic.Bool
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithReadBufferSize(2<<10), grpc.WithWriteBufferSize(2<<10), grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			if taken.Swap(true) {
				return nil, errors.New("the connection is gone")
			}
			return conn, nil
		}))
	return cc, exporter, err
}

func request() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := ca.NewRequest(key)
	return key, csr, err
}

func server() spiffe.ControlPlaneID { return spiffe.ControlPlaneID{TrustDomain: domain} }

func (a *simAgent) enroll(ctx context.Context, address, token string) error {
	cc, exporter, err := connect(address, mtls.PinnedClientConfig(a.roots, server(), time.Now))
	if err != nil {
		return err
	}
	defer cc.Close()
	key, csr, err := request()
	if err != nil {
		return err
	}
	r := &agentv1.EnrollRequest{Token: token, Csr: csr, Version: "0.0.0-load", Agent: a.name}
	for i, purpose := range []auditv1.KeyEvent_Purpose{auditv1.KeyEvent_PURPOSE_IDENTITY, auditv1.KeyEvent_PURPOSE_AUDIT, auditv1.KeyEvent_PURPOSE_WITNESS} {
		r.Keys = append(r.Keys, &auditv1.KeyEvent_Key{Purpose: purpose, PublicKey: a.spki[i]})
		r.Proofs = append(r.Proofs, ed25519.Sign(a.proofs[i], agentv1.EnrollmentBinding(exporter, csr)))
	}
	e, err := agentv1.NewEnrollmentServiceClient(cc).Enroll(ctx, r)
	if err != nil {
		return fmt.Errorf("enrol %s of %s: %w", a.name, a.tenant, err)
	}
	return a.take(key, e.GetCertificates(), e.GetCounter())
}

func (a *simAgent) take(key *ecdsa.PrivateKey, certificates [][]byte, counter uint64) error {
	leaf, err := x509.ParseCertificate(certificates[0])
	if err != nil {
		return err
	}
	a.cert, a.counter = &tls.Certificate{Certificate: certificates, PrivateKey: key, Leaf: leaf}, counter
	return nil
}

// renew asks for the next certificate over a connection of its own.
func (a *simAgent) renew(ctx context.Context, address string) error {
	cc, exporter, err := connect(address, mtls.ClientConfig(a, server(), time.Now))
	if err != nil {
		return err
	}
	defer cc.Close()
	key, csr, err := request()
	if err != nil {
		return err
	}
	got, err := agentv1.NewAgentServiceClient(cc).Renew(ctx, &agentv1.RenewRequest{
		Csr: csr, Counter: a.counter, Proof: ed25519.Sign(a.identity, agentv1.RenewalBinding(exporter, nil, csr, a.counter)),
	})
	if err != nil {
		return fmt.Errorf("renew %s of %s: %w", a.name, a.tenant, err)
	}
	return a.take(key, got.GetCertificates(), got.GetCounter())
}

// greet makes a TLS connection and nothing more.
func (a *simAgent) greet(address string) error {
	config := mtls.ClientConfig(a, server(), time.Now)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return err
	}
	defer conn.Close()
	// The server's first bytes come when it has verified the agent.
	_, err = conn.Read(make([]byte, 1))
	return err
}

// beat says that the agent is there; one that is silent counts as gone.
func (a *simAgent) beat() error {
	return a.stream.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Heartbeat{Heartbeat: &agentv1.Heartbeat{At: timestamppb.Now()}}})
}

// open opens the agent's session and waits for the welcome.
func (a *simAgent) open(ctx context.Context, address string) error {
	var err error
	if a.conn, _, err = connect(address, mtls.ClientConfig(a, server(), time.Now)); err != nil {
		return err
	}
	if a.stream, err = agentv1.NewAgentServiceClient(a.conn).Session(ctx); err != nil {
		return err
	}
	if err := a.stream.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: &agentv1.Hello{Version: "0.0.0-load", Epoch: 1}}}); err != nil {
		return err
	}
	for {
		m, err := a.stream.Recv()
		if err != nil {
			return fmt.Errorf("session of %s of %s: %w", a.name, a.tenant, err)
		}
		if m.GetWelcome() != nil {
			return nil
		}
	}
}
