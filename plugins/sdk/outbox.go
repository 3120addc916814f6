package sdk

import (
	"bytes"
	"context"
	"fmt"
	"hash/maphash"
	"sync"

	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

const (
	batchObjects = 500
	maxBatch     = 1000
	// batchBytes lets the host work on one batch while the next is made. Larger
	// ones are no faster; they and their envelope fit a buffer of BufferPool.
	batchBytes = 127 << 10
	// objectBytes leaves room for the envelope under MaxMessage.
	objectBytes = MaxMessage - 64<<10
	maxFindings = 1000
)

// outbox gathers objects into batches and keeps account of them. Sending blocks
// while the host does not read: that is the back-pressure an emitting connector
// feels.
type outbox struct {
	alias     string
	declared  *declaration
	batchSize int
	unique    bool
	send      func(*connectorv1.ObjectBatch) error
	// sendNames sends anchors that are gone, or present.
	sendNames func(anchors []string, present bool) error

	mu    sync.Mutex
	batch []*connectorv1.Object
	bytes int
	// names are gone or, with present, present; named tells that some were sent.
	names          []string
	present        bool
	removes, named bool
	count          uint64
	seeds          [2]maphash.Seed
	anchors        map[[2]uint64]struct{}
	keys           map[[2]uint64]struct{}
	hashes         [][2]uint64 // room for one object's
	findings       []*connectorv1.Problem
	told           map[string]bool
	dropped        int
	failed         bool
}

func newOutbox(alias string, d *declaration, batchSize uint32, unique bool, send func(*connectorv1.ObjectBatch) error, sendNames func([]string, bool) error) *outbox {
	size := int(min(batchSize, maxBatch))
	if size == 0 {
		size = batchObjects
	}
	return &outbox{
		alias: alias, declared: d, batchSize: size, unique: unique, send: send, sendNames: sendNames,
		seeds:   [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
		anchors: map[[2]uint64]struct{}{}, keys: map[[2]uint64]struct{}{}, told: map[string]bool{},
	}
}

// add takes the object over: it is sorted and cleaned in place.
func (b *outbox) add(ctx context.Context, o *connectorv1.Object) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	default: // cheaper than asking for Err, and this is asked for every object
	}
	faults, sendable := b.declared.conform(o)
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, fault := range faults {
		b.bug(o, fault)
	}
	if !sendable || (b.unique && !b.fresh(o)) {
		return nil
	}
	size := atMost(o)
	if size > objectBytes {
		size = proto.Size(o)
	}
	if size > objectBytes {
		b.finding(NewProblem(CodeSizeLimit, objectLabel(b.alias, o), "send the object",
			fmt.Sprintf("leave it out of scope, or narrow the attributes read: it has %d bytes, the limit is %d", size, objectBytes)).Incomplete())
		return nil
	}
	if len(b.batch) > 0 && b.bytes+size > batchBytes || len(b.names) > 0 {
		if err := b.flush(); err != nil {
			return err
		}
	}
	if b.batch == nil {
		b.batch = make([]*connectorv1.Object, 0, b.batchSize)
	}
	b.batch, b.bytes = append(b.batch, o), b.bytes+size
	b.count++
	if len(b.batch) >= b.batchSize {
		return b.flush()
	}
	return nil
}

// name tells of an object by its anchor alone: that it is gone, or present.
func (b *outbox) name(ctx context.Context, anchor string, present bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	// Order matters: what was removed may have been added again.
	if len(b.batch) > 0 || b.present != present {
		if err := b.flush(); err != nil {
			return err
		}
	}
	b.present = present
	b.removes, b.named = b.removes || !present, b.named || present
	b.names = append(b.names, anchor)
	if len(b.names) >= maxBatch {
		return b.flush()
	}
	return nil
}

// atMost is never below proto.Size of an object without unknown fields, and
// costs a fraction of it: encoding the batch computes the true size anyway.
func atMost(o *connectorv1.Object) int {
	// A field costs its tag and at most five octets of length; scalars less
	// than 16 all told.
	const field = 6
	size := 16 + 4*field + len(o.GetType()) + len(o.GetAnchor()) + len(o.GetDisplay())
	for _, c := range o.GetName().GetComponents() {
		size += field
		for _, p := range c.GetParts() {
			size += 3*field + len(p.GetType()) + len(p.GetValue())
		}
	}
	for _, a := range o.GetAttributes() {
		size += 2*field + len(a.GetName())
		for _, v := range a.GetValues() {
			size += field + len(v)
		}
	}
	for _, list := range [][]string{o.GetKeys(), o.GetMembers()} {
		for _, s := range list {
			size += field + len(s)
		}
	}
	return size
}

