package keys

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reevehq/reeve/pki/internal/golden"
)

func fixed() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
}

func TestGoldenFiles(t *testing.T) {
	key := fixed()
	private, err := MarshalPrivate(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := MarshalPublic(key.Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	golden.Check(t, "ed25519.key", private)
	golden.Check(t, "ed25519.pub", public)
	golden.Check(t, "ed25519.id", []byte(ID(key.Public().(ed25519.PublicKey))+"\n"))
}

// TestIDAgainstOpenSSL pins the ID to what a stranger computes with two tools.
func TestIDAgainstOpenSSL(t *testing.T) {
	out, err := exec.Command("sh", "-c", "openssl pkey -pubin -in testdata/ed25519.pub -outform DER | sha256sum").Output()
	if err != nil {
		t.Fatal(err)
	}
	if want := ID(fixed().Public().(ed25519.PublicKey)); !strings.HasPrefix(string(out), want+" ") {
		t.Errorf("openssl says %s, ID says %s", out, want)
	}
}

func TestFilesRoundTrip(t *testing.T) {
	dir := t.TempDir()
	key, err := Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "a.key")
	if err := WritePrivate(path, key); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if back, err := LoadPrivate(path); err != nil || !back.Equal(key) {
		t.Errorf("private came back different: %v", err)
	}
	if err := WritePrivate(path, fixed()); !errors.Is(err, ErrExists) {
		t.Errorf("overwrite: %v, want ErrExists", err)
	}
	if back, err := LoadPrivate(path); err != nil || !back.Equal(key) {
		t.Errorf("the refused overwrite changed the file: %v", err)
	}
	pub := key.Public().(ed25519.PublicKey)
	if err := WritePublic(filepath.Join(dir, "a.pub"), pub); err != nil {
		t.Fatal(err)
	}
	if back, err := LoadPublic(filepath.Join(dir, "a.pub")); err != nil || !back.Equal(pub) {
		t.Errorf("public came back different: %v", err)
	}
	tlsKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := WritePrivate(filepath.Join(dir, "t.key"), tlsKey); err != nil {
		t.Fatal(err)
	}
	if back, err := LoadTLSPrivate(filepath.Join(dir, "t.key")); err != nil || !back.Equal(tlsKey) {
		t.Errorf("TLS key came back different: %v", err)
	}
	if _, err := LoadPrivate(filepath.Join(dir, "t.key")); !errors.Is(err, ErrKeyType) {
		t.Errorf("a TLS key as a signing key: %v, want ErrKeyType", err)
	}
	if _, err := LoadTLSPrivate(path); !errors.Is(err, ErrKeyType) {
		t.Errorf("a signing key as a TLS key: %v, want ErrKeyType", err)
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".tmp-") {
			t.Errorf("left behind: %s", e.Name())
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good, err := MarshalPrivate(fixed())
	if err != nil {
		t.Fatal(err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o660, 0o666, 0o601} {
		path := filepath.Join(t.TempDir(), "a.key")
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadPrivate(path); !errors.Is(err, ErrPermissions) || !strings.Contains(err.Error(), path) {
			t.Errorf("mode %o: %v, want ErrPermissions naming the file", mode, err)
		}
	}
	for name, text := range map[string][]byte{
		"empty": nil, "twice": append(bytes.Clone(good), good...), "cut": good[:len(good)/2], "trailing": append(bytes.Clone(good), 'x'),
		"huge": bytes.Repeat([]byte{'\n'}, maxFile+1),
	} {
		path := filepath.Join(t.TempDir(), "a.key")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if key, err := LoadPrivate(path); err == nil {
			t.Errorf("%s: read as %x", name, key.Public())
		}
	}
	if _, err := LoadPrivate(t.TempDir()); err == nil {
		t.Error("a directory was read as a key")
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MarshalPrivate(weak); !errors.Is(err, ErrKeyType) {
		t.Errorf("RSA: %v, want ErrKeyType", err)
	}
	if _, err := Generate(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("a key from too little randomness")
	}
	if ID(make([]byte, 31)) != "" {
		t.Error("a short key has an ID")
	}
}

func TestWriteFileReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"a long first content", "short"} {
		if err := WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("%q, %v", got, err)
		}
	}
	if err := WriteFile(filepath.Join(path, "below-a-file"), nil, 0o600); err == nil {
		t.Error("wrote below a file")
	}
}
