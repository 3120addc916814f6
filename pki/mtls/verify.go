package mtls

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
)

// roots are the pools at the time of one handshake, each trust domain's apart.
type roots struct {
	own   string
	pools map[string]*x509.CertPool
	union *x509.CertPool
}

func rootsOf(source svid.Source, own *tls.Certificate) (*roots, error) {
	id, err := spiffe.FromCertificate(own.Leaf)
	if err != nil {
		return nil, fmt.Errorf("own certificate: %w", err)
	}
	r := &roots{own: id.Domain(), pools: map[string]*x509.CertPool{}}
	federated, ok := source.(svid.Federated)
	if !ok {
		pool := source.Roots()
		if pool == nil {
			pool = x509.NewCertPool() // nil would mean the system's roots
		}
		r.pools[r.own], r.union = pool, pool
		return r, nil
	}
	r.union = x509.NewCertPool()
	for domain, certs := range federated.Authorities() {
		pool := x509.NewCertPool()
		for _, c := range certs {
			pool.AddCert(c)
			r.union.AddCert(c)
		}
		r.pools[domain] = pool
	}
	return r, nil
}

// verify proves a peer's ID: the chain leads to a root of the ID's own trust
// domain, serves the wanted side of TLS throughout, holds at now, and passes no
// intermediate of another kind. Foreign trust domains name agents only; to an
// agent of a foreign domain, the control plane it expects by ID is the exception.
func (r *roots) verify(certs []*x509.Certificate, usage x509.ExtKeyUsage, now time.Time) (spiffe.ID, error) {
	if len(certs) == 0 {
		return nil, ErrNoPeerCertificate
	}
	leaf := certs[0]
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPeer, err)
	}
	server := usage == x509.ExtKeyUsageServerAuth
	if isPlane := id.Kind() == spiffe.KindControlPlane; isPlane != server {
		return nil, fmt.Errorf("%w: %v on the wrong side of a connection", ErrPeer, id)
	}
	if !server && id.Domain() != r.own && id.Kind() != spiffe.KindAgent {
		return nil, fmt.Errorf("%w: foreign trust domain %s may name agents only, not %v", ErrPeer, id.Domain(), id)
	}
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0 {
		return nil, fmt.Errorf("%w: certificate of %v is not an end certificate", ErrPeer, id)
	}
	pool := r.pools[id.Domain()]
	if pool == nil {
		return nil, fmt.Errorf("%w: no roots known for trust domain %s of %v", ErrPeer, id.Domain(), id)
	}
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrPeer, id, err)
	}
	for _, chain := range chains {
		if err = spiffe.CheckKind(chain, id.Kind()); err == nil {
			return id, nil
		}
	}
	return nil, fmt.Errorf("%w: %v: %w", ErrPeer, id, err)
}
