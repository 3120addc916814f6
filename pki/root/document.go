package root

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"golang.org/x/mod/sumdb/note"

	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/internal/strictjson"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/tlogproof"
)

// Format is the value of Document.Format.
const Format = "reeve-root-v1"

// maxKeys bounds each list of a document.
const maxKeys = 64

// ErrInvalid means that a document, though perhaps rightly signed, breaks a rule
// of the format; the message names the rule and the place.
var ErrInvalid = errors.New("invalid root document")

// Document is one version of a root document. Its JSON encoding is the payload
// of a dsse.Root envelope; it is encoded once, by Sign, and decoded strictly.
type Document struct {
	Format string `json:"format"`
	// Version counts from 1 without holes.
	Version uint64 `json:"version"`
	// TrustDomain never changes from one version to the next.
	TrustDomain string `json:"trust_domain"`
	// Expires is in UTC and whole seconds (RFC 3339).
	Expires time.Time `json:"expires"`
	// RootKeys sign the next version of this document; Threshold of them must.
	RootKeys  []Key `json:"root_keys"`
	Threshold int   `json:"threshold"`
	// CARoots are self-signed certificates in PEM, one to a string.
	CARoots []string `json:"ca_roots"`
	// PlanKeys sign orders.
	PlanKeys []Key `json:"plan_keys"`
	// CheckpointKeys sign the checkpoints of the tenants' logs.
	CheckpointKeys []CheckpointKey `json:"checkpoint_keys"`
}

// Key is an Ed25519 public key.
type Key struct {
	// ID is keys.ID of the key.
	ID string `json:"id"`
	// Public is the SPKI in DER, in base64 with the standard alphabet.
	Public string `json:"public"`
}

// CheckpointKey is a key with the name under which it signs notes (C2SP
// signed-note): not empty, without white space and without '+'.
type CheckpointKey struct {
	Name   string `json:"name"`
	ID     string `json:"id"`
	Public string `json:"public"`
}

// NewKey is the document's form of pub, which must be a valid Ed25519 key.
func NewKey(pub ed25519.PublicKey) (Key, error) {
	der, err := spki(pub)
	if err != nil {
		return Key{}, err
	}
	return Key{ID: keys.ID(pub), Public: base64.StdEncoding.EncodeToString(der)}, nil
}

// NewCheckpointKey is the document's form of a checkpoint key.
func NewCheckpointKey(name string, pub ed25519.PublicKey) (CheckpointKey, error) {
	k, err := NewKey(pub)
	if err != nil {
		return CheckpointKey{}, err
	}
	return CheckpointKey{Name: name, ID: k.ID, Public: k.Public}, nil
}

func spki(pub ed25519.PublicKey) ([]byte, error) {
	if len(pub) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("%w: Ed25519 key of %d bytes", keys.ErrKeyType, len(pub))
	}
	return x509.MarshalPKIXPublicKey(pub)
}

// PublicKey decodes the key and checks that ID is its ID.
func (k Key) PublicKey() (ed25519.PublicKey, error) {
	der, err := base64.StdEncoding.Strict().DecodeString(k.Public)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	pub, err := keys.ParseSPKI(der)
	if err != nil {
		return nil, err
	}
	// One spelling per key, so that comparing strings compares keys.
	if again, err := NewKey(pub); err != nil || again != k {
		return nil, fmt.Errorf("key with ID %q is really %q, or not in canonical encoding", k.ID, keys.ID(pub))
	}
	return pub, nil
}

// PublicKey decodes the key and checks that ID is its ID.
func (k CheckpointKey) PublicKey() (ed25519.PublicKey, error) {
	return Key{ID: k.ID, Public: k.Public}.PublicKey()
}

// Sign validates the document, encodes it and wraps it in an envelope signed by
// the signers. Whether these are enough is for the verifier to find out: key
// holders in other places add theirs with dsse.AddSignatures.
func Sign(d Document, signers ...crypto.Signer) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	payload, err := json.Marshal(d)
	if err != nil {
		return nil, fmt.Errorf("encode root document: %w", err)
	}
	return dsse.Sign(dsse.Root, payload, signers...)
}

// Pin is what a client writes into agent.yaml as root_sha256: the lower-case hex
// of the SHA-256 of the envelope's payload. It does not verify anything.
func Pin(envelope []byte) (string, error) {
	payload, err := dsse.UnverifiedPayload(envelope, dsse.Root)
	if err != nil {
		return "", err
	}
	return pin(payload), nil
}

func pin(payload []byte) string {
	sum := sha256.Sum256(payload)
	return hex.EncodeToString(sum[:])
}

func parse(payload []byte) (Document, error) {
	var d Document
	if err := strictjson.Decode(payload, &d); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if err := d.Validate(); err != nil {
		return Document{}, err
	}
	return d, nil
}

