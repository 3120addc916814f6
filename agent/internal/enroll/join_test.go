package enroll_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/enroll"
	"github.com/reevehq/reeve/agent/internal/fakecontrolplane"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/root"
)

func options(t *testing.T, cp *fakecontrolplane.ControlPlane, token jointoken.Token) enroll.JoinOptions {
	t.Helper()
	d, err := statedir.Open(t.TempDir() + "/state")
	if err != nil {
		t.Fatal(err)
	}
	return enroll.JoinOptions{ControlPlane: cp.Address, Pin: cp.Pin, TrustDomain: fakecontrolplane.TrustDomain,
		Token: token, State: d, Version: "test", Now: time.Now}
}

func TestJoinKeepsWhatTheAgentNeeds(t *testing.T) {
	cp := fakecontrolplane.Start(t)
	o := options(t, cp, cp.Invite("dc1", time.Hour))
	o.Name = "dc1"
	id, again, err := enroll.Join(t.Context(), o)
	if err != nil || again {
		t.Fatalf("again %v, error %v", again, err)
	}
	if got := id.ID().String(); got != "spiffe://msp.example/tenant/fabrikam/agent/dc1" {
		t.Errorf("joined as %s", got)
	}
	if kept, err := o.State.Identity(); err != nil || kept != id {
		t.Errorf("kept %+v, %v", kept, err)
	}
	if enroll.NotAfter(o.State).Before(time.Now()) {
		t.Error("no valid certificate was kept")
	}
	for _, path := range []string{o.State.IdentityKey(), o.State.AuditKey(), o.State.WitnessKey(), o.State.SVID()} {
		info, err := os.Stat(path)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o", path, info.Mode().Perm())
		}
	}
	one, two, three := read(t, o.State.IdentityKey()), read(t, o.State.AuditKey()), read(t, o.State.WitnessKey())
	if bytes.Equal(one, two) || bytes.Equal(two, three) || bytes.Equal(one, three) {
		t.Error("two purposes share a key")
	}
	// Once more: nothing is asked, nothing changes.
	before := read(t, o.State.SVID())
	if _, again, err := enroll.Join(t.Context(), o); err != nil || !again {
		t.Errorf("second join: again %v, error %v", again, err)
	}
	if !bytes.Equal(before, read(t, o.State.SVID())) || cp.Agent("dc1").Enrolled != 1 {
		t.Error("the second join was not without effect")
	}
}

func TestJoinSucceedsAfterLostAnswers(t *testing.T) {
	cp := fakecontrolplane.Start(t)
	o := options(t, cp, cp.Invite("dc1", time.Hour))
	cp.LoseAnswers["Enroll"] = 2
	for range 2 {
		if _, _, err := enroll.Join(t.Context(), o); !errors.Is(err, enroll.ErrUnreachable) {
			t.Fatalf("lost answer: %v", err)
		}
		if _, err := o.State.Identity(); !errors.Is(err, statedir.ErrNotJoined) {
			t.Fatalf("half joined: %v", err)
		}
	}
	if _, _, err := enroll.Join(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if a := cp.Agent("dc1"); a.Enrolled != 3 || a.Counter != 1 {
		t.Errorf("asked %d times, counter %d", a.Enrolled, a.Counter)
	}
}

func TestJoinRefusals(t *testing.T) {
	cp := fakecontrolplane.Start(t)
	used := cp.Invite("dc1", time.Hour)
	if _, _, err := enroll.Join(t.Context(), options(t, cp, used)); err != nil {
		t.Fatal(err)
	}
	unknown, err := jointoken.New(strings.NewReader(strings.Repeat("x", 32)))
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(o *enroll.JoinOptions)
		want   error
		says   string
	}{
		"used":          {func(o *enroll.JoinOptions) { o.Token = used }, enroll.ErrToken, "used already"},
		"unknown":       {func(o *enroll.JoinOptions) { o.Token = unknown }, enroll.ErrToken, "reeve agent invite"},
		"expired":       {func(o *enroll.JoinOptions) { o.Token = cp.Invite("dc2", -time.Second) }, enroll.ErrToken, "expired"},
		"another agent": {func(o *enroll.JoinOptions) { o.Token, o.Name = cp.Invite("dc3", time.Hour), "dc4" }, enroll.ErrToken, "another agent"},
		"wrong pin":     {func(o *enroll.JoinOptions) { o.Pin = strings.Repeat("ab", 32) }, root.ErrPin, cp.Pin},
		"trust domain":  {func(o *enroll.JoinOptions) { o.TrustDomain = "other.example" }, enroll.ErrAnswer, "other.example"},
		"unreachable":   {func(o *enroll.JoinOptions) { o.ControlPlane = "127.0.0.1:1" }, enroll.ErrUnreachable, "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t, cp, cp.Invite("dc9", time.Hour))
			c.change(&o)
			_, _, err := enroll.Join(t.Context(), o)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want %v that says %q", err, c.want, c.says)
			}
			if strings.Contains(err.Error(), o.Token.Reveal()) {
				t.Error("the error shows the token")
			}
			if _, err := o.State.Identity(); !errors.Is(err, statedir.ErrNotJoined) {
				t.Errorf("joined after all: %v", err)
			}
		})
	}
	// A machine in the middle with a certificate of its own CA, and the right
	// root document: it is told nothing but that somebody wants the document.
	other := fakecontrolplane.Start(t)
	o := options(t, cp, cp.Invite("dc8", time.Hour))
	roots, err := o.State.Roots(cp.Pin, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := enroll.UpdateRoots(t.Context(), cp.Address, roots, time.Now); err != nil {
		t.Fatal(err)
	}
	o.ControlPlane = other.Address
	if _, _, err := enroll.Join(t.Context(), o); !errors.Is(err, enroll.ErrServer) {
		t.Errorf("machine in the middle: %v", err)
	}
}