// fresh reports whether anchor and keys are new in this read. Hashes stand for
// the strings: a directory of a million objects must fit.
func (b *outbox) fresh(o *connectorv1.Object) bool {
	anchor := b.hash(o.GetAnchor())
	if _, twice := b.anchors[anchor]; twice {
		b.bug(o, "emitted the anchor twice in one read")
		return false
	}
	keys := b.hashes[:0]
	for _, key := range o.GetKeys() {
		hash := b.hash(key)
		if _, twice := b.keys[hash]; twice {
			b.bug(o, fmt.Sprintf("emitted link key %q for two objects; the second is left out", Clean(key)))
			return false
		}
		keys = append(keys, hash)
	}
	b.anchors[anchor] = struct{}{}
	for _, hash := range keys {
		b.keys[hash] = struct{}{}
	}
	b.hashes = keys
	return true
}

func (b *outbox) hash(s string) [2]uint64 {
	return [2]uint64{maphash.String(b.seeds[0], s), maphash.String(b.seeds[1], s)}
}

// bug notes a broken contract. What breaks it for every object of a type is
// told once.
func (b *outbox) bug(o *connectorv1.Object, said string) {
	if once := o.GetType() + "\x00" + said; b.told[once] {
		b.dropped++
		b.failed = true
		return
	} else if len(b.told) < maxFindings {
		b.told[once] = true
	}
	b.finding(connectorBug(objectLabel(b.alias, o), "observe", said).Incomplete())
}

func (b *outbox) finding(p *connectorv1.Problem) {
	switch p.GetSeverity() {
	case connectorv1.Severity_SEVERITY_INCOMPLETE, connectorv1.Severity_SEVERITY_ERROR:
		b.failed = true
	}
	if len(b.findings) >= maxFindings {
		b.dropped++
		return
	}
	b.findings = append(b.findings, p)
}

func (b *outbox) flush() error {
	if len(b.batch) > 0 {
		full := &connectorv1.ObjectBatch{Objects: b.batch}
		b.batch, b.bytes = nil, 0
		if err := b.send(full); err != nil {
			return err
		}
	}
	if len(b.names) > 0 {
		names := b.names
		b.names = nil
		return b.sendNames(names, b.present)
	}
	return nil
}

// end sends what is left and sums up. Complete is decided here and nowhere
// else.
func (b *outbox) end(ctx context.Context, done Completeness) (*connectorv1.ObserveEnd, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.flush(); err != nil {
		return nil, err
	}
	for _, p := range done.Findings {
		b.finding(FromProto(p).Proto())
	}
	if done.Method == "" {
		b.finding(connectorBug(b.alias, "observe", "does not say how it knows that nothing is missing").Incomplete())
	}
	if b.dropped > 0 {
		b.findings = append(b.findings, NewProblem(CodeQuarantined, b.alias, "list what was left out",
			"correct the problems listed; the others follow").WithSaid(fmt.Sprintf("%d more findings", b.dropped)).
			WithSeverity(connectorv1.Severity_SEVERITY_NOTE).Proto())
	}
	return &connectorv1.ObserveEnd{
		Complete: !b.failed, Count: b.count, Method: Clean(done.Method), Cursor: done.Cursor, Problems: b.findings,
	}, nil
}

// endChanges is end for a read from since on.
func (b *outbox) endChanges(ctx context.Context, done Completeness, since []byte) (*connectorv1.ObserveEnd, error) {
	switch {
	case b.named && !done.Enumerated:
		done.Findings = append(done.Findings, connectorBug(b.alias, "changes", "names objects that are present without saying whether those were all").Incomplete())
	case len(done.Cursor) == 0:
		done.Findings = append(done.Findings, connectorBug(b.alias, "changes", "gives no cursor to go on from").Incomplete())
	case bytes.Equal(done.Cursor, since) && (b.count > 0 || b.removes || done.Enumerated):
		done.Findings = append(done.Findings, connectorBug(b.alias, "changes", "tells changes and gives back the cursor it was asked with: they would come for ever").Incomplete())
	}
	end, err := b.end(ctx, done)
	if err == nil {
		end.Enumerated = done.Enumerated && end.GetComplete()
	}
	return end, err
}

func objectLabel(alias string, o *connectorv1.Object) string {
	label := o.GetName().Text()
	if label == "" {
		label = Clean(o.GetAnchor())
	}
	return alias + ": " + o.GetType() + " " + label
}
