package trust

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	"github.com/reevehq/reeve/pki/tlogproof"
)

var (
	// ErrNoRoot is returned before a root document names this control plane.
	ErrNoRoot = errors.New("no root document is here")
	// ErrRootKey is returned when a root key can be read here.
	ErrRootKey = errors.New("a root key can be read by the control plane")
	// ErrNotNamed is returned when the newest root document does not name a key
	// that is in use here.
	ErrNotNamed = errors.New("the root document does not name this control plane's keys")
)

// devRootLifetime is how long a development root document lasts.
const devRootLifetime = 365 * 24 * time.Hour

// Trust is safe for concurrent use; it does not change while the process runs.
type Trust struct {
	TrustDomain string
	CA          *ca.CA
	PlanKey     ed25519.PrivateKey
	Checkpoints note.Signer
	// Document is the newest root document.
	Document  root.Document
	envelopes [][]byte
}

// folder is where everything stands in the data folder.
type folder string

func (f folder) ca() string        { return filepath.Join(string(f), "ca") }
func (f folder) planKey() string   { return filepath.Join(string(f), "keys", "plan.pem") }
func (f folder) logKey() string    { return filepath.Join(string(f), "keys", "checkpoint.pem") }
func (f folder) rootKey() string   { return filepath.Join(string(f), "root", "root-key.pem") }
func (f folder) documents() string { return filepath.Join(string(f), "root") }

// CheckpointName is the name under which a trust domain's log key signs.
func CheckpointName(trustDomain string) string { return trustDomain + "/log" }

// Open loads or makes the control plane's keys in dir. With dev it also makes a
// root key and the first root document there.
func Open(dir, trustDomain string, dev bool, now func() time.Time) (*Trust, error) {
	t, err := load(dir, trustDomain, now)
	if err != nil {
		return nil, err
	}
	f := folder(dir)
	if _, err := os.Stat(f.rootKey()); err == nil && !dev {
		return nil, fmt.Errorf("%w: %s; move it to where root keys are kept, or run with --dev", ErrRootKey, f.rootKey())
	}
	if err := t.readDocuments(f.documents()); err != nil {
		return nil, err
	}
	if len(t.envelopes) == 0 {
		if !dev {
			return nil, fmt.Errorf("%w: write down what it should name with `reeve-controlplane root-request`, sign it with `reeve root init`, and put it into %s", ErrNoRoot, f.documents())
		}
		if err := t.makeDevRoot(f, now()); err != nil {
			return nil, fmt.Errorf("make development root document: %w", err)
		}
	}
	if err := t.verify(now()); err != nil || dev {
		return t, err
	}
	return t, t.noRootKey(dir)
}

// noRootKey looks through dir for a root key of the newest document, under
// whatever name it was put there.
func (t *Trust) noRootKey(dir string) error {
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".pem" {
			return err
		}
		key, err := keys.LoadPrivate(path)
		if err != nil {
			return nil // a certificate, or a key of another kind
		}
		id := keys.ID(key.Public().(ed25519.PublicKey))
		if slices.ContainsFunc(t.Document.RootKeys, func(k root.Key) bool { return k.ID == id }) {
			return fmt.Errorf("%w: %s; move it to where root keys are kept, or run with --dev", ErrRootKey, path)
		}
		return nil
	})
}

func load(dir, trustDomain string, now func() time.Time) (*Trust, error) {
	f := folder(dir)
	for _, sub := range []string{filepath.Dir(f.planKey()), f.documents()} {
		if err := os.MkdirAll(sub, 0o700); err != nil {
			return nil, err
		}
	}
	t := &Trust{TrustDomain: trustDomain}
	var err error
	cfg := ca.Config{TrustDomain: trustDomain, Now: now}
	if t.CA, err = ca.Load(f.ca(), cfg); errors.Is(err, fs.ErrNotExist) {
		if t.CA, err = ca.New(cfg); err == nil {
			err = t.CA.Save(f.ca())
		}
	}
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if t.PlanKey, err = loadOrMake(f.planKey()); err != nil {
		return nil, fmt.Errorf("plan key: %w", err)
	}
	logKey, err := loadOrMake(f.logKey())
	if err != nil {
		return nil, fmt.Errorf("checkpoint key: %w", err)
	}
	t.Checkpoints, err = tlogproof.NewSigner(CheckpointName(trustDomain), logKey)
	return t, err
}

