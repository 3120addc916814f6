package message

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	ber "github.com/go-asn1-ber/asn1-ber"
	"pgregory.net/rapid"
)

var limits = Limits{Octets: 1 << 16, Attributes: 64, Values: 512}

// packet is an element of go-asn1-ber, the peer that encodes.
func packet(class ber.Class, typ ber.Type, tag ber.Tag, children ...*ber.Packet) *ber.Packet {
	p := ber.Encode(class, typ, tag, nil, "")
	for _, c := range children {
		p.AppendChild(c)
	}
	return p
}

func sequence(children ...*ber.Packet) *ber.Packet {
	return packet(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, children...)
}

func octets(s string) *ber.Packet {
	return ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, s, "")
}

func integer(n int64) *ber.Packet {
	return ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, n, "")
}

func enumerated(n int64) *ber.Packet {
	return ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, n, "")
}

func operation(op Op, children ...*ber.Packet) *ber.Packet {
	return packet(ber.ClassApplication, ber.TypeConstructed, ber.Tag(op), children...)
}

func entryPacket(dn string, attributes ...[]string) *ber.Packet {
	list := sequence()
	for _, a := range attributes {
		values := packet(ber.ClassUniversal, ber.TypeConstructed, ber.TagSet)
		for _, v := range a[1:] {
			values.AppendChild(octets(v))
		}
		list.AppendChild(sequence(octets(a[0]), values))
	}
	return operation(SearchResultEntry, octets(dn), list)
}

func controlsPacket(controls ...*ber.Packet) *ber.Packet {
	return packet(ber.ClassContext, ber.TypeConstructed, 0, controls...)
}

func read(t testing.TB, raw []byte) (*Message, error) {
	t.Helper()
	return NewReader(bytes.NewReader(raw), limits).Next()
}

// text is everything a message holds, to compare.
func text(m *Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %d %q %d %q %q %q\n", m.ID, m.Op, m.Entry.Name, m.Result.Code, m.Result.MatchedDN, m.Result.Diagnostic, m.Name)
	for _, a := range m.Entry.Attributes {
		fmt.Fprintf(&b, "%q: %q\n", a.Type, a.Values)
	}
	fmt.Fprintf(&b, "%q\n", m.References)
	for _, c := range m.Controls {
		fmt.Fprintf(&b, "%q %q %v\n", c.Type, c.Value, c.Value == nil)
	}
	return b.String()
}

// samples are messages of every kind.
func samples() map[string]*ber.Packet {
	paging := sequence(integer(0), octets("cookie"))
	return map[string]*ber.Packet{
		"entry": sequence(integer(2), entryPacket("uid=anna,dc=example,dc=com", []string{"cn", "Anna", ""}, []string{"empty"},
			[]string{"jpegPhoto", strings.Repeat("\xff\x00", 300)})),
		"entry without attributes": sequence(integer(2), entryPacket("")),
		"done with a cookie": sequence(integer(math.MaxInt32), operation(SearchResultDone, enumerated(0), octets(""), octets("")),
			controlsPacket(sequence(octets("1.2.840.113556.1.4.319"), ber.NewBoolean(ber.ClassUniversal, ber.TypePrimitive, ber.TagBoolean, true, ""), octets(string(paging.Bytes()))), sequence(octets("1.2.3")))),
		"done with a referral": sequence(integer(2), operation(SearchResultDone, enumerated(10), octets("dc=x"), octets("elsewhere"),
			packet(ber.ClassContext, ber.TypeConstructed, 3, octets("ldap://other/")))),
		"references":   sequence(integer(2), operation(SearchResultReference, octets("ldap://a/"), octets("ldap://b/"))),
		"bind":         sequence(integer(1), operation(BindResponse, enumerated(49), octets(""), octets("wrong"))),
		"intermediate": sequence(integer(2), operation(IntermediateResponse, ber.NewString(ber.ClassContext, ber.TypePrimitive, 0, "1.2.3", ""))),
		"disconnection": sequence(integer(0), operation(ExtendedResponse, enumerated(52), octets(""), octets("going down"),
			ber.NewString(ber.ClassContext, ber.TypePrimitive, 10, NoticeOfDisconnection, ""))),
	}
}

