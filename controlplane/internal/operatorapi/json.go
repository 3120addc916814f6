package operatorapi

import (
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/protobuf/encoding/protojson"
)

// restJSON is the gateway's own JSON, with names that act on whoever looks at them
// made harmless.
func restJSON() runtime.Marshaler {
	return &runtime.HTTPBodyMarshaler{Marshaler: visibleJSON{&runtime.JSONPb{
		MarshalOptions:   protojson.MarshalOptions{EmitUnpopulated: true},
		UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
	}}}
}

// visibleJSON writes control, bidirectional and other characters that cannot be
// seen as \u escapes: the document means the same, and does nothing to a terminal
// or a log that shows it.
type visibleJSON struct{ runtime.Marshaler }

// Marshal implements runtime.Marshaler.
func (m visibleJSON) Marshal(v any) ([]byte, error) {
	doc, err := m.Marshaler.Marshal(v)
	if err != nil {
		return nil, err
	}
	return escapeJSON(doc), nil
}

// NewEncoder implements runtime.Marshaler.
func (m visibleJSON) NewEncoder(w io.Writer) runtime.Encoder {
	return runtime.EncoderFunc(func(v any) error {
		doc, err := m.Marshal(v)
		if err != nil {
			return err
		}
		_, err = w.Write(append(doc, '\n'))
		return err
	})
}

// escapeJSON relies on such characters standing only inside strings, white space
// between values aside.
func escapeJSON(doc []byte) []byte {
	seen := func(r rune) bool {
		return unicode.IsPrint(r) || r == '\n' || r == '\t' || r == '\r'
	}
	text := string(doc)
	if !strings.ContainsFunc(text, func(r rune) bool { return !seen(r) }) {
		return doc
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case seen(r):
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}
