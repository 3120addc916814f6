package identity

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// rebindShare is the part of a source's linked anchors that may vanish while as
// many new ones come before the source counts as re-keyed.
const rebindShare = 2

// folding is one reconciliation under way.
type folding struct {
	*Service
	t      tx.Tx
	tenant string
	mapper Mapper
	// identities as they stand now, by id, and their links.
	identities map[string]Identity
	links      map[string]map[place]Link
	// called finds identities by what they are called.
	called map[string]map[string]bool
	// created are the objects that Reeve made, by connector and anchor.
	created map[[2]string]bool
	out     *Outcome
}

// place is where a source object is.
type place struct{ connector, anchor string }

// ours reports whether Reeve made an object of a source: such an account is never
// a subject of its own.
func (f *folding) ours(src SourceSnapshot, anchor string) bool {
	return f.created[[2]string{src.Connector, anchor}] ||
		slices.ContainsFunc(src.Same, func(alias string) bool { return f.created[[2]string{alias, anchor}] })
}

// read is a row of a source that is about somebody.
type read struct {
	anchor string
	row    Row
}

func (f *folding) fold(src SourceSnapshot) error {
	known := map[string]Link{}
	for _, links := range f.links {
		for at, l := range links {
			if at.connector == src.Connector {
				known[l.Anchor] = l
			}
		}
	}
	present := map[string]bool{}
	var rows []read
	fresh := 0
	for _, o := range src.Objects {
		anchor := o.GetAnchor()
		present[anchor] = true
		row, ok, err := f.mapper.Row(src.Connector, o)
		if err != nil {
			f.out.Problems = append(f.out.Problems, Problem{Connector: src.Connector, Said: err.Error()})
			continue
		}
		_, linked := known[anchor]
		if !ok || f.ours(src, anchor) || (!linked && !row.InScope) {
			continue
		}
		if !linked {
			fresh++
		}
		rows = append(rows, read{anchor, row})
	}
	if src.Rebind {
		if err := f.rebind(src, rows, present, known); err != nil {
			return err
		}
	}
	gone := 0
	for anchor := range known {
		if !present[anchor] {
			gone++
		}
	}
	if !src.Rebind && len(known) > 1 && gone*rebindShare > len(known) && fresh*rebindShare > len(known) {
		f.out.Suspend[src.Connector] = fmt.Sprintf("%d of %d people changed their anchor at once: the source's key was replaced; if that was meant, run `reeve source confirm` again, and they are found by login, mail address or staff number", gone, len(known))
		return nil
	}
	for _, r := range rows {
		if err := f.take(src, r, known); err != nil {
			return err
		}
	}
	if !src.Complete || len(src.Objects) == 0 {
		// An incomplete or empty source says nothing of who is not in it.
		return nil
	}
	for _, anchor := range sortedKeys(known) {
		link := known[anchor]
		if present[anchor] || link.Snapshot == src.Snapshot {
			continue
		}
		if link.Missing == 0 {
			// A clock that is ahead must not put the end of the grace off.
			link.MissingSince = src.At
			if now := f.now(); now.Before(link.MissingSince) {
				link.MissingSince = now
			}
		}
		link.Missing++
		link.Snapshot = src.Snapshot
		if err := f.putLink(link); err != nil {
			return err
		}
	}
	return nil
}

func (f *folding) putLink(l Link) error {
	if f.links[l.Identity] == nil {
		f.links[l.Identity] = map[place]Link{}
	}
	f.links[l.Identity][place{l.Connector, l.Anchor}] = l
	return f.store.PutLink(f.t, f.tenant, l)
}

// take folds one present row in.
func (f *folding) take(src SourceSnapshot, r read, known map[string]Link) error {
	link, linked := known[r.anchor]
	if !linked {
		id, ok := f.joins(src, r)
		if !ok {
			return nil
		}
		return f.putLink(Link{Connector: src.Connector, Anchor: r.anchor, Identity: id, Snapshot: src.Snapshot, Said: r.row})
	}
	before := link
	link.Missing, link.MissingSince = 0, time.Time{}
	if r.row.InScope {
		link.Said = r.row
	}
	if link.Missing == before.Missing && sameRow(link.Said, before.Said) {
		return nil
	}
	return f.putLink(link)
}

