package planner

import (
	"slices"

	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Settle compares a connector's entries with a complete snapshot and returns
// those that still mean something: an item that others put back to where it was
// has nothing left to undo, one that others changed otherwise is marked Diverged,
// and a vanished object takes its entries with it. Only entries of writes older
// than the snapshot may be passed; those of other connectors pass unchanged.
// With an incomplete snapshot nothing follows.
func Settle(entries []Entry, conn Connector) []Entry {
	if conn.Snapshot == nil || !conn.Snapshot.GetComplete() {
		return slices.Clone(entries)
	}
	v := newView(&conn)
	covered := map[itemKey]bool{}
	for _, e := range entries {
		if e.Connector == conn.Alias && e.Cause == planv1.Cause_CAUSE_MSP {
			covered[e.key()] = true
		}
	}
	var out []Entry
	for _, e := range entries {
		// A client's entry under one of the MSP's shows nothing of itself.
		if e.Connector != conn.Alias || e.Cause == planv1.Cause_CAUSE_CLIENT && covered[e.key()] {
			out = append(out, e)
			continue
		}
		obj := v.anchors[e.Anchor]
		if obj == nil {
			if e.Item == ItemExists && isTrue(e.Before) {
				out = append(out, e)
			}
			continue
		}
		if e.Member != "" && v.anchors[e.Member] == nil {
			continue
		}
		switch now, known := v.observed(obj, e); {
		case !known || v.sameAsLast(obj, e, now):
			out = append(out, e)
		case e.Item == ItemEnabled && isTrue(e.Last), !sameOctets(now, e.Before):
			e.Diverged = true
			out = append(out, e)
		}
	}
	return out
}

// itemKey names an item whatever its cause.
type itemKey struct {
	anchor, attribute, value, member string
	item                             Item
}

func (e Entry) key() itemKey {
	return itemKey{anchor: e.Anchor, attribute: e.Attribute, value: e.Value, member: e.Member, item: e.Item}
}
