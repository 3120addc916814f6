package sshsig

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

const namespace = "plan-approval.v1@reeve"

var (
	noon    = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	message = []byte("tenant fabrikam, plan 4711\x00\n\xff")
)

// keygen runs the real ssh-keygen.
func keygen(t *testing.T, stdin []byte, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("ssh-keygen", args...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func mustKeygen(t *testing.T, stdin []byte, args ...string) {
	t.Helper()
	if out, err := keygen(t, stdin, args...); err != nil {
		t.Fatalf("ssh-keygen %v: %v\n%s", args, err, out)
	}
}

// newKey makes a key file and gives its path and its line in allowed_signers.
func newKey(t *testing.T, kind ...string) (string, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	mustKeygen(t, nil, append([]string{"-q", "-N", "", "-C", "a comment", "-f", path, "-t"}, kind...)...)
	pub, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	return path, string(pub)
}

func sign(t *testing.T, key, ns string, msg []byte, options ...string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "message")
	if err := os.WriteFile(file, msg, 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", "-Y", "sign", "-f", key, "-n", ns}
	for _, o := range options {
		args = append(args, "-O", o)
	}
	mustKeygen(t, nil, append(args, file)...)
	sig, err := os.ReadFile(file + ".sig")
	if err != nil {
		t.Fatal(err)
	}
	return sig
}

func allowed(t *testing.T, text string) []AllowedSigner {
	t.Helper()
	s, err := ParseAllowedSigners([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRealSignatures(t *testing.T) {
	for name, kind := range map[string][]string{
		"ed25519": {"ed25519"}, "p256": {"ecdsa", "-b", "256"}, "p384": {"ecdsa", "-b", "384"}, "p521": {"ecdsa", "-b", "521"},
	} {
		key, pub := newKey(t, kind...)
		signers := allowed(t, "# approvers\n\nkari,kari@fabrikam.example namespaces=\""+namespace+",file\" "+pub)
		for _, hash := range []string{"sha256", "sha512"} {
			sig := sign(t, key, namespace, message, "hashalg="+hash)
			v, err := Verify(sig, message, namespace, signers, noon)
			if err != nil || v.Signer.Principals[0] != "kari" || v.SecurityKey || v.UserVerified {
				t.Errorf("%s %s: %+v, %v", name, hash, v, err)
			}
			if _, err := Verify(bytes.ReplaceAll(sig, []byte("\n"), []byte("\r\n")), message, namespace, signers, noon); err != nil {
				t.Errorf("%s %s with CR LF: %v", name, hash, err)
			}
			if _, err := Verify(sig, append(message, 'x'), namespace, signers, noon); !errors.Is(err, ErrSignature) {
				t.Errorf("%s %s, another message: %v, want ErrSignature", name, hash, err)
			}
			if _, err := Verify(sig, message, "file", signers, noon); !errors.Is(err, ErrNamespace) {
				t.Errorf("%s %s, another namespace: %v, want ErrNamespace", name, hash, err)
			}
		}
		if _, err := Verify(sign(t, key, "git", message), message, "git", signers, noon); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: a namespace the key is not for: %v, want ErrNotAllowed", name, err)
		}
		_, other := newKey(t, kind...)
		if _, err := Verify(sign(t, key, namespace, message), message, namespace, allowed(t, "kari "+other), noon); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: another's key: %v, want ErrNotAllowed", name, err)
		}
	}
	key, _ := newKey(t, "rsa", "-b", "2048")
	if _, err := Parse(sign(t, key, namespace, message)); !errors.Is(err, ErrMalformed) {
		t.Errorf("RSA: %v, want ErrMalformed", err)
	}
}

// TestGoldenSignatures are signatures by OpenSSH 9.2 on file, so that a change in
// either implementation shows.
func TestGoldenSignatures(t *testing.T) {
	list, err := os.ReadFile("testdata/allowed_signers")
	if err != nil {
		t.Fatal(err)
	}
	signers := allowed(t, string(list))
	msg, err := os.ReadFile("testdata/message")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/*.sig")
	if err != nil || len(files) != 4 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, f := range files {
		sig, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		v, err := Verify(sig, msg, namespace, signers, noon)
		if want := strings.TrimSuffix(filepath.Base(f), ".sig"); err != nil || v.Signer.Principals[0] != want {
			t.Errorf("%s: %+v, %v", f, v, err)
		}
		if _, err := Verify(sig, msg[1:], namespace, signers, noon); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, another message: %v", f, err)
		}
	}
}

// softSecurityKey plays a FIDO key in software, as PROTOCOL.u2f describes one: no
// hardware is at hand. TestSecurityKey has ssh-keygen confirm what it makes.
type softSecurityKey struct {
	kind string
	pub  ssh.PublicKey
	sign func(data []byte) []byte
}

const application = "ssh:"

func newSoftEd25519(t *testing.T) softSecurityKey {
	pub, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wire := ssh.Marshal(struct{ Type, Key, Application string }{ssh.KeyAlgoSKED25519, string(pub), application})
	p, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	return softSecurityKey{ssh.KeyAlgoSKED25519, p, func(d []byte) []byte { return ed25519.Sign(key, d) }}
}

func newSoftECDSA(t *testing.T) softSecurityKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	point, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	wire := ssh.Marshal(struct{ Type, Curve, Key, Application string }{ssh.KeyAlgoSKECDSA256, "nistp256", string(point), application})
	p, err := ssh.ParsePublicKey(wire)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return softSecurityKey{ssh.KeyAlgoSKECDSA256, p, func(d []byte) []byte {
		s, err := signer.Sign(rand.Reader, d)
		if err != nil {
			t.Fatal(err)
		}
		return s.Blob
	}}
}

func (k softSecurityKey) sshsig(flags byte, counter uint32, msg []byte) []byte {
	h := sha512.Sum512(msg)
	data := append([]byte("SSHSIG"), ssh.Marshal(struct{ Namespace, Reserved, HashAlgorithm, Hash string }{namespace, "", "sha512", string(h[:])})...)
	app, dataHash := sha256.Sum256([]byte(application)), sha256.Sum256(data)
	rest := ssh.Marshal(struct {
		Flags   byte
		Counter uint32
	}{flags, counter})
	raw := k.sign(append(append(append([]byte{}, app[:]...), rest...), dataHash[:]...))
	sig := append(ssh.Marshal(struct{ Format, Blob string }{k.kind, string(raw)}), rest...)
	return armor(append([]byte("SSHSIG"), ssh.Marshal(blob{1, string(k.pub.Marshal()), namespace, "", "sha512", string(sig)})...))
}

func armor(raw []byte) []byte {
	b := base64.StdEncoding.EncodeToString(raw)
	var out strings.Builder
	out.WriteString(begin + "\n")
	for ; len(b) > 70; b = b[70:] {
		out.WriteString(b[:70] + "\n")
	}
	out.WriteString(b + "\n" + end + "\n")
	return []byte(out.String())
}

func TestSecurityKey(t *testing.T) {
	for _, k := range []softSecurityKey{newSoftEd25519(t), newSoftECDSA(t)} {
		line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k.pub)))
		plain, strict := allowed(t, "kari "+line), allowed(t, "kari verify-required "+line)
		const present, verified = flagUserPresent, flagUserPresent | flagUserVerified

		v, err := Verify(k.sshsig(verified, 7, message), message, namespace, strict, noon)
		if err != nil || !v.SecurityKey || !v.UserPresent || !v.UserVerified || v.Counter != 7 {
			t.Errorf("%s: %+v, %v", k.kind, v, err)
		}
		if v, err := Verify(k.sshsig(present, 8, message), message, namespace, plain, noon); err != nil || v.UserVerified {
			t.Errorf("%s, touch alone: %+v, %v", k.kind, v, err)
		}
		if _, err := Verify(k.sshsig(present, 8, message), message, namespace, strict, noon); !errors.Is(err, ErrUserVerification) {
			t.Errorf("%s, touch where verification is required: %v, want ErrUserVerification", k.kind, err)
		}
		for _, flags := range []byte{0, flagUserVerified} {
			if _, err := Verify(k.sshsig(flags, 9, message), message, namespace, plain, noon); !errors.Is(err, ErrSignature) {
				t.Errorf("%s, flags %x: %v, want ErrSignature", k.kind, flags, err)
			}
		}
		if _, err := Verify(raiseFlags(t, k.sshsig(present, 8, message), verified), message, namespace, strict, noon); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, flag raised afterwards: %v, want ErrSignature", k.kind, err)
		}
		dir := t.TempDir()
		for name, text := range map[string][]byte{"allowed": []byte("kari " + line + "\n"), "sig": k.sshsig(verified, 7, message)} {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := keygen(t, message, "-Y", "verify", "-f", filepath.Join(dir, "allowed"), "-I", "kari", "-n", namespace, "-s", filepath.Join(dir, "sig")); err != nil {
			t.Errorf("%s: ssh-keygen does not agree that this is a signature: %v\n%s", k.kind, err, out)
		}
	}
}

// raiseFlags changes the flags byte in a finished signature.
func raiseFlags(t *testing.T, armored []byte, flags byte) []byte {
	t.Helper()
	text := strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(string(armored)), begin), end)
	raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-5] = flags
	return armor(raw)
}

func TestParseRefuses(t *testing.T) {
	key, pub := newKey(t, "ed25519")
	good := sign(t, key, namespace, message)
	signers := allowed(t, "kari "+pub)
	text := string(good)
	body := strings.TrimSpace(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), begin), end))
	raw, err := base64.StdEncoding.DecodeString(body)
	if err != nil {
		t.Fatal(err)
	}
	rebuild := func(f func(*blob)) []byte {
		var b blob
		if err := ssh.Unmarshal(raw[len(preamble):], &b); err != nil {
			t.Fatal(err)
		}
		f(&b)
		return armor(append([]byte(preamble), ssh.Marshal(b)...))
	}
	for name, tc := range map[string]struct {
		sig  []byte
		want error
	}{
		"empty":               {nil, ErrMalformed},
		"no end":              {[]byte(strings.Replace(text, end, "", 1)), ErrMalformed},
		"two":                 {append(bytes.Clone(good), good...), ErrMalformed},
		"not base64":          {[]byte(begin + "\n!\n" + end), ErrMalformed},
		"other preamble":      {armor(append([]byte("SSHSIX"), raw[6:]...)), ErrMalformed},
		"cut":                 {armor(raw[:len(raw)-1]), ErrMalformed},
		"trailing":            {armor(append(bytes.Clone(raw), 0)), ErrMalformed},
		"version 2":           {rebuild(func(b *blob) { b.Version = 2 }), ErrMalformed},
		"no namespace":        {rebuild(func(b *blob) { b.Namespace = "" }), ErrMalformed},
		"sha1":                {rebuild(func(b *blob) { b.HashAlgorithm = "sha1" }), ErrMalformed},
		"other hash":          {rebuild(func(b *blob) { b.HashAlgorithm = "sha256" }), ErrSignature},
		"reserved filled in":  {rebuild(func(b *blob) { b.Reserved = "x" }), ErrSignature},
		"namespace exchanged": {rebuild(func(b *blob) { b.Namespace = namespace + "x" }), ErrNamespace},
		"junk in signature":   {rebuild(func(b *blob) { b.Signature += "x" }), ErrMalformed},
		"too large":           {append(bytes.Clone(good), bytes.Repeat([]byte("\n"), maxArmored)...), ErrMalformed},
	} {
		if v, err := Verify(tc.sig, message, namespace, signers, noon); !errors.Is(err, tc.want) {
			t.Errorf("%s: %+v, %v, want %v", name, v, err, tc.want)
		}
	}
}

func TestValidity(t *testing.T) {
	key, pub := newKey(t, "ed25519")
	sig := sign(t, key, namespace, message)
	for options, ok := range map[string]bool{
		`valid-after="20261121Z"`: true, `valid-after="202611211200Z"`: true, `valid-after="20261121120001Z"`: false,
		`valid-before="20261122Z"`: true, `valid-before="202611211200Z"`: false, `valid-after="20260101Z",valid-before="20270101Z"`: true,
		`NAMESPACES="` + namespace + `"`: true, `namespaces="file"`: false,
	} {
		_, err := Verify(sig, message, namespace, allowed(t, "kari "+options+" "+pub), noon)
		if (err == nil) != ok || err != nil && !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: %v", options, err)
		}
	}
	// A second line for the same key may allow what the first does not.
	if v, err := Verify(sig, message, namespace, allowed(t, `old valid-before="20200101Z" `+pub+"\nnew "+pub), noon); err != nil || v.Signer.Principals[0] != "new" {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestAllowedSignersRefuses(t *testing.T) {
	_, pub := newKey(t, "ed25519")
	_, rsa := newKey(t, "rsa", "-b", "2048")
	for name, line := range map[string]string{
		"no key": "kari", "no principal": pub, "wildcard": "* " + pub, "negated": "kari,!anna " + pub, "RSA": "kari " + rsa,
		"authority": "kari cert-authority " + pub, "no touch": "kari no-touch-required " + pub, "unknown": "kari zone=\"x\" " + pub,
		"twice": `kari namespaces="a",namespaces="b" ` + pub, "unquoted": "kari namespaces=a " + pub, "local time": `kari valid-after="20261121" ` + pub,
		"wild namespace": `kari namespaces="*" ` + pub, "verify on software key": "kari verify-required " + pub,
		"type mismatch": "kari " + strings.Replace(pub, "ssh-ed25519", "ecdsa-sha2-nistp256", 1),
	} {
		if s, err := ParseAllowedSigners([]byte("\n" + line)); !errors.Is(err, ErrSigners) || s != nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, %v, want ErrSigners at line 2", name, s, err)
		}
	}
}