// joins returns whom a new row is about: the one person of another source who has
// its login, mail address or staff number, or else somebody new. When it fits
// several, nothing follows from it before the sources agree.
func (f *folding) joins(src SourceSnapshot, r read) (id string, ok bool) {
	fits := map[string]bool{}
	for _, call := range calls(r.row.Attributes) {
		for other := range f.called[call] {
			if !f.linkedTo(other, src.Connector) {
				fits[other] = true
			}
		}
	}
	switch ids := sortedKeys(fits); len(ids) {
	case 0:
		id = newID()
		f.identities[id] = Identity{ID: id}
		f.call(id, r.row.Attributes)
		return id, true
	case 1:
		return ids[0], true
	default:
		f.out.Problems = append(f.out.Problems, Problem{Connector: src.Connector, Said: fmt.Sprintf(
			"object %s fits identities %s by login, mail address or staff number; correct the sources so that it fits one", r.anchor, strings.Join(ids, " and "))})
		return "", false
	}
}

func (f *folding) linkedTo(id, connector string) bool {
	for at := range f.links[id] {
		if at.connector == connector {
			return true
		}
	}
	return false
}

func (f *folding) call(id string, attributes map[string][]string) {
	for _, call := range calls(attributes) {
		if f.called[call] == nil {
			f.called[call] = map[string]bool{}
		}
		f.called[call][id] = true
	}
}

// settle makes every identity what its sources say together, and keeps those that
// changed.
func (f *folding) settle() error {
	for _, id := range sortedKeys(f.links) {
		before := f.identities[id]
		after := together(before, f.links[id])
		if same(before, after) {
			continue
		}
		f.identities[id] = after
		if err := f.store.Put(f.t, f.tenant, after); err != nil {
			return err
		}
	}
	return nil
}

// together joins what the sources of an identity say: each attribute whole from
// the first that gives it a value, the rest from the first. Somebody is gone when
// every source lacks them, and has an end when every source that has them gives
// one. What a source said last stands while it says nothing: one snapshot that
// lacks somebody must not change their department.
func together(id Identity, links map[place]Link) Identity {
	rows := make([]Link, 0, len(links))
	present := false
	for _, l := range links {
		rows = append(rows, l)
		present = present || l.Missing == 0
	}
	slices.SortFunc(rows, func(a, b Link) int {
		return cmp.Or(cmp.Compare(a.Said.Order, b.Said.Order), cmp.Compare(a.Connector, b.Connector), cmp.Compare(a.Anchor, b.Anchor))
	})
	first := rows[0]
	id.Kind, id.Label, id.Suspended, id.Starts = first.Said.Kind, first.Said.Label, first.Said.Suspended, first.Said.Starts
	var ends []time.Time
	id.Missing, id.MissingSince = first.Missing, first.MissingSince
	id.Attributes, id.References = map[string][]string{}, nil
	for _, l := range rows {
		for name, values := range l.Said.Attributes {
			if _, given := id.Attributes[name]; !given {
				id.Attributes[name] = values
			}
		}
		for _, ref := range l.Said.References {
			if !slices.ContainsFunc(id.References, func(r Reference) bool { return r.Name == ref.Name }) {
				id.References = append(id.References, ref)
			}
		}
		if l.Missing == 0 || !present {
			ends = append(ends, l.Said.Ends)
		}
		if l.Missing < id.Missing || l.Missing == id.Missing && l.MissingSince.After(id.MissingSince) {
			id.Missing, id.MissingSince = l.Missing, l.MissingSince
		}
	}
	id.Ends = slices.MaxFunc(ends, time.Time.Compare)
	if slices.ContainsFunc(ends, time.Time.IsZero) {
		id.Ends = time.Time{}
	}
	return id
}

func sameRow(a, b Row) bool {
	return a.Order == b.Order && same(
		Identity{Kind: a.Kind, Label: a.Label, Attributes: a.Attributes, References: a.References, Suspended: a.Suspended, Starts: a.Starts, Ends: a.Ends},
		Identity{Kind: b.Kind, Label: b.Label, Attributes: b.Attributes, References: b.References, Suspended: b.Suspended, Starts: b.Starts, Ends: b.Ends})
}

func same(a, b Identity) bool {
	return a.Kind == b.Kind && a.Label == b.Label && a.Suspended == b.Suspended && a.Starts.Equal(b.Starts) && a.Ends.Equal(b.Ends) &&
		a.Missing == b.Missing && maps.EqualFunc(a.Attributes, b.Attributes, slices.Equal[[]string]) &&
		slices.EqualFunc(a.References, b.References, func(x, y Reference) bool {
			return x.Name == y.Name && x.Attribute == y.Attribute && slices.Equal(x.Values, y.Values)
		})
}
