package auditlog

import (
	"sync"

	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Sealed is a log as one transaction left it, under the checkpoint that it signed.
// What Hold has read is proven from memory after the commit, when the writer works
// on for others. Only Inclusions may be called then, and concurrently.
type Sealed struct {
	Checkpoint Checkpoint

	mu   sync.Mutex
	tree *tiles
}

// Consistency is Log.Consistency from a size to the checkpoint's.
func (s *Sealed) Consistency(from uint64) ([][]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree.consistency(from, s.Checkpoint.Size)
}

// Hold reads every tile on the way from the entries to the root. The others that
// proofs need are those of the tree's right edge.
func (s *Sealed) Hold(first, count uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	edge := s.Checkpoint.Size
	for level, from, to := 0, first, first+count; to > from; level++ {
		for n := from / tileWidth; n <= (to-1)/tileWidth; n++ {
			if _, err := s.tree.get(tileAt{level, n}); err != nil {
				return err
			}
		}
		if _, err := s.tree.get(tileAt{level, edge / tileWidth}); err != nil {
			return err
		}
		if edge < tileWidth {
			return nil
		}
		from, to, edge = from/tileWidth, (to-1)/tileWidth+1, edge/tileWidth
	}
	return nil
}

// Inclusions proves entries from first on, which were held and whose leaves these
// are. The checkpoint stands once, beside the proofs.
func (s *Sealed) Inclusions(first uint64, leaves []Leaf) ([]*planv1.InclusionProof, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*planv1.InclusionProof, len(leaves))
	for i, leaf := range leaves {
		hashes, err := s.tree.inclusion(first+uint64(i), s.Checkpoint.Size)
		if err != nil {
			return nil, err
		}
		out[i] = &planv1.InclusionProof{Index: first + uint64(i), Entry: leaf, Hashes: hashes}
	}
	return out, nil
}
