package dsse

import (
	"bytes"
	"crypto/ed25519"
	"testing"
)

// FuzzVerify: nothing verifies but what was signed, for the type it was signed
// for, and the payload read without verifying is the one that verifies.
func FuzzVerify(f *testing.F) {
	set := map[string]ed25519.PublicKey{}
	for id, k := range public(key(1)) {
		set[id] = k
	}
	f.Fuzz(func(t *testing.T, env []byte) {
		payload, signers, err := Verify(env, Order, set, 1)
		read, readErr := UnverifiedPayload(env, Order)
		if err != nil {
			if payload != nil || signers != nil {
				t.Fatalf("refused and handed out all the same: %q by %q", payload, signers)
			}
			return
		}
		if string(payload) != "p" || len(signers) != 1 {
			t.Fatalf("%q verified as %q by %q", env, payload, signers)
		}
		if readErr != nil || !bytes.Equal(read, payload) {
			t.Fatalf("verified %q, read without verifying %q, %v", payload, read, readErr)
		}
		for name, typ := range allTypes {
			if _, _, err := Verify(env, typ, set, 1); typ != Order && err == nil {
				t.Fatalf("an order verifies as %s", name)
			}
		}
		if _, _, err := Verify(env, Order, set, 2); err == nil {
			t.Fatalf("one signature counted twice in %q", env)
		}
	})
}

// FuzzPAE: two different pairs of type and payload never have the same bytes to
// sign.
func FuzzPAE(f *testing.F) {
	f.Fuzz(func(t *testing.T, typeA string, a []byte, typeB string, b []byte) {
		same := typeA == typeB && bytes.Equal(a, b)
		if got := bytes.Equal(PAE(PayloadType(typeA), a), PAE(PayloadType(typeB), b)); got != same {
			t.Fatalf("%q %q and %q %q: the same %v, their encodings %v", typeA, a, typeB, b, same, got)
		}
	})
}
