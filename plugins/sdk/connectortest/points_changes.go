package connectortest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// tryForeignCursor: what is no cursor of this directory is an error of its own
// code, and nothing is said of any object before.
func tryForeignCursor(s *session) {
	if !s.has[connectorv1.Capability_CAPABILITY_INCREMENTAL] {
		return
	}
	told := func(what string) func([]string) error {
		return func([]string) error { s.Errorf("a foreign cursor reported %s", what); return nil }
	}
	for _, cursor := range [][]byte{nil, []byte("\x00no cursor of yours"), []byte("{}"), bytes.Repeat([]byte("7"), 4096)} {
		_, err := s.client.Changes(s.ctx, cursor, host.Delta{
			Changed: func([]*connectorv1.Object) error { return told("changes")(nil) }, Removed: told("removals"), Present: told("what is present"),
		})
		if !sdk.HasCode(err, sdk.CodeCursorLost) {
			s.Errorf("the foreign cursor %.20q: want %s, got %v", cursor, sdk.CodeCursorLost, err)
		}
	}
}

// tryChanges: changes from a cursor on, applied to what was read with it, give
// what is read now; from the same cursor again they give it again.
func tryChanges(s *session) {
	if !s.has[connectorv1.Capability_CAPABILITY_INCREMENTAL] {
		return
	}
	for _, t := range s.sampled(opDelete) {
		changed, gone := s.make(t, "kit-changed"), s.make(t, "kit-gone")
		before, end := s.observe()
		if len(end.GetCursor()) == 0 {
			s.Fatalf("declares incremental reading, and Observe gives no cursor")
		}
		s.make(t, "kit-new")
		s.must(deletion(gone))
		if short := s.make(t, "kit-came-and-went"); short != nil {
			s.must(deletion(short))
		}
		for _, edit := range s.edits(t, changed) {
			s.must(edit)
		}
		cursor := end.GetCursor()
		for range 2 {
			seen, next := s.changes(before, cursor)
			s.agrees(seen, "changes of a "+t.GetName())
			if bytes.Equal(next, cursor) {
				s.Errorf("Changes tells changes and gives back the cursor it started from")
			}
			again, _ := s.changes(before, cursor)
			s.agrees(again, "changes of a "+t.GetName()+" from the same cursor again")
			before, cursor = seen, next
			// The second round: a removal alone.
			s.must(deletion(s.read(ref(changed))))
			changed = s.make(t, "kit-other")
		}
	}
}

// edits are operations that change the object, in order: values, members, name.
func (s *session) edits(t *connectorv1.ObjectType, o *connectorv1.Object) []*connectorv1.Operation {
	sample := s.target.Samples[t.GetName()]
	var out []*connectorv1.Operation
	for _, name := range slices.Sorted(maps.Keys(sample.Values)) {
		if a := t.AttributeType(name); t.Allows(opUpdate) && a != nil && !a.GetReadOnly() && len(o.Attribute(name)) == 0 {
			out = append(out, &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{
				Deltas: []*connectorv1.ValueDelta{{Attribute: name, Add: [][]byte{[]byte(sample.Values[name][0])}}}}}})
		}
	}
	if sample.Member != "" && t.Allows(opAdd) && t.Allows(opRemove) {
		member := s.typeNamed(sample.Member)
		for _, leaf := range []string{"kit-stays", "kit-leaves"} {
			out = append(out, &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_AddMember{
				AddMember: &connectorv1.AddMember{Member: ref(s.make(member, leaf))}}})
		}
		out = append(out, &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_RemoveMember{
			RemoveMember: &connectorv1.RemoveMember{Member: ref(s.make(member, "kit-leaves"))}}})
	}
	if t.Allows(opRename) {
		own := o.GetName().GetComponents()[0].GetParts()[0].GetType()
		out = append(out, &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Rename{
			Rename: &connectorv1.Rename{To: connectorv1.NewComponent(own, "kit-renamed")}}})
	}
	return out
}

func (s *session) must(op *connectorv1.Operation) {
	s.Helper()
	if r := s.apply(op); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
		s.Fatalf("%s: want done, got %s", op.Kind().Word(), said(r))
	}
}

// changes returns held as it is after the changes since cursor.
func (s *session) changes(held map[string]*connectorv1.Object, cursor []byte) (after map[string]*connectorv1.Object, next []byte) {
	s.Helper()
	after, told := maps.Clone(held), map[string]bool{}
	end, err := s.client.Changes(s.ctx, cursor, host.Delta{
		Changed: func(batch []*connectorv1.Object) error {
			for _, o := range batch {
				after[o.GetAnchor()], told[o.GetAnchor()] = o, true
			}
			return nil
		},
		Removed: func(anchors []string) error {
			for _, a := range anchors {
				delete(after, a)
			}
			return nil
		},
		Present: func(anchors []string) error {
			for _, a := range anchors {
				told[a] = true
			}
			return nil
		},
	})
	if err != nil {
		s.Fatalf("Changes: %v", err)
	}
	if !end.GetComplete() {
		s.Errorf("Changes of what this suite did: want complete, got %v", end)
	}
	if end.GetEnumerated() {
		maps.DeleteFunc(after, func(anchor string, _ *connectorv1.Object) bool { return !told[anchor] })
	}
	return after, end.GetCursor()
}

func (s *session) agrees(seen map[string]*connectorv1.Object, what string) {
	s.Helper()
	now, _ := s.observe()
	if !maps.EqualFunc(seen, now, func(a, b *connectorv1.Object) bool { return a.Digest() == b.Digest() }) {
		s.Errorf("%s do not give what Observe gives now:\n%v\n%v", what, seen, now)
	}
}

// signalTimeout is after what a watch that says nothing is taken to hang.
const signalTimeout = 10 * time.Second

// tryWatch: every change is followed by a signal, and one comes at the start.
func tryWatch(s *session) {
	types := s.sampled(opDelete)
	if !s.has[connectorv1.Capability_CAPABILITY_WATCH] || len(types) == 0 {
		return
	}
	_, end := s.observe()
	ctx, cancel := context.WithCancel(s.ctx)
	signals, ended := make(chan struct{}, 1000), make(chan error, 1)
	go func() { ended <- s.client.Watch(ctx, end.GetCursor(), func() { signals <- struct{}{} }) }()
	s.signalled(signals, ended, "a watch that is ready")
	o := s.make(types[0], "kit-watched")
	s.signalled(signals, ended, "a create")
	// What the create may signal yet must not be taken for the delete's.
	for quiet := false; !quiet; {
		select {
		case <-signals:
		case <-time.After(200 * time.Millisecond):
			quiet = true
		}
	}
	s.must(deletion(o))
	s.signalled(signals, ended, "a delete")
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) && !sdk.HasCode(err, sdk.CodeCancelled) {
		s.Errorf("a cancelled Watch: want the cancellation, got %v", err)
	}
}

func (s *session) signalled(signals <-chan struct{}, ended <-chan error, what string) {
	s.Helper()
	select {
	case <-signals:
	case err := <-ended:
		s.Fatalf("Watch ended before the signal of %s: %v", what, err)
	case <-time.After(signalTimeout):
		s.Fatalf("Watch gives no signal of %s", what)
	}
}
