package auditv1_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// FuzzDecode: what a log keeps decodes strictly and encodes to the same again.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, m := range []proto.Message{
			&auditv1.Header{}, &auditv1.Body{}, &auditv1.Entry{}, &auditv1.Record{}, &auditv1.Batch{}, &auditv1.ChainHead{}, &auditv1.ExportFrame{},
		} {
			if planv1.Decode(raw, m) != nil {
				continue
			}
			eachMessage(m.ProtoReflect(), func(inner protoreflect.Message) {
				if len(inner.GetUnknown()) > 0 {
					t.Fatalf("%s was taken with unknown octets in %s", m.ProtoReflect().Descriptor().Name(), inner.Descriptor().Name())
				}
			})
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
		}
	})
}

// eachMessage calls visit for m and every message in it.
func eachMessage(m protoreflect.Message, visit func(protoreflect.Message)) {
	visit(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Kind() != protoreflect.MessageKind:
		case fd.IsList():
			for i := range v.List().Len() {
				eachMessage(v.List().Get(i).Message(), visit)
			}
		default:
			eachMessage(v.Message(), visit)
		}
		return true
	})
}
