package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

// ErrNoCA is returned where no control plane's certificate authority is.
var ErrNoCA = errors.New("no certificate authority is here")

// OperatorFiles are the paths of what IssueOperator wrote.
type OperatorFiles struct {
	Certificate, Key, CA string
	ID                   string
	NotAfter             time.Time
}

// IssueOperator makes a key and a certificate for an operator in the folder out,
// with the CA roots beside them: NAME.pem, NAME.key with mode 0600, ca.pem. ttl of
// zero means ca.DefaultTTL; more than ca.MaxTTL is refused. Files of an earlier
// certificate of the same name are replaced. Errors wrap ErrNoCA, ca.ErrID or
// ca.ErrTTL.
func IssueOperator(dir, trustDomain, name, out string, ttl time.Duration, now func() time.Time) (OperatorFiles, error) {
	authority, err := ca.Load(folder(dir).ca(), ca.Config{TrustDomain: trustDomain, Now: now})
	if errors.Is(err, fs.ErrNotExist) {
		return OperatorFiles{}, fmt.Errorf("%w: %s; name the control plane's data folder with --data", ErrNoCA, dir)
	}
	if err != nil {
		return OperatorFiles{}, fmt.Errorf("certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return OperatorFiles{}, err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return OperatorFiles{}, err
	}
	id := spiffe.OperatorID{TrustDomain: trustDomain, Name: name}
	chain, err := authority.IssueOperator(csr, id, ttl)
	if err != nil {
		return OperatorFiles{}, err
	}
	if err := os.MkdirAll(out, 0o700); err != nil {
		return OperatorFiles{}, err
	}
	files := OperatorFiles{
		Certificate: filepath.Join(out, name+".pem"), Key: filepath.Join(out, name+".key"), CA: filepath.Join(out, "ca.pem"),
		ID: id.String(), NotAfter: chain[0].NotAfter,
	}
	private, err := keys.MarshalPrivate(key)
	if err != nil {
		return OperatorFiles{}, err
	}
	for _, f := range []struct {
		path    string
		content []byte
		mode    fs.FileMode
	}{
		{files.Key, private, 0o600}, {files.Certificate, chain.PEM(), 0o644}, {files.CA, []byte(strings.Join(authority.BundlePEM(), "")), 0o644},
	} {
		if err := keys.WriteFile(f.path, f.content, f.mode); err != nil {
			return OperatorFiles{}, err
		}
	}
	return files, nil
}
