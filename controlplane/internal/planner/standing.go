package planner

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Standing is the input of a change plan, kept between plans with its indexes, so
// that the next plan looks only at what a Delta touches and at what the last one
// had something to say of. It gives what Plan gives, to the byte; losing it costs
// time and nothing else. It is not safe for concurrent use.
//
// Whoever is quiet, with no change and no finding, stays so until something that
// this followed from changes: their desired state, state of life, links, objects
// and ledger; who has a link key of theirs or one that they refer to; the account
// of an identity they refer to; their place in a group; the end of an entitlement.
// Where the groups themselves become others, everybody is looked at.
type Standing struct {
	in      Input
	views   map[string]*view
	desired map[string]*policy.Desired
	links   map[string][]*Link
	states  map[string]string
	// referrers are those who refer to an identity, and anchored is what they would
	// see of it.
	referrers map[string]map[string]bool
	anchored  map[string]string
	// holders are the anchors of objects whose references are of a link key, by
	// connector.
	holders map[string]map[string][]string
	// loud and louder are of the last plan; governed are its groups.
	loud     map[string]bool
	louder   map[object]bool
	governed string
	// nextEnd is the first end of an entitlement after the last plan, zero for none.
	nextEnd time.Time
	// whole is true while the next plan must look at everything.
	whole bool
}

// Stand makes the plan of an input, and what later plans start from.
func Stand(in Input) (*Standing, Output, error) {
	if in.Purpose != planv1.Purpose_PURPOSE_CHANGE {
		return nil, Output{}, fmt.Errorf("%w: plans of purpose %v are made from the beginning", ErrInput, in.Purpose)
	}
	in = sorted(in)
	views, err := viewsOf(&in)
	if err != nil {
		return nil, Output{}, err
	}
	s := &Standing{
		in: in, views: views, desired: make(map[string]*policy.Desired, len(in.Desired)), links: make(map[string][]*Link, len(in.Links)),
		referrers: map[string]map[string]bool{}, anchored: map[string]string{}, holders: map[string]map[string][]string{}, whole: true,
	}
	for i := range in.Desired {
		d := &in.Desired[i]
		if s.desired[d.Subject] != nil {
			return nil, Output{}, fmt.Errorf("%w: desired state of identity %q is given twice", ErrInput, d.Subject)
		}
		s.desire(d.Subject, d)
	}
	for i := range in.Links {
		s.links[in.Links[i].Identity] = append(s.links[in.Links[i].Identity], &in.Links[i])
	}
	for alias, v := range views {
		s.holders[alias] = map[string][]string{}
		for _, o := range v.conn.Objects {
			s.refer(v, o)
		}
		// They are in the indexes, which go on when the snapshot does not.
		v.conn.Objects = nil
	}
	s.states = statesOf(&s.in)
	s.in.Desired, s.in.Links, s.in.Ledger = nil, nil, nil
	out, err := s.plan(nil)
	return s, out, err
}

// Plan takes a delta in and makes the plan of the input as it then is. After an
// error the delta is in, and the next plan looks at everything.
func (s *Standing) Plan(d Delta) (Output, error) {
	t := touched{Standing: s, identities: map[string]bool{}, objects: map[object]bool{}}
	t.states(d)
	t.desire(d)
	t.move(d.Connectors)
	t.link(d)
	t.remember(d.Ledger)
	t.wait(d.AsOf)
	return s.plan(&t)
}

var errOthersGroups = errors.New("other groups are looked at than before")

// plan looks at what was touched, everything for nil.
func (s *Standing) plan(t *touched) (Output, error) {
	if t == nil || s.whole {
		return s.run(nil)
	}
	t.spread()
	out, err := s.run(t)
	if errors.Is(err, errOthersGroups) {
		return s.run(nil)
	}
	return out, err
}

func (s *Standing) run(t *touched) (Output, error) {
	in := s.in
	in.Desired = s.lookedAt(t)
	for alias, v := range s.views {
		v.linked, v.within, v.leaving = s.linksOf(alias, t), nil, map[string]bool{}
		if t != nil {
			v.within = t.anchors(alias)
		}
	}
	s.whole = true
	p, err := start(in, s.views)
	if err != nil {
		return Output{}, err
	}
	p.managed = len(s.links)
	if t != nil {
		p.standing = s
	}
	if err := p.change(); err != nil {
		return Output{}, err
	}
	out, err := p.finish()
	if err != nil {
		return Output{}, err
	}
	s.loud, s.louder = p.loud, p.louder
	s.note(in.Desired)
	if t == nil {
		groups, err := (&plan{in: s.in, views: s.views, aliases: p.aliases, loud: map[string]bool{}}).governs()
		if err != nil {
			return Output{}, err
		}
		s.governed = groups.signature()
	}
	s.whole = false
	return out, nil
}

// note keeps what referrers see of those who were looked at, and the next end.
func (s *Standing) note(desired []policy.Desired) {
	for identity := range s.referrers {
		if _, known := s.anchored[identity]; !known {
			s.anchored[identity] = s.anchor(identity)
		}
	}
	for i := range desired {
		d := &desired[i]
		if s.referrers[d.Subject] != nil {
			s.anchored[d.Subject] = s.anchor(d.Subject)
		}
		for _, e := range d.Entitlements {
			if e.End.After(s.in.AsOf) && (s.nextEnd.IsZero() || e.End.Before(s.nextEnd)) {
				s.nextEnd = e.End
			}
		}
	}
}

