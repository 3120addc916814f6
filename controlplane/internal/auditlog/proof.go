package auditlog

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/tlogproof"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Seal signs a checkpoint over the log as it is inside the transaction, unless
// the newest one covers it already. The caller lets it out only after the
// commit.
func (l *Log) Seal(t tx.Tx, tenant string) (Checkpoint, error) {
	s, err := l.SealTree(t, tenant)
	if err != nil {
		return Checkpoint{}, err
	}
	return s.Checkpoint, nil
}

// SealTree is Seal for who proves entries under the checkpoint.
func (l *Log) SealTree(t tx.Tx, tenant string) (*Sealed, error) {
	head, err := l.store.Head(t, tenant)
	if err != nil {
		return nil, err
	}
	s := &Sealed{Checkpoint: head.Checkpoint, tree: newTiles(t, l.store, tenant, head.Size)}
	if head.Checkpoint.Note != "" && head.Checkpoint.Size == head.Size {
		return s, nil
	}
	if head.Checkpoint.Size > head.Size {
		return nil, fmt.Errorf("%w: %s has %d entries but signed for %d", ErrCorrupt, tenant, head.Size, head.Checkpoint.Size)
	}
	root, err := s.tree.root(head.Size)
	if err != nil {
		return nil, fmt.Errorf("root of %s at %d: %w", tenant, head.Size, err)
	}
	note, err := tlogproof.SignCheckpoint(tlogproof.Checkpoint{Origin: l.Origin(tenant), Size: int64(head.Size), Hash: root}, l.signer)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint of %s at %d: %w", tenant, head.Size, err)
	}
	s.Checkpoint = Checkpoint{Size: head.Size, Note: string(note), At: l.now()}
	return s, l.store.Seal(t, tenant, s.Checkpoint)
}

// Checkpoint returns a checkpoint over everything that is durable in the
// tenant's log, signing one if needed. It is durable itself. ErrNotFound for an
// empty log, which belongs to no tenant.
func (l *Log) Checkpoint(ctx context.Context, tenant string) (Checkpoint, error) {
	var c Checkpoint
	fresh := false
	err := l.db.View(ctx, func(t tx.Tx) error {
		head, err := l.store.Head(t, tenant)
		if err == nil && head.Size == 0 {
			return ErrNotFound
		}
		c, fresh = head.Checkpoint, head.Checkpoint.Note != "" && head.Checkpoint.Size == head.Size
		return err
	})
	if err != nil || fresh {
		return c, err
	}
	err = l.db.Do(ctx, func(t tx.Tx) error { c, err = l.Seal(t, tenant); return err })
	return c, err
}

// Sealed is the newest checkpoint that was signed; it may cover less than the
// log. The zero Checkpoint means that none was.
func (l *Log) Sealed(t tx.Tx, tenant string) (Checkpoint, error) {
	head, err := l.store.Head(t, tenant)
	return head.Checkpoint, err
}

// Inclusion proves (RFC 9162 2.1.3) that entry index is in the tree of the first
// size entries. ErrNotFound when the log does not reach so far.
func (l *Log) Inclusion(t tx.Tx, tenant string, index, size uint64) ([][]byte, error) {
	tree, err := l.tree(t, tenant, size)
	if err != nil {
		return nil, err
	}
	if index >= size {
		return nil, ErrNotFound
	}
	return tree.inclusion(index, size)
}

func (s *tiles) inclusion(index, size uint64) ([][]byte, error) {
	proof, err := tlog.ProveRecord(int64(size), int64(index), s)
	if err != nil {
		return nil, fmt.Errorf("prove entry %d of %s: %w", index, s.tenant, err)
	}
	return hashBytes(proof), nil
}

// Inclusions proves entries first..first+count-1 under checkpoint c, with the
// entries themselves, reading each tile once.
func (l *Log) Inclusions(t tx.Tx, tenant string, c Checkpoint, first, count uint64) ([]*planv1.InclusionProof, error) {
	tree, err := l.tree(t, tenant, c.Size)
	if err != nil {
		return nil, err
	}
	if first+count > c.Size || first+count < first {
		return nil, ErrNotFound
	}
	out := make([]*planv1.InclusionProof, 0, count)
	err = l.each(t, tenant, first, first+count, func(index uint64, leaf Leaf) error {
		hashes, err := tree.inclusion(index, c.Size)
		out = append(out, &planv1.InclusionProof{Checkpoint: c.Note, Index: index, Entry: leaf, Hashes: hashes})
		return err
	})
	return out, err
}

// Consistency proves (RFC 9162 2.1.4) that the tree of the first from entries is
// a beginning of the tree of the first to. It is empty for from 0 or from equal
// to to.
func (l *Log) Consistency(t tx.Tx, tenant string, from, to uint64) ([][]byte, error) {
	tree, err := l.tree(t, tenant, to)
	if err != nil {
		return nil, err
	}
	return tree.consistency(from, to)
}

func (s *tiles) consistency(from, to uint64) ([][]byte, error) {
	switch {
	case from > to:
		return nil, ErrNotFound
	case from == 0 || from == to:
		return nil, nil
	}
	proof, err := tlog.ProveTree(int64(to), int64(from), s)
	if err != nil {
		return nil, fmt.Errorf("prove %s from %d to %d: %w", s.tenant, from, to, err)
	}
	return hashBytes(proof), nil
}

func (l *Log) tree(t tx.Tx, tenant string, size uint64) (*tiles, error) {
	head, err := l.store.Head(t, tenant)
	if err != nil {
		return nil, err
	}
	if size > head.Size {
		return nil, ErrNotFound
	}
	return newTiles(t, l.store, tenant, head.Size), nil
}

func hashBytes[P ~[]tlog.Hash](proof P) [][]byte {
	out := make([][]byte, len(proof))
	for i := range proof {
		out[i] = proof[i][:]
	}
	return out
}
