package chain

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/pki/internal/golden"
)

type record struct {
	index uint64
	leaf  []byte
	link  [Size]byte
}

func build(genesis [Size]byte, leaves [][]byte) []record {
	var out []record
	link := genesis
	for i, leaf := range leaves {
		link = Link(link, uint64(i), leaf)
		out = append(out, record{uint64(i), leaf, link})
	}
	return out
}

func walk(genesis [Size]byte, records []record) (*Verifier, error) {
	v := NewVerifier(Head{Link: genesis})
	for _, r := range records {
		if err := v.Add(r.index, r.leaf, r.link); err != nil {
			return v, err
		}
	}
	return v, nil
}

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	g := Genesis("reeve.example", "fabrikam", "dc1", 1)
	fmt.Fprintf(&b, "genesis reeve.example fabrikam dc1 1 %x\n", g)
	fmt.Fprintf(&b, "genesis reeve.example fabrikam dc1 2 %x\n", Genesis("reeve.example", "fabrikam", "dc1", 2))
	for _, r := range build(g, [][]byte{nil, []byte("a"), []byte("record\x00two"), bytes.Repeat([]byte{0xff}, 300)}) {
		fmt.Fprintf(&b, "link %d %x %x\n", r.index, r.leaf, r.link)
	}
	golden.Check(t, "chain.txt", b.Bytes())
}

// TestFormat spells the documented preimages out by hand.
func TestFormat(t *testing.T) {
	pre := "reeve chain genesis v1\x00" + "\x00\x00\x00\x00\x00\x00\x00\x01d" + "\x00\x00\x00\x00\x00\x00\x00\x02te" + "\x00\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\x01\x02"
	g := Genesis("d", "te", "", 0x102)
	if g != sha256.Sum256([]byte(pre)) {
		t.Error("genesis is not as documented")
	}
	pre = "reeve chain link v1\x00" + string(g[:]) + "\x00\x00\x00\x00\x00\x00\x00\x03" + "\x00\x00\x00\x00\x00\x00\x00\x02ab"
	if Link(g, 3, []byte("ab")) != sha256.Sum256([]byte(pre)) {
		t.Error("link is not as documented")
	}
}

func TestGenesisSeparates(t *testing.T) {
	seen := map[[Size]byte]string{}
	for _, g := range []struct {
		td, tenant, agent string
		epoch             uint64
	}{{"a", "b", "c", 1}, {"ab", "", "c", 1}, {"a", "bc", "", 1}, {"", "ab", "c", 1}, {"a", "b", "c", 2}, {"a", "c", "b", 1}} {
		h := Genesis(g.td, g.tenant, g.agent, g.epoch)
		if other, dup := seen[h]; dup {
			t.Errorf("%v and %s share a genesis", g, other)
		}
		seen[h] = fmt.Sprint(g)
	}
}

// TestAnyTamperingIsFoundWhereItIs: the first index that differs from the true
// history is the one that is reported.
func TestAnyTamperingIsFoundWhereItIs(t *testing.T) {
	genesis := Genesis("reeve.example", "fabrikam", "dc1", 1)
	rapid.Check(t, func(t *rapid.T) {
		leaves := rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 8), 1, 20).Draw(t, "leaves")
		records := build(genesis, leaves)
		v, err := walk(genesis, records)
		last := records[len(records)-1]
		if err != nil || v.Head() != (Head{Next: uint64(len(records)), Link: last.link}) || v.Check(v.Head()) != nil {
			t.Fatalf("true history: %v, head %v", err, v.Head())
		}
		i := rapid.IntRange(0, len(records)-1).Draw(t, "i")
		bad := make([]record, len(records))
		copy(bad, records)
		var want error
		wantIndex := uint64(i)
		switch rapid.IntRange(0, 4).Draw(t, "tampering") {
		case 0:
			bad[i].leaf = append([]byte{1}, bad[i].leaf...)
			want = ErrFork
		case 1:
			bad[i].link[rapid.IntRange(0, Size-1).Draw(t, "byte")] ^= 1
			want = ErrFork
		case 2:
			bad = append(bad[:i:i], bad[i+1:]...)
			want = ErrGap
		case 3:
			bad = append(bad[:i+1:i+1], records[i:]...)
			want = ErrRepeat
		case 4: // a whole other history from i on, consistent in itself
			other := bytes.Clone(bad[i].leaf)
			bad[i].leaf = append(other, 0)
			prev := genesis
			if i > 0 {
				prev = bad[i-1].link
			}
			for j := i; j < len(bad); j++ {
				bad[j].link = Link(prev, uint64(j), bad[j].leaf)
				prev = bad[j].link
			}
			v, err := walk(genesis, bad)
			if err != nil {
				t.Fatalf("a consistent rewrite is only found by a signed head, got %v", err)
			}
			if err := v.Check(Head{Next: uint64(len(records)), Link: last.link}); !errors.Is(err, ErrFork) {
				t.Fatalf("rewritten history under a signed head: %v, want ErrFork", err)
			}
			return
		}
		v, err = walk(genesis, bad)
		if err == nil {
			err = v.Check(Head{Next: uint64(len(records)), Link: last.link})
		}
		var broken *BreakError
		if !errors.Is(err, want) || !errors.As(err, &broken) || broken.Index != wantIndex {
			t.Fatalf("%v, want %v at %d", err, want, wantIndex)
		}
		if v.Head().Next > wantIndex+1 {
			t.Fatalf("head %d went past the break at %d", v.Head().Next, wantIndex)
		}
		if again := v.Add(v.Head().Next, nil, Link(v.Head().Link, v.Head().Next, nil)); again != err {
			t.Fatalf("a broken verifier went on: %v", again)
		}
	})
}

func TestResume(t *testing.T) {
	genesis := Genesis("d", "t", "a", 1)
	records := build(genesis, [][]byte{{1}, {2}, {3}})
	v := NewVerifier(Head{Next: 2, Link: records[1].link})
	if err := v.Add(2, []byte{3}, records[2].link); err != nil {
		t.Fatal(err)
	}
	if _, err := walk(Genesis("d", "t", "a", 2), records); !errors.Is(err, ErrFork) {
		t.Errorf("another epoch's records: %v, want ErrFork", err)
	}
	if err := v.Check(Head{Next: 2, Link: records[1].link}); !errors.Is(err, ErrRepeat) {
		t.Errorf("a signed head behind the records: %v, want ErrRepeat", err)
	}
}
