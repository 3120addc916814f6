package message

import (
	"errors"
	"io"
)

// Sizes of the buffer in octets: at first, and above what it is given back
// after a large message.
const (
	firstBuffer = 64 << 10
	mostKept    = 1 << 20
)

// Reader reads messages off a connection. It is for one goroutine.
type Reader struct {
	source io.Reader
	limits Limits
	// buffer[start:end] is read and not yet handed out.
	buffer     []byte
	start, end int

	message Message
	values  [][]byte
}

// NewReader reads from source, in large pieces.
func NewReader(source io.Reader, limits Limits) *Reader {
	return &Reader{source: source, limits: limits, buffer: make([]byte, firstBuffer)}
}

// Buffered returns how many octets were read beyond the last message.
func (r *Reader) Buffered() int { return r.end - r.start }

// Next reads the next message. It and all it holds is valid until the next call.
// The end of the stream between two messages is io.EOF, within one
// io.ErrUnexpectedEOF; errors of the connection are returned as they are. After
// an error the reader is of no more use.
func (r *Reader) Next() (*Message, error) {
	if cap(r.values) > r.limits.Values/8 && cap(r.values) > 1<<14 {
		r.values = nil
	}
	for {
		pending := r.buffer[r.start:r.end]
		h, err := readHeader(pending)
		if err != nil {
			return nil, err
		}
		if h.size > 0 && h.tag != tagSequence {
			d := decoder{}
			d.fail("message has the tag %#x, not %#x", h.tag, tagSequence)
			return nil, d.err
		}
		if total := h.size + h.length; h.size > 0 {
			if total > r.limits.Octets {
				return nil, tooLong(total, r.limits.Octets)
			}
			if total <= len(pending) {
				r.start += total
				r.values, err = decode(pending[:total:total], r.limits, &r.message, r.values)
				if err != nil {
					return nil, err
				}
				return &r.message, nil
			}
		}
		if err := r.fill(h.size + h.length); err != nil {
			return nil, err
		}
	}
}

// fill reads more behind what is pending. need is the pending message's size,
// 0 if unknown. Room grows with what has come, not with what is announced.
func (r *Reader) fill(need int) error {
	pending := r.end - r.start
	switch {
	case pending == 0 && len(r.buffer) > mostKept:
		r.buffer = make([]byte, firstBuffer)
		r.start, r.end = 0, 0
	case r.start > 0 && len(r.buffer)-r.start < max(need, firstBuffer/2):
		copy(r.buffer, r.buffer[r.start:r.end])
		r.start, r.end = 0, pending
	}
	if r.end == len(r.buffer) {
		larger := make([]byte, min(2*len(r.buffer), max(r.limits.Octets, firstBuffer)+firstBuffer))
		copy(larger, r.buffer[:r.end])
		r.buffer = larger
	}
	// A source may rightly return nothing now and then, but not for ever.
	for range 100 {
		n, err := r.source.Read(r.buffer[r.end:])
		r.end += n
		if n > 0 {
			return nil
		}
		switch {
		case errors.Is(err, io.EOF) && pending > 0:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}
