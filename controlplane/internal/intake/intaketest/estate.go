package intaketest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/auditlog/auditlogstore"
	"github.com/reevehq/reeve/controlplane/internal/auditlog/verify"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/enrollment/enrollmentstore"
	"github.com/reevehq/reeve/controlplane/internal/intake"
	"github.com/reevehq/reeve/controlplane/internal/intake/intakestore"
	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/ledger/ledgerstore"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tenant/tenantstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// TrustDomain of every Estate.
const TrustDomain = "reeve.example"

// Start is when an Estate's clock begins.
var Start = time.Date(2030, 3, 1, 9, 0, 0, 0, time.UTC)

// Clock moves only when told. It is safe for concurrent use.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now is the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Forward moves the clock.
func (c *Clock) Forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// Seed is an endless stream of bytes that follows from a name. It is not random
// to anyone but a test.
func Seed(name string) io.Reader { return &seed{name: name} }

type seed struct {
	mu   sync.Mutex
	name string
	n    uint64
	rest []byte
}

func (s *seed) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.rest) < len(p) {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(s.name), s.n))
		s.n++
		s.rest = append(s.rest, sum[:]...)
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Estate is a control plane's trust and audit side without its servers.
type Estate struct {
	T     testing.TB
	Clock *Clock
	// File is the database; Reopen opens it again.
	File string
	CA   *ca.CA
	// RootKey signs the next root document, LogKey checkpoints.
	RootKey, LogKey ed25519.PrivateKey
	Documents       *Documents
	Pin             string

	DB         *tx.DB
	Log        *auditlog.Log
	Tenants    *tenant.Service
	Enrollment *enrollment.Service
	Intake     *intake.Service
	Ledger     *ledger.Ledger
	// Sessions is told of cuts; tests may put a real registry here and Reopen.
	Sessions enrollment.Sessions
	// Plans and Receivers of the intake, likewise.
	Plans     intake.Plans
	Receivers []intake.Receiver
	Logger    *slog.Logger

	rand io.Reader
	stop func()
}

// Documents are root document envelopes, for auditlog and agentapi.
type Documents struct {
	mu   sync.Mutex
	list [][]byte
}

// Envelopes implements auditlog.RootDocuments.
func (d *Documents) Envelopes() ([][]byte, error) { return d.After(0) }

// After implements agentapi.Roots.
func (d *Documents) After(version uint64) ([][]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.list[min(version, uint64(len(d.list))):], nil
}

// Add appends the next version.
func (d *Documents) Add(envelope []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, envelope)
}

// NoPlans finds nothing: every receipt is what an agent did by itself.
type NoPlans struct{}

// Change implements intake.Plans.
func (NoPlans) Change(tx.Tx, string, string, *auditv1.Receipt) (*planv1.Change, bool, error) {
	return nil, true, nil
}

// Look implements intake.Plans.
func (NoPlans) Look(tx.Tx, string, string, string, string) (planner.Look, bool, error) {
	return planner.Look{}, true, nil
}

type issuer struct{ *ca.CA }

func (i issuer) IssueAgent(csr []byte, id spiffe.AgentID) ([][]byte, error) {
	chain, err := i.CA.IssueAgent(csr, id, 0)
	return chain.DER(), err
}

// FakeSessions counts cuts.
type FakeSessions struct {
	mu   sync.Mutex
	cuts map[string]int
}

// Cut implements enrollment.Sessions.
func (f *FakeSessions) Cut(tenantID, agent, _ string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cuts == nil {
		f.cuts = map[string]int{}
	}
	f.cuts[tenantID+"/"+agent]++
}

// Cuts is how often an agent was cut.
func (f *FakeSessions) Cuts(tenantID, agent string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cuts[tenantID+"/"+agent]
}

