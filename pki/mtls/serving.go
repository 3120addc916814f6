package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync"
	"time"

	"github.com/reevehq/reeve/pki/svid"
)

// serving makes the configuration that a server's connections are held to. They
// share one until the source changes: each connection keeps its configuration for
// life, and ten thousand of them would be most of what idle ones cost.
type serving struct {
	source    svid.Source
	authorize Authorizer
	now       func() time.Time
	auth      tls.ClientAuthType

	mu sync.Mutex
	// made from own, as the source had it before updated was closed.
	made    *tls.Config
	own     *tls.Certificate
	updated <-chan struct{}
}

// config asks the source with each connection, so that an own certificate that
// has ended is not shown.
func (s *serving) config() (*tls.Config, error) {
	updated := s.source.Updated()
	own, err := s.source.Current()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// A source that tells of no updates is asked for everything each time.
	if s.made != nil && updated != nil && s.updated == updated && s.own == own {
		return s.made, nil
	}
	made, err := s.make(own)
	if err != nil {
		return nil, err
	}
	s.made, s.own, s.updated = made, own, updated
	return made, nil
}

func (s *serving) make(own *tls.Certificate) (*tls.Config, error) {
	roots, err := rootsOf(s.source, own)
	if err != nil {
		return nil, err
	}
	c := base(s.now)
	c.Certificates = []tls.Certificate{*own}
	c.ClientAuth = s.auth
	// The union lets crypto/tls build its chains; which root may vouch for whom is
	// decided below.
	c.ClientCAs = roots.union
	c.VerifyConnection = func(cs tls.ConnectionState) error { return s.verify(roots, cs) }
	return c, nil
}

func (s *serving) verify(roots *roots, cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		if s.auth == tls.VerifyClientCertIfGiven {
			return nil
		}
		return ErrNoPeerCertificate
	}
	id, err := roots.verify(cs.PeerCertificates, x509.ExtKeyUsageClientAuth, s.now())
	if err != nil {
		return err
	}
	if s.authorize == nil {
		return fmt.Errorf("%w: %v", ErrNotAuthorized, id)
	}
	return s.authorize(id, cs.PeerCertificates[0])
}
