package svid

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
)

var agent = spiffe.AgentID{TrustDomain: "reeve.example", Tenant: "fabrikam", Agent: "dc1"}

// issuer issues from a real CA and can be made to fail.
type issuer struct {
	ca *ca.CA
	id spiffe.AgentID

	mu       sync.Mutex
	fail     error
	requests []Request
	at       []time.Time
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	authority, err := ca.New(ca.Config{TrustDomain: "reeve.example"})
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{ca: authority, id: agent}
}

func (i *issuer) obtain(_ context.Context, r Request) (Obtained, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests = append(i.requests, r)
	i.at = append(i.at, time.Now())
	if i.fail != nil {
		return Obtained{}, i.fail
	}
	chain, err := i.ca.IssueAgent(r.CSR, i.id, time.Hour)
	if err != nil {
		return Obtained{}, err
	}
	return Obtained{Chain: chain.DER(), Roots: i.ca.Pool()}, nil
}

func (i *issuer) setFail(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.fail = err
}

// seen gives the requests so far with the times at which they came.
func (i *issuer) seen() ([]Request, []time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.requests), slices.Clone(i.at)
}

func start(t *testing.T, cfg RenewingConfig) *Renewing {
	t.Helper()
	if cfg.ID == nil {
		cfg.ID = agent
	}
	r, err := NewRenewing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func current(t *testing.T, s Source) *tls.Certificate {
	t.Helper()
	c, err := s.Current()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRenewsAtHalfLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		r := start(t, RenewingConfig{Obtain: i.obtain})
		defer r.Close()
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := current(t, r)
		for range 48 {
			changed := r.Updated()
			before := current(t, r)
			<-changed
			after := current(t, r)
			if after.Leaf.Equal(before.Leaf) || after.PrivateKey.(*ecdsa.PrivateKey).Equal(before.PrivateKey) {
				t.Fatal("an update brought no fresh certificate or no fresh key")
			}
			age, life := time.Since(before.Leaf.NotBefore), before.Leaf.NotAfter.Sub(before.Leaf.NotBefore)
			// The certificate's times are whole seconds.
			if share := age.Seconds() / life.Seconds(); share < 0.449 || share > 0.551 {
				t.Fatalf("renewed at %.3f of the lifetime", share)
			}
		}
		if !first.Leaf.NotAfter.Before(time.Now()) || r.Roots() == nil {
			t.Error("a day's renewals did not outlive the first certificate")
		}
	})
}

func TestKeepsOldUntilItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		r := start(t, RenewingConfig{Obtain: i.obtain})
		defer r.Close()
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		first := current(t, r)
		i.setFail(errors.New("control plane is away"))
		time.Sleep(time.Until(first.Leaf.NotAfter))
		if c := current(t, r); !c.Leaf.Equal(first.Leaf) {
			t.Error("served another certificate while there was none")
		}
		time.Sleep(2 * time.Second)
		if _, err := r.Current(); !errors.Is(err, ErrExpired) {
			t.Errorf("after the end: %v, want ErrExpired", err)
		}
		time.Sleep(30 * 24 * time.Hour)
		requests, at := i.seen()
		attempts := len(requests)
		if perDay := float64(attempts) / 30; perDay > 2*24*60+60 {
			t.Errorf("%.0f attempts a day", perDay)
		}
		for n := 2; n < attempts; n++ {
			if !bytes.Equal(requests[n].CSR, requests[1].CSR) {
				t.Fatalf("attempt %d made a new request though the first may have been answered", n)
			}
			if gap := at[n].Sub(at[n-1]); gap < firstBackoff/2 || gap > lastBackoff {
				t.Fatalf("attempt %d came %v after the one before", n, gap)
			}
		}
		i.setFail(nil)
		if err := r.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		requests, _ = i.seen()
		if c := current(t, r); c.Leaf.Equal(first.Leaf) || !bytes.Equal(requests[len(requests)-1].CSR, requests[1].CSR) {
			t.Error("did not recover with the pending request")
		}
		time.Sleep(time.Hour)
		requests, _ = i.seen()
		if last := requests[len(requests)-1]; bytes.Equal(last.CSR, requests[1].CSR) {
			t.Error("used a request again after its success")
		}
	})
}

func TestRefusesUnusableAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		other, err := newRequest()
		if err != nil {
			t.Fatal(err)
		}
		var kept atomic.Int32
		type answers func(Request) (Obtained, error)
		var answer atomic.Value
		answer.Store(answers(func(Request) (Obtained, error) { return Obtained{}, errors.New("away") }))
		r := start(t, RenewingConfig{
			Obtain:   func(_ context.Context, r Request) (Obtained, error) { return answer.Load().(answers)(r) },
			Obtained: func(*tls.Certificate) error { kept.Add(1); return nil },
		})
		defer r.Close()
		asOther := i.id
		asOther.Agent = "dc2"
		stale, err := ca.New(ca.Config{TrustDomain: "reeve.example", Now: func() time.Time { return time.Now().Add(-3 * time.Hour) }})
		if err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]func(Request) (Obtained, error){
			"nothing":     func(Request) (Obtained, error) { return Obtained{}, nil },
			"garbage":     func(Request) (Obtained, error) { return Obtained{Chain: [][]byte{{1}}}, nil },
			"another key": func(Request) (Obtained, error) { return i.obtain(t.Context(), other) },
			"another name": func(r Request) (Obtained, error) {
				c, err := i.ca.IssueAgent(r.CSR, asOther, 0)
				return Obtained{Chain: c.DER()}, err
			},
			"expired": func(r Request) (Obtained, error) {
				c, err := stale.IssueAgent(r.CSR, i.id, 0)
				return Obtained{Chain: c.DER()}, err
			},
		} {
			answer.Store(answers(f))
			time.Sleep(5 * time.Minute)
			if _, err := r.Current(); !errors.Is(err, ErrNone) || kept.Load() != 0 {
				t.Errorf("%s: %v, want ErrNone; kept %d", name, err, kept.Load())
			}
		}
		answer.Store(answers(func(r Request) (Obtained, error) { return i.obtain(t.Context(), r) }))
		if err := r.Wait(t.Context()); err != nil || kept.Load() != 1 {
			t.Errorf("%v, kept %d", err, kept.Load())
		}
	})
}

func TestInitialRenewRootsAndClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		req, err := newRequest()
		if err != nil {
			t.Fatal(err)
		}
		got, err := i.obtain(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		initial := &tls.Certificate{Certificate: got.Chain, PrivateKey: req.Key}
		r := start(t, RenewingConfig{Obtain: i.obtain, Initial: initial})
		if c := current(t, r); !bytes.Equal(c.Certificate[0], got.Chain[0]) || r.Roots() != nil {
			t.Error("initial certificate is not served, or roots come from nowhere")
		}
		changed := r.Updated()
		pool := x509.NewCertPool()
		r.SetRoots(pool)
		<-changed
		if r.Roots() != pool {
			t.Error("roots were not replaced")
		}
		changed = r.Updated()
		r.Renew()
		<-changed
		if c := current(t, r); bytes.Equal(c.Certificate[0], got.Chain[0]) {
			t.Error("Renew brought nothing new")
		}
		changed = r.Updated()
		for range 2 {
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
		<-changed
		if _, err := r.Current(); !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v, want ErrClosed", err)
		}
		if err := r.Wait(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("wait on closed: %v, want ErrClosed", err)
		}
		if _, err := NewRenewing(RenewingConfig{ID: spiffe.AgentID{TrustDomain: "reeve.example", Tenant: "a", Agent: "b"}, Obtain: i.obtain, Initial: initial}); !errors.Is(err, ErrObtained) {
			t.Errorf("initial certificate of another: %v, want ErrObtained", err)
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		i := newIssuer(t)
		i.setFail(errors.New("away"))
		r := start(t, RenewingConfig{Obtain: i.obtain})
		defer r.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := r.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, ErrNone) {
			t.Errorf("%v, want the deadline and ErrNone", err)
		}
	})
}
