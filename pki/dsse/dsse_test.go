package dsse

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	theirs "github.com/secure-systems-lab/go-securesystemslib/dsse"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/pki/internal/golden"
	"github.com/reevehq/reeve/pki/keys"
)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func public(ks ...ed25519.PrivateKey) map[string]ed25519.PublicKey {
	m := map[string]ed25519.PublicKey{}
	for _, k := range ks {
		pub := k.Public().(ed25519.PublicKey)
		m[keys.ID(pub)] = pub
	}
	return m
}

func mustSign(t *testing.T, typ PayloadType, payload string, ks ...crypto.Signer) []byte {
	t.Helper()
	env, err := Sign(typ, []byte(payload), ks...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

var allTypes = map[string]PayloadType{
	"root": Root, "order": Order, "chain-head": ChainHead, "rehearsal": Rehearsal,
	"attestation": Attestation, "release": Release,
}

// TestGolden holds the bytes of every payload type to those on file: a
// difference means that old envelopes or other implementations no longer fit.
func TestGolden(t *testing.T) {
	payload := "fixed payload \x00\xff of reeve"
	for name, typ := range allTypes {
		got := mustSign(t, typ, payload, key(1), key(2))
		golden.Check(t, name+".dsse.json", got)
		back, ids, err := Verify(got, typ, public(key(1), key(2)), 2)
		if err != nil || string(back) != payload || len(ids) != 2 {
			t.Errorf("%s: golden envelope: %q, %v, %v", name, back, ids, err)
		}
	}
}

// theirSigner lets the reference library sign and verify with our keys.
type theirSigner struct{ k ed25519.PrivateKey }

func (s theirSigner) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.k, data), nil
}
func (s theirSigner) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(s.k.Public().(ed25519.PublicKey), data, sig) {
		return errors.New("no")
	}
	return nil
}
func (s theirSigner) KeyID() (string, error)   { return keys.ID(s.k.Public().(ed25519.PublicKey)), nil }
func (s theirSigner) Public() crypto.PublicKey { return s.k.Public() }

func TestAgainstReferenceLibrary(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		payload := rapid.SliceOf(rapid.Byte()).Draw(rt, "payload")
		typ := PayloadType(rapid.StringMatching(`[a-z]{1,8}/[a-z.+]{1,20}`).Draw(rt, "type"))
		if !bytes.Equal(PAE(typ, payload), theirs.PAE(string(typ), payload)) {
			rt.Fatal("PAE differs")
		}
		signer, err := theirs.NewEnvelopeSigner(theirSigner{key(1)})
		if err != nil {
			rt.Fatal(err)
		}
		env, err := signer.SignPayload(context.Background(), string(typ), payload)
		if err != nil {
			rt.Fatal(err)
		}
		text, err := json.Marshal(env)
		if err != nil {
			rt.Fatal(err)
		}
		back, _, err := Verify(text, typ, public(key(1)), 1)
		if err != nil || !bytes.Equal(back, payload) {
			rt.Fatalf("theirs by ours: %q, %v", back, err)
		}
		ours, err := Sign(typ, payload, key(1))
		if err != nil {
			rt.Fatal(err)
		}
		var e theirs.Envelope
		if err := json.Unmarshal(ours, &e); err != nil {
			rt.Fatal(err)
		}
		verifier, err := theirs.NewEnvelopeVerifier(theirSigner{key(1)})
		if err != nil {
			rt.Fatal(err)
		}
		if _, err := verifier.Verify(context.Background(), &e); err != nil {
			rt.Fatalf("ours by theirs: %v", err)
		}
	})
}

func TestThreshold(t *testing.T) {
	env := mustSign(t, Root, "p", key(1), key(2), key(9))
	set := public(key(1), key(2), key(3))
	for threshold := 1; threshold <= 2; threshold++ {
		payload, ids, err := Verify(env, Root, set, threshold)
		want := []string{keys.ID(key(1).Public().(ed25519.PublicKey)), keys.ID(key(2).Public().(ed25519.PublicKey))}
		if err != nil || string(payload) != "p" || !slices.Equal(ids, want) {
			t.Errorf("threshold %d: %q, %v, %v", threshold, payload, ids, err)
		}
	}
	if payload, ids, err := Verify(env, Root, set, 3); !errors.Is(err, ErrThreshold) || payload != nil || ids != nil {
		t.Errorf("threshold 3: %q, %v, %v, want ErrThreshold and nothing", payload, ids, err)
	}
	if _, _, err := Verify(env, Root, set, 0); !errors.Is(err, ErrSigner) {
		t.Errorf("threshold 0: %v, want ErrSigner", err)
	}
	aliased := public(key(1))
	aliased["another-name"] = key(1).Public().(ed25519.PublicKey)
	if _, _, err := Verify(env, Root, aliased, 1); !errors.Is(err, ErrSigner) {
		t.Errorf("a key under two names: %v, want ErrSigner", err)
	}
}

