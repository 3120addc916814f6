package auditlog

import (
	"context"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// Tiles are 2^tileHeight hashes wide, as C2SP tlog-tiles has them.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

type tileAt struct {
	level int
	n     uint64
}

// tiles reads and grows one tree inside one transaction. Only the hashes at
// every eighth level are stored; those between follow from them.
type tiles struct {
	t      tx.Tx
	store  Store
	tenant string
	size   uint64
	held   map[tileAt][]byte
	dirty  map[tileAt]bool
	// nodes are complete subtrees' roots between the stored levels: proofs of
	// neighbours share most of them.
	nodes map[tileAt]tlog.Hash
}

func newTiles(t tx.Tx, store Store, tenant string, size uint64) *tiles {
	return &tiles{t: t, store: store, tenant: tenant, size: size, held: map[tileAt][]byte{}, dirty: map[tileAt]bool{}, nodes: map[tileAt]tlog.Hash{}}
}

func (s *tiles) get(at tileAt) ([]byte, error) {
	if data, ok := s.held[at]; ok {
		return data, nil
	}
	data, err := s.store.Tile(s.t, s.tenant, at.level, at.n)
	if err != nil {
		return nil, err
	}
	s.held[at] = data
	return data, nil
}

// push appends a leaf's hash.
func (s *tiles) push(leaf tlog.Hash) error {
	h, i := leaf, s.size
	for level := 0; ; level++ {
		at := tileAt{level, i / tileWidth}
		data, err := s.get(at)
		if err != nil {
			return err
		}
		if uint64(len(data)) != i%tileWidth*tlog.HashSize {
			return fmt.Errorf("%w: tile %d/%d of %s holds %d bytes at size %d", ErrCorrupt, level, at.n, s.tenant, len(data), s.size)
		}
		data = append(data, h[:]...)
		s.held[at], s.dirty[at] = data, true
		if len(data) < tileWidth*tlog.HashSize {
			break
		}
		h, i = fold(data), at.n
	}
	s.size++
	return nil
}

// fold is the root of a complete tile.
func fold(data []byte) tlog.Hash {
	row := make([]tlog.Hash, len(data)/tlog.HashSize)
	for i := range row {
		copy(row[i][:], data[i*tlog.HashSize:])
	}
	for len(row) > 1 {
		for i := range len(row) / 2 {
			row[i] = tlog.NodeHash(row[2*i], row[2*i+1])
		}
		row = row[:len(row)/2]
	}
	return row[0]
}

func (s *tiles) flush() error {
	for at := range s.dirty {
		if err := s.store.PutTile(s.t, s.tenant, at.level, at.n, s.held[at]); err != nil {
			return err
		}
	}
	clear(s.dirty)
	return nil
}

// ReadHashes implements tlog.HashReader.
func (s *tiles) ReadHashes(indexes []int64) (out []tlog.Hash, err error) {
	out = make([]tlog.Hash, len(indexes))
	for i, index := range indexes {
		level, n := tlog.SplitStoredHashIndex(index)
		if out[i], err = s.node(tileAt{level, uint64(n)}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// node is the root of the complete subtree of 2^level leaves that is the nth of
// its size.
func (s *tiles) node(at tileAt) (h tlog.Hash, err error) {
	if at.level%tileHeight == 0 {
		data, err := s.get(tileAt{at.level / tileHeight, at.n / tileWidth})
		if err != nil {
			return tlog.Hash{}, err
		}
		from := int(at.n%tileWidth) * tlog.HashSize
		if len(data) < from+tlog.HashSize {
			return tlog.Hash{}, fmt.Errorf("%w: tile %d/%d of %s is too short", ErrCorrupt, at.level/tileHeight, at.n/tileWidth, s.tenant)
		}
		return tlog.Hash(data[from : from+tlog.HashSize]), nil
	}
	if h, ok := s.nodes[at]; ok {
		return h, nil
	}
	left, err := s.node(tileAt{at.level - 1, 2 * at.n})
	if err != nil {
		return tlog.Hash{}, err
	}
	right, err := s.node(tileAt{at.level - 1, 2*at.n + 1})
	if err != nil {
		return tlog.Hash{}, err
	}
	h = tlog.NodeHash(left, right)
	s.nodes[at] = h
	return h, nil
}

// root is the tree's root at a size up to its own. The empty tree's root is the
// hash of nothing (RFC 6962 2.1).
func (s *tiles) root(size uint64) (tlog.Hash, error) {
	return tlog.TreeHash(int64(size), s)
}

// Tile serves a hash tile as C2SP tlog-tiles has them: width hashes of the tile
// at level and n. It returns ErrNotFound for what the newest checkpoint does not
// cover.
func (l *Log) Tile(ctx context.Context, tenant string, level int, n uint64, width int) (data []byte, err error) {
	if level < 0 || level > 7 || width < 1 || width > tileWidth {
		return nil, ErrNotFound
	}
	err = l.db.View(ctx, func(t tx.Tx) error {
		head, err := l.store.Head(t, tenant)
		if err != nil {
			return err
		}
		covered := head.Checkpoint.Size >> (tileHeight * level)
		if n > covered/tileWidth || n*tileWidth+uint64(width) > covered {
			return ErrNotFound
		}
		data, err = l.store.Tile(t, tenant, level, n)
		if err == nil && len(data) < width*tlog.HashSize {
			return fmt.Errorf("%w: tile %d/%d of %s is too short", ErrCorrupt, level, n, tenant)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return data[:width*tlog.HashSize], nil
}
