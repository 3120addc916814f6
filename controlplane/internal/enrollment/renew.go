package enrollment

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// Renewal asks for the next certificate.
type Renewal struct {
	// CSR is PKCS#10 in DER.
	CSR []byte
	// Counter is the one of the newest answer.
	Counter uint64
	// Proof is the identity key's signature over agentv1.RenewalBinding.
	Proof []byte
	// Exporter is the keying material of the TLS connection it came over.
	Exporter []byte
}

// Issued is a certificate with the counter to present next.
type Issued struct {
	// Certificates in DER, leaf first.
	Certificates [][]byte
	Counter      uint64
}

// Renew issues the next certificate to an agent with a valid one. The newest
// request's retry is answered the same, with a certificate that holds; a counter
// that does not fit otherwise means two holders and suspends the agent. Errors:
// ErrNotFound, ErrSuspended, ErrRevoked, ErrProof, ErrInvalid, ErrClone.
func (s *Service) Renew(ctx context.Context, id spiffe.AgentID, r Renewal) (Issued, error) {
	return s.renew(ctx, r, nil, func(t tx.Tx) (Agent, error) { return s.Store.BySPIFFE(t, id.String()) })
}

// Challenge begins a re-attestation on the connection that exporter stands for.
// It answers for agents that do not exist as for those that do.
func (s *Service) Challenge(tenantID, agent string, exporter []byte) ([]byte, error) {
	value, err := s.random(32)
	if err != nil {
		return nil, err
	}
	s.challenges.put(value, challenge{tenantID, agent, string(exporter), s.Now().Add(challengeTTL)}, s.Now())
	return value, nil
}

// Reattest issues a certificate to an agent whose own has lapsed. The challenge
// is used up whatever comes of it. ErrProof stands for everything that an
// outsider could probe with; who proves the key learns as much as from Renew.
func (s *Service) Reattest(ctx context.Context, tenantID, agent string, value []byte, r Renewal) (Issued, error) {
	c, ok := s.challenges.take(value, s.Now())
	if !ok || c.tenant != tenantID || c.agent != agent || c.exporter != string(r.Exporter) {
		return Issued{}, ErrProof
	}
	out, err := s.renew(ctx, r, value, func(t tx.Tx) (Agent, error) { return s.Store.Agent(t, tenantID, agent) })
	if errors.Is(err, ErrNotFound) {
		err = ErrProof
	}
	return out, err
}

func (s *Service) renew(ctx context.Context, r Renewal, value []byte, find func(tx.Tx) (Agent, error)) (Issued, error) {
	var out Issued
	// A clone's suspension must be committed, so it is no error of the
	// transaction.
	var clone bool
	err := s.DB.Do(ctx, func(t tx.Tx) error {
		out, clone = Issued{}, false
		a, err := find(t)
		if err != nil {
			return err
		}
		if err := s.proven(t, a, r, value); err != nil {
			return err
		}
		if err := a.Err(); err != nil {
			return err
		}
		digest := csrDigest(r.CSR)
		if r.Counter+1 == a.Counter && bytes.Equal(digest, a.CSRDigest) {
			out.Counter = a.Counter
			out.Certificates, err = s.again(t, a, r.CSR)
			return err
		}
		if r.Counter != a.Counter {
			clone = true
			return s.Suspend(t, a.Tenant, a.ID, "clone", ErrClone.Error())
		}
		out.Counter = a.Counter + 1
		var packed []byte
		if out.Certificates, packed, err = s.issue(a, r.CSR); err != nil {
			return err
		}
		moved, err := s.Store.Advance(t, a.Tenant, a.ID, a.Counter, digest, packed)
		if err == nil && !moved {
			err = ErrConflict
		}
		return err
	})
	if err != nil {
		return Issued{}, err
	}
	if clone {
		return Issued{}, ErrClone
	}
	return out, nil
}

// issue makes a certificate for the key in the request, and what of it is stored.
func (s *Service) issue(a Agent, csr []byte) (certificates [][]byte, packed []byte, err error) {
	id := spiffe.AgentID{TrustDomain: s.TrustDomain, Tenant: a.Tenant, Agent: a.ID}
	if certificates, err = s.Issuer.IssueAgent(csr, id); err != nil {
		return nil, nil, errors.Join(ErrInvalid, err)
	}
	packed, err = packCertificates(certificates)
	return certificates, packed, err
}

// again answers the newest request once more. An agent whose answer was lost and
// who was away for longer than a certificate lasts gets one that holds, for the
// same key and under the same counter: it would ask with this request for ever.
func (s *Service) again(t tx.Tx, a Agent, csr []byte) ([][]byte, error) {
	stored, err := unpackCertificates(a.Certificates)
	if err != nil {
		return nil, err
	}
	if len(stored) == 0 {
		return nil, errors.New("no certificate is stored for the newest request")
	}
	leaf, err := x509.ParseCertificate(stored[0])
	if err != nil {
		return nil, fmt.Errorf("read stored certificate: %w", err)
	}
	if s.Now().Before(leaf.NotAfter) {
		return stored, nil
	}
	fresh, packed, err := s.issue(a, csr)
	if err != nil {
		return nil, err
	}
	a.Certificates = packed
	return fresh, s.Store.PutAgent(t, a)
}

func (s *Service) proven(t tx.Tx, a Agent, r Renewal, value []byte) error {
	pub, live, err := s.PublicKey(t, a.Tenant, a.ID, a.Epoch, auditv1.KeyEvent_PURPOSE_IDENTITY)
	if err != nil {
		return err
	}
	if !ed25519.Verify(pub, agentv1.RenewalBinding(r.Exporter, value, r.CSR, r.Counter), r.Proof) {
		return ErrProof
	}
	if !live {
		return ErrRevoked
	}
	return nil
}

const (
	challengeTTL = 2 * time.Minute
	// maxChallenges bounds what strangers can make this process remember. The
	// oldest gives way.
	maxChallenges = 4096
)

type challenge struct {
	tenant, agent, exporter string
	expires                 time.Time
}

// challenges live in memory: one is good on its own TLS connection only, and
// that ends with this process.
type challenges struct {
	mu    sync.Mutex
	open  map[string]challenge
	order []string
}

func (c *challenges) put(value []byte, what challenge, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[string]challenge{}
	}
	for len(c.order) > 0 {
		oldest, ok := c.open[c.order[0]]
		if ok && now.Before(oldest.expires) && len(c.order) < maxChallenges {
			break
		}
		delete(c.open, c.order[0])
		c.order = c.order[1:]
	}
	c.open[string(value)] = what
	c.order = append(c.order, string(value))
}

func (c *challenges) take(value []byte, now time.Time) (challenge, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	what, ok := c.open[string(value)]
	delete(c.open, string(value))
	return what, ok && now.Before(what.expires)
}
