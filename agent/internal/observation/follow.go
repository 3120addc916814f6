package observation

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Following is a source that may be able to tell what changed since a cursor.
type Following interface {
	Source
	// Ready waits until the source is up, or says why it is not.
	Ready(ctx context.Context) error
	// Scope identifies what is read and what of it is released; a cursor holds
	// under the scope it was given under.
	Scope() string
	// Can reports whether the connector declares the capability.
	Can(c connectorv1.Capability) bool
	Changes(ctx context.Context, cursor []byte, to host.Delta) (*connectorv1.ObserveEnd, error)
	// Watch calls changed when it is ready and after each change until ctx ends.
	Watch(ctx context.Context, cursor []byte, changed func()) error
}

// ErrWhole means that what changed cannot be told, or not be taken for the whole
// truth: the source is to be read whole. Nothing was moved.
var ErrWhole = errors.New("a whole read is needed")

// Bounds of what one Follow holds; more is read whole, which holds little.
const (
	mostFollowed      = 20_000
	mostFollowedBytes = 8 << 20
)

// Follow reads what changed since the base and returns when the control plane has
// acknowledged it durably and base holds it. All of it is read before anything is
// sent: a read that does not come to a complete end moves nothing. When nothing
// is different, nothing is sent and the base's cursor moves alone.
func Follow(ctx context.Context, client agentv1.AgentServiceClient, source Following, base Base, now func() time.Time) (*Result, error) {
	state, err := base.State(ctx, source.Alias())
	if err != nil {
		return nil, fmt.Errorf("load what was observed of %s: %w", source.Alias(), err)
	}
	if err := source.Ready(ctx); err != nil {
		return nil, err
	}
	f := &following{delta: &delta{source: source}, base: base, told: map[string]*told{}}
	switch {
	case !source.Can(connectorv1.Capability_CAPABILITY_INCREMENTAL), state.Snapshot == "", len(state.Cursor) == 0,
		state.Scope != source.Scope(), f.set.UnmarshalBinary(state.Set) != nil:
		return nil, ErrWhole
	}
	began := now()
	end, err := f.read(ctx, source, state.Cursor)
	if err != nil {
		return nil, err
	}
	if err := f.compare(ctx); err != nil {
		return nil, err
	}
	to := state
	to.Cursor = end.GetCursor()
	if len(f.different) == 0 && len(f.removed) == 0 {
		f.header = &planv1.SnapshotHeader{Complete: true}
		_, f.header.Objects = f.set.Sum()
		return f.keep(ctx, base, to, nothing, 0, false)
	}
	to.Snapshot = rand.Text()
	f.header = &planv1.SnapshotHeader{Connector: source.Alias(), Snapshot: to.Snapshot, Complete: true, ObservedAt: timestamppb.New(began)}
	f.problems = end.GetProblems()
	if err := f.send(ctx, client, state.Snapshot, end.GetMethod()); err != nil {
		if errors.Is(err, ErrResync) {
			err = fmt.Errorf("%w: %w", ErrWhole, err)
		}
		return nil, err
	}
	return f.keep(ctx, base, to, f.digestsSent(), len(f.different), false)
}

func nothing(func(string, [32]byte) bool) {}

// told is the last word on one object: nil means that it is gone.
type told struct {
	object *connectorv1.Object
	digest [32]byte
	size   int
}

// following is one Follow under way.
type following struct {
	*delta
	base  Base
	told  map[string]*told
	bytes int
	// all are all objects held, loaded when the source enumerates.
	all *holdings
	// different are the anchors of what is to be sent, ascending.
	different []string
}

func (f *following) read(ctx context.Context, source Following, cursor []byte) (*connectorv1.ObserveEnd, error) {
	end, err := source.Changes(ctx, cursor, host.Delta{
		Changed: f.changed,
		Removed: func(anchors []string) error {
			for _, anchor := range anchors {
				if err := f.tell(anchor, &told{}); err != nil {
					return err
				}
			}
			return nil
		},
		Present: func(anchors []string) error { return f.present(ctx, anchors) },
	})
	switch {
	case sdk.HasCode(err, sdk.CodeCursorLost):
		return nil, fmt.Errorf("%w: %w", ErrWhole, err)
	case err != nil:
		return nil, err
	case !end.GetComplete():
		why := errors.New("the read of changes is not complete")
		for _, p := range end.GetProblems() {
			why = sdk.FromProto(p)
		}
		return nil, fmt.Errorf("%w: %w", ErrWhole, why)
	case end.GetEnumerated():
		return end, f.enumerated(ctx)
	}
	return end, nil
}

