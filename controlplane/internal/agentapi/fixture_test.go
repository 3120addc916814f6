package agentapi_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"iter"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/agentapi"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeSource is an SVID that never changes.
type fakeSource struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func (f fakeSource) Current() (*tls.Certificate, error) { return f.cert, nil }
func (f fakeSource) Roots() *x509.CertPool              { return f.roots }
func (f fakeSource) Updated() <-chan struct{}           { return nil }
func (f fakeSource) Close() error                       { return nil }

// fakeObservations remembers what it was handed; it holds the base "held".
type fakeObservations struct {
	mu     sync.Mutex
	told   []string
	broken error
}

func (f *fakeObservations) note(c agentapi.Caller, what string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.broken != nil {
		return f.broken
	}
	f.told = append(f.told, c.Tenant+"/"+c.Agent+" "+what)
	return nil
}

func (f *fakeObservations) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.told)
}

func (f *fakeObservations) Connectors(_ context.Context, c agentapi.Caller, list []*agentv1.ConnectorState) error {
	for _, s := range list {
		if s.GetAlias() == "panic" {
			panic("a connector of that name")
		}
		if err := f.note(c, "connector "+s.GetAlias()); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeObservations) Begin(_ context.Context, c agentapi.Caller, b *agentv1.SnapshotBegin) (bool, error) {
	return b.GetBase() != "" && b.GetBase() != "held", f.note(c, "begin "+b.GetSnapshot())
}

func (f *fakeObservations) Batch(_ context.Context, c agentapi.Caller, snapshot string, _ *agentv1.ObservedBatch) error {
	return f.note(c, "batch "+snapshot)
}

func (f *fakeObservations) End(_ context.Context, c agentapi.Caller, snapshot string, _ *agentv1.SnapshotEnd) error {
	return f.note(c, "end "+snapshot)
}

func (f *fakeObservations) Abandoned(c agentapi.Caller, snapshot string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.told = append(f.told, c.Tenant+"/"+c.Agent+" abandoned "+snapshot)
}

var errNoOrder = errors.New("no such order")

// fakeOrders has one order, "o1", for fabrikam/dc1.
type fakeOrders struct {
	mu       sync.Mutex
	progress []uint32
}

func (f *fakeOrders) Waiting(_ context.Context, c agentapi.Caller, sequence uint64) ([]*agentv1.Fetch, error) {
	if c.Tenant != "fabrikam" || c.Agent != "dc1" || sequence > 0 {
		return nil, nil
	}
	return []*agentv1.Fetch{{Order: "o1"}}, nil
}

func (f *fakeOrders) Order(_ context.Context, c agentapi.Caller, order string) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error) {
	if c.Tenant != "fabrikam" || c.Agent != "dc1" || order != "o1" {
		return nil, nil, errNoOrder
	}
	return &agentv1.OrderHead{Envelope: []byte("envelope"), Manifest: []byte("manifest")}, func(yield func([]byte, error) bool) {
		_ = yield([]byte("one"), nil) && yield(make([]byte, 1<<20), nil)
	}, nil
}

func (f *fakeOrders) DryRun(context.Context, agentapi.Caller, []byte) (*agentv1.OrderHead, iter.Seq2[[]byte, error], error) {
	return &agentv1.OrderHead{Manifest: []byte("dry")}, func(yield func([]byte, error) bool) {
		yield(nil, errors.New("disk on fire at /var/lib/secret"))
	}, nil
}

func (f *fakeOrders) Progress(_ context.Context, _ agentapi.Caller, p *agentv1.ReportProgressRequest) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.progress = append(f.progress, p.GetDone())
	return nil
}

// plane is a control plane's agent side over a real listener.
type plane struct {
	*intaketest.Estate
	registry     *agentapi.Registry
	observations *fakeObservations
	orders       *fakeOrders
	address      string
	stop         func()
}

func start(t *testing.T) *plane {
	p := &plane{Estate: intaketest.New(t), observations: &fakeObservations{}, orders: &fakeOrders{}}
	p.serve()
	t.Cleanup(func() { p.stop() })
	return p
}

