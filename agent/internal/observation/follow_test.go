package observation_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/agent/internal/observation"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// followed is a fake connector that tells its changes: a source with a log of the
// anchors that changed, whose length is the cursor.
type followed struct {
	source
	log   []string
	scope string
	// enumerates: it does not remember what was deleted. forgets: it knows no
	// cursor. partly: a read of changes does not come to a complete end.
	enumerates, forgets, partly bool
}

func (f *followed) edit(anchor, mail string) {
	if mail == "" {
		delete(f.objects, anchor)
	} else {
		f.objects[anchor] = mail
	}
	f.log = append(f.log, anchor)
}

func (f *followed) Ready(context.Context) error     { return nil }
func (f *followed) Scope() string                   { return f.scope }
func (f *followed) Can(connectorv1.Capability) bool { return true }
func (f *followed) Watch(ctx context.Context, _ []byte, _ func()) error {
	<-ctx.Done()
	return ctx.Err()
}

func (f *followed) Observe(ctx context.Context, batch func([]*connectorv1.Object) error) (*connectorv1.ObserveEnd, error) {
	end, err := f.source.Observe(ctx, batch)
	if err == nil {
		end.Cursor = []byte(strconv.Itoa(len(f.log)))
	}
	return end, err
}

func (f *followed) Changes(_ context.Context, cursor []byte, to host.Delta) (*connectorv1.ObserveEnd, error) {
	since, err := strconv.Atoi(string(cursor))
	if f.forgets || err != nil || since > len(f.log) {
		return nil, sdk.NewProblem(sdk.CodeCursorLost, "hr", "changes", "read whole")
	}
	end := &connectorv1.ObserveEnd{Complete: !f.partly, Method: "fake", Cursor: []byte(strconv.Itoa(len(f.log))), Enumerated: f.enumerates && !f.partly}
	changed := map[string]bool{}
	for _, anchor := range f.log[since:] {
		changed[anchor] = true
		mail, there := f.objects[anchor]
		switch {
		case there:
			err = to.Changed([]*connectorv1.Object{{Type: "person", Anchor: anchor, Attributes: []*connectorv1.Attribute{{Name: "mail", Values: [][]byte{[]byte(mail)}}, {Name: "salary"}}}})
		case !f.enumerates:
			err = to.Removed([]string{anchor})
		}
		if err != nil {
			return nil, err
		}
	}
	for anchor := range f.objects {
		if f.enumerates && !changed[anchor] {
			if err := to.Present([]string{anchor}); err != nil {
				return nil, err
			}
		}
	}
	return end, nil
}

// TestChangesAddUp: whatever happens to the directory, the cursor, the connection
// and what is released, a Follow that succeeds leaves the control plane with what
// the directory holds, and one that does not moves nothing.
func TestChangesAddUp(t *testing.T) {
	c, cp := client(t)
	rapid.Check(t, func(rt *rapid.T) {
		cp.Do(func() { clear(cp.Snapshots); cp.CutPushing = 0 })
		f, b := &followed{source: source{objects: map[string]string{}, stop: -1}}, &base{}
		held := func() map[string]string {
			out := map[string]string{}
			cp.Do(func() {
				if s := cp.Snapshots["hr"]; s != nil {
					for anchor, o := range s.Objects {
						if len(o.GetAttributes()) != 1 {
							rt.Fatalf("an attribute left that is not released: %v", o)
						}
						out[anchor] = string(o.Attribute("mail")[0])
					}
				}
			})
			return out
		}
		for range rapid.IntRange(1, 10).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 5).Draw(rt, "edits") {
				f.edit(fmt.Sprint(rapid.IntRange(0, 8).Draw(rt, "anchor")), rapid.StringN(0, 2, -1).Draw(rt, "mail"))
			}
			chance := func(what string) bool { return rapid.IntRange(0, 7).Draw(rt, what) == 0 }
			f.enumerates = rapid.Bool().Draw(rt, "enumerates")
			f.forgets, f.partly = chance("lost cursor"), chance("incomplete")
			if chance("another release") {
				f.scope += "x"
			}
			if chance("garbage for a cursor") {
				b.Cursor = []byte("garbage")
			}
			if chance("another base") {
				b.Snapshot = "unknown"
			}
			if chance("cut") {
				cp.Do(func() { cp.CutPushing = 1 })
			}
			before, there := *b, held()
			r, err := observation.Follow(context.Background(), c, f, b, time.Now)
			cp.Do(func() { cp.CutPushing = 0 })
			if err != nil {
				if b.Snapshot != before.Snapshot || string(b.Cursor) != string(before.Cursor) || !maps.Equal(held(), there) {
					rt.Fatalf("a read of changes that failed moved something: %v", err)
				}
				if !errors.Is(err, observation.ErrWhole) {
					continue
				}
				if r, err = observation.Push(context.Background(), c, f, b, time.Now); err != nil {
					rt.Fatal(err)
				}
			}
			if got := held(); !r.Complete || !maps.Equal(got, f.objects) {
				rt.Fatalf("held is %v, the directory is %v", got, f.objects)
			}
			sum := func() (out string) {
				cp.Do(func() {
					var set connectorv1.SetDigest
					for anchor, o := range cp.Snapshots["hr"].Objects {
						set.Add(anchor, o.Digest())
					}
					s, n := set.Sum()
					h := cp.Snapshots["hr"].End.GetHeader()
					if string(s) != string(h.GetSetDigest()) || n != h.GetObjects() {
						out = fmt.Sprintf("%d objects held, the header says %d, or another digest", n, h.GetObjects())
					}
				})
				return out
			}
			if wrong := sum(); wrong != "" {
				rt.Fatal(wrong)
			}
			pushed := 0
			cp.Do(func() { pushed = cp.Snapshots["hr"].Pushed })
			f.forgets, f.partly = false, false
			if again, err := observation.Follow(context.Background(), c, f, b, time.Now); err != nil || again.Sent+again.Removed != 0 {
				rt.Fatalf("nothing changed and %+v was sent (%v)", again, err)
			}
			cp.Do(func() {
				if cp.Snapshots["hr"].Pushed != pushed {
					rt.Fatal("a snapshot was pushed for nothing")
				}
			})
		}
	})
}

// TestManyChangesAreReadWhole: what one Follow may hold is bounded.
func TestManyChangesAreReadWhole(t *testing.T) {
	c, _ := client(t)
	f, b := &followed{source: source{objects: map[string]string{"a": "x"}, stop: -1}}, &base{}
	if _, err := observation.Push(t.Context(), c, f, b, time.Now); err != nil {
		t.Fatal(err)
	}
	for n := range 20_001 {
		f.edit(fmt.Sprint(n), "x")
	}
	if _, err := observation.Follow(t.Context(), c, f, b, time.Now); !errors.Is(err, observation.ErrWhole) {
		t.Errorf("want %v, got %v", observation.ErrWhole, err)
	}
}
