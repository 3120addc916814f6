// Package fakeworkloadapi is a fake SPIFFE Workload API for tests: it speaks the
// real protocol over a unix socket and issues from CAs that the test holds, but
// attests nobody: whoever reaches the socket gets the SVID. It stands in for a
// SPIRE agent, which tests cannot install.
package fakeworkloadapi

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/proto/spiffe/workload"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
)

// Config says whom the fake serves. Socket, CA and ID are needed.
type Config struct {
	// Socket is the path of the unix socket, at most about 100 bytes long.
	Socket string
	// CA issues the SVIDs; its trust domain is ID's.
	CA *ca.CA
	// ID is the one party that is served.
	ID spiffe.ID
	// TTL is the lifetime of each SVID; zero means five minutes.
	TTL time.Duration
	// Every is the time between rotations; zero means by Rotate only.
	Every time.Duration
	// Federated holds the roots of foreign trust domains by their names.
	Federated map[string][]*x509.Certificate
}

// Server is a running fake. It is safe for concurrent use.
type Server struct {
	workload.UnimplementedSpiffeWorkloadAPIServer

	cfg  Config
	grpc *grpc.Server
	stop chan struct{}
	wg   sync.WaitGroup

	mu        sync.Mutex
	ca        *ca.CA
	bundle    []*x509.Certificate
	changed   chan struct{}
	rotations int
}

// Start listens and serves until Close.
func Start(cfg Config) (*Server, error) {
	if cfg.CA == nil || cfg.ID == nil {
		return nil, errors.New("the fake Workload API needs a CA and an ID")
	}
	if cfg.TTL == 0 {
		cfg.TTL = 5 * time.Minute
	}
	l, err := net.Listen("unix", cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("fake Workload API: %w", err)
	}
	s := &Server{cfg: cfg, grpc: grpc.NewServer(), stop: make(chan struct{}), ca: cfg.CA, bundle: cfg.CA.Bundle(), changed: make(chan struct{})}
	workload.RegisterSpiffeWorkloadAPIServer(s.grpc, s)
	s.wg.Go(func() { _ = s.grpc.Serve(l) })
	if cfg.Every > 0 {
		s.wg.Go(s.tick)
	}
	return s, nil
}

// Addr is the address for svid.WorkloadAPIConfig.
func (s *Server) Addr() string { return "unix://" + s.cfg.Socket }

// Close cuts all streams and waits.
func (s *Server) Close() {
	close(s.stop)
	s.grpc.Stop()
	s.wg.Wait()
}

// Rotate sends every listener a new SVID with a new key.
func (s *Server) Rotate() { s.change(func() {}) }

// SetCA issues from another CA of the same trust domain from now on, with bundle
// as the roots: both CAs' roots while the old one is on its way out.
func (s *Server) SetCA(authority *ca.CA, bundle []*x509.Certificate) {
	s.change(func() { s.ca, s.bundle = authority, bundle })
}

// Rotations counts the rotations so far.
func (s *Server) Rotations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rotations
}

func (s *Server) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	s.rotations++
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) tick() {
	t := time.NewTicker(s.cfg.Every)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.Rotate()
		}
	}
}

// FetchX509SVID implements the Workload API.
func (s *Server) FetchX509SVID(_ *workload.X509SVIDRequest, stream grpc.ServerStreamingServer[workload.X509SVIDResponse]) error {
	if md, _ := metadata.FromIncomingContext(stream.Context()); len(md.Get("workload.spiffe.io")) != 1 || md.Get("workload.spiffe.io")[0] != "true" {
		return status.Error(codes.InvalidArgument, "security header missing from request")
	}
	for {
		s.mu.Lock()
		authority, bundle, changed := s.ca, s.bundle, s.changed
		s.mu.Unlock()
		resp, err := s.response(authority, bundle)
		if err != nil {
			return status.Error(codes.Internal, err.Error())
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

func (s *Server) response(authority *ca.CA, bundle []*x509.Certificate) (*workload.X509SVIDResponse, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return nil, err
	}
	var chain ca.Chain
	switch id := s.cfg.ID.(type) {
	case spiffe.AgentID:
		chain, err = authority.IssueAgent(csr, id, s.cfg.TTL)
	case spiffe.OperatorID:
		chain, err = authority.IssueOperator(csr, id, s.cfg.TTL)
	case spiffe.ControlPlaneID:
		chain, err = authority.IssueServer(csr, id, s.cfg.TTL)
	}
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	resp := &workload.X509SVIDResponse{
		Svids:            []*workload.X509SVID{{SpiffeId: s.cfg.ID.String(), X509Svid: concat(chain), X509SvidKey: der, Bundle: concat(bundle)}},
		FederatedBundles: map[string][]byte{},
	}
	for domain, certs := range s.cfg.Federated {
		resp.FederatedBundles["spiffe://"+domain] = concat(certs)
	}
	return resp, nil
}

func concat(certs []*x509.Certificate) []byte {
	var out []byte
	for _, c := range certs {
		out = append(out, c.Raw...)
	}
	return out
}
