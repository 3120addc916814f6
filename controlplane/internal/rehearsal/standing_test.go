package rehearsal

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

type fataler interface {
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// same fails unless two plans of one input are the same to the byte, and say the
// same beside it.
func same(t fataler, in planner.Input, full, standing planner.Output, what string) {
	salt := func() []byte { return make([]byte, planner.SaltSize) }
	a, err := planner.Encode(in, full, salt)
	if err != nil {
		t.Fatal(err)
	}
	b, err := planner.Encode(in, standing, salt)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Manifest, b.Manifest) || !slices.EqualFunc(a.Chunks, b.Chunks, bytes.Equal) {
		t.Fatalf("%s: from the beginning\n%v\nstanding\n%v", what, full.Agents, standing.Agents)
	}
	if !reflect.DeepEqual(full.Findings, standing.Findings) || !reflect.DeepEqual(full.Creations, standing.Creations) {
		t.Fatalf("%s: from the beginning\n%v\n%v\nstanding\n%v\n%v", what, full.Findings, full.Creations, standing.Findings, standing.Creations)
	}
}

// A plan made of what changed since the last one is the plan made from the
// beginning, whatever changed.
func TestStandingPlansAsFromTheBeginning(t *testing.T) {
	narrow := 0
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		w.observe()
		last := deepInput(w.in)
		standing, out, err := planner.Stand(last)
		if err != nil {
			t.Fatal(err)
		}
		same(t, last, w.plan(), out, "the first")
		for i := range rapid.IntRange(1, 10).Draw(t, "steps") {
			edits := 0
			what := rapid.SampledFrom([]string{"step", "step", "step", "run", "time", "edit", "edit"}).Draw(t, "next")
			switch what {
			case "step":
				w.step()
				w.observe()
			case "time":
				w.in.AsOf = w.in.AsOf.Add(time.Hour)
				w.observe()
			case "run":
				w.run()
				w.observe()
			case "edit":
				edits = rapid.IntRange(1, 3).Draw(t, "edits")
			}
			next := deepInput(w.in)
			for range edits {
				edit(t, &next, w.people)
			}
			delta, small := planner.Diff(last, next)
			if !small {
				if standing, out, err = planner.Stand(next); err != nil {
					t.Fatal(err)
				}
			} else if out, err = standing.Plan(delta); err != nil {
				t.Fatal(err)
			}
			if small {
				narrow++
			}
			full, err := planner.Plan(next)
			if err != nil {
				t.Fatal(err)
			}
			same(t, next, full, out, fmt.Sprintf("%s %d", what, i))
			last = next
		}
	})
	if narrow == 0 {
		t.Fatal("no plan was made of a delta")
	}
}

// Each of these changes says something of somebody who was as policy wants, mostly
// through somebody or something else.
func TestStandingSeesWhatQuietPeopleFollowFrom(t *testing.T) {
	in := company(4, 2)
	in.Desired[0].Accounts[0].Attributes = append(in.Desired[0].Accounts[0].Attributes,
		policy.DesiredAttribute{Name: "manager", Refs: []string{"user00001"}, Authority: policy.Enforce})
	in.Desired[2].Entitlements[0].End = epoch.Add(time.Hour)
	out, err := planner.Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	settled, _ := NewTwin(in.Connectors).Run(in, out)
	anchor := func(login string) string {
		at := slices.IndexFunc(settled.Links, func(l planner.Link) bool { return l.Identity == login })
		return settled.Links[at].Anchor
	}
	object := func(in *planner.Input, anchor string) *connectorv1.Object {
		list := in.Connectors[0].Objects
		return list[slices.IndexFunc(list, func(o *connectorv1.Object) bool { return o.GetAnchor() == anchor })]
	}
	membership := func(in *planner.Input, login string) *planner.Entry {
		return &in.Ledger[slices.IndexFunc(in.Ledger, func(e planner.Entry) bool { return e.Item == planner.ItemMember && e.Member == anchor(login) })]
	}
	for name, change := range map[string]func(in *planner.Input){
		"another object gets the key of a manager": func(in *planner.Input) {
			object(in, anchor("user00003")).Keys = object(in, anchor("user00001")).GetKeys()
		},
		"a manager's account becomes another":      func(in *planner.Input) { object(in, anchor("user00001")).Type = "team" },
		"a membership was given for another cause": func(in *planner.Input) { membership(in, "user00001").Cause = planv1.Cause_CAUSE_MSP },
		"an entitlement ends":                      func(in *planner.Input) { in.AsOf = in.AsOf.Add(time.Hour) },
		"a group loses a member":                   func(in *planner.Input) { o := object(in, "team000"); o.Members = o.Members[1:] },
		"a group gets another name": func(in *planner.Input) {
			object(in, "team000").Name = wireName([]policy.Component{{{"cn", "other"}}})
		},
		"a person leaves": func(in *planner.Input) {
			in.Leavers = []string{"user00001"}
			in.Desired[1].Accounts = slices.Clone(in.Desired[1].Accounts)
			in.Desired[1].Accounts[0].Enabled = false
			in.Desired[1].Entitlements = nil
		},
		"policy fails for one": func(in *planner.Input) {
			in.Desired, in.Unjudged = in.Desired[1:], []planner.Unjudged{{Identity: "user00000", Why: "x"}}
		},
		"a value is written by others": func(in *planner.Input) {
			object(in, anchor("user00003")).Attributes = nil
		},
		"an account is deleted by others": func(in *planner.Input) {
			in.Connectors[0].Objects = slices.DeleteFunc(in.Connectors[0].Objects, func(o *connectorv1.Object) bool { return o.GetAnchor() == anchor("user00001") })
		},
		"an account is unlinked": func(in *planner.Input) {
			in.Links = slices.DeleteFunc(in.Links, func(l planner.Link) bool { return l.Identity == "user00001" })
		},
	} {
		t.Run(name, func(t *testing.T) {
			standing, _, err := planner.Stand(deepInput(settled))
			if err != nil {
				t.Fatal(err)
			}
			next := deepInput(settled)
			change(&next)
			delta, small := planner.Diff(settled, next)
			if !small {
				t.Fatal("the difference is no delta")
			}
			out, err := standing.Plan(delta)
			if err != nil {
				t.Fatal(err)
			}
			full, err := planner.Plan(next)
			if err != nil {
				t.Fatal(err)
			}
			if len(full.Agents)+len(full.Findings) == 0 {
				t.Fatal("the change means nothing")
			}
			same(t, next, full, out, name)
		})
	}
}

