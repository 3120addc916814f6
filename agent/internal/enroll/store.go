package enroll

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"

	"github.com/reevehq/reeve/pki/keys"
)

// svidFile is the SVID with its key and the renewal counter, in one file so that
// they are replaced together.
type svidFile struct {
	Key          string   `json:"key"`
	Certificates [][]byte `json:"certificates"`
	// Counter is what the next renewal presents.
	Counter uint64 `json:"counter"`
	// PendingKey and PendingCSR are a renewal whose answer has not come. The
	// same request goes out until it has.
	PendingKey string `json:"pending_key,omitempty"`
	PendingCSR []byte `json:"pending_csr,omitempty"`
}

type svidStore struct{ path string }

func (s svidStore) get() (svidFile, error) {
	var f svidFile
	raw, err := keys.ReadPrivateFile(s.path)
	if err != nil {
		return f, fmt.Errorf("read SVID: %w", err)
	}
	if err := json.Unmarshal(raw, &f); err != nil {
		return f, fmt.Errorf("read SVID %s: %w", s.path, err)
	}
	return f, nil
}

// put writes f with the given key, durably.
func (s svidStore) put(f svidFile, key *ecdsa.PrivateKey) error {
	if key != nil {
		text, err := keys.MarshalPrivate(key)
		if err != nil {
			return err
		}
		f.Key = string(text)
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("encode SVID: %w", err)
	}
	return keys.WriteFile(s.path, raw, 0o600)
}

// certificate is the stored SVID; nil when there is none that can be read as one.
func (f svidFile) certificate() (*tls.Certificate, error) {
	if len(f.Certificates) == 0 {
		return nil, nil
	}
	key, err := keys.ParseTLSPrivate([]byte(f.Key))
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(f.Certificates[0])
	if err != nil {
		return nil, fmt.Errorf("stored SVID: %w", err)
	}
	return &tls.Certificate{Certificate: f.Certificates, PrivateKey: key, Leaf: leaf}, nil
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }
