package connectorv1

import (
	"bytes"
	"crypto/sha256"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
)

// Digest returns SHA-256 over the object in a fixed order of its parts, so that
// the order in which a directory lists values does not count. The agent sends
// an object only when its digest changed.
func (o *Object) Digest() [32]byte {
	c := proto.CloneOf(o)
	for _, a := range c.Attributes {
		slices.SortFunc(a.Values, bytes.Compare)
	}
	slices.SortFunc(c.Attributes, func(x, y *Attribute) int { return strings.Compare(x.GetName(), y.GetName()) })
	slices.Sort(c.Keys)
	slices.Sort(c.Members)
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
	if err != nil {
		// Only invalid UTF-8 in a string field can fail, and such an object
		// cannot have come over the wire.
		panic("connectorv1: object cannot be encoded: " + err.Error())
	}
	return sha256.Sum256(encoded)
}
