package planner

import (
	"slices"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Settle compares a connector's entries with a complete snapshot and returns
// those that still mean something: an item that others put back to where it was
// has nothing left to undo, and one that others changed otherwise is marked
// Diverged. An object that is not seen keeps its entries. Only entries of writes older
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
			// Deleted, or hidden from the agent for a while: only that it is not seen
			// is known, and what Reeve wrote may stand there still.
			out = append(out, e)
			continue
		}
		if e.Item == ItemMember && !isTrue(e.Before) {
			if e.Keys = v.seatKeys(obj, e); len(v.lingering(obj, e)) > 0 {
				e.Diverged = e.Diverged || v.anchors[e.Member] == nil || !v.isMember(obj, v.anchors[e.Member])
				out = append(out, e)
				continue
			}
		}
		if e.Member != "" && (v.anchors[e.Member] == nil || sameOctets(e.Before, e.Last)) {
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

// seatKeys are the link keys of the entry's member, known before or seen now, that
// the group still holds.
func (v *view) seatKeys(group *connectorv1.Object, e Entry) []string {
	keys := slices.Clone(e.Keys)
	if isTrue(e.Last) {
		keys = append(keys, v.anchors[e.Member].GetKeys()...)
	}
	keys = slices.DeleteFunc(keys, func(k string) bool { return !v.memberSet(group)[k] })
	slices.Sort(keys)
	return slices.Compact(keys)
}

// lingering are those keys by which the group holds what Reeve put there, and
// which are not the member's any more.
func (v *view) lingering(group *connectorv1.Object, e Entry) []string {
	return slices.DeleteFunc(v.seatKeys(group, e), func(k string) bool { return slices.Contains(v.anchors[e.Member].GetKeys(), k) })
}

// itemKey names an item whatever its cause.
type itemKey struct {
	anchor, attribute, value, member string
	item                             Item
}

func (e Entry) key() itemKey {
	return itemKey{anchor: e.Anchor, attribute: e.Attribute, value: e.Value, member: e.Member, item: e.Item}
}