func loadOrMake(path string) (ed25519.PrivateKey, error) {
	key, err := keys.LoadPrivate(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = keys.Generate(rand.Reader); err != nil {
		return nil, err
	}
	return key, keys.WritePrivate(path, key)
}

// WriteRequest makes the keys if need be and writes what a root document should
// name as JSON, for `reeve root init` to read.
func WriteRequest(dir, trustDomain string, now func() time.Time) ([]byte, error) {
	t, err := load(dir, trustDomain, now)
	if err != nil {
		return nil, err
	}
	r, err := t.request(folder(dir))
	if err != nil {
		return nil, err
	}
	return json.MarshalIndent(r, "", "  ")
}

func (t *Trust) request(f folder) (root.Request, error) {
	plan, err := root.NewKey(t.PlanKey.Public().(ed25519.PublicKey))
	if err != nil {
		return root.Request{}, err
	}
	logKey, err := keys.LoadPrivate(f.logKey())
	if err != nil {
		return root.Request{}, err
	}
	checkpoint, err := root.NewCheckpointKey(CheckpointName(t.TrustDomain), logKey.Public().(ed25519.PublicKey))
	if err != nil {
		return root.Request{}, err
	}
	return root.Request{
		TrustDomain: t.TrustDomain, CARoots: t.CA.BundlePEM(), PlanKeys: []root.Key{plan}, CheckpointKeys: []root.CheckpointKey{checkpoint},
	}, nil
}

func (t *Trust) makeDevRoot(f folder, now time.Time) error {
	rootKey, err := loadOrMake(f.rootKey())
	if err != nil {
		return err
	}
	r, err := t.request(f)
	if err != nil {
		return err
	}
	key, err := root.NewKey(rootKey.Public().(ed25519.PublicKey))
	if err != nil {
		return err
	}
	envelope, err := root.Sign(root.Document{
		Format: root.Format, Version: 1, TrustDomain: t.TrustDomain, Expires: now.Add(devRootLifetime).UTC().Truncate(time.Second),
		RootKeys: []root.Key{key}, Threshold: 1, CARoots: r.CARoots, PlanKeys: r.PlanKeys, CheckpointKeys: r.CheckpointKeys,
	}, crypto.Signer(rootKey))
	if err != nil {
		return err
	}
	t.envelopes = [][]byte{envelope}
	return keys.WriteFile(filepath.Join(f.documents(), "1.json"), envelope, 0o644)
}

// readDocuments reads N.json in order of N, without holes.
func (t *Trust) readDocuments(dir string) error {
	for version := 1; ; version++ {
		envelope, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d.json", version)))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		t.envelopes = append(t.envelopes, envelope)
	}
}

// verify walks the documents as an agent would, and checks that the newest names
// the keys in use: an order signed by any other would be refused everywhere.
func (t *Trust) verify(now time.Time) error {
	pin, err := t.Pin()
	if err != nil {
		return err
	}
	if t.Document, err = root.Open(pin, t.envelopes, now, nil); err != nil {
		return fmt.Errorf("root documents: %w", err)
	}
	if t.Document.TrustDomain != t.TrustDomain {
		return fmt.Errorf("%w: it is for trust domain %s, this control plane runs as %s", ErrNotNamed, t.Document.TrustDomain, t.TrustDomain)
	}
	plan, err := t.Document.PlanKeySet()
	if err != nil {
		return err
	}
	if plan[keys.ID(t.PlanKey.Public().(ed25519.PublicKey))] == nil {
		return fmt.Errorf("%w: the plan key is missing", ErrNotNamed)
	}
	if !slices.ContainsFunc(t.Document.CheckpointKeys, func(k root.CheckpointKey) bool { return k.Name == t.Checkpoints.Name() }) {
		return fmt.Errorf("%w: the checkpoint key is missing", ErrNotNamed)
	}
	for _, mine := range t.CA.BundlePEM() {
		if !slices.Contains(t.Document.CARoots, mine) {
			return fmt.Errorf("%w: the root of the certificate authority is missing", ErrNotNamed)
		}
	}
	return nil
}

// Pin is what clients write into agent.yaml.
func (t *Trust) Pin() (string, error) { return root.Pin(t.envelopes[0]) }

// Envelopes returns every root document envelope, verbatim.
func (t *Trust) Envelopes() ([][]byte, error) { return t.envelopes, nil }

// After returns the envelopes of versions greater than version, oldest first.
func (t *Trust) After(version uint64) ([][]byte, error) {
	if version >= uint64(len(t.envelopes)) {
		return nil, nil
	}
	return t.envelopes[version:], nil
}

// IssueAgent issues a certificate for the key in an agent's request.
func (t *Trust) IssueAgent(csr []byte, id spiffe.AgentID) ([][]byte, error) {
	chain, err := t.CA.IssueAgent(csr, id, ca.DefaultTTL)
	return chain.DER(), err
}

// ServerSource renews the control plane's own certificate from its CA.
func (t *Trust) ServerSource(now func() time.Time, after func(time.Duration) <-chan time.Time, log *slog.Logger) (*svid.Renewing, error) {
	id := spiffe.ControlPlaneID{TrustDomain: t.TrustDomain}
	roots, err := t.Document.CARootPool()
	if err != nil {
		return nil, err
	}
	return svid.NewRenewing(svid.RenewingConfig{
		ID: id, Roots: roots, Now: now, After: after, Log: log,
		Obtain: func(_ context.Context, r svid.Request) (svid.Obtained, error) {
			chain, err := t.CA.IssueServer(r.CSR, id, ca.DefaultTTL)
			return svid.Obtained{Chain: chain.DER()}, err
		},
	})
}
