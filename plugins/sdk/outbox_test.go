package sdk

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestAtMostIsNoLessThanTheSize: a batch that is larger than thought would not
// fit into a message.
func TestAtMostIsNoLessThanTheSize(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "a", strings.Repeat("x", 127), strings.Repeat("x", 128), strings.Repeat("x", 20_000)})
		o := &connectorv1.Object{Type: text.Draw(t, "type"), Anchor: text.Draw(t, "anchor"), Display: text.Draw(t, "display"),
			Keys: rapid.SliceOfN(text, 0, 3).Draw(t, "keys"), Members: rapid.SliceOfN(text, 0, 40).Draw(t, "members"),
			Enablement: connectorv1.Enablement(rapid.Int32Min(0).Draw(t, "enablement"))}
		if rapid.Bool().Draw(t, "named") {
			o.Name = &connectorv1.Name{}
			for range rapid.IntRange(0, 4).Draw(t, "components") {
				c := &connectorv1.Component{}
				for range rapid.IntRange(0, 3).Draw(t, "parts") {
					c.Parts = append(c.Parts, &connectorv1.Part{Type: text.Draw(t, "part's type"), Value: text.Draw(t, "part's value")})
				}
				o.Name.Components = append(o.Name.Components, c)
			}
		}
		for range rapid.IntRange(0, 4).Draw(t, "attributes") {
			a := &connectorv1.Attribute{Name: text.Draw(t, "name")}
			for range rapid.IntRange(0, 4).Draw(t, "values") {
				a.Values = append(a.Values, []byte(text.Draw(t, "value")))
			}
			o.Attributes = append(o.Attributes, a)
		}
		if got, size := atMost(o), proto.Size(o); got < size || got > 2*size+200+8*len(o.Attributes) {
			t.Fatalf("at most %d, the size is %d", got, size)
		}
	})
}

// TestOutboxBounds: an object just within the bound is sent
// though the estimate is above it, and batches stay small.
func TestOutboxBounds(t *testing.T) {
	d, err := newDeclaration("dir", []*connectorv1.ObjectType{{Name: "group", Kind: connectorv1.Kind_KIND_GROUP}})
	if err != nil {
		t.Fatal(err)
	}
	var sizes []int
	sent := 0
	out := newOutbox("dir", d, 0, true, func(b *connectorv1.ObjectBatch) error {
		sizes, sent = append(sizes, proto.Size(b)), sent+len(b.GetObjects())
		return nil
	}, nil)
	group := func(anchor string, members, length int) *connectorv1.Object {
		o := &connectorv1.Object{Type: "group", Anchor: anchor}
		for n := range members {
			o.Members = append(o.Members, fmt.Sprintf("%0*d", length, n))
		}
		return o
	}
	within, above := group("within", 1, 1), group("above", 1, 1)
	within.Members[0], above.Members[0] = strings.Repeat("x", objectBytes-30), strings.Repeat("x", objectBytes+1)
	for _, o := range []*connectorv1.Object{within, above} {
		if err := out.add(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	if proto.Size(within) > objectBytes || atMost(within) <= objectBytes {
		t.Fatalf("the object within has %d octets, estimated %d", proto.Size(within), atMost(within))
	}
	for n := range 300 {
		if err := out.add(t.Context(), group(fmt.Sprint(n), 50, 20)); err != nil {
			t.Fatal(err)
		}
	}
	end, err := out.end(t.Context(), Completeness{Method: "test"})
	if err != nil || sent != 301 || end.GetCount() != 301 || end.GetComplete() || len(end.GetProblems()) != 1 || end.GetProblems()[0].GetCode() != CodeSizeLimit {
		t.Errorf("%d sent, %v, %v", sent, end, err)
	}
	for n, size := range sizes {
		if n > 0 && size > batchBytes || size > MaxMessage {
			t.Errorf("batch %d has %d octets", n, size)
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if err := out.add(cancelled, group("late", 1, 1)); err == nil {
		t.Error("an object was taken after the end of its call")
	}
}
