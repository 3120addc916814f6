package planner

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
)

// big is a plan of more than a chunk: 300 accounts with long values.
func big(t *testing.T) (Input, Output) {
	t.Helper()
	in := tenant()
	for i := range 300 {
		in.Desired = append(in.Desired, wants(fmt.Sprint(i), fmt.Sprintf("u%03d", i), func(a *policy.Account) {
			a.Attributes = append(a.Attributes, policy.DesiredAttribute{Name: "title", Values: []string{strings.Repeat("x", 8000)}, Authority: policy.Enforce})
		}))
	}
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	return in, out
}

func salts() func() []byte {
	n := byte(0)
	return func() []byte { n++; return bytes.Repeat([]byte{n}, SaltSize) }
}

func TestEncodeSplitsIntoChunks(t *testing.T) {
	in, out := big(t)
	e, err := Encode(in, out, salts())
	if err != nil {
		t.Fatal(err)
	}
	if len(e.Chunks) < 3 || !bytes.Equal(e.Digest, planv1.Digest(e.Manifest)) {
		t.Fatalf("%d chunks", len(e.Chunks))
	}
	for i, c := range e.Chunks {
		if len(c) > MaxChunk {
			t.Errorf("chunk %d has %d octets", i, len(c))
		}
	}
	m, agents, err := Decode(e.Manifest, e.Chunks)
	if err != nil {
		t.Fatal(err)
	}
	if len(agents) != 1 || !slices.EqualFunc(agents[0].Changes, out.Agents[0].Changes, func(a, b *planv1.Change) bool { return proto.Equal(a, b) }) {
		t.Error("decoding gives other changes")
	}
	if m.GetTenant() != "fabrikam" || len(m.GetSnapshots()) != 1 || m.GetAudiences()[0].GetAgent() != "dc1" {
		t.Errorf("manifest %v", m)
	}
}

func TestDecodeRefuses(t *testing.T) {
	in, out := big(t)
	e, err := Encode(in, out, salts())
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(e.Chunks)
	flipped[1] = slices.Clone(flipped[1])
	flipped[1][100] ^= 1
	swapped := slices.Clone(e.Chunks)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	for name, c := range map[string]struct {
		manifest []byte
		chunks   [][]byte
		want     error
	}{
		"a changed chunk":         {e.Manifest, flipped, ErrEncoded},
		"chunks in another order": {e.Manifest, swapped, ErrEncoded},
		"a missing chunk":         {e.Manifest, e.Chunks[1:], ErrEncoded},
		"an unknown field":        {append(slices.Clone(e.Manifest), 0xf8, 0x7f, 1), e.Chunks, planv1.ErrUnknown},
		"another format":          {[]byte{8, 9}, nil, ErrEncoded},
	} {
		if _, _, err := Decode(c.manifest, c.chunks); !errors.Is(err, c.want) {
			t.Errorf("%s: error %v, want %v", name, err, c.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	in, out := big(t)
	if _, err := Encode(in, out, func() []byte { return []byte("short") }); err == nil {
		t.Error("a short salt is taken")
	}
	in.Desired = in.Desired[:1]
	in.Desired[0].Accounts[0].Attributes[1].Values = []string{strings.Repeat("x", MaxChunk)}
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = Encode(in, out, salts()); err == nil || !strings.Contains(err.Error(), "uid=u000") {
		t.Errorf("a change too large for a chunk: %v", err)
	}
}
