package planner

import (
	"slices"
	"strings"
	"time"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// touched takes a delta into a Standing and gathers of whom the next plan must
// say anew what they get.
type touched struct {
	*Standing
	identities map[string]bool
	objects    map[object]bool
}

func (t *touched) states(d Delta) {
	in := &t.in
	in.Leavers, in.Suspended, in.Unjudged, in.Undecided = d.Leavers, d.Suspended, d.Unjudged, d.Undecided
	had := t.Standing.states
	t.Standing.states = statesOf(in)
	for id, state := range t.Standing.states {
		if had[id] != state {
			t.identities[id] = true
		}
	}
	for id := range had {
		if t.Standing.states[id] == "" {
			t.identities[id] = true
		}
	}
}

func (t *touched) desire(d Delta) {
	for i := range d.Desired {
		next := orderly(d.Desired[i])
		t.identities[next.Subject] = true
		t.Standing.desire(next.Subject, &next)
	}
	for _, subject := range d.Gone {
		t.identities[subject] = true
		t.Standing.desire(subject, nil)
	}
}

// move takes in new snapshots. Objects come first, and then who is in groups: a
// member is whoever has the key now.
func (t *touched) move(connectors []Moved) {
	for _, m := range connectors {
		v := t.views[m.Alias]
		if v == nil {
			continue
		}
		v.conn.Snapshot = m.Snapshot
		var keys []string
		for _, anchor := range m.Removed {
			keys = append(keys, t.replace(v, anchor, nil)...)
		}
		for _, o := range m.Objects {
			keys = append(keys, t.replace(v, o.GetAnchor(), o)...)
		}
		for _, key := range keys {
			t.owners(v, key)
		}
	}
}

// replace makes o the object of an anchor, none for nil, and returns the link keys
// which groups now name or do not name any more.
func (t *touched) replace(v *view, anchor string, o *connectorv1.Object) []string {
	had := v.anchors[anchor]
	t.objects[object{v.conn.Alias, anchor}] = true
	if had != nil {
		t.unrefer(v, had)
		v.names.remove(had.GetName().Key(v.conn.CaseRule), had)
		for _, key := range had.GetKeys() {
			t.owners(v, key)
			v.keys.remove(key, had)
		}
	}
	if delete(v.anchors, anchor); o != nil {
		v.anchors[anchor] = o
		t.refer(v, o)
		v.names.put(o.GetName().Key(v.conn.CaseRule), o)
		for _, key := range o.GetKeys() {
			v.keys.put(key, o)
		}
	}
	for _, key := range slices.Concat(had.GetKeys(), o.GetKeys()) {
		if !slices.Contains(had.GetKeys(), key) || !slices.Contains(o.GetKeys(), key) {
			t.owners(v, key)
			for _, holder := range t.holders[v.conn.Alias][key] {
				t.objects[object{v.conn.Alias, holder}] = true
			}
		}
	}
	return v.reseat(anchor, had.GetMembers(), o.GetMembers())
}

// reseat makes the members of a group others and returns the difference.
func (v *view) reseat(anchor string, had, has []string) []string {
	byText := func(list []string) []string { return slices.Compact(slices.Sorted(slices.Values(list))) }
	set := v.members[anchor]
	var other []string
	merge(byText(had), byText(has), func(key *string) string { return *key }, func(a, b *string) {
		switch {
		case b == nil:
			other = append(other, *a)
			delete(set, *a)
		case a == nil:
			other = append(other, *b)
			if set != nil {
				set[*b] = true
			}
		}
	})
	return other
}

// owners touches all objects that have a link key.
func (t *touched) owners(v *view, key string) {
	for _, o := range v.keys.all(key) {
		t.objects[object{v.conn.Alias, o.GetAnchor()}] = true
	}
}

func (t *touched) link(d Delta) {
	for _, at := range d.Unlinked {
		t.unlink(at)
	}
	for i := range d.Links {
		l := d.Links[i]
		at := Place{l.Connector, l.Anchor}
		t.unlink(at)
		t.identities[l.Identity] = true
		t.objects[object{l.Connector, l.Anchor}] = true
		t.links[l.Identity] = append(t.links[l.Identity], &l)
		if v := t.views[l.Connector]; v != nil {
			v.links[l.Anchor] = &l
			of := v.of[l.Identity]
			n, _ := slices.BinarySearchFunc(of, l.Anchor, func(x *Link, anchor string) int { return strings.Compare(x.Anchor, anchor) })
			v.of[l.Identity] = slices.Insert(of, n, &l)
		}
	}
}

func (t *touched) unlink(at Place) {
	is := func(l *Link) bool { return l.Connector == at.Connector && l.Anchor == at.Anchor }
	v := t.views[at.Connector]
	if v == nil {
		for identity, links := range t.links {
			t.setLinks(identity, slices.DeleteFunc(links, is))
		}
		return
	}
	l := v.links[at.Anchor]
	if l == nil {
		return
	}
	t.identities[l.Identity] = true
	t.objects[object{at.Connector, at.Anchor}] = true
	delete(v.links, at.Anchor)
	if v.of[l.Identity] = slices.DeleteFunc(v.of[l.Identity], is); len(v.of[l.Identity]) == 0 {
		delete(v.of, l.Identity)
	}
	t.setLinks(l.Identity, slices.DeleteFunc(t.links[l.Identity], is))
}

func (t *touched) setLinks(identity string, links []*Link) {
	if t.links[identity] = links; len(links) == 0 {
		delete(t.links, identity)
	}
}

// remember takes in what the ledger remembers, and touches the members of whom it
// remembers something else.
func (t *touched) remember(ledger []Page) {
	for _, page := range ledger {
		v := t.views[page.Connector]
		if v == nil {
			continue
		}
		t.objects[object{page.Connector, page.Anchor}] = true
		entries := make([]*Entry, len(page.Entries))
		for i := range page.Entries {
			entries[i] = &page.Entries[i]
		}
		slices.SortFunc(entries, compareEntries)
		for _, e := range otherEntries(v.entries[page.Anchor], entries) {
			if e.Member != "" {
				t.objects[object{page.Connector, e.Member}] = true
			}
		}
		v.remember(page.Anchor, entries)
	}
}

// otherEntries are those that are not the same in both of two sorted lists.
func otherEntries(had, has []*Entry) []*Entry {
	var other []*Entry
	for len(had) > 0 || len(has) > 0 {
		c := -1
		switch {
		case len(had) == 0:
			c = 1
		case len(has) > 0:
			c = compareEntries(had[0], has[0])
		}
		switch {
		case c < 0:
			other, had = append(other, had[0]), had[1:]
		case c > 0:
			other, has = append(other, has[0]), has[1:]
		default:
			if !had[0].same(has[0]) {
				other = append(other, has[0])
			}
			had, has = had[1:], has[1:]
		}
	}
	return other
}

// same reports that two entries of one membership say the same to a plan.
func (e *Entry) same(o *Entry) bool {
	return e.EndsAt.Equal(o.EndsAt) && e.Grant == o.Grant && e.Diverged == o.Diverged && e.Rule == o.Rule && e.Change == o.Change &&
		sameOctets(e.Last, o.Last) && sameOctets(e.Before, o.Before)
}

// wait moves the time on, and touches those whose entitlements end.
func (t *touched) wait(asOf time.Time) {
	was := t.in.AsOf
	t.in.AsOf = asOf
	if t.nextEnd.IsZero() || asOf.Before(t.nextEnd) {
		return
	}
	t.nextEnd = time.Time{}
	for subject, d := range t.desired {
		for _, e := range d.Entitlements {
			switch {
			case !e.End.After(was):
			case !e.End.After(asOf):
				t.identities[subject] = true
			case t.nextEnd.IsZero() || e.End.Before(t.nextEnd):
				t.nextEnd = e.End
			}
		}
	}
}

// spread adds those of whom the last plan said something, and from objects to whose
// they are, from identities to who refers to them, and to all that they have.
func (t *touched) spread() {
	for identity := range t.loud {
		t.identities[identity] = true
	}
	for o := range t.louder {
		t.objects[o] = true
	}
	for o := range t.objects {
		if v := t.views[o.connector]; v != nil && v.links[o.anchor] != nil {
			t.identities[v.links[o.anchor].Identity] = true
		}
	}
	var refer []string
	for identity := range t.identities {
		if len(t.referrers[identity]) > 0 && t.anchor(identity) != t.anchored[identity] {
			for subject := range t.referrers[identity] {
				refer = append(refer, subject)
			}
			t.anchored[identity] = t.anchor(identity)
		}
	}
	for _, subject := range refer {
		t.identities[subject] = true
	}
	for identity := range t.identities {
		for _, l := range t.links[identity] {
			t.objects[object{l.Connector, l.Anchor}] = true
		}
	}
}

// anchors of a connector's objects that are touched.
func (t *touched) anchors(alias string) map[string]bool {
	set := map[string]bool{}
	for o := range t.objects {
		if o.connector == alias {
			set[o.anchor] = true
		}
	}
	return set
}