func TestReadEveryKind(t *testing.T) {
	for name, want := range map[string]string{
		"entry":                    "2 4 \"uid=anna,dc=example,dc=com\" 0 \"\" \"\" \"\"\n\"cn\": [\"Anna\" \"\"]\n\"empty\": []\n\"jpegPhoto\": [" + fmt.Sprintf("%q", strings.Repeat("\xff\x00", 300)) + "]\n[]\n",
		"entry without attributes": "2 4 \"\" 0 \"\" \"\" \"\"\n[]\n",
		"done with a cookie":       "2147483647 5 \"\" 0 \"\" \"\" \"\"\n[]\n\"1.2.840.113556.1.4.319\" \"0\\v\\x02\\x01\\x00\\x04\\x06cookie\" false\n\"1.2.3\" \"\" true\n",
		"done with a referral":     "2 5 \"\" 10 \"dc=x\" \"elsewhere\" \"\"\n[]\n",
		"references":               "2 19 \"\" 0 \"\" \"\" \"\"\n[\"ldap://a/\" \"ldap://b/\"]\n",
		"bind":                     "1 1 \"\" 49 \"\" \"wrong\" \"\"\n[]\n",
		"intermediate":             "2 25 \"\" 0 \"\" \"\" \"1.2.3\"\n[]\n",
		"disconnection":            "0 24 \"\" 52 \"\" \"going down\" \"1.3.6.1.4.1.1466.20036\"\n[]\n",
	} {
		raw := samples()[name].Bytes()
		// However the stream is cut, the messages are the same.
		for _, source := range []io.Reader{bytes.NewReader(raw), iotest.OneByteReader(bytes.NewReader(raw)), iotest.DataErrReader(bytes.NewReader(raw))} {
			r := NewReader(source, limits)
			m, err := r.Next()
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			if got := text(m); got != want {
				t.Errorf("%s: got\n%swant\n%s", name, got, want)
			}
			if _, err := r.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("%s: after it %v", name, err)
			}
		}
	}
	m, err := read(t, samples()["done with a cookie"].Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if _, cookie, err := Paging(m.Control("1.2.840.113556.1.4.319").Value); err != nil || string(cookie) != "cookie" || m.Control("1.2.4") != nil {
		t.Errorf("cookie %q, %v", cookie, err)
	}
}

// TestCutAtEveryOctet: a stream that ends within a message never is one.
func TestCutAtEveryOctet(t *testing.T) {
	for name, p := range samples() {
		raw := p.Bytes()
		for n := range raw {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := read(t, raw[:n]); !errors.Is(err, want) || n > 0 && errors.Is(err, io.EOF) {
				t.Errorf("%s cut at %d of %d: %v", name, n, len(raw), err)
			}
		}
	}
}

// TestCutInside: elements that announce more than what holds them, at every
// octet of every message, are refused or give another sound message.
func TestCutInside(t *testing.T) {
	for name, p := range samples() {
		raw := p.Bytes()
		for n := 2; n < len(raw); n++ {
			for _, octet := range []byte{0x00, 0x7f, 0x80, 0x84, 0xff, raw[n] + 1, raw[n] - 1} {
				broken := bytes.Clone(raw)
				broken[n] = octet
				_, err := read(t, broken)
				if err != nil && !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s with %#x at %d: %v", name, octet, n, err)
				}
			}
		}
	}
}

