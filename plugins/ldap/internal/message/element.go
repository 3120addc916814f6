package message

import "fmt"

// Identifier octets of BER (X.690 section 8.1.2) as RFC 4511 uses them. All its
// tag numbers are below 31, so that one octet is enough.
const (
	constructed = 0x20

	tagBoolean     = 0x01
	tagInteger     = 0x02
	tagOctetString = 0x04
	tagEnumerated  = 0x0a
	tagSequence    = 0x30
	tagSet         = 0x31
	tagControls    = 0xa0 // [0] of LDAPMessage
	tagName        = 0x8a // [10] of ExtendedResponse

	tagIntermediateName  = 0x80 // [0] of IntermediateResponse
	tagIntermediateValue = 0x81 // [1] of it

	classMask        = 0xc0
	classApplication = 0x40
)

// header is an element's identifier and length. size is how many octets it took,
// 0 while more are needed.
type header struct {
	tag          byte
	size, length int
}

// maxLength is what is read of a length before any bound is held against it;
// RFC 4511 needs no more than four octets.
const maxLength = 1<<31 - 1

// readHeader reads from the start of b. RFC 4511 section 5.1: only the definite
// form of lengths.
func readHeader(b []byte) (header, error) {
	if len(b) == 0 {
		return header{}, nil
	}
	if b[0]&0x1f == 0x1f {
		return header{}, fmt.Errorf("%w: a tag of several octets", ErrMalformed)
	}
	if len(b) < 2 {
		return header{}, nil
	}
	if b[1] < 0x80 {
		return header{b[0], 2, int(b[1])}, nil
	}
	n := int(b[1] & 0x7f)
	switch {
	case n == 0:
		return header{}, fmt.Errorf("%w: an element of indefinite length", ErrMalformed)
	case n > 4:
		// Longer than needed is allowed in BER; no server does it beyond four.
		return header{}, fmt.Errorf("%w: a length of %d octets", ErrMalformed, n)
	case len(b) < 2+n:
		return header{}, nil
	}
	length := 0
	for _, octet := range b[2 : 2+n] {
		length = length<<8 | int(octet)
	}
	if length < 0 || length > maxLength {
		return header{}, tooLong(length, maxLength)
	}
	return header{b[0], 2 + n, length}, nil
}

func tooLong(length, most int) error {
	return fmt.Errorf("%w: length %d greater than maximum %d", ErrTooLarge, length, most)
}

// element is one element's tag and what is left of its content.
type element struct {
	tag     byte
	content []byte
}

// decoder keeps the first error, after which every element is empty.
type decoder struct {
	limits Limits
	err    error
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
	}
}

// next takes the next element off from; what names it in errors.
func (d *decoder) next(from *element, what string) element {
	if d.err != nil {
		return element{}
	}
	b := from.content
	// Nearly all elements have a short length.
	if len(b) >= 2 && b[1] < 0x80 && b[0]&0x1f != 0x1f {
		end := 2 + int(b[1])
		if end > len(b) {
			d.fail("%s is longer than what holds it", what)
			return element{}
		}
		from.content = b[end:]
		return element{b[0], b[2:end:end]}
	}
	h, err := readHeader(b)
	switch {
	case err != nil:
		d.err = err
	case h.size == 0:
		d.fail("%s is cut off", what)
	case h.length > len(b)-h.size:
		d.fail("%s is longer than what holds it", what)
	default:
		end := h.size + h.length
		from.content = b[end:]
		return element{h.tag, b[h.size:end:end]}
	}
	return element{}
}

// take is next for an element that must be there and have the tag.
func (d *decoder) take(from *element, tag byte, what string) element {
	e := d.next(from, what)
	if d.err == nil && e.tag != tag {
		d.fail("%s has the tag %#x, not %#x", what, e.tag, tag)
		return element{}
	}
	return e
}

// integer reads a two's complement of one to four octets.
func (d *decoder) integer(e element, what string) int32 {
	if d.err != nil {
		return 0
	}
	if len(e.content) == 0 || len(e.content) > 4 {
		d.fail("%s is a number of %d octets", what, len(e.content))
		return 0
	}
	n := int32(int8(e.content[0]))
	for _, octet := range e.content[1:] {
		n = n<<8 | int32(octet)
	}
	return n
}
