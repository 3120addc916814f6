package identity

import (
	"fmt"
	"maps"
	"slices"
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
	// identities as they stand now, by id.
	identities map[string]Identity
	// created are the objects that Reeve made, by connector and anchor.
	created map[[2]string]bool
	out     *Outcome
}

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

func (f *folding) fold(src SourceSnapshot, all []Link) error {
	known := map[string]Link{}
	for _, l := range all {
		if l.Connector == src.Connector {
			known[l.Anchor] = l
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
		id := f.identities[link.Identity]
		if id.Missing == 0 {
			// A clock that is ahead must not put the end of the grace off.
			id.MissingSince = src.At
			if now := f.now(); now.Before(id.MissingSince) {
				id.MissingSince = now
			}
		}
		id.Missing++
		link.Snapshot = src.Snapshot
		if err := f.put(id); err != nil {
			return err
		}
		if err := f.store.PutLink(f.t, f.tenant, link); err != nil {
			return err
		}
	}
	return nil
}

func (f *folding) put(id Identity) error {
	f.identities[id.ID] = id
	return f.store.Put(f.t, f.tenant, id)
}

// take folds one present row in.
func (f *folding) take(src SourceSnapshot, r read, known map[string]Link) error {
	link, linked := known[r.anchor]
	id := Identity{ID: newID(), Kind: r.row.Kind}
	if linked {
		id = f.identities[link.Identity]
	}
	before := id
	id.Missing, id.MissingSince = 0, time.Time{}
	if r.row.InScope {
		id.Label, id.Attributes, id.References = r.row.Label, r.row.Attributes, r.row.References
		id.Suspended, id.Starts, id.Ends = r.row.Suspended, r.row.Starts, r.row.Ends
	}
	if linked {
		if same(before, id) {
			return nil
		}
		return f.put(id)
	}
	if err := f.put(id); err != nil {
		return err
	}
	return f.store.PutLink(f.t, f.tenant, Link{Connector: src.Connector, Anchor: r.anchor, Identity: id.ID, Snapshot: src.Snapshot})
}

func same(a, b Identity) bool {
	return a.Kind == b.Kind && a.Label == b.Label && a.Suspended == b.Suspended && a.Starts.Equal(b.Starts) && a.Ends.Equal(b.Ends) &&
		a.Missing == b.Missing && maps.EqualFunc(a.Attributes, b.Attributes, slices.Equal[[]string]) &&
		slices.EqualFunc(a.References, b.References, func(x, y Reference) bool {
			return x.Name == y.Name && x.Attribute == y.Attribute && slices.Equal(x.Values, y.Values)
		})
}
