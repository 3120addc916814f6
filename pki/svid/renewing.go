package svid

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	cryptorand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
)

const (
	firstBackoff = time.Second
	lastBackoff  = time.Minute
	// longestNap bounds a wait, so that a wall clock that was set, or a machine
	// that slept, is noticed.
	longestNap    = 30 * time.Second
	obtainTimeout = time.Minute
)

// ErrObtained means that an issuer answered with something unusable.
var ErrObtained = errors.New("issuer answered with an unusable certificate")

// Request is a fresh key and the certificate request (PKCS#10 in DER) for it.
// One request is used for all attempts until one succeeds, because an issuer
// that detects clones takes a repeated request for a lost answer and a new one
// for a second holder of the identity.
type Request struct {
	Key *ecdsa.PrivateKey
	CSR []byte
}

// Obtained is an issuer's answer.
type Obtained struct {
	// Chain is in DER, leaf first.
	Chain [][]byte
	// Roots replaces the source's roots unless nil.
	Roots *x509.CertPool
}

// RenewingConfig says how a Renewing source is to work. Obtain and ID are needed.
type RenewingConfig struct {
	// ID is the name that every certificate must bear.
	ID spiffe.ID
	// Obtain gets a certificate for a request. It is called by one goroutine, with
	// a context that ends when the source is closed or after a minute.
	Obtain func(context.Context, Request) (Obtained, error)
	// NewRequest makes a request with a fresh key; nil makes it in memory. An
	// agent that must repeat a request after a crash keeps it durably here and
	// gives it back until Obtained is called.
	NewRequest func() (Request, error)
	// Obtained, unless nil, is called with each certificate before it is served,
	// for keeping it durably. An error counts as a failed attempt.
	Obtained func(*tls.Certificate) error
	// Initial is served from the start, if it is still valid.
	Initial *tls.Certificate
	// Roots are the roots from the start.
	Roots *x509.CertPool
	// Now and After are the clock; nil means the time package's.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time
	// Jitter gives numbers in [0, 1); nil means math/rand.
	Jitter func() float64
	// Log gets failed attempts; nil drops them.
	Log *slog.Logger
}

// Renewing renews at half of a certificate's lifetime, give or take a twentieth
// of it, with a fresh key each time. A failed attempt is repeated after 1 s, then
// 2 s and so on up to a minute, each shortened at random to as little as half.
// The old certificate is served until its end.
type Renewing struct {
	state
	cfg    RenewingConfig
	cancel context.CancelFunc
	done   chan struct{}
	renew  chan struct{}
}

var _ Source = (*Renewing)(nil)