func TestRefusals(t *testing.T) {
	many := func(n int) []string { return strings.Split(strings.Repeat("v", n), "") }
	tooManyAttributes := make([][]string, limits.Attributes+1)
	for n := range tooManyAttributes {
		tooManyAttributes[n] = []string{"a"}
	}
	var controls []*ber.Packet
	for range maxControls + 1 {
		controls = append(controls, sequence(octets("1.2.3")))
	}
	done := operation(SearchResultDone, enumerated(0), octets(""), octets(""))
	for _, c := range []struct {
		name string
		raw  []byte
		want error
		says string
	}{
		{"indefinite length", []byte{0x30, 0x80, 0x02, 0x01, 0x01, 0x00, 0x00}, ErrMalformed, "indefinite"},
		{"indefinite length inside", []byte{0x30, 0x09, 0x02, 0x01, 0x01, 0x64, 0x80, 0x04, 0x00, 0x00, 0x00}, ErrMalformed, "indefinite"},
		{"length of five octets", []byte{0x30, 0x85, 0, 0, 0, 0, 1}, ErrMalformed, "length of 5"},
		{"length of two gigabytes", []byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff}, ErrTooLarge, "greater than maximum"},
		{"more than the bound", []byte{0x30, 0x83, 0x01, 0x00, 0x00}, ErrTooLarge, "greater than maximum 65536"},
		{"another tag", []byte{0x31, 0x00}, ErrMalformed, "0x31"},
		{"tag of several octets", []byte{0x3f, 0x81, 0x00}, ErrMalformed, "several octets"},
		{"nothing in it", []byte{0x30, 0x00}, ErrMalformed, "message ID"},
		{"HTTP", []byte("HTTP/1.1 400 Bad Request\r\n"), ErrMalformed, "tag"},
		{"negative ID", sequence(integer(-1), done).Bytes(), ErrMalformed, "negative"},
		{"ID of five octets", sequence(integer(1<<33), done).Bytes(), ErrMalformed, "5 octets"},
		{"no operation", sequence(integer(1)).Bytes(), ErrMalformed, "operation"},
		{"a request", sequence(integer(1), operation(3, octets(""))).Bytes(), ErrMalformed, "operation 3"},
		{"primitive operation", []byte{0x30, 0x05, 0x02, 0x01, 0x01, 0x44, 0x00}, ErrMalformed, "primitive"},
		{"an operation of no application", sequence(integer(1), sequence()).Bytes(), ErrMalformed, "operation has the tag"},
		{"constructed name", sequence(integer(1), operation(SearchResultEntry, packet(ber.ClassUniversal, ber.TypeConstructed, ber.TagOctetString, octets("cn=a")), sequence())).Bytes(), ErrMalformed, "entry's name"},
		{"values that are no set", sequence(integer(1), operation(SearchResultEntry, octets("cn=a"), sequence(sequence(octets("cn"), sequence(octets("a")))))).Bytes(), ErrMalformed, "values"},
		{"attribute without values' set", sequence(integer(1), operation(SearchResultEntry, octets("cn=a"), sequence(sequence(octets("cn"))))).Bytes(), ErrMalformed, "values"},
		{"result code of a thousand bits", sequence(integer(1), operation(SearchResultDone, octets("0123456789"), octets(""), octets(""))).Bytes(), ErrMalformed, "result code"},
		{"negative result code", sequence(integer(1), operation(SearchResultDone, enumerated(-1), octets(""), octets(""))).Bytes(), ErrMalformed, "result code"},
		{"result without a message", sequence(integer(1), operation(SearchResultDone, enumerated(0), octets(""))).Bytes(), ErrMalformed, "diagnostic"},
		{"reference to nowhere", sequence(integer(1), operation(SearchResultReference)).Bytes(), ErrMalformed, "nowhere"},
		{"too many values", sequence(integer(1), entryPacket("cn=a", append([]string{"cn"}, many(limits.Values+1)...))).Bytes(), ErrTooLarge, "greater than maximum 512"},
		{"too many attributes", sequence(integer(1), entryPacket("cn=a", tooManyAttributes...)).Bytes(), ErrTooLarge, "greater than maximum 64"},
		{"too many controls", sequence(integer(1), done, controlsPacket(controls...)).Bytes(), ErrTooLarge, "greater than maximum"},
		{"control without a type", sequence(integer(1), done, controlsPacket(sequence())).Bytes(), ErrMalformed, "control's type"},
	} {
		if _, err := read(t, c.raw); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: want %v that says %q, got %v", c.name, c.want, c.says, err)
		}
	}
	for name, value := range map[string][]byte{"nothing": nil, "no cookie": sequence(integer(1)).Bytes(), "more": append(sequence(integer(1), octets("")).Bytes(), 0)} {
		if _, _, err := Paging(value); !errors.Is(err, ErrMalformed) {
			t.Errorf("a paging control with %s: %v", name, err)
		}
	}
}