// deepInput is a copy that nothing done to the world changes.
func deepInput(in planner.Input) planner.Input {
	in.Desired, in.Links, in.Ledger = slices.Clone(in.Desired), slices.Clone(in.Links), slices.Clone(in.Ledger)
	in.Connectors = slices.Clone(in.Connectors)
	for i := range in.Connectors {
		c := &in.Connectors[i]
		c.Objects = slices.Clone(c.Objects)
		for j := range c.Objects {
			c.Objects[j] = proto.CloneOf(c.Objects[j])
		}
	}
	in.Leavers, in.Suspended = slices.Clone(in.Leavers), slices.Clone(in.Suspended)
	in.Unjudged, in.Undecided = slices.Clone(in.Unjudged), slices.Clone(in.Undecided)
	return in
}

// edit changes an input as no history of the world does, for one plan.
func edit(t *rapid.T, in *planner.Input, people []*person) {
	p := rapid.SampledFrom(people).Draw(t, "edited person").id
	c := &in.Connectors[rapid.IntRange(0, len(in.Connectors)-1).Draw(t, "edited connector")]
	without := func(d policy.Desired) bool { return d.Subject == p }
	switch rapid.IntRange(0, 9).Draw(t, "edit") {
	case 0: // policy cannot be evaluated, or can again
		had := len(in.Unjudged)
		in.Unjudged = slices.DeleteFunc(slices.Clone(in.Unjudged), func(u planner.Unjudged) bool { return u.Identity == p })
		if len(in.Unjudged) == had {
			in.Unjudged = append(in.Unjudged, planner.Unjudged{Identity: p, Why: "a rule fails"})
			in.Desired = slices.DeleteFunc(slices.Clone(in.Desired), without)
		}
	case 1:
		in.Undecided = append(slices.Clone(in.Undecided), planner.Undecided{Connector: c.Alias, Identity: p})
	case 2:
		in.Undecided = nil
	case 3: // unlinked
		if n := len(in.Links); n > 0 {
			in.Links = slices.Delete(slices.Clone(in.Links), n-1, n)
		}
	case 4: // linked
		at := slices.IndexFunc(c.Objects, func(o *connectorv1.Object) bool {
			return o.GetType() == "person" && !slices.ContainsFunc(in.Links, func(l planner.Link) bool { return l.Connector == c.Alias && l.Anchor == o.GetAnchor() })
		})
		if at >= 0 {
			in.Links = append(slices.Clone(in.Links), planner.Link{Connector: c.Alias, Anchor: c.Objects[at].GetAnchor(), Identity: p, Purpose: "normal", Created: rapid.Bool().Draw(t, "created")})
		}
	case 5: // two objects with one key, or one without any
		if len(c.Objects) > 1 {
			i, j := rapid.IntRange(0, len(c.Objects)-1).Draw(t, "object"), rapid.IntRange(0, len(c.Objects)-1).Draw(t, "other object")
			o := proto.CloneOf(c.Objects[i])
			o.Keys = slices.Clone(c.Objects[j].GetKeys())
			c.Objects = slices.Clone(c.Objects)
			c.Objects[i] = o
		}
	case 6: // a group's members are written anew
		for i, o := range c.Objects {
			if o.GetType() != "team" || rapid.Bool().Draw(t, "another group") {
				continue
			}
			o = proto.CloneOf(o)
			o.Members = nil
			for _, member := range c.Objects {
				if len(member.GetKeys()) > 0 && rapid.Bool().Draw(t, "in") {
					o.Members = append(o.Members, rapid.SampledFrom(member.GetKeys()).Draw(t, "key"))
				}
			}
			c.Objects = slices.Clone(c.Objects)
			c.Objects[i] = o
			break
		}
	case 7: // an object vanishes
		if n := len(c.Objects); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(t, "vanishing")
			c.Objects = slices.Delete(slices.Clone(c.Objects), i, i+1)
		}
	case 8: // the ledger forgets, or remembers otherwise
		if n := len(in.Ledger); n > 0 {
			i := rapid.IntRange(0, n-1).Draw(t, "entry")
			in.Ledger = slices.Clone(in.Ledger)
			switch e := &in.Ledger[i]; rapid.IntRange(0, 3).Draw(t, "memory") {
			case 0:
				in.Ledger = slices.Delete(in.Ledger, i, i+1)
			case 1:
				e.Diverged = !e.Diverged
			case 2:
				e.EndsAt = epoch
			case 3:
				e.Last, e.Before = e.Before, e.Last
			}
		}
	case 9: // two of one name
		if len(c.Objects) > 1 {
			i, j := rapid.IntRange(0, len(c.Objects)-1).Draw(t, "object"), rapid.IntRange(0, len(c.Objects)-1).Draw(t, "other object")
			o := proto.CloneOf(c.Objects[i])
			o.Name = proto.CloneOf(c.Objects[j].GetName())
			c.Objects = slices.Clone(c.Objects)
			c.Objects[i] = o
		}
	}
}
