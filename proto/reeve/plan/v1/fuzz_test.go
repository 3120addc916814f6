package planv1_test

import (
	"bytes"
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// FuzzDecode: strictly decoded bytes hold nothing that this version does not
// know, at any depth, by a reading of the wire that does not use the decoder; and
// what is encoded again decodes to the same.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, m := range []proto.Message{&planv1.Manifest{}, &planv1.Chunk{}, &planv1.Order{}, &planv1.Change{}} {
			if planv1.Decode(raw, m) != nil {
				continue
			}
			if unknown := unknownOnWire(raw, m.ProtoReflect().Descriptor()); unknown != "" {
				t.Fatalf("%s was taken with %s", m.ProtoReflect().Descriptor().Name(), unknown)
			}
			encoded, err := planv1.Encode(m)
			if err != nil {
				t.Fatal(err)
			}
			again := m.ProtoReflect().New().Interface()
			if err := planv1.Decode(encoded, again); err != nil || !proto.Equal(m, again) {
				t.Fatalf("%v decodes again to %v, %v", m, again, err)
			}
			if twice, err := planv1.Encode(again); err != nil || !bytes.Equal(twice, encoded) {
				t.Fatalf("%v encodes to %x and to %x, %v", m, encoded, twice, err)
			}
			if len(encoded) != len(raw) {
				t.Fatalf("%x becomes %x: something was there beside it", raw, encoded)
			}
		}
	})
}

// onWire is one field as it stands on the wire.
type onWire struct {
	field protoreflect.FieldDescriptor
	kind  protowire.Type
	value []byte
}

// readWire splits a message by the descriptor alone. It names the first field that
// the descriptor does not have.
func readWire(raw []byte, d protoreflect.MessageDescriptor) (fields []onWire, unknown string) {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return nil, "a broken tag"
		}
		raw = raw[n:]
		size := protowire.ConsumeFieldValue(number, kind, raw)
		if size < 0 {
			return nil, "a broken value"
		}
		fd := d.Fields().ByNumber(number)
		if fd == nil {
			return nil, fmt.Sprintf("%s has no field %d", d.Name(), number)
		}
		fields = append(fields, onWire{fd, kind, raw[:size]})
		raw = raw[size:]
	}
	return fields, ""
}

// unknownOnWire names the first thing in a message, at any depth, that the
// descriptor does not have.
func unknownOnWire(raw []byte, d protoreflect.MessageDescriptor) string {
	fields, unknown := readWire(raw, d)
	if unknown != "" {
		return unknown
	}
	for _, f := range fields {
		switch f.field.Kind() {
		case protoreflect.MessageKind:
			inner, n := protowire.ConsumeBytes(f.value)
			if f.kind != protowire.BytesType || n < 0 {
				return string(f.field.FullName()) + " in another wire type"
			}
			if unknown := unknownOnWire(inner, f.field.Message()); unknown != "" {
				return unknown
			}
		case protoreflect.EnumKind:
			inner := f.value
			if f.kind == protowire.BytesType && f.field.IsList() {
				inner, _ = protowire.ConsumeBytes(f.value)
			} else if f.kind != protowire.VarintType {
				return string(f.field.FullName()) + " in another wire type"
			}
			for len(inner) > 0 {
				v, n := protowire.ConsumeVarint(inner)
				if n < 0 || f.field.Enum().Values().ByNumber(protoreflect.EnumNumber(v)) == nil {
					return string(f.field.FullName()) + " with a value without a name"
				}
				inner = inner[n:]
			}
		}
	}
	return ""
}
