package svid

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"
)

var (
	// ErrNone means that there has not been a certificate yet.
	ErrNone = errors.New("no certificate yet")
	// ErrExpired means that the last certificate ended and no new one came.
	ErrExpired = errors.New("certificate has expired and could not be renewed")
	// ErrClosed means that the source was closed.
	ErrClosed = errors.New("certificate source is closed")
)

// Source gives a party's own certificate and the roots of its trust domain.
// Implementations are safe for concurrent use and never block in Current, Roots
// and Updated.
type Source interface {
	// Current is the certificate to present now, with Leaf set. Errors wrap
	// ErrNone, ErrExpired or ErrClosed; an expired certificate is never given.
	Current() (*tls.Certificate, error)
	// Roots are the roots of the party's own trust domain only. Callers do not
	// change the pool. It is nil before anything is known.
	Roots() *x509.CertPool
	// Updated gives a channel that is closed at the next change of certificate
	// or roots, and when the source is closed. To miss none, take the channel
	// first, then look at Current and Roots.
	Updated() <-chan struct{}
	// Close ends renewal and waits for it. It may be called more than once.
	Close() error
}

// Federated is a Source that also knows the roots of other trust domains, which
// must be kept apart: each may vouch for its own names only.
type Federated interface {
	Source
	// Authorities lists root certificates by trust domain, the own one included.
	Authorities() map[string][]*x509.Certificate
}

// state is the part that all sources share.
type state struct {
	now func() time.Time

	mu          sync.RWMutex
	cert        *tls.Certificate
	roots       *x509.CertPool
	authorities map[string][]*x509.Certificate
	updated     chan struct{}
	closed      bool
}

func newState(now func() time.Time) state {
	return state{now: now, updated: make(chan struct{})}
}

func (s *state) Current() (*tls.Certificate, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.closed:
		return nil, ErrClosed
	case s.cert == nil:
		return nil, ErrNone
	case s.now().After(s.cert.Leaf.NotAfter):
		return nil, fmt.Errorf("%w: it ended %s", ErrExpired, s.cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	return s.cert, nil
}

func (s *state) Roots() *x509.CertPool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.roots
}

func (s *state) Updated() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.updated
}

// change applies f and tells everyone who waits.
func (s *state) change(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	f()
	close(s.updated)
	s.updated = make(chan struct{})
}

func (s *state) shut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	close(s.updated) // stays closed: nobody waits on a closed source in vain
}
