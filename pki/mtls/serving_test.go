package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"sync"
	"testing"

	"github.com/reevehq/reeve/pki/svid"
)

// turning is a source that changes when told, as sources that renew do.
type turning struct {
	mu      sync.Mutex
	now     still
	updated chan struct{}
}

func turn(to still) *turning { return &turning{now: to, updated: make(chan struct{})} }

func (s *turning) to(next still) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = next
	close(s.updated)
	s.updated = make(chan struct{})
}

func (s *turning) at() (still, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now, s.updated
}

func (s *turning) Current() (*tls.Certificate, error) { now, _ := s.at(); return now.Current() }
func (s *turning) Roots() *x509.CertPool              { now, _ := s.at(); return now.Roots() }
func (s *turning) Updated() <-chan struct{}           { _, updated := s.at(); return updated }
func (s *turning) Close() error                       { return nil }

// Connections share one configuration until the source changes, and not a moment
// longer: who is believed and what is shown follow the source at once.
func TestServerFollowsItsSource(t *testing.T) {
	before, after := newCA(t, td), newCA(t, td)
	// The roots change under the same certificate, too.
	shown := source(t, before, plane)
	server := turn(shown)
	cfg := ServerConfig(server, anyone, atNoon)
	old, next := source(t, before, dc1), source(t, after, dc1)
	// The agents' side believes both, so that the server decides.
	both := before.Pool()
	both.AddCert(after.Bundle()[0])
	believes := func(agent still) bool {
		t.Helper()
		_, _, err, _ := meet(t, cfg, clientShowing(agent.cert, both))
		return err == nil
	}
	if !believes(old) || believes(next) || !believes(old) {
		t.Fatal("before the change the old root counts and the new one does not")
	}
	server.to(still{shown.cert, after.Pool()})
	if believes(old) || !believes(next) {
		t.Error("after the change of roots the new one counts and the old one does not")
	}
	server.to(source(t, after, plane))
	if _, client, _, _ := meet(t, cfg, clientShowing(next.cert, both)); len(client.PeerCertificates) == 0 || client.PeerCertificates[0].Equal(shown.cert.Leaf) {
		t.Error("after the change of certificate the old one is shown")
	}
	// An own certificate that ended is not told of by a change.
	server.mu.Lock()
	server.now.cert = nil
	server.mu.Unlock()
	if _, _, err, _ := meet(t, cfg, clientShowing(next.cert, both)); !errors.Is(err, svid.ErrExpired) {
		t.Errorf("without a certificate: %v", err)
	}
}

func TestServerSharesAConfiguration(t *testing.T) {
	server := turn(source(t, newCA(t, td), plane))
	cfg := ServerConfig(server, anyone, atNoon)
	get := func() *tls.Config {
		t.Helper()
		c, err := cfg.GetConfigForClient(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := get()
	if get() != first {
		t.Error("two connections hold a configuration each")
	}
	now, _ := server.at()
	server.to(now)
	if get() == first {
		t.Error("the configuration outlived a change of the source")
	}
}
