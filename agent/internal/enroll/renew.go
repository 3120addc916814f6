package enroll

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Attestor keeps the agent's SVID fresh: by renewal while it is valid, by proof
// of the identity key after it lapsed. Each attempt has a connection of its own,
// which the proof is bound to.
type Attestor struct {
	ControlPlane string
	State        statedir.Dir
	Identity     statedir.Identity
	Roots        *statedir.Roots
	Now          func() time.Time
	// After is a timer by that clock; nil means time.After.
	After  func(time.Duration) <-chan time.Time
	Logger *slog.Logger

	store svidStore
	key   ed25519.PrivateKey

	mu     sync.Mutex
	source *svid.Renewing
	// counter is the answer's, kept with its certificate.
	counter uint64
}

// Start opens the source: it serves the stored SVID, if it still holds, and
// renews from there.
func (a *Attestor) Start() (*svid.Renewing, error) {
	var err error
	if a.key, err = keys.LoadPrivate(a.State.IdentityKey()); err != nil {
		return nil, err
	}
	doc, err := a.Roots.Current()
	if err != nil {
		return nil, err
	}
	pool, err := doc.CARootPool()
	if err != nil {
		return nil, err
	}
	a.store = svidStore{path: a.State.SVID()}
	stored, err := a.store.get()
	if err != nil && !missing(err) {
		return nil, err
	}
	initial, err := stored.certificate()
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.source, err = svid.NewRenewing(svid.RenewingConfig{
		ID: a.Identity.ID(), Obtain: a.obtain, NewRequest: a.request, Obtained: a.obtained,
		Initial: initial, Roots: pool, Now: a.Now, After: a.After, Log: a.Logger,
	})
	return a.source, err
}

// request gives back the request that has not been answered yet, or makes one
// and keeps it before it is sent.
func (a *Attestor) request() (svid.Request, error) {
	f, err := a.store.get()
	if err != nil && !missing(err) {
		return svid.Request{}, err
	}
	if f.PendingKey != "" {
		key, err := keys.ParseTLSPrivate([]byte(f.PendingKey))
		if err != nil {
			return svid.Request{}, err
		}
		return svid.Request{Key: key, CSR: f.PendingCSR}, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return svid.Request{}, fmt.Errorf("make TLS key: %w", err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return svid.Request{}, err
	}
	text, err := keys.MarshalPrivate(key)
	if err != nil {
		return svid.Request{}, err
	}
	f.PendingKey, f.PendingCSR = string(text), csr
	return svid.Request{Key: key, CSR: csr}, a.store.put(f, nil)
}

// obtained keeps the new certificate with its counter and forgets the request.
func (a *Attestor) obtained(cert *tls.Certificate) error {
	key, ok := cert.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return fmt.Errorf("%w: key of type %T", ErrAnswer, cert.PrivateKey)
	}
	a.mu.Lock()
	counter := a.counter
	a.mu.Unlock()
	return a.store.put(svidFile{Certificates: cert.Certificate, Counter: counter}, key)
}

func (a *Attestor) obtain(ctx context.Context, r svid.Request) (svid.Obtained, error) {
	f, err := a.store.get()
	if err != nil {
		return svid.Obtained{}, err
	}
	a.mu.Lock()
	source := a.source
	a.mu.Unlock()
	var chain [][]byte
	var counter uint64
	if _, err := source.Current(); err == nil {
		chain, counter, err = a.renew(ctx, source, r, f.Counter)
		if err != nil {
			return svid.Obtained{}, err
		}
	} else {
		if chain, counter, err = a.reattest(ctx, r, f.Counter); err != nil {
			return svid.Obtained{}, err
		}
		a.Logger.Info("certificate had lapsed and was obtained again by the identity key")
	}
	a.mu.Lock()
	a.counter = counter
	a.mu.Unlock()
	return svid.Obtained{Chain: chain}, nil
}

func (a *Attestor) server() (spiffe.ControlPlaneID, error) {
	doc, err := a.Roots.Current()
	return spiffe.ControlPlaneID{TrustDomain: doc.TrustDomain}, err
}

func (a *Attestor) renew(ctx context.Context, source svid.Source, r svid.Request, counter uint64) ([][]byte, uint64, error) {
	server, err := a.server()
	if err != nil {
		return nil, 0, err
	}
	conn, err := dial(ctx, a.ControlPlane, mtls.ClientConfig(source, server, a.Now))
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	proof, err := a.key.Sign(nil, agentv1.RenewalBinding(conn.exporter, nil, r.CSR, counter), crypto.Hash(0))
	if err != nil {
		return nil, 0, fmt.Errorf("prove identity key: %w", err)
	}
	answer, err := agentv1.NewAgentServiceClient(conn).Renew(ctx, &agentv1.RenewRequest{Csr: r.CSR, Counter: counter, Proof: proof})
	if err != nil {
		return nil, 0, refused(err, "renew the certificate")
	}
	return answer.GetCertificates(), answer.GetCounter(), nil
}

func (a *Attestor) reattest(ctx context.Context, r svid.Request, counter uint64) ([][]byte, uint64, error) {
	// After a long absence the CA roots may have been replaced too.
	if err := UpdateRoots(ctx, a.ControlPlane, a.Roots, a.Now); err != nil {
		return nil, 0, err
	}
	doc, err := a.Roots.Usable()
	if err != nil {
		return nil, 0, err
	}
	pool, err := doc.CARootPool()
	if err != nil {
		return nil, 0, err
	}
	conn, err := dial(ctx, a.ControlPlane, mtls.PinnedClientConfig(pool, spiffe.ControlPlaneID{TrustDomain: doc.TrustDomain}, a.Now))
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	client := agentv1.NewEnrollmentServiceClient(conn)
	challenge, err := client.Challenge(ctx, &agentv1.ChallengeRequest{Tenant: a.Identity.Tenant, Agent: a.Identity.Agent})
	if err != nil {
		return nil, 0, refused(err, "ask for a challenge")
	}
	proof, err := a.key.Sign(nil, agentv1.RenewalBinding(conn.exporter, challenge.GetChallenge(), r.CSR, counter), crypto.Hash(0))
	if err != nil {
		return nil, 0, fmt.Errorf("prove identity key: %w", err)
	}
	answer, err := client.Reattest(ctx, &agentv1.ReattestRequest{
		Tenant: a.Identity.Tenant, Agent: a.Identity.Agent, Challenge: challenge.GetChallenge(), Csr: r.CSR, Counter: counter, Proof: proof,
	})
	if err != nil {
		return nil, 0, refused(err, "prove the identity key")
	}
	return answer.GetCertificates(), answer.GetCounter(), nil
}

// NotAfter is the end of the stored SVID; zero without one.
func NotAfter(d statedir.Dir) time.Time {
	f, err := svidStore{path: d.SVID()}.get()
	if err != nil {
		return time.Time{}
	}
	cert, err := f.certificate()
	if err != nil || cert == nil {
		return time.Time{}
	}
	return cert.Leaf.NotAfter
}