// New makes an Estate with the tenants msp and fabrikam. It is closed with the
// test.
func New(t testing.TB) *Estate {
	t.Helper()
	e := At(t, filepath.Join(t.TempDir(), "reeve.db"))
	if err := e.Tenants.EnsureMSP(t.Context(), tenant.New{ID: "msp", Name: "The MSP", Owner: "noc@msp.example", Zone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	e.AddTenant("fabrikam")
	return e
}

// At opens an Estate on a database file, with the same keys as any other. Its
// salts begin anew, so only one process at a time may append to it.
func At(t testing.TB, file string) *Estate {
	t.Helper()
	e := &Estate{
		T: t, Clock: &Clock{now: Start}, File: file, Sessions: &FakeSessions{}, Plans: NoPlans{},
		Documents: &Documents{}, Logger: slog.New(slog.DiscardHandler), rand: Seed("estate"),
	}
	var err error
	if e.CA, err = ca.New(ca.Config{TrustDomain: TrustDomain, Rand: Seed("ca"), Now: e.Clock.Now}); err != nil {
		t.Fatal(err)
	}
	e.RootKey, e.LogKey = Key(t, "root"), Key(t, "log")
	first := e.Document(1, e.LogKey)
	e.Documents.Add(first)
	if e.Pin, err = root.Pin(first); err != nil {
		t.Fatal(err)
	}
	e.open()
	t.Cleanup(e.Close)
	return e
}

// Key is an Ed25519 key that follows from its name.
func Key(t testing.TB, name string) ed25519.PrivateKey {
	t.Helper()
	key, err := keys.Generate(Seed("key " + name))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Document is a version of the root document with the given checkpoint keys.
func (e *Estate) Document(version uint64, logKeys ...ed25519.PrivateKey) []byte {
	e.T.Helper()
	rootKey, err1 := root.NewKey(e.RootKey.Public().(ed25519.PublicKey))
	planKey, err2 := root.NewKey(Key(e.T, "plan").Public().(ed25519.PublicKey))
	d := root.Document{
		Format: root.Format, Version: version, TrustDomain: TrustDomain, Expires: Start.AddDate(1, 0, 0),
		RootKeys: []root.Key{rootKey}, Threshold: 1, CARoots: e.CA.BundlePEM(), PlanKeys: []root.Key{planKey},
	}
	for _, k := range logKeys {
		listed, err := root.NewCheckpointKey("log.reeve.example", k.Public().(ed25519.PublicKey))
		if err != nil {
			e.T.Fatal(err)
		}
		d.CheckpointKeys = append(d.CheckpointKeys, listed)
	}
	env, err3 := root.Sign(d, e.RootKey)
	if err := errors.Join(err1, err2, err3); err != nil {
		e.T.Fatal(err)
	}
	return env
}

func (e *Estate) open() {
	e.T.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), e.File)
	if err != nil {
		e.T.Fatal(err)
	}
	signer, err := tlogproof.NewSigner("log.reeve.example", e.LogKey)
	if err != nil {
		e.T.Fatal(err)
	}
	e.DB = db
	e.Log = auditlog.New(auditlog.Config{
		DB: db, Store: auditlogstore.Store{}, Signer: signer, Roots: e.Documents, TrustDomain: TrustDomain, Now: e.Clock.Now, Rand: e.rand, Log: e.Logger,
	})
	e.Tenants = tenant.NewService(db, tenantstore.Store{}, e.Log, e.Clock.Now, e.Logger)
	e.Enrollment = enrollment.New(enrollment.Config{
		DB: db, Store: enrollmentstore.Store{}, Records: e.Log, Tenants: e.Tenants, Chains: intakestore.Store{}, Sessions: e.Sessions,
		Issuer:      issuer{e.CA},
		TrustDomain: TrustDomain, Now: e.Clock.Now, Rand: e.rand, Log: e.Logger,
	})
	e.Ledger = ledger.New(db, ledgerstore.Store{})
	e.Intake = intake.New(intake.Config{
		DB: db, Store: intakestore.Store{}, Log: e.Log, Enrollment: e.Enrollment, Ledger: e.Ledger, Plans: e.Plans, Receivers: e.Receivers,
		TrustDomain: TrustDomain, Logger: e.Logger,
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = e.Intake.Run(ctx)
	}()
	e.stop = func() { cancel(); <-done }
}

// Close stops the intake and closes the database.
func (e *Estate) Close() {
	if e.stop == nil {
		return
	}
	e.stop()
	e.stop = nil
	if err := e.DB.Close(); err != nil {
		e.T.Error(err)
	}
}

// Reopen is a restart of the control plane on the same database.
func (e *Estate) Reopen() {
	e.T.Helper()
	e.Close()
	e.open()
}

// AddTenant adds an active tenant.
func (e *Estate) AddTenant(id string) {
	e.T.Helper()
	if _, err := e.Tenants.Add(e.T.Context(), "operator:kari", tenant.New{ID: id, Name: id, Owner: "it@" + id + ".example", Zone: "Europe/Oslo"}); err != nil {
		e.T.Fatal(err)
	}
}

// Do runs f in a transaction that must succeed.
func (e *Estate) Do(f func(tx.Tx) error) {
	e.T.Helper()
	if err := e.DB.Do(e.T.Context(), f); err != nil {
		e.T.Fatal(err)
	}
}

// Export is the tenant's export.
func (e *Estate) Export(tenantID string) []byte {
	e.T.Helper()
	var b bytes.Buffer
	if err := e.Log.Export(e.T.Context(), tenantID, &b); err != nil {
		e.T.Fatal(err)
	}
	return b.Bytes()
}

// Checkpoint is the tenant's newest signed checkpoint.
func (e *Estate) Checkpoint(tenantID string) string {
	e.T.Helper()
	c, err := e.Log.Checkpoint(e.T.Context(), tenantID)
	if err != nil {
		e.T.Fatal(err)
	}
	return c.Note
}

// Recheck verifies the tenant's whole log twice: from the database, and as a
// client would from an export.
func (e *Estate) Recheck(tenantID, saved string) verify.Report {
	e.T.Helper()
	if err := e.DB.View(e.T.Context(), func(t tx.Tx) error { return e.Log.Recheck(t, tenantID) }); err != nil {
		e.T.Fatal(err)
	}
	report, err := verify.Verify(bytes.NewReader(e.Export(tenantID)), saved, e.Pin)
	if err != nil {
		e.T.Fatal(err)
	}
	if !report.Sound() {
		e.T.Fatalf("log of %s: %v", tenantID, report.Findings)
	}
	return report
}
