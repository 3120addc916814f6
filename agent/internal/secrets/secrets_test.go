package secrets

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"
)

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "s3cret \r\n", 0o640)
	env := map[string]string{"BIND": "from env", "CREDENTIALS_DIRECTORY": dir}
	r := Resolver{Getenv: func(name string) string { return env[name] }}
	for reference, want := range map[string]string{"file:" + good: "s3cret ", "env:BIND": "from env", "credential:good": "s3cret "} {
		got, err := r.Resolve(reference)
		if err != nil || string(got.Reveal()) != want {
			t.Errorf("%s: %q, %v", reference, got.Reveal(), err)
		}
	}
	for reference, want := range map[string]error{
		"file:" + write("open", "x", 0o644):                             ErrUnresolved,
		"file:" + write("empty", "\n", 0o600):                           ErrUnresolved,
		"file:" + write("big", strings.Repeat("x", maxSecret+1), 0o600): ErrUnresolved,
		"file:" + dir:              ErrUnresolved,
		"file:" + dir + "/nothing": ErrUnresolved,
		"file:relative":            ErrReference,
		"env:NOTHING":              ErrUnresolved,
		"credential:../good":       ErrReference,
		"hunter2":                  ErrReference,
		"vault:x":                  ErrReference,
		"file:":                    ErrReference,
	} {
		_, err := r.Resolve(reference)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", reference, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("what may be a secret is repeated: %v", err)
		}
	}
	if _, err := (Resolver{Getenv: func(string) string { return "" }}).Resolve("credential:good"); !errors.Is(err, ErrUnresolved) || !strings.Contains(err.Error(), "LoadCredential") {
		t.Errorf("without systemd: %v", err)
	}
}

func TestSecretPrintsNowhere(t *testing.T) {
	s := New([]byte("hunter2"))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", s, "within", struct{ S Secret }{s})
	encoded, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{log.String(), string(encoded), fmt.Sprint(s), fmt.Sprintf("%+v %#v %s %x %q %d", s, s, s, s, s, s), fmt.Sprintf("%v %+v", &s, []Secret{s})} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "68756e74657232") || strings.Contains(text, "104 117") {
			t.Errorf("it prints as %s", text)
		}
	}
	s.Wipe()
	if bytes.Contains(s.Reveal(), []byte("hunter")) {
		t.Error("it is still there")
	}
}

func TestSealOpensForTheRecipientOnly(t *testing.T) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	r, err := ParseRecipients(map[string]string{"it": key.Recipient().String()})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := r.Seal("it", New([]byte("hunter2")))
	if err != nil {
		t.Fatal(err)
	}
	opened, err := age.Decrypt(bytes.NewReader(sealed), key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(opened); err != nil || string(got) != "hunter2" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := age.Decrypt(bytes.NewReader(sealed), other); err == nil {
		t.Fatal("another key opens it")
	}
	if _, err := r.Seal("msp", New([]byte("x"))); !errors.Is(err, ErrRecipient) {
		t.Fatalf("got %v", err)
	}
	if _, err := ParseRecipients(map[string]string{"it": "age1nonsense"}); !errors.Is(err, ErrRecipient) {
		t.Fatalf("got %v", err)
	}
}

func TestPasswordHasEveryClass(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(MinPasswordLength, MaxPasswordLength).Draw(rt, "length")
		s, err := GeneratePassword(rand.Reader, n)
		if err != nil {
			rt.Fatal(err)
		}
		p := string(s.Reveal())
		if len(p) != n || strings.Trim(p, strings.Join(classes, "")) != "" {
			rt.Fatalf("%d characters, or others than allowed", len(p))
		}
		for _, class := range classes {
			if !strings.ContainsAny(p, class) {
				rt.Fatalf("none of %s", class)
			}
		}
	})
	a, _ := GeneratePassword(rand.Reader, 0)
	b, _ := GeneratePassword(rand.Reader, 0)
	if len(a.Reveal()) != DefaultPasswordLength || bytes.Equal(a.Reveal(), b.Reveal()) {
		t.Fatal("two passwords are alike, or of the wrong length")
	}
	if _, err := GeneratePassword(rand.Reader, 5); err == nil {
		t.Fatal("too short a password was made")
	}
	if _, err := GeneratePassword(bytes.NewReader(nil), 0); err == nil {
		t.Fatal("a password without randomness")
	}
}
