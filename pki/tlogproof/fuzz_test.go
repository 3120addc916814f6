package tlogproof

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
)

// FuzzParseCheckpoint: it takes exactly what FormatCheckpoint makes.
func FuzzParseCheckpoint(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheckpoint(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || !reflect.DeepEqual(c, Checkpoint{}) {
				t.Fatalf("ParseCheckpoint(%q) = %+v, %v", text, c, err)
			}
			return
		}
		if again, err := FormatCheckpoint(c); err != nil || again != text {
			t.Fatalf("%q is written %q, %v", text, again, err)
		}
	})
}

// FuzzOpenCheckpoint: whatever surrounds it, only the text that the log signed is
// opened, and only as that log's.
func FuzzOpenCheckpoint(f *testing.F) {
	raw, err := os.ReadFile(filepath.Join("testdata", "signed.txt"))
	if err != nil {
		f.Fatal(err)
	}
	text, _, _ := bytes.Cut(raw, []byte("\n\n"))
	origin, _, _ := strings.Cut(string(text), "\n")
	pub := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{0x77}, ed25519.SeedSize)).Public().(ed25519.PublicKey)
	stranger, err := NewVerifier(origin, pub)
	if err != nil {
		f.Fatal(err)
	}
	vkeys, err := os.ReadFile(filepath.Join("testdata", "vkeys.txt"))
	if err != nil {
		f.Fatal(err)
	}
	var log []note.Verifier
	for line := range strings.Lines(string(vkeys)) {
		v, err := ParseVerifierKey(strings.TrimSpace(line))
		if err == nil && v.Name() == origin {
			log = append(log, v)
		}
	}
	if opened, err := OpenCheckpoint(raw, origin, log); err != nil || opened.Text != string(text)+"\n" {
		f.Fatalf("the golden checkpoint does not open: %v", err)
	}
	f.Fuzz(func(t *testing.T, signed []byte) {
		if opened, err := OpenCheckpoint(signed, origin, []note.Verifier{stranger}); err == nil {
			t.Fatalf("%q opens by a key that never signed: %+v", signed, opened)
		}
		opened, err := OpenCheckpoint(signed, origin, log)
		if err != nil {
			if !reflect.DeepEqual(opened, Opened{}) {
				t.Fatalf("refused and handed out all the same: %+v", opened)
			}
			return
		}
		if opened.Text != string(text)+"\n" {
			t.Fatalf("%q was never signed", opened.Text)
		}
		if _, err := OpenCheckpoint(signed, origin+"x", log); err == nil {
			t.Fatal("it opens as another log's")
		}
	})
}

// FuzzParseVerifierKey: a key has one spelling.
func FuzzParseVerifierKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, vkey string) {
		v, err := ParseVerifierKey(vkey)
		if err != nil {
			if v != nil || !errors.Is(err, ErrKey) {
				t.Fatalf("ParseVerifierKey(%q) = %v, %v", vkey, v, err)
			}
			return
		}
		if again, err := FormatVerifierKey(v); err != nil || again != vkey {
			t.Fatalf("%q is written %q, %v", vkey, again, err)
		}
		if v.Verify([]byte("text"), make([]byte, 64)) || v.Verify(nil, nil) {
			t.Fatalf("%q verifies nothing as something", vkey)
		}
	})
}