// TestLaterVersions: what RFC 4511 section 4 tells clients to pass over.
func TestLaterVersions(t *testing.T) {
	extra := ber.NewString(ber.ClassContext, ber.TypePrimitive, 22, "later", "")
	m, err := read(t, sequence(integer(1), operation(SearchResultDone, enumerated(4), octets(""), octets("x"), extra), extra, controlsPacket(sequence(octets("1.2.3"), extra))).Bytes())
	if err != nil || m.Result.Code != 4 || m.Control("1.2.3") == nil {
		t.Errorf("%v, %v", m, err)
	}
}

// TestHostileLengthTakesNoMemory: what is announced is not reserved before it
// comes.
func TestHostileLengthTakesNoMemory(t *testing.T) {
	large := Limits{Octets: 1 << 30, Attributes: 64, Values: 512}
	r := NewReader(bytes.NewReader([]byte{0x30, 0x84, 0x3f, 0xff, 0xff, 0x00, 0x02}), large)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := r.Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > 1<<20 {
		t.Errorf("%d octets for one header", grown)
	}
}

// TestBufferIsGivenBack: one large message must not cost its size for the rest
// of a long read.
func TestBufferIsGivenBack(t *testing.T) {
	value := strings.Repeat("x", 3<<20)
	stream := append(sequence(integer(1), entryPacket("cn=a", []string{"photo", value})).Bytes(), bytes.Repeat(sequence(integer(1), entryPacket("cn=b")).Bytes(), 3)...)
	r := NewReader(iotest.HalfReader(bytes.NewReader(stream)), Limits{Octets: 4 << 20, Attributes: 8, Values: 8})
	m, err := r.Next()
	if err != nil || string(m.Entry.Attributes[0].Values[0]) != value {
		t.Fatal(err)
	}
	for range 3 {
		if m, err := r.Next(); err != nil || string(m.Entry.Name) != "cn=b" {
			t.Fatal(err)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) || len(r.buffer) > mostKept {
		t.Errorf("%v, the buffer has %d octets", err, len(r.buffer))
	}
}

func TestReaderThatReadsNothing(t *testing.T) {
	if _, err := NewReader(iotest.ErrReader(nil), limits).Next(); !errors.Is(err, io.ErrNoProgress) {
		t.Error(err)
	}
	broken := errors.New("broken")
	if _, err := NewReader(io.MultiReader(bytes.NewReader([]byte{0x30}), iotest.ErrReader(broken)), limits).Next(); !errors.Is(err, broken) {
		t.Error(err)
	}
}

// TestStreamsLikeThePeer: streams of generated messages, cut anywhere, read the
// same as go-asn1-ber encoded them.
func TestStreamsLikeThePeer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		var want []string
		word := rapid.OneOf(rapid.StringN(0, 6, -1), rapid.SampledFrom([]string{"", "cn", "\x00\xff", strings.Repeat("l", 127), strings.Repeat("l", 128), strings.Repeat("l", 70000/8)}))
		for range rapid.IntRange(1, 12).Draw(t, "messages") {
			id := rapid.Int32Min(0).Draw(t, "id")
			m := Message{ID: id, Op: SearchResultEntry, Entry: Entry{Name: []byte(word.Draw(t, "dn"))}}
			var attributes [][]string
			for range rapid.IntRange(0, 4).Draw(t, "attributes") {
				a := []string{word.Draw(t, "type")}
				held := Attribute{Type: []byte(a[0]), Values: [][]byte{}}
				for range rapid.IntRange(0, 3).Draw(t, "values") {
					v := word.Draw(t, "value")
					a, held.Values = append(a, v), append(held.Values, []byte(v))
				}
				attributes, m.Entry.Attributes = append(attributes, a), append(m.Entry.Attributes, held)
			}
			raw := sequence(integer(int64(id)), entryPacket(string(m.Entry.Name), attributes...)).Bytes()
			if len(raw) > limits.Octets {
				continue
			}
			stream, want = append(stream, raw...), append(want, text(&m))
		}
		var source io.Reader = bytes.NewReader(stream)
		if rapid.Bool().Draw(t, "in halves") {
			source = iotest.HalfReader(source)
		}
		r := NewReader(source, limits)
		for n, w := range want {
			m, err := r.Next()
			if err != nil {
				t.Fatalf("message %d: %v", n, err)
			}
			if got := text(m); got != w {
				t.Fatalf("message %d: got\n%swant\n%s", n, got, w)
			}
		}
		if _, err := r.Next(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	})
}
