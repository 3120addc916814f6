package root

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/internal/golden"
	"github.com/reevehq/reeve/pki/keys"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func pubKey(n byte) Key {
	k, err := NewKey(key(n).Public().(ed25519.PublicKey))
	if err != nil {
		panic(err)
	}
	return k
}

func rootKeys(ns ...byte) []Key {
	var out []Key
	for _, n := range ns {
		out = append(out, pubKey(n))
	}
	return out
}

func signers(ns ...byte) []crypto.Signer {
	var out []crypto.Signer
	for _, n := range ns {
		out = append(out, key(n))
	}
	return out
}

// doc has root keys 1 to 3 with threshold 2, plan key 101 and checkpoint key 102.
func doc(t testing.TB, version uint64) Document {
	t.Helper()
	caRoot, err := os.ReadFile("testdata/ca-root.pem")
	if err != nil {
		t.Fatal(err)
	}
	ck, err := NewCheckpointKey("reeve.example/log", key(102).Public().(ed25519.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	return Document{
		Format: Format, Version: version, TrustDomain: "reeve.example", Expires: noon.Add(90 * 24 * time.Hour),
		RootKeys: rootKeys(1, 2, 3), Threshold: 2, CARoots: []string{string(caRoot)},
		PlanKeys: rootKeys(101), CheckpointKeys: []CheckpointKey{ck},
	}
}

func sign(t testing.TB, d Document, ns ...byte) []byte {
	t.Helper()
	env, err := Sign(d, signers(ns...)...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func mustPin(t testing.TB, env []byte) string {
	t.Helper()
	p, err := Pin(env)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestGolden(t *testing.T) {
	one, two := sign(t, doc(t, 1), 1, 2), sign(t, doc(t, 2), 2, 3)
	golden.Check(t, "root-1.dsse.json", one)
	golden.Check(t, "root-2.dsse.json", two)
	golden.Check(t, "root-1.pin", []byte(mustPin(t, one)+"\n"))
}

func TestOpen(t *testing.T) {
	one, two := sign(t, doc(t, 1), 1, 2), sign(t, doc(t, 2), 1, 3)
	got, err := Open(mustPin(t, one), [][]byte{one, two}, noon, nil)
	if err != nil || got.Version != 2 {
		t.Fatalf("version %d, %v", got.Version, err)
	}
	set, err := got.PlanKeySet()
	if err != nil || len(set) != 1 || !set[pubKey(101).ID].Equal(key(101).Public()) {
		t.Errorf("plan keys %v, %v", set, err)
	}
	if pool, err := got.CARootPool(); err != nil || pool == nil {
		t.Errorf("CA roots: %v", err)
	}
	if vs, err := got.CheckpointVerifiers(""); err != nil || len(vs) != 1 || vs[0].Name() != "reeve.example/log" {
		t.Errorf("checkpoint verifiers %v, %v", vs, err)
	}
	for name, tc := range map[string]struct {
		pin  string
		envs [][]byte
		want error
	}{
		"wrong pin":        {mustPin(t, two), [][]byte{one, two}, ErrPin},
		"upper-case pin":   {strings.ToUpper(mustPin(t, one)), [][]byte{one}, ErrPin},
		"empty pin":        {"", [][]byte{one}, ErrPin},
		"nothing":          {mustPin(t, one), nil, ErrPin},
		"under threshold":  {mustPin(t, one), [][]byte{sign(t, doc(t, 1), 1)}, dsse.ErrThreshold},
		"foreign signers":  {mustPin(t, one), [][]byte{sign(t, doc(t, 1), 7, 8, 9)}, dsse.ErrThreshold},
		"not an envelope":  {mustPin(t, one), [][]byte{[]byte("{}")}, dsse.ErrPayloadType},
		"of another type":  {mustPin(t, one), [][]byte{bytes.Replace(one, []byte("root.v1"), []byte("order.v1"), 1)}, dsse.ErrPayloadType},
		"second not by us": {mustPin(t, one), [][]byte{one, sign(t, doc(t, 2), 1)}, dsse.ErrThreshold},
	} {
		if d, err := Open(tc.pin, tc.envs, noon, nil); !errors.Is(err, tc.want) || d.Version != 0 {
			t.Errorf("%s: version %d, %v, want %v", name, d.Version, err, tc.want)
		}
	}
}

func TestWalkRefuses(t *testing.T) {
	current := doc(t, 5)
	change := func(version uint64, f func(*Document)) Document {
		d := doc(t, version)
		f(&d)
		return d
	}
	rotated := change(6, func(d *Document) { d.RootKeys = rootKeys(4, 5, 6) })
	for name, tc := range map[string]struct {
		envs [][]byte
		want error
	}{
		"older":                        {[][]byte{sign(t, doc(t, 4), 1, 2)}, ErrOlder},
		"older after newer":            {[][]byte{sign(t, doc(t, 6), 1, 2), sign(t, doc(t, 5), 1, 2)}, ErrOlder},
		"skipped":                      {[][]byte{sign(t, doc(t, 7), 1, 2)}, ErrSkipped},
		"same version, other text":     {[][]byte{sign(t, change(5, func(d *Document) { d.Threshold = 3 }), 1, 2, 3)}, ErrFork},
		"new keys alone":               {[][]byte{sign(t, rotated, 4, 5, 6)}, dsse.ErrThreshold},
		"old keys alone":               {[][]byte{sign(t, rotated, 1, 2, 3)}, dsse.ErrThreshold},
		"one old, all new":             {[][]byte{sign(t, rotated, 1, 4, 5, 6)}, dsse.ErrThreshold},
		"old keys after rotation":      {[][]byte{sign(t, rotated, 1, 2, 4, 5), sign(t, doc(t, 7), 1, 2)}, dsse.ErrThreshold},
		"own threshold not met":        {[][]byte{sign(t, change(6, func(d *Document) { d.Threshold = 3 }), 1, 2)}, dsse.ErrThreshold},
		"another trust domain":         {[][]byte{sign(t, change(6, func(d *Document) { d.TrustDomain = "elsewhere.example" }), 1, 2)}, ErrChanged},
		"plan key becomes root key":    {[][]byte{sign(t, change(6, func(d *Document) { d.RootKeys, d.PlanKeys = rootKeys(1, 2, 101), rootKeys(103) }), 1, 2)}, ErrChanged},
		"expired":                      {[][]byte{sign(t, change(6, func(d *Document) { d.Expires = noon }), 1, 2)}, ErrExpired},
		"garbage after a good one":     {[][]byte{sign(t, doc(t, 6), 1, 2), []byte("x")}, dsse.ErrMalformed},
		"signature of another version": {[][]byte{swapPayload(t, sign(t, doc(t, 5), 1, 2), sign(t, doc(t, 6), 1, 2))}, dsse.ErrSignature},
	} {
		if d, err := Walk(current, tc.envs, noon, nil); !errors.Is(err, tc.want) || d.Version != 0 {
			t.Errorf("%s: version %d, %v, want %v", name, d.Version, err, tc.want)
		}
	}
	if d, err := Walk(current, [][]byte{sign(t, rotated, 1, 2, 4, 5), sign(t, change(7, func(d *Document) { d.RootKeys = rootKeys(4, 5, 6) }), 4, 6)}, noon, nil); err != nil || d.Version != 7 {
		t.Errorf("rotation of all root keys: version %d, %v", d.Version, err)
	}
	if d, err := Walk(current, [][]byte{sign(t, current, 1, 3)}, noon, nil); err != nil || d.Version != 5 {
		t.Errorf("the version held, again: %d, %v", d.Version, err)
	}
	expired := change(5, func(d *Document) { d.Expires = noon.Add(-time.Hour) })
	if d, err := Walk(expired, [][]byte{sign(t, doc(t, 6), 1, 2)}, noon, nil); err != nil || d.Version != 6 {
		t.Errorf("an expired one on the way: version %d, %v", d.Version, err)
	}
	if _, err := Walk(expired, nil, noon, nil); !errors.Is(err, ErrExpired) {
		t.Errorf("an expired one at the end: %v, want ErrExpired", err)
	}
}

// swapPayload puts the payload of b under the signatures of a.
func swapPayload(t *testing.T, a, b []byte) []byte {
	var ea, eb dsse.Envelope
	if json.Unmarshal(a, &ea) != nil || json.Unmarshal(b, &eb) != nil {
		t.Fatal("not envelopes")
	}
	ea.Payload = eb.Payload
	out, err := json.Marshal(ea)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestClientCheck(t *testing.T) {
	six, seven := sign(t, doc(t, 6), 1, 2), sign(t, doc(t, 7), 1, 2)
	var asked []uint64
	agree := func(current, next Document, payload []byte) error {
		if want, err := dsse.UnverifiedPayload([][]byte{six, seven}[len(asked)], dsse.Root); err != nil || !bytes.Equal(payload, want) || next.Version != current.Version+1 {
			t.Errorf("asked about %d after %d with %q", next.Version, current.Version, payload)
		}
		asked = append(asked, next.Version)
		return nil
	}
	if d, err := Walk(doc(t, 5), [][]byte{six, seven}, noon, agree); err != nil || d.Version != 7 || !slices.Equal(asked, []uint64{6, 7}) {
		t.Errorf("version %d, %v, asked %v", d.Version, err, asked)
	}
	no := errors.New("no")
	if _, err := Walk(doc(t, 5), [][]byte{six}, noon, func(_, _ Document, _ []byte) error { return no }); !errors.Is(err, ErrClient) || !errors.Is(err, no) {
		t.Errorf("%v, want ErrClient", err)
	}
	if _, err := Walk(doc(t, 5), [][]byte{sign(t, doc(t, 6), 1)}, noon, func(_, _ Document, _ []byte) error {
		t.Error("asked about a document that the MSP did not sign")
		return nil
	}); err == nil {
		t.Error("taken without the MSP's signatures")
	}
}

func TestValidate(t *testing.T) {
	for name, change := range map[string]func(*Document){
		"format":             func(d *Document) { d.Format = "reeve-root-v2" },
		"version":            func(d *Document) { d.Version = 0 },
		"trust domain":       func(d *Document) { d.TrustDomain = "Upper" },
		"no expiry":          func(d *Document) { d.Expires = time.Time{} },
		"local expiry":       func(d *Document) { d.Expires = noon.In(time.FixedZone("x", 3600)) },
		"fraction of second": func(d *Document) { d.Expires = noon.Add(1) },
		"threshold 0":        func(d *Document) { d.Threshold = 0 },
		"threshold too high": func(d *Document) { d.Threshold = 4 },
		"no root keys":       func(d *Document) { d.RootKeys = nil },
		"no plan keys":       func(d *Document) { d.PlanKeys = nil },
		"no checkpoint keys": func(d *Document) { d.CheckpointKeys = nil },
		"no CA":              func(d *Document) { d.CARoots = nil },
		"same root key":      func(d *Document) { d.RootKeys[2] = d.RootKeys[0] },
		"plan is root":       func(d *Document) { d.PlanKeys = rootKeys(1) },
		"checkpoint is plan": func(d *Document) {
			d.CheckpointKeys[0].ID, d.CheckpointKeys[0].Public = d.PlanKeys[0].ID, d.PlanKeys[0].Public
		},
		"ID of another":    func(d *Document) { d.PlanKeys[0].ID = pubKey(9).ID },
		"upper-case ID":    func(d *Document) { d.PlanKeys[0].ID = strings.ToUpper(d.PlanKeys[0].ID) },
		"key not base64":   func(d *Document) { d.PlanKeys[0].Public = "?" },
		"key with newline": func(d *Document) { d.PlanKeys[0].Public += "\n" },
		"key not SPKI":     func(d *Document) { d.PlanKeys[0].Public = base64.StdEncoding.EncodeToString(make([]byte, 32)) },
		"no name":          func(d *Document) { d.CheckpointKeys[0].Name = "" },
		"name with plus":   func(d *Document) { d.CheckpointKeys[0].Name = "a+b" },
		"name with space":  func(d *Document) { d.CheckpointKeys[0].Name = "a b" },
		"CA not PEM":       func(d *Document) { d.CARoots[0] = "x" },
		"two CAs in one":   func(d *Document) { d.CARoots[0] += d.CARoots[0] },
		"same CA twice":    func(d *Document) { d.CARoots = append(d.CARoots, d.CARoots[0]) },
	} {
		d := doc(t, 1)
		change(&d)
		if err := d.Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
		if _, err := Sign(d, key(1)); err == nil {
			t.Errorf("%s: signed", name)
		}
	}
	if k, err := NewKey(make([]byte, 5)); !errors.Is(err, keys.ErrKeyType) {
		t.Errorf("short key: %v, %v", k, err)
	}
}

// TestStrictText: signed, but text that two readers may read differently.
func TestStrictText(t *testing.T) {
	good, err := json.Marshal(doc(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown member":   strings.Replace(string(good), `{"format"`, `{"note":"x","format"`, 1),
		"duplicate member": strings.Replace(string(good), `{"format"`, `{"threshold":1,"format"`, 1),
		"other case":       strings.Replace(string(good), `"threshold"`, `"Threshold"`, 1),
		"unknown in key":   strings.Replace(string(good), `{"id"`, `{"note":"x","id"`, 1),
		"trailing":         string(good) + "{}",
		"negative version": strings.Replace(string(good), `"version":1`, `"version":-1`, 1),
		"offset expiry":    strings.Replace(string(good), `00Z"`, `00+00:00"`, 1),
	} {
		if text == string(good) {
			t.Fatalf("%s changes nothing", name)
		}
		env, err := dsse.Sign(dsse.Root, []byte(text), signers(1, 2)...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := VerifyFirst(env, mustPin(t, env)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// TestWalkRule: a step is taken exactly if at least two of the old keys and two
// of the new ones have signed.
func TestWalkRule(t *testing.T) {
	base := doc(t, 1)
	rapid.Check(t, func(rt *rapid.T) {
		pick := rapid.SliceOfNDistinct(rapid.ByteRange(1, 6), 3, 3, rapid.ID[byte])
		next := base
		next.Version = 2
		fresh := pick.Draw(rt, "new root keys")
		next.RootKeys = rootKeys(fresh...)
		by := rapid.SliceOfNDistinct(rapid.ByteRange(1, 8), 1, 8, rapid.ID[byte]).Draw(rt, "signers")
		old, own := 0, 0
		for _, n := range by {
			if n <= 3 {
				old++
			}
			if slices.Contains(fresh, n) {
				own++
			}
		}
		env, err := Sign(next, signers(by...)...)
		if err != nil {
			rt.Fatal(err)
		}
		_, err = Walk(base, [][]byte{env}, noon, nil)
		if taken := err == nil; taken != (old >= 2 && own >= 2) {
			rt.Fatalf("signed by %v for %v: %v", by, fresh, err)
		}
	})
}
