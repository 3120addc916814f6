package tlogproof

import (
	"crypto/sha256"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"
)

var (
	// ErrInclusion means that a proof does not show a record to be in the log.
	ErrInclusion = errors.New("inclusion in the log is not proven")
	// ErrConsistency means that a proof does not show the older checkpoint's
	// records to be the beginning of the newer one's.
	ErrConsistency = errors.New("log is not proven to continue the older checkpoint")
	// ErrFork means two checkpoints of one size that differ, which no honest log
	// signs. It comes wrapped together with ErrConsistency.
	ErrFork = errors.New("log shows two histories")
)

// LeafHash is the hash of a record in the tree: SHA-256(00, record), RFC 6962.
func LeafHash(record []byte) tlog.Hash { return tlog.RecordHash(record) }

// CheckInclusion checks that the record with this leaf hash is number index,
// counted from zero, of the log that c commits to.
func CheckInclusion(proof tlog.RecordProof, c Checkpoint, index int64, leaf tlog.Hash) error {
	if err := tlog.CheckRecord(proof, c.Size, c.Hash, index, leaf); err != nil {
		return fmt.Errorf("%w: record %d of %q at size %d: %w", ErrInclusion, index, c.Origin, c.Size, err)
	}
	return nil
}

// CheckConsistency checks that newer continues older, of the same log. For equal
// sizes, and from an empty log, the proof must be empty.
func CheckConsistency(proof tlog.TreeProof, older, newer Checkpoint) error {
	switch {
	case older.Origin != newer.Origin:
		return fmt.Errorf("%w: %q and %q", ErrOrigin, older.Origin, newer.Origin)
	case newer.Size < older.Size:
		return fmt.Errorf("%w: %q went back from size %d to %d", ErrConsistency, older.Origin, older.Size, newer.Size)
	case newer.Size == older.Size && newer.Hash != older.Hash:
		return fmt.Errorf("%w: %w: %q has two root hashes at size %d", ErrConsistency, ErrFork, older.Origin, older.Size)
	case older.Size == 0 && older.Hash != sha256.Sum256(nil):
		return fmt.Errorf("%w: root hash of an empty log is wrong", ErrConsistency)
	case older.Size == 0 || older.Size == newer.Size:
		if len(proof) != 0 {
			return fmt.Errorf("%w: proof has %d hashes where none belong", ErrConsistency, len(proof))
		}
		return nil
	}
	if err := tlog.CheckTree(proof, newer.Size, newer.Hash, older.Size, older.Hash); err != nil {
		return fmt.Errorf("%w: %q from size %d to %d: %w", ErrConsistency, older.Origin, older.Size, newer.Size, err)
	}
	return nil
}
