package message

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	ber "github.com/go-asn1-ber/asn1-ber"
)

// FuzzReadMessage: whatever comes, there is an error or a message, the same
// however the stream is cut; and what is a message is one to go-asn1-ber, with
// the same content.
func FuzzReadMessage(f *testing.F) {
	for _, p := range samples() {
		f.Add(p.Bytes())
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		whole, pieces := NewReader(bytes.NewReader(raw), limits), NewReader(iotest.OneByteReader(bytes.NewReader(raw)), limits)
		consumed := 0
		for {
			m, err := whole.Next()
			same, sameErr := pieces.Next()
			if (err == nil) != (sameErr == nil) {
				t.Fatalf("whole: %v, in pieces: %v", err, sameErr)
			}
			if err != nil {
				for _, known := range []error{io.EOF, io.ErrUnexpectedEOF, ErrMalformed, ErrTooLarge} {
					if errors.Is(err, known) {
						return
					}
				}
				t.Fatalf("an error of no kind: %v", err)
			}
			if text(m) != text(same) {
				t.Fatalf("whole:\n%sin pieces:\n%s", text(m), text(same))
			}
			next := len(raw) - whole.Buffered()
			compare(t, m, raw[consumed:next])
			consumed = next
			if c := m.Control("1.2.840.113556.1.4.319"); c != nil {
				_, _, _ = Paging(c.Value)
			}
			for _, c := range m.Controls {
				_, _, _ = ReadSyncState(c.Value)
				_, _, _ = ReadSyncDone(c.Value)
			}
			if info, err := ReadSyncInfo(m.Value, nil); err == nil && len(info.IDs) > len(raw)/18 {
				t.Fatalf("%d identifiers in %d octets", len(info.IDs), len(raw))
			}
		}
	})
}

// compare holds a message against the peer's reading of the same octets. The
// peer refuses some elements that are passed over here.
func compare(t *testing.T, m *Message, raw []byte) {
	p, err := ber.DecodePacketErr(raw)
	if err != nil || len(p.Children) < 2 {
		return
	}
	if id, ok := p.Children[0].Value.(int64); !ok || id != int64(m.ID) || p.Children[1].Tag != ber.Tag(m.Op) {
		t.Fatalf("message %d of operation %d is %v to the peer", m.ID, m.Op, p.Children[0].Value)
	}
	op := p.Children[1]
	switch m.Op {
	case SearchResultEntry:
		if !bytes.Equal(op.Children[0].ByteValue, m.Entry.Name) || len(op.Children[1].Children) != len(m.Entry.Attributes) {
			t.Fatalf("entry %q with %d attributes", m.Entry.Name, len(m.Entry.Attributes))
		}
		for n, a := range m.Entry.Attributes {
			peer := op.Children[1].Children[n]
			if !bytes.Equal(peer.Children[0].ByteValue, a.Type) || len(peer.Children[1].Children) != len(a.Values) {
				t.Fatalf("attribute %q has %d values", a.Type, len(a.Values))
			}
			for k, v := range a.Values {
				if !bytes.Equal(peer.Children[1].Children[k].ByteValue, v) {
					t.Fatalf("%q: %q is %q to the peer", a.Type, v, peer.Children[1].Children[k].ByteValue)
				}
			}
		}
	case SearchResultReference:
		for n, r := range m.References {
			if !bytes.Equal(op.Children[n].ByteValue, r) {
				t.Fatalf("reference %q", r)
			}
		}
	case BindResponse, SearchResultDone, ExtendedResponse:
		if code, ok := op.Children[0].Value.(int64); !ok || code != int64(m.Result.Code) || !bytes.Equal(op.Children[2].ByteValue, m.Result.Diagnostic) {
			t.Fatalf("result %d %q", m.Result.Code, m.Result.Diagnostic)
		}
	}
}
