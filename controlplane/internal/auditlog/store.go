package auditlog

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Store keeps the logs. Methods work inside one transaction and are durable with
// it; an unknown tenant has an empty log.
type Store interface {
	// Head returns the zero Head for an empty log.
	Head(t tx.Tx, tenant string) (Head, error)
	// Grow moves the size and returns ErrConflict unless it was from.
	Grow(t tx.Tx, tenant string, from, to uint64) error
	// Seal stores the newest checkpoint.
	Seal(t tx.Tx, tenant string, c Checkpoint) error

	// Tile returns a tile's hashes, nil for one that does not exist.
	Tile(t tx.Tx, tenant string, level int, n uint64) ([]byte, error)
	// PutTile stores a tile over its shorter self.
	PutTile(t tx.Tx, tenant string, level int, n uint64, hashes []byte) error

	PutPart(t tx.Tx, tenant string, p Part) error
	// Parts returns up to limit parts in order, beginning with the one that
	// holds entry from.
	Parts(t tx.Tx, tenant string, from uint64, limit int) ([]Part, error)

	PutBody(t tx.Tx, tenant string, entry uint64, salt, body []byte) error
	// Bodies returns salt and body of entries from..to-1 that have a row: nil
	// slices where erased.
	Bodies(t tx.Tx, tenant string, from, to uint64) (map[uint64]SaltedBody, error)
	// EraseBody returns ErrNotFound where there is no row.
	EraseBody(t tx.Tx, tenant string, entry uint64) error

	PutBatch(t tx.Tx, tenant string, b StoredBatch) error
	// Batches returns up to limit batches in order, beginning with the first
	// that holds entry from or a later one.
	Batches(t tx.Tx, tenant string, from uint64, limit int) ([]StoredBatch, error)
	// BatchesOf returns up to limit batches of one agent's epoch in order,
	// beginning with the one that holds chain index from.
	BatchesOf(t tx.Tx, tenant, agent string, epoch, from uint64, limit int) ([]StoredBatch, error)
	// ReplaceBatch stores a batch again after an erasure.
	ReplaceBatch(t tx.Tx, tenant string, first uint64, batch []byte) error

	// PutCosignature keeps the newest of a witness.
	PutCosignature(t tx.Tx, tenant string, c Cosignature) error
	// Cosignatures are sorted by witness.
	Cosignatures(t tx.Tx, tenant string) ([]Cosignature, error)
}

// Head is a log's size and its newest checkpoint, which may cover less.
type Head struct {
	Size       uint64
	Checkpoint Checkpoint
}

// Checkpoint is a signed note over the first Size entries.
type Checkpoint struct {
	Size uint64
	Note string
	At   time.Time
}

// Part is the entries of one append.
type Part struct {
	First, Count uint64
	// Entries, each after its length as an unsigned varint.
	Entries []byte
}

// SaltedBody is what can be erased of a record.
type SaltedBody struct{ Salt, Body []byte }

// StoredBatch is an agent's signed batch and where its entries are.
type StoredBatch struct {
	First, Count uint64
	Agent        string
	Epoch        uint64
	// Chain index of the first record.
	Chain uint64
	Batch []byte
}

// Cosignature is a witness's word on a checkpoint.
type Cosignature struct {
	Witness string
	Size    uint64
	// Line of a signed note, empty when Refused says why there is none.
	Line    string
	Refused string
	At      time.Time
}

func packEntries(leaves []Leaf) []byte {
	n := 0
	for _, l := range leaves {
		n += binary.MaxVarintLen32 + len(l)
	}
	out := make([]byte, 0, n)
	for _, l := range leaves {
		out = append(binary.AppendUvarint(out, uint64(len(l))), l...)
	}
	return out
}

// Leaves are the part's entries. They share memory with it.
func (p Part) Leaves() ([]Leaf, error) {
	leaves := make([]Leaf, 0, p.Count)
	for rest := p.Entries; len(rest) > 0; {
		size, n := binary.Uvarint(rest)
		if n <= 0 || uint64(len(rest)-n) < size {
			return nil, fmt.Errorf("%w: entries after %d cannot be taken apart", ErrCorrupt, p.First+uint64(len(leaves)))
		}
		leaves = append(leaves, Leaf(rest[n:n+int(size)]))
		rest = rest[n+int(size):]
	}
	if uint64(len(leaves)) != p.Count {
		return nil, fmt.Errorf("%w: %d entries at %d, expected %d", ErrCorrupt, len(leaves), p.First, p.Count)
	}
	return leaves, nil
}