func attestor(t *testing.T, cp *fakecontrolplane.ControlPlane, d statedir.Dir) *enroll.Attestor {
	t.Helper()
	id, err := d.Identity()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := d.Roots(cp.Pin, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &enroll.Attestor{ControlPlane: cp.Address, State: d, Identity: id, Roots: roots, Now: time.Now, Logger: quiet()}
}

func TestRenewalSurvivesALostAnswerAndARestart(t *testing.T) {
	cp := fakecontrolplane.Start(t)
	o := options(t, cp, cp.Invite("dc1", time.Hour))
	if _, _, err := enroll.Join(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	cp.Do(func() { cp.LoseAnswers["Renew"] = 1 })
	source, err := attestor(t, cp, o.State).Start()
	if err != nil {
		t.Fatal(err)
	}
	source.Renew()
	// The control plane has issued; the agent does not know and dies.
	cp.Await("a renewal whose answer is lost", func() bool { return cp.LoseAnswers["Renew"] == 0 })
	if err := source.Close(); err != nil {
		t.Fatal(err)
	}
	source, err = attestor(t, cp, o.State).Start()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	before, err := source.Current()
	if err != nil {
		t.Fatal(err)
	}
	changed := source.Updated()
	source.Renew()
	<-changed
	after, err := source.Current()
	if err != nil || bytes.Equal(before.Certificate[0], after.Certificate[0]) {
		t.Fatalf("no new certificate: %v", err)
	}
	// The same request twice is one step of the counter, not a clone's.
	if a := cp.Agent("dc1"); a.Counter != 2 || a.Renewed != 2 {
		t.Errorf("counter %d after %d requests", a.Counter, a.Renewed)
	}
}

func TestLapsedCertificateIsObtainedByTheIdentityKey(t *testing.T) {
	cp := fakecontrolplane.Start(t)
	cp.SVIDLife = time.Minute
	o := options(t, cp, cp.Invite("dc1", time.Hour))
	if _, _, err := enroll.Join(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	a := attestor(t, cp, o.State)
	lapsed := enroll.NotAfter(o.State).Add(time.Second)
	cp.SVIDLife = time.Hour
	cp.NewRoot()
	a.Now = func() time.Time { return lapsed }
	roots, err := o.State.Roots(cp.Pin, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	a.Roots = roots
	source, err := a.Start()
	if err != nil {
		t.Fatal(err)
	}
	defer source.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := source.Wait(ctx); err != nil {
		t.Fatal(err)
	}
	if known := cp.Agent("dc1"); known.Reproved != 1 || known.Renewed != 0 {
		t.Errorf("%d re-attestations, %d renewals", known.Reproved, known.Renewed)
	}
	if doc, err := roots.Current(); err != nil || doc.Version != 2 {
		t.Errorf("root document %d, %v: the newer one was not taken", doc.Version, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