// restart is a new process on the same database.
func (p *plane) restart() {
	p.T.Helper()
	p.stop()
	p.serve()
}

func (p *plane) serve() {
	p.T.Helper()
	p.registry = agentapi.NewRegistry(p.Clock.Now, p.Logger)
	p.Sessions = p.registry
	p.Reopen()
	a := intaketest.NewAgent(p.T, "server")
	chain, err := p.CA.IssueServer(a.CSR, spiffe.ControlPlaneID{TrustDomain: intaketest.TrustDomain}, 0)
	if err != nil {
		p.T.Fatal(err)
	}
	server := agentapi.New(agentapi.Config{
		Source: fakeSource{certificate(p.T, chain.DER(), a.Key), p.CA.Pool()}, Registry: p.registry, Enrollment: p.Enrollment,
		Observations: p.observations, Orders: p.orders, Records: p.Intake, Roots: p.Documents,
		Checkpoints: agentapi.Witnessing{DB: p.DB, Log: p.Log, Enrollment: p.Enrollment},
		Codes: func(err error) codes.Code {
			if errors.Is(err, errNoOrder) {
				return codes.NotFound
			}
			return codes.Unknown
		},
		Now: p.Clock.Now, Log: p.Logger,
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		p.T.Fatal(err)
	}
	p.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, l) }()
	p.stop = func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			p.T.Errorf("serve: %v", err)
		}
	}
}

func certificate(t testing.TB, chain [][]byte, key crypto.Signer) *tls.Certificate {
	t.Helper()
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}
}

// dial connects with a certificate; without one as a stranger.
func (p *plane) dial(chain [][]byte, key crypto.Signer) *grpc.ClientConn {
	p.T.Helper()
	server := spiffe.ControlPlaneID{TrustDomain: intaketest.TrustDomain}
	config := mtls.PinnedClientConfig(p.CA.Pool(), server, p.Clock.Now)
	if chain != nil {
		config = mtls.ClientConfig(fakeSource{certificate(p.T, chain, key), p.CA.Pool()}, server, p.Clock.Now)
	}
	cc, err := grpc.NewClient("passthrough:///"+p.address, grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(16<<20)))
	if err != nil {
		p.T.Fatal(err)
	}
	p.T.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (p *plane) as(a *intaketest.FakeAgent) agentv1.AgentServiceClient {
	p.T.Helper()
	return agentv1.NewAgentServiceClient(p.dial(a.Certificates, a.Key))
}

// exporter is the keying material of a connection that is kept open.
func exporter(t *testing.T, cc *grpc.ClientConn) []byte {
	t.Helper()
	var at peer.Peer
	if _, err := agentv1.NewEnrollmentServiceClient(cc).GetRoot(t.Context(), &agentv1.GetRootRequest{}, grpc.Peer(&at)); err != nil {
		t.Fatal(err)
	}
	b, err := mtls.ExporterBinding(at.AuthInfo.(credentials.TLSInfo).State)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type stream = grpc.BidiStreamingClient[agentv1.SessionRequest, agentv1.SessionResponse]

// hello opens a session and takes the welcome.
func hello(t *testing.T, c agentv1.AgentServiceClient, h *agentv1.Hello) (stream, *agentv1.Welcome) {
	t.Helper()
	s, err := c.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(&agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: h}}); err != nil {
		t.Fatal(err)
	}
	m, err := s.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if m.GetWelcome() == nil {
		t.Fatalf("not a welcome: %v", m)
	}
	return s, m.GetWelcome()
}

// receive returns the next directive that want picks, leaving out others.
func receive(t *testing.T, s stream, want func(*agentv1.SessionResponse) bool) *agentv1.SessionResponse {
	t.Helper()
	for {
		m, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if want(m) {
			return m
		}
	}
}

// ends waits for a stream to end and reports how long that took and how.
func ends(recv func() error) (time.Duration, error) {
	began := time.Now()
	for {
		if err := recv(); err != nil {
			return time.Since(began), err
		}
	}
}

func codeOf(err error) codes.Code {
	if errors.Is(err, io.EOF) {
		return codes.OK
	}
	return status.Code(err)
}
