package ca

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

const (
	rootCertFile = "root.pem"
	rootKeyFile  = "root.key"
)

// ErrStore means a directory whose files do not make one CA.
var ErrStore = errors.New("CA directory is not usable")

// Save puts the CA into dir, which must not exist or be empty: root.pem, root.key
// (which may be moved elsewhere afterwards) and for each kind <kind>.pem with key
// and certificate in one file, so that the two cannot part. The directory appears
// complete or not at all, and is durable when Save returns.
func (c *CA) Save(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%w: %s holds files already", ErrStore, dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(filepath.Clean(dir))
	tmp, err := os.MkdirTemp(parent, ".ca-*") // mode 0700
	if err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	defer os.RemoveAll(tmp)
	if err := keys.WriteFile(filepath.Join(tmp, rootCertFile), Chain{c.root}.PEM(), 0o644); err != nil {
		return err
	}
	if c.rootKey != nil {
		if err := keys.WritePrivate(filepath.Join(tmp, rootKeyFile), c.rootKey); err != nil {
			return err
		}
	}
	for _, k := range kinds {
		if err := c.SaveIntermediate(tmp, k); err != nil {
			return err
		}
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("save CA: %w", err)
	}
	return keys.SyncDir(parent)
}

// SaveIntermediate writes one intermediate into a CA's directory, after Rotate.
func (c *CA) SaveIntermediate(dir string, k spiffe.Kind) error {
	c.mu.RLock()
	is, ok := c.intermediates[k]
	c.mu.RUnlock()
	if !ok {
		return fmt.Errorf("no intermediate for %v", k)
	}
	text, err := keys.MarshalPrivate(is.key)
	if err != nil {
		return err
	}
	return keys.WriteFile(filepath.Join(dir, k.String()+".pem"), append(text, Chain{is.cert}.PEM()...), 0o600)
}

// Load reads what Save wrote; root.key may be missing. It checks that keys and
// certificates belong together and to cfg.TrustDomain. Errors wrap ErrStore,
// those of keys or those of the file system, and name the file.
func Load(dir string, cfg Config) (*CA, error) {
	cfg.defaults()
	if err := usable(cfg.TrustDomain); err != nil {
		return nil, err
	}
	c := &CA{cfg: cfg, intermediates: map[spiffe.Kind]issuer{}}
	path := filepath.Join(dir, rootCertFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("load CA: %w", err)
	}
	if c.root, err = oneCertificate(text); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrStore, path, err)
	}
	path = filepath.Join(dir, rootKeyFile)
	switch key, err := keys.LoadPrivate(path); {
	case err == nil:
		if !key.Public().(ed25519.PublicKey).Equal(c.root.PublicKey) {
			return nil, fmt.Errorf("%w: %s is not the key of %s", ErrStore, path, rootCertFile)
		}
		c.rootKey = key
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	for _, k := range kinds {
		path := filepath.Join(dir, k.String()+".pem")
		text, err := keys.ReadPrivateFile(path)
		if err != nil {
			return nil, fmt.Errorf("load CA: %w", err)
		}
		is, err := c.parseIssuer(text, k)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", ErrStore, path, err)
		}
		c.intermediates[k] = is
	}
	return c, nil
}

func (c *CA) parseIssuer(text []byte, k spiffe.Kind) (issuer, error) {
	block, rest := pem.Decode(text)
	if block == nil {
		return issuer{}, errors.New("no PEM block")
	}
	key, err := keys.ParsePrivate(pem.EncodeToMemory(block))
	if err != nil {
		return issuer{}, err
	}
	cert, err := oneCertificate(rest)
	if err != nil {
		return issuer{}, err
	}
	marked := spiffe.MarkedKinds(cert)
	switch {
	case !key.Public().(ed25519.PublicKey).Equal(cert.PublicKey):
		return issuer{}, errors.New("key and certificate do not belong together")
	case len(marked) != 1 || marked[0] != k:
		return issuer{}, fmt.Errorf("intermediate is for %v, not for %v", marked, k)
	case len(cert.PermittedURIDomains) != 1 || cert.PermittedURIDomains[0] != c.cfg.TrustDomain:
		return issuer{}, fmt.Errorf("intermediate is for trust domain %q, not for %s", cert.PermittedURIDomains, c.cfg.TrustDomain)
	}
	// An expired intermediate loads, so that it can be rotated; only the
	// signature matters here.
	if err := cert.CheckSignatureFrom(c.root); err != nil {
		return issuer{}, fmt.Errorf("not signed by %s: %w", rootCertFile, err)
	}
	return issuer{cert, key}, nil
}

func oneCertificate(text []byte) (*x509.Certificate, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) != 0 {
		return nil, errors.New("not exactly one PEM certificate")
	}
	return x509.ParseCertificate(block.Bytes)
}
