package svid

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/reevehq/reeve/pki/spiffe"
)

// WorkloadAPIConfig says which Workload API to listen to. Addr and Accept are needed.
type WorkloadAPIConfig struct {
	// Addr is the API's address as the SPIFFE Workload Endpoint standard writes
	// it: unix:///path/to/socket or tcp://IP:port.
	Addr string
	// Accept picks this party's SVID among those the API offers: the first one
	// that it returns true for. IDs outside of package spiffe's grammar are passed over.
	Accept func(spiffe.ID) bool
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Log gets failures of the API; nil drops them.
	Log *slog.Logger
}

// WorkloadAPI is a Source fed by a SPIFFE Workload API, such as a SPIRE agent's.
// When the API goes away the last certificate is served until its end, and the
// connection is tried again.
type WorkloadAPI struct {
	state
	cfg    WorkloadAPIConfig
	client *workloadapi.Client
	cancel context.CancelFunc
	done   chan struct{}
}

var _ Federated = (*WorkloadAPI)(nil)

// NewWorkloadAPI starts listening. It does not wait for a first certificate: see Wait.
func NewWorkloadAPI(cfg WorkloadAPIConfig) (*WorkloadAPI, error) {
	if cfg.Addr == "" || cfg.Accept == nil {
		return nil, errors.New("a Workload API source needs an address and a rule for its ID")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	client, err := workloadapi.New(ctx, workloadapi.WithAddr(cfg.Addr))
	if err != nil {
		cancel()
		return nil, fmt.Errorf("connect to the Workload API at %s: %w", cfg.Addr, err)
	}
	w := &WorkloadAPI{state: newState(cfg.Now), cfg: cfg, client: client, cancel: cancel, done: make(chan struct{})}
	go w.run(ctx)
	return w, nil
}

// Wait returns when there is a valid certificate, or with the context's error or
// ErrClosed.
func (w *WorkloadAPI) Wait(ctx context.Context) error { return wait(ctx, w) }

// Authorities lists root certificates by trust domain.
func (w *WorkloadAPI) Authorities() map[string][]*x509.Certificate {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return maps.Clone(w.authorities)
}

// Close ends listening and waits for it.
func (w *WorkloadAPI) Close() error {
	w.cancel()
	<-w.done
	w.shut()
	return w.client.Close()
}

// rewatch is the pause after a watch that the client library gave up: it does so
// when the API refuses a request as invalid, as SPIRE does before it is set up.
const rewatch = 5 * time.Second

func (w *WorkloadAPI) run(ctx context.Context) {
	defer close(w.done)
	for ctx.Err() == nil {
		err := w.client.WatchX509Context(ctx, watcher{w})
		if ctx.Err() != nil {
			return
		}
		w.cfg.Log.Warn("workload API watch ended", "addr", w.cfg.Addr, "error", err, "retry_in", rewatch)
		timer := time.NewTimer(rewatch)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// watcher keeps the callbacks out of WorkloadAPI's own method set.
type watcher struct{ w *WorkloadAPI }

func (c watcher) OnX509ContextUpdate(x *workloadapi.X509Context) {
	cert, id := c.w.pick(x.SVIDs)
	if cert == nil {
		c.w.cfg.Log.Warn("workload API offers no certificate for this party", "addr", c.w.cfg.Addr, "offered", len(x.SVIDs))
		return
	}
	authorities := map[string][]*x509.Certificate{}
	for _, b := range x.Bundles.Bundles() {
		authorities[b.TrustDomain().Name()] = b.X509Authorities()
	}
	roots := x509.NewCertPool()
	for _, a := range authorities[id.Domain()] {
		roots.AddCert(a)
	}
	c.w.change(func() { c.w.cert, c.w.roots, c.w.authorities = cert, roots, authorities })
}

func (c watcher) OnX509ContextWatchError(err error) {
	c.w.cfg.Log.Warn("workload API is not available", "addr", c.w.cfg.Addr, "error", err)
}

func (w *WorkloadAPI) pick(svids []*x509svid.SVID) (*tls.Certificate, spiffe.ID) {
	for _, s := range svids {
		id, err := spiffe.FromCertificate(s.Certificates[0])
		if err != nil || !w.cfg.Accept(id) {
			continue
		}
		cert := &tls.Certificate{PrivateKey: s.PrivateKey, Leaf: s.Certificates[0]}
		for _, c := range s.Certificates {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		return cert, id
	}
	return nil, nil
}
