package tlogproof

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/pki/internal/golden"
)

const origin = "reeve.example/tenant/fabrikam"

func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func pub(n byte) ed25519.PublicKey { return key(n).Public().(ed25519.PublicKey) }

func at(seconds int64) func() time.Time {
	return func() time.Time { return time.Unix(seconds, 999) }
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// memory is a log's stored hashes.
type memory []tlog.Hash

func (m memory) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var out []tlog.Hash
	for _, i := range indexes {
		out = append(out, m[i])
	}
	return out, nil
}

func build(records [][]byte) memory {
	var m memory
	for i, r := range records {
		m = append(m, must(tlog.StoredHashes(int64(i), r, m))...)
	}
	return m
}

func (m memory) at(size int64) Checkpoint {
	return Checkpoint{Origin: origin, Size: size, Hash: must(tlog.TreeHash(size, m))}
}

func numbered(n int) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, fmt.Appendf(nil, "record %d", i))
	}
	return out
}

func TestGolden(t *testing.T) {
	m := build(numbered(7))
	c := m.at(7)
	logKey, witness := must(NewSigner(origin, key(1))), must(NewCosigner("reeve.example/witness/dc1", key(2), at(1795262400)))
	golden.Check(t, "checkpoint.txt", []byte(must(FormatCheckpoint(c))))
	golden.Check(t, "checkpoint-0.txt", []byte(must(FormatCheckpoint(m.at(0)))))
	golden.Check(t, "signed.txt", must(SignCheckpoint(c, logKey)))
	golden.Check(t, "cosigned.txt", must(SignCheckpoint(c, logKey, witness)))
	var vkeys bytes.Buffer
	fmt.Fprintln(&vkeys, must(FormatVerifierKey(must(NewVerifier(origin, pub(1))))))
	fmt.Fprintln(&vkeys, must(FormatVerifierKey(must(NewCosignatureVerifier("reeve.example/witness/dc1", pub(2))))))
	golden.Check(t, "vkeys.txt", vkeys.Bytes())
	var proofs bytes.Buffer
	for i := range int64(7) {
		fmt.Fprintln(&proofs, "inclusion", i, must(tlog.ProveRecord(7, i, m)))
		fmt.Fprintln(&proofs, "consistency", i+1, must(tlog.ProveTree(7, i+1, m)))
	}
	golden.Check(t, "proofs.txt", proofs.Bytes())
}

// TestAgainstNote: log keys are those of golang.org/x/mod/sumdb/note.
func TestAgainstNote(t *testing.T) {
	vkey := must(note.NewEd25519VerifierKey(origin, pub(1)))
	if ours := must(FormatVerifierKey(must(NewVerifier(origin, pub(1))))); ours != vkey {
		t.Fatalf("ours %s, theirs %s", ours, vkey)
	}
	signed := must(SignCheckpoint(build(numbered(3)).at(3), must(NewSigner(origin, key(1)))))
	if _, err := note.Open(signed, note.VerifierList(must(note.NewVerifier(vkey)))); err != nil {
		t.Errorf("ours by theirs: %v", err)
	}
}

// TestCosignatureFormat builds the message of C2SP tlog-cosignature by hand.
func TestCosignatureFormat(t *testing.T) {
	text := must(FormatCheckpoint(build(numbered(2)).at(2)))
	sig := must(must(NewCosigner("w", key(2), at(1700000000))).Sign([]byte(text)))
	if !bytes.Equal(sig[:8], []byte{0, 0, 0, 0, 0x65, 0x53, 0xf1, 0x00}) {
		t.Errorf("timestamp %x", sig[:8])
	}
	if !ed25519.Verify(pub(2), []byte("cosignature/v1\ntime 1700000000\n"+text), sig[8:]) {
		t.Error("signed message is not the one of the specification")
	}
	if _, err := must(NewCosigner("w", key(2), at(0))).Sign([]byte(text)); err == nil {
		t.Error("cosigned at time zero")
	}
}

func TestCheckpointRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		line := rapid.StringMatching(`[^\x00-\x1f]{1,30}`)
		c := Checkpoint{Origin: line.Draw(t, "origin"), Size: rapid.Int64Min(0).Draw(t, "size"), Extension: rapid.SliceOfN(line, 0, 3).Draw(t, "ext")}
		copy(c.Hash[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "hash"))
		text, err := FormatCheckpoint(c)
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParseCheckpoint(text)
		if err != nil || back.Origin != c.Origin || back.Size != c.Size || back.Hash != c.Hash || strings.Join(back.Extension, "\n") != strings.Join(c.Extension, "\n") {
			t.Fatalf("%+v came back as %+v, %v", c, back, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	const hash = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	if _, err := ParseCheckpoint("o\n0\n" + hash + "\n"); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "no newline": "o\n0\n" + hash, "no origin": "\n0\n" + hash + "\n", "negative": "o\n-1\n" + hash + "\n", "leading zero": "o\n01\n" + hash + "\n",
		"plus": "o\n+1\n" + hash + "\n", "overflow": "o\n9223372036854775808\n" + hash + "\n", "short hash": "o\n0\nAAAA\n", "stray bits": "o\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=\n",
		"unpadded": "o\n0\n" + hash[:43] + "\n", "empty extension": "o\n0\n" + hash + "\n\n", "carriage return": "o\r\n0\r\n" + hash + "\r\n", "huge": strings.Repeat("o", maxText) + "\n0\n" + hash + "\n",
	} {
		if c, err := ParseCheckpoint(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %+v, %v, want ErrMalformed", name, c, err)
		}
	}
}

func TestOpenCheckpoint(t *testing.T) {
	c := build(numbered(5)).at(5)
	logV, logOld := must(NewVerifier(origin, pub(1))), must(NewVerifier(origin, pub(9)))
	w1, w2 := must(NewCosignatureVerifier("w1", pub(2))), must(NewCosignatureVerifier("w2", pub(3)))
	logS, s1, s3 := must(NewSigner(origin, key(1))), must(NewCosigner("w1", key(2), at(1700000000))), must(NewCosigner("w3", key(4), at(1700000000)))
	signed := must(SignCheckpoint(c, logS, s1, s3))
	got, err := OpenCheckpoint(signed, origin, []note.Verifier{logOld, logV}, w1, w2)
	if err != nil || got.Size != 5 || got.Hash != c.Hash || len(got.Cosignatures) != 1 ||
		got.Cosignatures[0] != (Cosignature{"w1", w1.KeyHash(), time.Unix(1700000000, 0).UTC()}) {
		t.Fatalf("%+v, %v", got, err)
	}
	log := []note.Verifier{logV}
	if _, err := OpenCheckpoint(must(SignCheckpoint(c, s1)), origin, log, w1); !errors.Is(err, ErrUnsigned) {
		t.Errorf("by a witness alone: %v, want ErrUnsigned", err)
	}
	if _, err := OpenCheckpoint(must(SignCheckpoint(c, s3)), origin, log, w1); !errors.Is(err, ErrUnsigned) {
		t.Errorf("by a stranger: %v, want ErrUnsigned", err)
	}
	if _, err := OpenCheckpoint(signed, origin+"2", log); !errors.Is(err, ErrOrigin) {
		t.Errorf("of another log: %v, want ErrOrigin", err)
	}
	if _, err := OpenCheckpoint(signed[:len(signed)-20], origin, log); !errors.Is(err, ErrMalformed) {
		t.Errorf("cut off: %v, want ErrMalformed", err)
	}
	var invalid *note.InvalidSignatureError
	if _, err := OpenCheckpoint(bytes.Replace(signed, []byte("\n5\n"), []byte("\n6\n"), 1), origin, log, w1); !errors.As(err, &invalid) {
		t.Errorf("changed: %v, want an invalid signature", err)
	}
	// The same key and bytes must not pass for the other algorithm.
	if _, err := OpenCheckpoint(must(SignCheckpoint(c, must(NewCosigner(origin, key(1), at(1))))), origin, log); !errors.Is(err, ErrUnsigned) {
		t.Errorf("a cosignature as a log signature: %v, want ErrUnsigned", err)
	}
	shifted := must(must(NewCosigner("w1", key(2), at(1700000000))).Sign([]byte(got.Text)))
	shifted[7]++
	if w1.Verify([]byte(got.Text), shifted) || w1.Verify([]byte(got.Text), shifted[:71]) || w1.Verify([]byte(got.Text), nil) {
		t.Error("a cosignature with another time verifies")
	}
}