// NewRenewing starts a source. It does not wait for a first certificate, so that
// a party without a connection can start: see Wait.
func NewRenewing(cfg RenewingConfig) (*Renewing, error) {
	if cfg.ID == nil || cfg.Obtain == nil {
		return nil, errors.New("a renewing source needs an ID and an issuer")
	}
	if cfg.NewRequest == nil {
		cfg.NewRequest = newRequest
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.After == nil {
		cfg.After = time.After
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Renewing{state: newState(cfg.Now), cfg: cfg, done: make(chan struct{}), renew: make(chan struct{}, 1)}
	r.roots = cfg.Roots
	if cfg.Initial != nil {
		cert, err := r.check(cfg.Initial.Certificate, cfg.Initial.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("initial certificate: %w", err)
		}
		r.cert = cert
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel = cancel
	go r.run(ctx)
	return r, nil
}

func newRequest() (Request, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), cryptorand.Reader)
	if err != nil {
		return Request{}, fmt.Errorf("make TLS key: %w", err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return Request{}, err
	}
	return Request{Key: key, CSR: csr}, nil
}

// Wait returns when there is a valid certificate, or with the context's error or
// ErrClosed.
func (r *Renewing) Wait(ctx context.Context) error { return wait(ctx, r) }

func wait(ctx context.Context, s Source) error {
	for {
		changed := s.Updated()
		_, err := s.Current()
		if err == nil || errors.Is(err, ErrClosed) {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("wait for a certificate: %w (%w)", ctx.Err(), err)
		}
	}
}

// Renew asks for a new certificate now, and returns at once.
func (r *Renewing) Renew() {
	select {
	case r.renew <- struct{}{}:
	default:
	}
}

// SetRoots replaces the roots, as after a new version of the root document.
func (r *Renewing) SetRoots(roots *x509.CertPool) { r.change(func() { r.roots = roots }) }

// Close ends renewal and waits for it.
func (r *Renewing) Close() error {
	r.cancel()
	<-r.done
	r.shut()
	return nil
}

func (r *Renewing) run(ctx context.Context) {
	defer close(r.done)
	var pending *Request
	backoff := firstBackoff
	due := r.dueAfterStart()
	for {
		if !r.sleepUntil(ctx, due) {
			return
		}
		err := r.attempt(ctx, &pending)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			pause := time.Duration(float64(backoff) * (0.5 + r.cfg.Jitter()/2))
			r.cfg.Log.Warn("certificate renewal failed", "id", r.cfg.ID.String(), "error", err, "retry_in", pause)
			due = r.cfg.Now().Add(pause)
			backoff = min(2*backoff, lastBackoff)
		default:
			backoff = firstBackoff
			// Even a certificate that is half over when it comes does not lead to
			// asking in a tight loop.
			due = r.halfLife()
			if soonest := r.cfg.Now().Add(firstBackoff); due.Before(soonest) {
				due = soonest
			}
		}
	}
}

func (r *Renewing) dueAfterStart() time.Time {
	if r.cert == nil {
		return r.cfg.Now()
	}
	return r.halfLife()
}

func (r *Renewing) halfLife() time.Time {
	r.mu.RLock()
	leaf := r.cert.Leaf
	r.mu.RUnlock()
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return leaf.NotBefore.Add(time.Duration(float64(life) * (0.45 + r.cfg.Jitter()/10)))
}

// sleepUntil returns false when the source is closed.
func (r *Renewing) sleepUntil(ctx context.Context, due time.Time) bool {
	for {
		left := due.Sub(r.cfg.Now())
		if left <= 0 {
			return ctx.Err() == nil
		}
		select {
		case <-ctx.Done():
			return false
		case <-r.renew:
			return true
		case <-r.cfg.After(min(left, longestNap)):
		}
	}
}

func (r *Renewing) attempt(ctx context.Context, pending **Request) error {
	if *pending == nil {
		req, err := r.cfg.NewRequest()
		if err != nil {
			return err
		}
		*pending = &req
	}
	ctx, cancel := context.WithTimeout(ctx, obtainTimeout)
	defer cancel()
	got, err := r.cfg.Obtain(ctx, **pending)
	if err != nil {
		return err
	}
	cert, err := r.check(got.Chain, (*pending).Key)
	if err != nil {
		return err
	}
	if r.now().After(cert.Leaf.NotAfter) {
		return fmt.Errorf("%w: it ended %s; compare this clock with the issuer's", ErrObtained, cert.Leaf.NotAfter.UTC().Format(time.RFC3339))
	}
	if r.cfg.Obtained != nil {
		if err := r.cfg.Obtained(cert); err != nil {
			return fmt.Errorf("keep certificate: %w", err)
		}
	}
	*pending = nil
	r.change(func() {
		r.cert = cert
		if got.Roots != nil {
			r.roots = got.Roots
		}
	})
	return nil
}

func (r *Renewing) check(chain [][]byte, key any) (*tls.Certificate, error) {
	if len(chain) == 0 {
		return nil, fmt.Errorf("%w: empty chain", ErrObtained)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrObtained, err)
	}
	id, err := spiffe.FromCertificate(leaf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrObtained, err)
	}
	if id != r.cfg.ID {
		return nil, fmt.Errorf("%w: it is for %v, not %v", ErrObtained, id, r.cfg.ID)
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("%w: it is for another key", ErrObtained)
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: private, Leaf: leaf}, nil
}
