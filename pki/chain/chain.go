package chain

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
)

// Size is the length of a link in bytes.
const Size = sha256.Size

const (
	genesisDomain = "reeve chain genesis v1\x00"
	linkDomain    = "reeve chain link v1\x00"
)

// Genesis is the link before an agent's first record in one epoch:
//
//	SHA-256("reeve chain genesis v1" 00, for each of trust domain, tenant and
//	agent: length as 8 bytes big-endian and the bytes, epoch as 8 bytes big-endian)
func Genesis(trustDomain, tenant, agent string, epoch uint64) [Size]byte {
	h := sha256.New()
	h.Write([]byte(genesisDomain))
	for _, s := range []string{trustDomain, tenant, agent} {
		put64(h, uint64(len(s)))
		h.Write([]byte(s))
	}
	put64(h, epoch)
	return sum(h)
}

// Link is the link of the record at index, whose bytes are leaf, after prev:
//
//	SHA-256("reeve chain link v1" 00, prev, index as 8 bytes big-endian,
//	length of leaf as 8 bytes big-endian, leaf)
func Link(prev [Size]byte, index uint64, leaf []byte) [Size]byte {
	h := sha256.New()
	h.Write([]byte(linkDomain))
	h.Write(prev[:])
	put64(h, index)
	put64(h, uint64(len(leaf)))
	h.Write(leaf)
	return sum(h)
}

func put64(h hash.Hash, v uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], v)
	h.Write(b[:])
}

func sum(h hash.Hash) (out [Size]byte) {
	h.Sum(out[:0])
	return out
}

var (
	// ErrGap means that records are missing before an index.
	ErrGap = errors.New("records are missing")
	// ErrFork means that a record's link does not follow from what came before.
	ErrFork = errors.New("record does not continue this chain")
	// ErrRepeat means that an index came a second time.
	ErrRepeat = errors.New("record index was seen before")
)

// BreakError says where a chain first breaks. It unwraps to ErrGap, ErrFork or
// ErrRepeat.
type BreakError struct {
	Kind error
	// Index is the first one that cannot be vouched for: of a gap the first
	// missing record, otherwise the offending one.
	Index uint64
	// Got is the index that was offered.
	Got uint64
}

func (e *BreakError) Error() string {
	if e.Kind == ErrGap {
		return fmt.Sprintf("chain breaks at record %d: %v up to record %d", e.Index, e.Kind, e.Got)
	}
	return fmt.Sprintf("chain breaks at record %d: %v", e.Index, e.Kind)
}

func (e *BreakError) Unwrap() error { return e.Kind }

// Head is how far a chain has come.
type Head struct {
	// Next is the index that the next record must have, and the number of
	// records so far: the first record has index 0.
	Next uint64
	// Link is the link of record Next-1, or the genesis.
	Link [Size]byte
}

// Verifier walks a chain record by record. After the first break it stays
// broken and keeps answering with that break. It is not safe for concurrent use.
type Verifier struct {
	head   Head
	broken *BreakError
}

// NewVerifier continues from head: Head{Link: Genesis(...)} for a whole epoch,
// or a head that was stored after earlier records were verified.
func NewVerifier(head Head) *Verifier { return &Verifier{head: head} }

// Head is the last point up to which everything was sound.
func (v *Verifier) Head() Head { return v.head }

// Add checks one record with the link that was recorded for it. A non-nil error
// is a *BreakError.
func (v *Verifier) Add(index uint64, leaf []byte, link [Size]byte) error {
	if v.broken != nil {
		return v.broken
	}
	switch {
	case index > v.head.Next:
		return v.fail(ErrGap, v.head.Next, index)
	case index < v.head.Next:
		return v.fail(ErrRepeat, index, index)
	}
	if Link(v.head.Link, index, leaf) != link {
		return v.fail(ErrFork, index, index)
	}
	v.head = Head{Next: index + 1, Link: link}
	return nil
}

// Check compares the walked chain with a signed head: as many records, and the
// same last link. A non-nil error is a *BreakError.
func (v *Verifier) Check(signed Head) error {
	if v.broken != nil {
		return v.broken
	}
	switch {
	case signed.Next > v.head.Next:
		return v.fail(ErrGap, v.head.Next, signed.Next)
	case signed.Next < v.head.Next:
		return v.fail(ErrRepeat, signed.Next, signed.Next)
	case signed.Link != v.head.Link:
		last := signed.Next
		if last > 0 {
			last--
		}
		return v.fail(ErrFork, last, last)
	}
	return nil
}

func (v *Verifier) fail(kind error, index, got uint64) error {
	v.broken = &BreakError{Kind: kind, Index: index, Got: got}
	return v.broken
}