func TestAddSignatures(t *testing.T) {
	one := mustSign(t, Root, "p", key(1))
	two, err := AddSignatures(one, Root, key(2))
	if err != nil || !bytes.Equal(two, mustSign(t, Root, "p", key(1), key(2))) {
		t.Errorf("%v\n%s", err, two)
	}
	if _, err := AddSignatures(two, Root, key(1)); !errors.Is(err, ErrSigner) {
		t.Errorf("signing again: %v, want ErrSigner", err)
	}
	if _, err := AddSignatures(two, Order, key(3)); !errors.Is(err, ErrPayloadType) {
		t.Errorf("another type: %v, want ErrPayloadType", err)
	}
}

func TestSignRefuses(t *testing.T) {
	tlsKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, signers := range map[string][]crypto.Signer{"none": nil, "twice": {key(1), key(1)}, "ecdsa": {tlsKey}} {
		if _, err := Sign(Root, nil, signers...); !errors.Is(err, ErrSigner) {
			t.Errorf("%s: %v, want ErrSigner", name, err)
		}
	}
}

func TestVerifyRefuses(t *testing.T) {
	env := string(mustSign(t, Order, "payload!", key(1)))
	var e Envelope
	if err := json.Unmarshal([]byte(env), &e); err != nil {
		t.Fatal(err)
	}
	twice := strings.Replace(env, `"signatures":[`, `"signatures":[{"keyid":"`+e.Signatures[0].KeyID+`","sig":"`+e.Signatures[0].Sig+`"},`, 1)
	forType := mustSign(t, Root, "payload!", key(1))
	for name, tc := range map[string]struct {
		env  string
		want error
	}{
		"another type":               {string(forType), ErrPayloadType},
		"type swapped under the sig": {strings.Replace(string(forType), string(Root), string(Order), 1), ErrSignature},
		"payload changed":            {strings.Replace(env, e.Payload, "cGF5bG9hZCI=", 1), ErrSignature},
		"signature by another":       {strings.Replace(string(mustSign(t, Order, "payload!", key(2))), keys.ID(key(2).Public().(ed25519.PublicKey)), e.Signatures[0].KeyID, 1), ErrSignature},
		"unknown signer":             {string(mustSign(t, Order, "payload!", key(2))), ErrThreshold},
		"same key twice":             {twice, ErrMalformed},
		"unknown member":             {strings.Replace(env, `{"payloadType"`, `{"x":1,"payloadType"`, 1), ErrMalformed},
		"unknown member in sig":      {strings.Replace(env, `{"keyid"`, `{"cert":"","keyid"`, 1), ErrMalformed},
		"second payload":             {strings.Replace(env, `{"payloadType"`, `{"payload":"AAAA","payloadType"`, 1), ErrMalformed},
		"member in other case":       {strings.Replace(env, `"payload":`, `"Payload":`, 1), ErrMalformed},
		"no signatures":              {`{"payloadType":"` + string(Order) + `","payload":"","signatures":[]}`, ErrThreshold},
		"url-safe base64":            {strings.Replace(env, e.Payload, "__79", 1), ErrMalformed},
		"base64 line break":          {strings.Replace(env, e.Payload, e.Payload[:4]+`\n`+e.Payload[4:], 1), ErrMalformed},
		"stray base64 bits":          {strings.Replace(env, e.Payload, "cGF5bG9hZCF=", 1), ErrMalformed},
		"trailing data":              {env + "{}", ErrMalformed},
		"empty":                      {"", ErrMalformed},
		"null":                       {"null", ErrPayloadType},
		"too large":                  {env + strings.Repeat(" ", MaxEnvelope), ErrMalformed},
	} {
		payload, ids, err := Verify([]byte(tc.env), Order, public(key(1)), 1)
		if !errors.Is(err, tc.want) || payload != nil || ids != nil {
			t.Errorf("%s: %q, %v, %v, want nothing and %v", name, payload, ids, err, tc.want)
		}
	}
	if _, _, err := Verify([]byte(env), "", public(key(1)), 1); !errors.Is(err, ErrPayloadType) {
		t.Errorf("no wanted type: %v", err)
	}
}

func TestEveryBitCounts(t *testing.T) {
	env := mustSign(t, ChainHead, "payload", key(1))
	for i := range env {
		for bit := range 8 {
			changed := bytes.Clone(env)
			changed[i] ^= 1 << bit
			if payload, _, err := Verify(changed, ChainHead, public(key(1)), 1); err == nil {
				t.Fatalf("bit %d of byte %d (%q) does not count: %q", bit, i, changed, payload)
			}
		}
	}
}

func TestPayloadTypesAreDistinct(t *testing.T) {
	seen := map[PayloadType]string{}
	for name, typ := range allTypes {
		if other, dup := seen[typ]; dup {
			t.Errorf("%s and %s share %q", name, other, typ)
		}
		seen[typ] = name
	}
}
