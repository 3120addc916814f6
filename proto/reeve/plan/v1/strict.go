package planv1

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// ErrUnknown is wrapped by Decode when signed bytes hold something this version
// does not know. What is not understood is not carried out.
var ErrUnknown = errors.New("unknown field or value in signed message")

// Encode marshals a message that will be signed or hashed. It is called once in
// a message's life; from then on its bytes are what counts.
func Encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// Decode unmarshals signed or hashed bytes strictly: an unknown field or an
// enum number without a name, at any depth, refuses the whole, and so does
// anything beside the message that was read, such as a field that a later one of
// the same oneof overwrote: what is signed and not read could say something else
// to another reader.
func Decode(b []byte, m proto.Message) error {
	if err := proto.Unmarshal(b, m); err != nil {
		return fmt.Errorf("decode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	if err := checkKnown(m.ProtoReflect(), ""); err != nil {
		return err
	}
	// Sizes and not bytes: in which order fields stand is the encoder's own.
	if read := proto.Size(m); read != len(b) {
		return fmt.Errorf("%w: %s is read of %d bytes and there are %d", ErrUnknown, m.ProtoReflect().Descriptor().FullName(), read, len(b))
	}
	return nil
}

func checkKnown(m protoreflect.Message, path string) error {
	if len(m.GetUnknown()) > 0 {
		return fmt.Errorf("%w: %s%s has a field this version does not know", ErrUnknown, path, m.Descriptor().FullName())
	}
	var err error
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + string(fd.Name())
		if fd.IsMap() {
			err = fmt.Errorf("%w: %s is a map", ErrUnknown, at)
			return false
		}
		if !fd.IsList() {
			err = checkValue(fd, v, at)
			return err == nil
		}
		for i := range v.List().Len() {
			if err = checkValue(fd, v.List().Get(i), fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return false
			}
		}
		return true
	})
	return err
}

func checkValue(fd protoreflect.FieldDescriptor, v protoreflect.Value, at string) error {
	switch fd.Kind() {
	case protoreflect.MessageKind, protoreflect.GroupKind:
		return checkKnown(v.Message(), at+".")
	case protoreflect.EnumKind:
		if fd.Enum().Values().ByNumber(v.Enum()) == nil {
			return fmt.Errorf("%w: %s has value %d", ErrUnknown, at, v.Enum())
		}
	}
	return nil
}

// Digest is SHA-256 over encoded bytes: of a manifest it is the plan digest.
func Digest(encoded []byte) []byte {
	sum := sha256.Sum256(encoded)
	return sum[:]
}
