package planner

import (
	"bytes"
	"reflect"
	"slices"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
)

// Delta is what changed in the Input of a change plan. What it has no field for did
// not change. Everything in it stays as it is from then on.
type Delta struct {
	AsOf time.Time
	// Desired are new or other, Gone the subjects that have no desired state now.
	Desired []policy.Desired
	Gone    []string
	// Connectors whose snapshot is another, whether or not an object is.
	Connectors []Moved
	// Links are new or other, Unlinked the objects that have none now.
	Links    []Link
	Unlinked []Place
	// Ledger are the objects of which the ledger remembers something else.
	Ledger []Page
	// Leavers, Suspended, Unjudged and Undecided as in Input, all of them.
	Leavers, Suspended []string
	Unjudged           []Unjudged
	Undecided          []Undecided
}

// Moved is a connector's way from one snapshot to the next.
type Moved struct {
	Alias    string
	Snapshot *planv1.SnapshotHeader
	// Objects are new or other, Removed the anchors of those that are no more.
	Objects []*connectorv1.Object
	Removed []string
}

// Place is where an object is.
type Place struct{ Connector, Anchor string }

// Page is all that the ledger remembers of one object, nothing where it is empty.
type Page struct {
	Place
	Entries []Entry
}

// Diff returns the way from one input to another, false where no Delta can say it:
// policy, a connector's configuration or the completeness of its snapshot changed,
// or time went back.
func Diff(from, to Input) (Delta, bool) {
	from, to = sorted(from), sorted(to)
	if !sameFrame(from, to) {
		return Delta{}, false
	}
	d := Delta{
		AsOf: to.AsOf, Leavers: to.Leavers, Suspended: to.Suspended, Unjudged: to.Unjudged, Undecided: to.Undecided,
	}
	merge(from.Desired, to.Desired, func(a *policy.Desired) string { return a.Subject }, func(a, b *policy.Desired) {
		switch {
		case b == nil:
			d.Gone = append(d.Gone, a.Subject)
		case a == nil || !reflect.DeepEqual(*a, *b):
			d.Desired = append(d.Desired, *b)
		}
	})
	for i := range to.Connectors {
		if m, moved := moves(&from.Connectors[i], &to.Connectors[i]); moved {
			d.Connectors = append(d.Connectors, m)
		}
	}
	merge(from.Links, to.Links, func(l *Link) string { return placeKey(l.Connector, l.Anchor) }, func(a, b *Link) {
		switch {
		case b == nil:
			d.Unlinked = append(d.Unlinked, Place{a.Connector, a.Anchor})
		case a == nil || *a != *b:
			d.Links = append(d.Links, *b)
		}
	})
	merge(pages(from.Ledger), pages(to.Ledger), func(p *Page) string { return placeKey(p.Connector, p.Anchor) }, func(a, b *Page) {
		switch {
		case b == nil:
			d.Ledger = append(d.Ledger, Page{Place: a.Place})
		case a == nil || !reflect.DeepEqual(a.Entries, b.Entries):
			d.Ledger = append(d.Ledger, *b)
		}
	})
	return d, true
}

// sameFrame reports that two inputs differ in nothing but what a Delta can say.
func sameFrame(a, b Input) bool {
	return a.Purpose == b.Purpose && bytes.Equal(a.ChangeKey, b.ChangeKey) && !b.AsOf.Before(a.AsOf) &&
		reflect.DeepEqual(a.Entitlements, b.Entitlements) && reflect.DeepEqual(a.Rules, b.Rules) &&
		slices.EqualFunc(a.Connectors, b.Connectors, func(x, y Connector) bool {
			return x.Alias == y.Alias && x.Agent == y.Agent && x.Source == y.Source && x.Mode == y.Mode && x.CaseRule == y.CaseRule &&
				x.Suspended == y.Suspended && (x.Snapshot == nil) == (y.Snapshot == nil) && x.Snapshot.GetComplete() == y.Snapshot.GetComplete() &&
				slices.EqualFunc(x.Types, y.Types, func(s, t *connectorv1.ObjectType) bool { return proto.Equal(s, t) })
		})
}

func moves(a, b *Connector) (Moved, bool) {
	m := Moved{Alias: b.Alias, Snapshot: b.Snapshot}
	merge(a.Objects, b.Objects, func(o **connectorv1.Object) string { return (*o).GetAnchor() }, func(x, y **connectorv1.Object) {
		switch {
		case y == nil:
			m.Removed = append(m.Removed, (*x).GetAnchor())
		case x == nil || *x != *y && !proto.Equal(*x, *y):
			m.Objects = append(m.Objects, *y)
		}
	})
	return m, a.Snapshot != b.Snapshot || len(m.Objects)+len(m.Removed) > 0
}

// merge calls each with what two lists sorted by key hold under one key, nil for
// the side that has nothing.
func merge[E any](from, to []E, key func(*E) string, each func(a, b *E)) {
	for len(from) > 0 || len(to) > 0 {
		switch {
		case len(from) == 0 || len(to) > 0 && key(&to[0]) < key(&from[0]):
			each(nil, &to[0])
			to = to[1:]
		case len(to) == 0 || key(&from[0]) < key(&to[0]):
			each(&from[0], nil)
			from = from[1:]
		default:
			each(&from[0], &to[0])
			from, to = from[1:], to[1:]
		}
	}
}

// placeKey orders as (connector, anchor) does: no alias holds a zero octet.
func placeKey(connector, anchor string) string { return connector + "\x00" + anchor }

// pages of a sorted ledger.
func pages(ledger []Entry) []Page {
	var out []Page
	for from, to := 0, 0; from < len(ledger); from = to {
		place := Place{ledger[from].Connector, ledger[from].Anchor}
		for to = from; to < len(ledger) && ledger[to].Connector == place.Connector && ledger[to].Anchor == place.Anchor; {
			to++
		}
		out = append(out, Page{place, ledger[from:to:to]})
	}
	return out
}
