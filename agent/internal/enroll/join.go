package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// ErrAnswer means that the control plane's answer cannot be used; nothing was
// kept of it.
var ErrAnswer = errors.New("the control plane's answer cannot be used")

// JoinOptions say where and as whom to join.
type JoinOptions struct {
	ControlPlane string
	// Pin is the fingerprint of the first root document.
	Pin string
	// TrustDomain, if given, must be the root document's.
	TrustDomain string
	// Name, if given, is the agent's name as invited.
	Name    string
	Token   jointoken.Token
	State   statedir.Dir
	Version string
	Now     func() time.Time
}

// Join redeems the token and leaves a state folder that the agent can run on. A
// folder that has joined before is left as it is, with again true. After an
// error Join may be called again with the same folder and token: it sends the
// same keys and the same CSR, which the control plane answers as before.
func Join(ctx context.Context, o JoinOptions) (id statedir.Identity, again bool, err error) {
	if id, err = o.State.Identity(); err == nil {
		return id, true, nil
	} else if !errors.Is(err, statedir.ErrNotJoined) {
		return id, false, err
	}
	roots, err := o.State.Roots(o.Pin, o.Now, nil)
	if err != nil {
		return id, false, err
	}
	if err := UpdateRoots(ctx, o.ControlPlane, roots, o.Now); err != nil {
		return id, false, err
	}
	doc, err := roots.Usable()
	if err != nil {
		return id, false, err
	}
	if o.TrustDomain != "" && o.TrustDomain != doc.TrustDomain {
		return id, false, fmt.Errorf("%w: the root document is of trust domain %s, agent.yaml says %s", ErrAnswer, doc.TrustDomain, o.TrustDomain)
	}
	pending, err := prepare(o.State)
	if err != nil {
		return id, false, err
	}
	pool, err := doc.CARootPool()
	if err != nil {
		return id, false, err
	}
	server := spiffe.ControlPlaneID{TrustDomain: doc.TrustDomain}
	conn, err := dial(ctx, o.ControlPlane, mtls.PinnedClientConfig(pool, server, o.Now))
	if err != nil {
		return id, false, err
	}
	defer conn.Close()
	request, err := pending.request(o, conn.exporter)
	if err != nil {
		return id, false, err
	}
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := agentv1.NewEnrollmentServiceClient(conn).Enroll(call, request)
	if err != nil {
		return id, false, tokenRefused(err)
	}
	id = statedir.Identity{
		TrustDomain: answer.GetTrustDomain(), Tenant: answer.GetTenant(), Agent: answer.GetAgent(), Epoch: answer.GetEpoch(),
		LogOrigin: answer.GetLogOrigin(), ControlPlane: o.ControlPlane, RootSHA256: o.Pin,
	}
	if err := checkAnswer(id, answer, pending.svid, pool, o.Now()); err != nil {
		return statedir.Identity{}, false, err
	}
	store := svidStore{path: o.State.SVID()}
	if err := store.put(svidFile{Counter: answer.GetCounter(), Certificates: answer.GetCertificates()}, pending.svid); err != nil {
		return statedir.Identity{}, false, err
	}
	// Last: from here on the folder has joined.
	if err := o.State.PutIdentity(id); err != nil {
		return statedir.Identity{}, false, err
	}
	return id, false, errors.Join(removeIf(o.State.SVIDKey()), removeIf(o.State.JoinCSR()))
}

func removeIf(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove what the join no longer needs: %w", err)
	}
	return nil
}

// pending is what a join sends, the same at every attempt.
type pending struct {
	keys []purposeKey
	svid *ecdsa.PrivateKey
	csr  []byte
}

type purposeKey struct {
	purpose auditv1.KeyEvent_Purpose
	key     ed25519.PrivateKey
}

// prepare makes what is missing of the keys and the CSR, and keeps it durably.
func prepare(d statedir.Dir) (*pending, error) {
	p := &pending{}
	for _, k := range []struct {
		purpose auditv1.KeyEvent_Purpose
		path    string
	}{
		{auditv1.KeyEvent_PURPOSE_IDENTITY, d.IdentityKey()},
		{auditv1.KeyEvent_PURPOSE_AUDIT, d.AuditKey()},
		{auditv1.KeyEvent_PURPOSE_WITNESS, d.WitnessKey()},
	} {
		key, err := keys.LoadPrivate(k.path)
		if errors.Is(err, fs.ErrNotExist) {
			if key, err = keys.Generate(rand.Reader); err == nil {
				err = keys.WritePrivate(k.path, key)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("prepare keys: %w", err)
		}
		p.keys = append(p.keys, purposeKey{k.purpose, key})
	}
	var err error
	p.svid, err = keys.LoadTLSPrivate(d.SVIDKey())
	if errors.Is(err, fs.ErrNotExist) {
		if p.svid, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err == nil {
			err = keys.WritePrivate(d.SVIDKey(), p.svid)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prepare keys: %w", err)
	}
	p.csr, err = os.ReadFile(d.JoinCSR())
	if errors.Is(err, fs.ErrNotExist) {
		if p.csr, err = ca.NewRequest(p.svid); err == nil {
			err = keys.WriteFile(d.JoinCSR(), p.csr, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("prepare certificate request: %w", err)
	}
	return p, nil
}

func (p *pending) request(o JoinOptions, exporter []byte) (*agentv1.EnrollRequest, error) {
	r := &agentv1.EnrollRequest{Token: o.Token.Reveal(), Csr: p.csr, Version: o.Version, Agent: o.Name}
	statement := agentv1.EnrollmentBinding(exporter, p.csr)
	for _, k := range p.keys {
		spki, err := x509.MarshalPKIXPublicKey(k.key.Public())
		if err != nil {
			return nil, fmt.Errorf("encode public key: %w", err)
		}
		proof, err := k.key.Sign(nil, statement, crypto.Hash(0))
		if err != nil {
			return nil, fmt.Errorf("prove key: %w", err)
		}
		r.Keys = append(r.Keys, &auditv1.KeyEvent_Key{Purpose: k.purpose, PublicKey: spki})
		r.Proofs = append(r.Proofs, proof)
	}
	return r, nil
}

// checkAnswer holds the certificate to what it must be before anything is kept.
func checkAnswer(id statedir.Identity, answer *agentv1.EnrollResponse, key *ecdsa.PrivateKey, roots *x509.CertPool, now time.Time) error {
	if err := id.ID().Validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if id.Epoch == 0 || id.LogOrigin == "" {
		return fmt.Errorf("%w: it names no epoch or no log", ErrAnswer)
	}
	var chain []*x509.Certificate
	for _, der := range answer.GetCertificates() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrAnswer, err)
		}
		chain = append(chain, cert)
	}
	if len(chain) == 0 {
		return fmt.Errorf("%w: it holds no certificate", ErrAnswer)
	}
	leaf := chain[0]
	named, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	if named != spiffe.ID(id.ID()) {
		return fmt.Errorf("%w: the certificate is for %v, the answer for %v", ErrAnswer, named, id.ID())
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		return fmt.Errorf("%w: the certificate is for another key", ErrAnswer)
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("%w: %w; compare this machine's clock with the control plane's", ErrAnswer, err)
	}
	return nil
}