// Validate checks every rule that a document can be held to by itself: format,
// names, keys that are what their IDs say, a threshold that can be met, and no
// key that serves two purposes.
func (d Document) Validate() error {
	if d.Format != Format {
		return fmt.Errorf("%w: format %q, want %q", ErrInvalid, d.Format, Format)
	}
	if d.Version == 0 {
		return fmt.Errorf("%w: version 0", ErrInvalid)
	}
	if err := spiffe.ValidateTrustDomain(d.TrustDomain); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if d.Expires.IsZero() || d.Expires.Location() != time.UTC || d.Expires.Nanosecond() != 0 {
		return fmt.Errorf("%w: expiry must be in UTC and whole seconds", ErrInvalid)
	}
	if d.Threshold < 1 || d.Threshold > len(d.RootKeys) {
		return fmt.Errorf("%w: threshold %d of %d root keys", ErrInvalid, d.Threshold, len(d.RootKeys))
	}
	for what, n := range map[string]int{"CA roots": len(d.CARoots), "plan keys": len(d.PlanKeys), "checkpoint keys": len(d.CheckpointKeys), "root keys": len(d.RootKeys)} {
		if n < 1 || n > maxKeys {
			return fmt.Errorf("%w: %d %s, want 1 to %d", ErrInvalid, n, what, maxKeys)
		}
	}
	for _, k := range d.CheckpointKeys {
		if !validNoteName(k.Name) {
			return fmt.Errorf("%w: checkpoint key name %q", ErrInvalid, k.Name)
		}
	}
	_, err := d.purposes()
	return err
}

func validNoteName(name string) bool {
	return name != "" && len(name) <= 255 && !strings.ContainsRune(name, '+') &&
		strings.IndexFunc(name, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }) < 0
}

// purposes maps every key, by its SPKI in DER, to what it is for.
func (d Document) purposes() (map[string]string, error) {
	out := map[string]string{}
	add := func(der []byte, purpose string) error {
		if other, dup := out[string(der)]; dup {
			return fmt.Errorf("%w: one key is listed both as %s and as %s; each needs its own", ErrInvalid, other, purpose)
		}
		out[string(der)] = purpose
		return nil
	}
	list := func(purpose string, ks []Key) error {
		for i, k := range ks {
			pub, err := k.PublicKey()
			if err != nil {
				return fmt.Errorf("%w: %s %d: %w", ErrInvalid, purpose, i, err)
			}
			der, err := spki(pub)
			if err != nil {
				return fmt.Errorf("%w: %s %d: %w", ErrInvalid, purpose, i, err)
			}
			if err := add(der, purpose); err != nil {
				return err
			}
		}
		return nil
	}
	if err := list("root key", d.RootKeys); err != nil {
		return nil, err
	}
	if err := list("plan key", d.PlanKeys); err != nil {
		return nil, err
	}
	var checkpoint []Key
	for _, k := range d.CheckpointKeys {
		checkpoint = append(checkpoint, Key{ID: k.ID, Public: k.Public})
	}
	if err := list("checkpoint key", checkpoint); err != nil {
		return nil, err
	}
	certs, err := d.caRoots()
	if err != nil {
		return nil, err
	}
	for _, cert := range certs {
		if err := add(cert.RawSubjectPublicKeyInfo, "CA root"); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (d Document) caRoots() ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for i, text := range d.CARoots {
		block, rest := pem.Decode([]byte(text))
		if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
			return nil, fmt.Errorf("%w: CA root %d is not one PEM certificate", ErrInvalid, i)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%w: CA root %d: %w", ErrInvalid, i, err)
		}
		if !cert.IsCA || !cert.BasicConstraintsValid {
			return nil, fmt.Errorf("%w: CA root %d is not a CA certificate", ErrInvalid, i)
		}
		out = append(out, cert)
	}
	return out, nil
}

// CARootPool is the pool of CA roots, for mtls.
func (d Document) CARootPool() (*x509.CertPool, error) {
	certs, err := d.caRoots()
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool, nil
}

// PlanKeySet is the plan keys by ID, for dsse.Verify.
func (d Document) PlanKeySet() (map[string]ed25519.PublicKey, error) { return keySet(d.PlanKeys) }

func keySet(list []Key) (map[string]ed25519.PublicKey, error) {
	set := make(map[string]ed25519.PublicKey, len(list))
	for _, k := range list {
		pub, err := k.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		set[k.ID] = pub
	}
	return set, nil
}

// CheckpointVerifiers are the checkpoint keys as note verifiers. A log whose
// origin is not the key's own name signs under its origin: name gives that one
// for all keys, and the empty name leaves each key its own.
func (d Document) CheckpointVerifiers(name string) ([]note.Verifier, error) {
	var out []note.Verifier
	for _, k := range d.CheckpointKeys {
		pub, err := k.PublicKey()
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		as := name
		if as == "" {
			as = k.Name
		}
		v, err := tlogproof.NewVerifier(as, pub)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}
