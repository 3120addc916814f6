package rehearsal

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// TestWhatOffboardingLeavesIsCompared: whatever differs from what should be left is
// found, and nothing else; what the plan declares, or names that two objects want,
// are no difference.
func TestWhatOffboardingLeavesIsCompared(t *testing.T) {
	in := settle(t, company(2, 1))
	alias := in.Connectors[0].Alias
	anchor := in.Links[0].Anchor
	change := func(f func(objects map[string]*connectorv1.Object, o *connectorv1.Object)) func(*Twin) {
		return func(twin *Twin) {
			objects := twin.directories[alias].objects
			objects[anchor] = proto.CloneOf(objects[anchor])
			f(objects, objects[anchor])
		}
	}
	for name, c := range map[string]struct {
		change func(*Twin)
		says   string
	}{
		"nothing": {func(*Twin) {}, ""},
		"an object is gone": {change(func(objects map[string]*connectorv1.Object, _ *connectorv1.Object) {
			delete(objects, anchor)
		}), "missing"},
		"an object is left": {change(func(objects map[string]*connectorv1.Object, o *connectorv1.Object) {
			left := proto.CloneOf(o)
			left.Anchor = "left"
			objects["left"] = left
		}), "left after offboarding"},
		"a value is left": {change(func(_ map[string]*connectorv1.Object, o *connectorv1.Object) {
			o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: "zeal", Values: [][]byte{[]byte("x")}})
		}), "differs"},
		"it is disabled": {change(func(_ map[string]*connectorv1.Object, o *connectorv1.Object) {
			o.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
		}), "differs"},
		"a name is left": {change(func(_ map[string]*connectorv1.Object, o *connectorv1.Object) {
			o.Name.Components[0] = connectorv1.NewComponent("uid", "another")
		}), "differs"},
	} {
		t.Run(name, func(t *testing.T) {
			want, got := NewTwin(in.Connectors), NewTwin(in.Connectors)
			c.change(got)
			r := &rehearsal{result: &planv1.Rehearsal{}}
			r.compare(want, got, nil, nil)
			if (len(r.problems) > 0) != (c.says != "") || len(r.problems) > 0 && !strings.Contains(r.problems[0].GetSaid(), c.says) {
				t.Errorf("found %v, want what says %q", r.problems, c.says)
			}
			r = &rehearsal{result: &planv1.Rehearsal{}}
			exempt := map[place]bool{}
			for _, a := range slices.Concat(slices.Collect(maps.Keys(want.directories[alias].objects)), []string{"left"}) {
				exempt[place{alias, a}] = true
			}
			r.compare(want, got, nil, exempt)
			if len(r.problems) > 0 {
				t.Errorf("what is exempt was found: %v", r.problems)
			}
		})
	}
}
