package trust

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
)

func TestIssueOperator(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "kari")
	if _, err := IssueOperator(dir, "msp.example", "kari", out, 0, time.Now); !errors.Is(err, ErrNoCA) {
		t.Fatalf("without a CA: %v", err)
	}
	if exists, _ := filepath.Glob(filepath.Join(dir, "*")); exists != nil {
		t.Fatalf("a folder without a CA got %v", exists)
	}
	if _, err := WriteRequest(dir, "msp.example", time.Now); err != nil {
		t.Fatal(err)
	}
	files, err := IssueOperator(dir, "msp.example", "kari", out, 2*time.Hour, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(files.Key)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("private key: %v, %v", info.Mode(), err)
	}
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	id, err := spiffe.FromCertificate(pair.Leaf)
	if want := (spiffe.OperatorID{TrustDomain: "msp.example", Name: "kari"}); err != nil || id != want {
		t.Fatalf("certificate is for %v, %v", id, err)
	}
	if life := time.Until(pair.Leaf.NotAfter); life > 2*time.Hour {
		t.Errorf("certificate lasts %v", life)
	}
	bundle, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(bundle) {
		t.Error("ca.pem holds no certificate")
	}
	for name, c := range map[string]struct {
		operator string
		ttl      time.Duration
		want     error
	}{
		"more than a day": {"kari", 25 * time.Hour, ca.ErrTTL},
		"negative":        {"kari", -time.Hour, ca.ErrTTL},
		"a path":          {"../kari", 0, ca.ErrID},
		"no name":         {"", 0, ca.ErrID},
	} {
		if _, err := IssueOperator(dir, "msp.example", c.operator, out, c.ttl, time.Now); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(out, "*")); len(left) != 3 {
		t.Errorf("refusals left %v", left)
	}
}