func TestVerifierKeys(t *testing.T) {
	for _, v := range []note.Verifier{must(NewVerifier(origin, pub(1))), must(NewCosignatureVerifier("w", pub(1)))} {
		vkey := must(FormatVerifierKey(v))
		back, err := ParseVerifierKey(vkey)
		if err != nil || back.Name() != v.Name() || back.KeyHash() != v.KeyHash() || must(FormatVerifierKey(back)) != vkey {
			t.Errorf("%s: %v", vkey, err)
		}
		for _, bad := range []string{"", "a+b", "x" + vkey, strings.ToUpper(vkey), vkey + "\n", vkey[:len(vkey)-4]} {
			if _, err := ParseVerifierKey(bad); !errors.Is(err, ErrKey) {
				t.Errorf("%q: %v, want ErrKey", bad, err)
			}
		}
	}
	for _, name := range []string{"", "a b", "a+b", "a\nb", "\xff"} {
		if _, err := NewVerifier(name, pub(1)); !errors.Is(err, ErrKey) {
			t.Errorf("name %q: %v, want ErrKey", name, err)
		}
	}
	tlsKey := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	if _, err := NewSigner("a", tlsKey); !errors.Is(err, ErrKey) {
		t.Errorf("ECDSA: %v, want ErrKey", err)
	}
}

func TestProofs(t *testing.T) {
	const total = 40
	m := build(numbered(total))
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, total).Draw(t, "size")
		index := rapid.Int64Range(0, size-1).Draw(t, "index")
		c := m.at(size)
		leaf := LeafHash(fmt.Appendf(nil, "record %d", index))
		proof := must(tlog.ProveRecord(size, index, m))
		if err := CheckInclusion(proof, c, index, leaf); err != nil {
			t.Fatal(err)
		}
		if err := CheckInclusion(proof, c, index, LeafHash([]byte("other"))); !errors.Is(err, ErrInclusion) {
			t.Fatalf("another record: %v", err)
		}
		if err := CheckInclusion(proof, c, size, leaf); !errors.Is(err, ErrInclusion) {
			t.Fatalf("beyond the end: %v", err)
		}
		older := m.at(rapid.Int64Range(0, size).Draw(t, "older"))
		var tree tlog.TreeProof
		if older.Size > 0 {
			tree = must(tlog.ProveTree(size, older.Size, m))
		}
		if err := CheckConsistency(tree, older, c); err != nil {
			t.Fatal(err)
		}
		forged := older
		forged.Hash[0] ^= 1
		if err := CheckConsistency(tree, forged, c); !errors.Is(err, ErrConsistency) || errors.Is(err, ErrFork) != (older.Size == size) {
			t.Fatalf("forged older checkpoint at %d of %d: %v", older.Size, size, err)
		}
		if err := CheckConsistency(append(tree, tlog.Hash{}), older, c); !errors.Is(err, ErrConsistency) {
			t.Fatalf("padded proof: %v", err)
		}
		if older.Size < size {
			if err := CheckConsistency(tree, c, older); !errors.Is(err, ErrConsistency) {
				t.Fatalf("backwards: %v", err)
			}
		}
	})
	other := m.at(3)
	other.Origin = "elsewhere"
	if err := CheckConsistency(nil, other, m.at(3)); !errors.Is(err, ErrOrigin) {
		t.Errorf("another log: %v, want ErrOrigin", err)
	}
}
