package sshsig

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// FuzzVerify: whatever is done to a signature, it is by the one who signed, over
// the message that was signed, or it is refused.
func FuzzVerify(f *testing.F) {
	list, err := os.ReadFile("testdata/allowed_signers")
	if err != nil {
		f.Fatal(err)
	}
	signers, err := ParseAllowedSigners(list)
	if err != nil {
		f.Fatal(err)
	}
	msg, err := os.ReadFile("testdata/message")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, armored []byte) {
		s, err := Parse(armored)
		if err != nil && (s != nil || !errors.Is(err, ErrMalformed)) {
			t.Fatalf("Parse(%q) = %v, %v", armored, s, err)
		}
		v, verr := Verify(armored, msg, namespace, signers, noon)
		if verr != nil {
			return
		}
		if err != nil || len(v.Signer.Principals) == 0 || v.UserVerified {
			t.Fatalf("verified %+v, and it cannot be parsed: %v", v, err)
		}
		// Every other key on the list must be no signer of this.
		by := 0
		for _, only := range signers {
			if _, err := Verify(armored, msg, namespace, []AllowedSigner{only}, noon); err == nil {
				by++
			}
		}
		if by != 1 {
			t.Fatalf("%d signers made one signature", by)
		}
		if _, err := Verify(armored, append(bytes.Clone(msg), ' '), namespace, signers, noon); err == nil {
			t.Fatal("it verifies over another message")
		}
		if _, err := Verify(armored, msg, "file", signers, noon); err == nil {
			t.Fatal("it verifies in another namespace")
		}
	})
}

// FuzzParseAllowedSigners: what is taken is complete, narrow and means the same
// when it is written out again; one bad line gives no signers.
func FuzzParseAllowedSigners(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		signers, err := ParseAllowedSigners(text)
		if err != nil {
			if signers != nil || !errors.Is(err, ErrSigners) {
				t.Fatalf("%v, %v", signers, err)
			}
			if strings.ContainsAny(err.Error(), "\x00\x1b\n\r") {
				t.Fatalf("the refusal is not fit for a log: %q", err)
			}
			return
		}
		for _, s := range signers {
			if s.Key == nil || len(s.Principals) == 0 {
				t.Fatalf("half a signer: %+v", s)
			}
			if _, known := keyTypes[s.Key.Type()]; !known {
				t.Fatalf("a key of type %s", s.Key.Type())
			}
			for _, name := range append(append([]string{}, s.Principals...), s.Namespaces...) {
				if name == "" || strings.ContainsAny(name, "*?!, \t\n\"") {
					t.Fatalf("%q is not a plain name", name)
				}
			}
			options := ""
			if len(s.Namespaces) > 0 {
				options = `namespaces="` + strings.Join(s.Namespaces, ",") + `" `
			}
			line := strings.Join(s.Principals, ",") + " " + options + string(ssh.MarshalAuthorizedKey(s.Key))
			again, err := ParseAllowedSigners([]byte(line))
			if err != nil || len(again) != 1 || !bytes.Equal(again[0].Key.Marshal(), s.Key.Marshal()) ||
				strings.Join(again[0].Principals, ",") != strings.Join(s.Principals, ",") || strings.Join(again[0].Namespaces, ",") != strings.Join(s.Namespaces, ",") {
				t.Fatalf("%q reads back as %+v, %v", line, again, err)
			}
		}
	})
}
