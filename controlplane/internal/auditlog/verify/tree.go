package verify

import (
	"crypto/sha256"

	"golang.org/x/mod/sumdb/tlog"
)

// compact is a Merkle tree of which only the roots of its complete subtrees are
// kept, largest first.
type compact struct {
	size  uint64
	roots []tlog.Hash
}

func (c *compact) push(h tlog.Hash) {
	for n := c.size; n&1 == 1; n >>= 1 {
		last := len(c.roots) - 1
		h = tlog.NodeHash(c.roots[last], h)
		c.roots = c.roots[:last]
	}
	c.roots = append(c.roots, h)
	c.size++
}

func (c *compact) root() tlog.Hash {
	if c.size == 0 {
		return sha256.Sum256(nil)
	}
	h := c.roots[len(c.roots)-1]
	for i := len(c.roots) - 2; i >= 0; i-- {
		h = tlog.NodeHash(c.roots[i], h)
	}
	return h
}
