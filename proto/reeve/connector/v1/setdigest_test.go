package connectorv1_test

import (
	"bytes"
	"crypto/sha256"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestSetDigestIsTheSets: however a set came about, its digest is that of adding
// its objects one by one; another set has another.
func TestSetDigestIsTheSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var grown connectorv1.SetDigest
		have := map[string][32]byte{}
		for range rapid.IntRange(0, 20).Draw(t, "steps") {
			anchor := rapid.SampledFrom([]string{"", "a", "b", "c", "aa"}).Draw(t, "anchor")
			if digest, held := have[anchor]; held {
				grown.Remove(anchor, digest)
				delete(have, anchor)
			}
			if rapid.Bool().Draw(t, "put") {
				have[anchor] = sha256.Sum256(rapid.SliceOfN(rapid.Byte(), 0, 1).Draw(t, "object"))
				grown.Add(anchor, have[anchor])
			}
			stored, err := grown.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			grown = connectorv1.SetDigest{}
			if err := grown.UnmarshalBinary(stored); err != nil {
				t.Fatal(err)
			}
		}
		var afresh connectorv1.SetDigest
		for _, anchor := range slices.Backward(slices.Sorted(maps.Keys(have))) {
			afresh.Add(anchor, have[anchor])
		}
		got, n := grown.Sum()
		want, m := afresh.Sum()
		if !bytes.Equal(got, want) || n != m || n != uint64(len(have)) {
			t.Fatalf("%x of %d objects, added one by one %x of %d", got, n, want, m)
		}
		afresh.Add("one more", [32]byte{})
		if other, _ := afresh.Sum(); bytes.Equal(got, other) {
			t.Fatal("another set has the same digest")
		}
	})
	if err := new(connectorv1.SetDigest).UnmarshalBinary([]byte("short")); err == nil {
		t.Error("a few octets are a set")
	}
}

func BenchmarkSetDigest(b *testing.B) {
	var set connectorv1.SetDigest
	for b.Loop() {
		set.Add("00000001-0000-4000-8000-000000000c41", [32]byte{1})
	}
}