func (f *following) changed(objects []*connectorv1.Object) error {
	for _, o := range objects {
		f.source.Released(o)
		digest, size, err := f.digests.digest(o)
		if err != nil {
			return err
		}
		if size > maxObjectBytes {
			return fmt.Errorf("%w: an object has %d bytes", ErrWhole, size)
		}
		if err := f.tell(o.GetAnchor(), &told{o, digest, size}); err != nil {
			return err
		}
	}
	return nil
}

func (f *following) tell(anchor string, t *told) error {
	if before := f.told[anchor]; before != nil {
		f.bytes -= before.size
	}
	f.told[anchor] = t
	if f.bytes += t.size; len(f.told) > mostFollowed || f.bytes > mostFollowedBytes {
		return fmt.Errorf("%w: more changed than %d objects or %d bytes", ErrWhole, mostFollowed, mostFollowedBytes)
	}
	return nil
}

func (f *following) load(ctx context.Context) error {
	if f.all != nil {
		return nil
	}
	f.all = newHoldings()
	state, err := f.base.Observed(ctx, f.source.Alias(), f.all.hold)
	if err == nil && state.Snapshot == "" {
		err = ErrWhole
	}
	return err
}

func (f *following) present(ctx context.Context, anchors []string) error {
	if err := f.load(ctx); err != nil {
		return err
	}
	for _, anchor := range anchors {
		if held := f.all.place[anchor]; held != nil {
			held.seen = true
		} else if f.told[anchor] == nil {
			return fmt.Errorf("%w: an object is there of which nothing is known", ErrWhole)
		}
	}
	return nil
}

// enumerated makes what was told as neither changed nor present gone.
func (f *following) enumerated(ctx context.Context) error {
	if err := f.load(ctx); err != nil {
		return err
	}
	for anchor, held := range f.all.place {
		if !held.seen && f.told[anchor] == nil {
			if err := f.tell(anchor, &told{}); err != nil {
				return err
			}
		}
	}
	f.all = nil
	return nil
}

// compare holds what was told against the base: what is different goes into the
// set, what is gone out of it.
func (f *following) compare(ctx context.Context) error {
	held := map[string][32]byte{}
	anchors := slices.Sorted(maps.Keys(f.told))
	if err := f.base.Digests(ctx, f.source.Alias(), slices.Values(anchors), func(anchor string, digest [32]byte) { held[anchor] = digest }); err != nil {
		return fmt.Errorf("load what was observed of %s: %w", f.source.Alias(), err)
	}
	for _, anchor := range anchors {
		t := f.told[anchor]
		digest, known := held[anchor]
		if t.object != nil && known && digest == t.digest {
			continue
		}
		if known {
			f.set.Remove(anchor, digest)
		}
		switch {
		case t.object != nil:
			f.set.Add(anchor, t.digest)
			f.different = append(f.different, anchor)
		case known:
			f.removed = append(f.removed, anchor)
		}
	}
	return nil
}

func (f *following) send(ctx context.Context, client agentv1.AgentServiceClient, from, method string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.stream = &upload{client: client, cancel: cancel,
		begin: &agentv1.SnapshotBegin{Connector: f.source.Alias(), Base: from, Snapshot: f.header.GetSnapshot(), Incremental: true}}
	defer f.stream.close()
	err := f.sendAll(ctx, method)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

func (f *following) sendAll(ctx context.Context, method string) error {
	for _, anchor := range f.different {
		if err := f.add(ctx, f.told[anchor].object, f.told[anchor].size); err != nil {
			return err
		}
	}
	if err := f.flush(ctx); err != nil {
		return err
	}
	return f.close(ctx, method)
}

func (f *following) digestsSent() iter.Seq2[string, [32]byte] {
	return func(yield func(string, [32]byte) bool) {
		for _, anchor := range f.different {
			if !yield(anchor, f.told[anchor].digest) {
				return
			}
		}
	}
}
