package observation

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"iter"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// holding is what is known of one object: the digest it has at the control
// plane, or will have when this push is acknowledged.
type holding struct {
	anchor string
	digest [32]byte
	// known: the digest is one, not the zero value; seen in this read; sent in it.
	known, seen, sent bool
}

// chunk is how many holdings are in one allocation, which never moves: a slice
// that grows would for a while be there twice.
const chunk = 4096

// holdings are all objects of one connector, each once: for a hundred thousand
// the several maps that would do take more memory than the rest of the agent.
type holdings struct {
	chunks [][]holding
	place  map[string]*holding
	// sorted by anchor, after settle.
	sorted []*holding
}

func newHoldings() *holdings { return &holdings{place: map[string]*holding{}} }

func (h *holdings) add(anchor string) *holding {
	if n := len(h.chunks); n == 0 || len(h.chunks[n-1]) == chunk {
		h.chunks = append(h.chunks, make([]holding, 0, chunk))
	}
	last := &h.chunks[len(h.chunks)-1]
	*last = append(*last, holding{anchor: anchor})
	added := &(*last)[len(*last)-1]
	h.place[anchor] = added
	return added
}

// hold takes in what the control plane holds.
func (h *holdings) hold(anchor string, digest [32]byte) {
	o := h.add(anchor)
	o.digest, o.known = digest, true
}

// see marks an object as read. It is nil when it was read before in this push.
func (h *holdings) see(anchor string) *holding {
	o := h.place[anchor]
	if o == nil {
		o = h.add(anchor)
	}
	if o.seen {
		return nil
	}
	o.seen = true
	return o
}

// settle ends the reading. With complete set, what was not seen is gone: it is
// taken out of the set and its anchors returned, ascending.
func (h *holdings) settle(complete bool, set *connectorv1.SetDigest) (gone []string) {
	h.place = nil
	for _, c := range h.chunks {
		for n := range c {
			h.sorted = append(h.sorted, &c[n])
		}
	}
	slices.SortFunc(h.sorted, func(a, b *holding) int { return strings.Compare(a.anchor, b.anchor) })
	if !complete {
		return nil
	}
	for _, o := range h.sorted {
		if !o.seen {
			gone = append(gone, o.anchor)
			set.Remove(o.anchor, o.digest)
		}
	}
	h.sorted = slices.DeleteFunc(h.sorted, func(o *holding) bool { return !o.seen })
	return gone
}

// sent are the objects that were sent, and how many they are.
func (h *holdings) sent() (changed iter.Seq2[string, [32]byte], n int) {
	for _, o := range h.sorted {
		if o.sent {
			n++
		}
	}
	return func(yield func(string, [32]byte) bool) {
		for _, o := range h.sorted {
			if o.sent && !yield(o.anchor, o.digest) {
				return
			}
		}
	}, n
}

// digester computes Object.Digest in memory that it uses again. It is for one
// goroutine; the zero value is ready.
type digester struct{ encoded []byte }

// digest returns o.Digest and the object's size in octets. The SDK sorts
// everything but the values of an attribute, so that hardly any object has to be
// copied to be brought in order.
func (d *digester) digest(o *connectorv1.Object) (digest [32]byte, size int, err error) {
	if d.encoded, err = (proto.MarshalOptions{Deterministic: true}).MarshalAppend(d.encoded[:0], o); err != nil {
		return digest, 0, fmt.Errorf("encode object: %w", err)
	}
	if size = len(d.encoded); size > maxBatchBytes {
		defer func() { d.encoded = nil }()
	}
	if inOrder(o) {
		return sha256.Sum256(d.encoded), size, nil
	}
	return o.Digest(), size, nil
}

func inOrder(o *connectorv1.Object) bool {
	attributes := o.GetAttributes()
	for n, a := range attributes {
		if n > 0 && attributes[n-1].GetName() > a.GetName() || !slices.IsSortedFunc(a.GetValues(), bytes.Compare) {
			return false
		}
	}
	return slices.IsSorted(o.GetKeys()) && slices.IsSorted(o.GetMembers())
}