// lookedAt are the desired states to look at, sorted.
func (s *Standing) lookedAt(t *touched) []policy.Desired {
	var list []policy.Desired
	if t == nil {
		list = make([]policy.Desired, 0, len(s.desired))
		for _, d := range s.desired {
			list = append(list, *d)
		}
	} else {
		for identity := range t.identities {
			if d := s.desired[identity]; d != nil {
				list = append(list, *d)
			}
		}
	}
	slices.SortFunc(list, func(a, b policy.Desired) int { return strings.Compare(a.Subject, b.Subject) })
	return list
}

// linksOf are a connector's links to look at, by anchor.
func (s *Standing) linksOf(alias string, t *touched) []*Link {
	v := s.views[alias]
	var list []*Link
	if t == nil {
		for _, l := range v.links {
			list = append(list, l)
		}
	} else {
		for identity := range t.identities {
			list = append(list, v.of[identity]...)
		}
	}
	slices.SortFunc(list, func(a, b *Link) int { return strings.Compare(a.Anchor, b.Anchor) })
	return list
}

// governsSame reports that the groups are those of the last whole plan.
func (s *Standing) governsSame(g groups) bool { return g.signature() == s.governed }

// signature tells apart whatever of groups matters to those who are in them.
func (g *groups) signature() string {
	var b strings.Builder
	for _, key := range g.keys() {
		x := g.all[key]
		fmt.Fprintf(&b, "%q %q %q %v %v %v %v\n", key.connector, key.anchor, x.group.GetType(), x.named, x.authoritative, x.cause, g.skips(key))
	}
	for _, id := range keysOf(g.byEntitlement) {
		fmt.Fprintf(&b, "%q %q\n", id, g.byEntitlement[id].group.GetAnchor())
	}
	return b.String()
}

// anchor is what those who refer to an identity see of it.
func (s *Standing) anchor(identity string) string {
	d := s.desired[identity]
	if d == nil {
		return ""
	}
	var b strings.Builder
	for i := range d.Accounts {
		a := &d.Accounts[i]
		v := s.views[a.Connector]
		if v == nil {
			continue
		}
		anchor, typ := "", ""
		if l := v.account(identity, a.Purpose); l != nil {
			anchor, typ = l.Anchor, v.anchors[l.Anchor].GetType()
		}
		fmt.Fprintf(&b, "%q %q %q %v %v %q %q\n", a.Connector, a.Purpose, a.Type, a.Delete, nameOf(a.Name) != nil, anchor, typ)
	}
	return b.String()
}

// targetOf is an identity's account on a connector, nil where there is none and
// none comes. Of those who are not looked at, it is the one that is there.
func (p *plan) targetOf(v *view, identity, purpose string) *target {
	if t := p.targets[targetKey{v.conn.Alias, identity, purpose}]; t != nil || p.standing == nil || p.desired[identity] != nil {
		return t
	}
	d, l := p.standing.desired[identity], v.account(identity, purpose)
	if d == nil || l == nil || v.anchors[l.Anchor] == nil {
		return nil
	}
	for i := range d.Accounts {
		if a := &d.Accounts[i]; a.Connector == v.conn.Alias && a.Purpose == purpose {
			return &target{view: v, obj: v.anchors[l.Anchor], typ: a.Type, want: a}
		}
	}
	return nil
}

// references are the link keys to which an object's attributes refer.
func (v *view) references(o *connectorv1.Object) []string {
	var keys []string
	for _, a := range o.GetAttributes() {
		if v.rule(o, a.GetName()) == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			for _, value := range a.GetValues() {
				keys = append(keys, string(value))
			}
		}
	}
	return keys
}

func (s *Standing) refer(v *view, o *connectorv1.Object) {
	holders := s.holders[v.conn.Alias]
	for _, key := range v.references(o) {
		holders[key] = append(holders[key], o.GetAnchor())
	}
}

func (s *Standing) unrefer(v *view, o *connectorv1.Object) {
	holders := s.holders[v.conn.Alias]
	for _, key := range v.references(o) {
		if at := slices.Index(holders[key], o.GetAnchor()); at >= 0 {
			holders[key] = slices.Delete(holders[key], at, at+1)
		}
		if len(holders[key]) == 0 {
			delete(holders, key)
		}
	}
}

// desire makes d the desired state of a subject, none for nil.
func (s *Standing) desire(subject string, d *policy.Desired) {
	each := func(d *policy.Desired, do func(ref string)) {
		for i := range d.Accounts {
			for _, a := range d.Accounts[i].Attributes {
				for _, ref := range a.Refs {
					do(ref)
				}
			}
		}
	}
	if had := s.desired[subject]; had != nil {
		each(had, func(ref string) { delete(s.referrers[ref], subject) })
	}
	if d == nil {
		delete(s.desired, subject)
		return
	}
	s.desired[subject] = d
	each(d, func(ref string) {
		if s.referrers[ref] == nil {
			s.referrers[ref] = map[string]bool{}
		}
		s.referrers[ref][subject] = true
	})
}

// statesOf says of each identity in an unusual state in which.
func statesOf(in *Input) map[string]string {
	states := map[string]string{}
	for _, id := range in.Leavers {
		states[id] += "leaver\n"
	}
	for _, id := range in.Suspended {
		states[id] += "suspended\n"
	}
	for _, u := range in.Unjudged {
		states[u.Identity] += "unjudged " + u.Why + "\n"
	}
	for _, u := range in.Undecided {
		states[u.Identity] += "undecided on " + u.Connector + "\n"
	}
	return states
}
