package observation

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestDigesterIsDigest: the control plane computes Object.Digest, and a
// difference would send every object anew for ever.
func TestDigesterIsDigest(t *testing.T) {
	var d digester
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom([]string{"", "a", "b", "mail", "Lučić", "\x00"})
		o := &connectorv1.Object{Type: text.Draw(t, "type"), Anchor: text.Draw(t, "anchor"), Display: text.Draw(t, "display"),
			Keys: rapid.SliceOfN(text, 0, 3).Draw(t, "keys"), Members: rapid.SliceOfN(text, 0, 4).Draw(t, "members"),
			Enablement: connectorv1.Enablement(rapid.IntRange(0, 2).Draw(t, "enablement")),
			Name:       &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("cn", text.Draw(t, "leaf"))}}}
		for range rapid.IntRange(0, 3).Draw(t, "attributes") {
			a := &connectorv1.Attribute{Name: text.Draw(t, "name")}
			for range rapid.IntRange(0, 3).Draw(t, "values") {
				a.Values = append(a.Values, rapid.SliceOfN(rapid.Byte(), 0, 2).Draw(t, "value"))
			}
			o.Attributes = append(o.Attributes, a)
		}
		if rapid.Bool().Draw(t, "unknown field") {
			o.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 0x01})
		}
		before := proto.CloneOf(o)
		digest, size, err := d.digest(o)
		if err != nil || digest != before.Digest() || size != proto.Size(before) {
			t.Fatalf("%x of %d octets, want %x of %d: %v", digest, size, before.Digest(), proto.Size(before), err)
		}
		if !proto.Equal(o, before) {
			t.Fatal("the object was changed")
		}
	})
	if _, _, err := d.digest(&connectorv1.Object{Type: "\xff"}); err == nil {
		t.Error("an object that cannot be encoded has a digest")
	}
}
