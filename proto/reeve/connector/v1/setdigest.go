package connectorv1

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/binary"
	"errors"
)

// SetDigest folds the digests of a snapshot's objects into one, in any order, so
// that a change costs what changed and not the whole set. It is LtHash16 (Lewi,
// Kim, Maykov, Weis: Securing Update Propagation with Homomorphic Hashing, 2019):
// each pair is drawn out to 1024 numbers of 16 bits, here by AES-256 in counter
// mode under the pair's SHA-256, which takes half as long as an extendable hash,
// and the set is their sums. Sums of plain hashes would not do: who chooses many objects
// finds other sets of the same sum.
//
// The zero value is the empty set. It is for one goroutine.
type SetDigest struct {
	// words hold four numbers each; they are added without carry between them.
	words [setOctets / 8]uint64
	count uint64
	// pair is room for one that is hashed.
	pair []byte
}

const setOctets = 2 * 1024

// highBits are the topmost bits of a word's four numbers.
const highBits = 0x8000_8000_8000_8000

// Add takes an object into the set, which must not have its anchor.
func (s *SetDigest) Add(anchor string, object [32]byte) {
	s.each(anchor, object, func(have, drawn uint64) uint64 {
		return ((have &^ highBits) + (drawn &^ highBits)) ^ ((have ^ drawn) & highBits)
	})
	s.count++
}

// Remove takes out an object that was added under this digest.
func (s *SetDigest) Remove(anchor string, object [32]byte) {
	s.each(anchor, object, func(have, drawn uint64) uint64 {
		return ((have | highBits) - (drawn &^ highBits)) ^ ((have ^ ^drawn) & highBits)
	})
	s.count--
}

func (s *SetDigest) each(anchor string, object [32]byte, fold func(have, drawn uint64) uint64) {
	// The digest's length is fixed: no two pairs are written alike.
	s.pair = append(append(s.pair[:0], anchor...), object[:]...)
	key := sha256.Sum256(s.pair)
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("connectorv1: a key of 32 octets is refused: " + err.Error())
	}
	var drawn [setOctets]byte
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(drawn[:], drawn[:])
	for n := range s.words {
		s.words[n] = fold(s.words[n], binary.LittleEndian.Uint64(drawn[8*n:]))
	}
}

// Sum returns the digest, SHA-256 over the sums, and the number of objects.
func (s *SetDigest) Sum() ([]byte, uint64) {
	sum := sha256.Sum256(s.sums())
	return sum[:], s.count
}

func (s *SetDigest) sums() []byte {
	out := make([]byte, 0, setOctets+8)
	for _, w := range s.words {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return out
}

// MarshalBinary returns what UnmarshalBinary makes the same set of.
func (s *SetDigest) MarshalBinary() ([]byte, error) {
	return binary.LittleEndian.AppendUint64(s.sums(), s.count), nil
}

// UnmarshalBinary takes back a set that MarshalBinary wrote.
func (s *SetDigest) UnmarshalBinary(data []byte) error {
	if len(data) != setOctets+8 {
		return errors.New("no set of digests: it has another length")
	}
	for n := range s.words {
		s.words[n] = binary.LittleEndian.Uint64(data[8*n:])
	}
	s.count = binary.LittleEndian.Uint64(data[setOctets:])
	return nil
}
