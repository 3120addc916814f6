package planner

import (
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// view is one connector's snapshot with everything that is looked up in it.
type view struct {
	conn    *Connector
	types   map[string]*connectorv1.ObjectType
	anchors map[string]*connectorv1.Object
	// names by Name.Key under the connector's case rule, keys by link key.
	names, keys index
	// links by anchor; of are an identity's, by anchor.
	links map[string]*Link
	of    map[string][]*Link
	// linked are the links to look at, by anchor, and within the anchors; nil is
	// every one.
	linked []*Link
	within map[string]bool
	// entries by anchor, as CompareEntries orders them.
	entries map[string][]*Entry
	// seating are the anchors of groups with entries of memberships.
	seating map[string]bool
	// members by group, filled when asked for.
	members map[string]map[string]bool
	// leaving are the objects that the plan deletes.
	leaving map[string]bool
	// groups lists those that name a link key, filled when asked for.
	groups map[string][]string
}

func newView(conn *Connector) *view {
	v := &view{
		conn:    conn,
		types:   make(map[string]*connectorv1.ObjectType, len(conn.Types)),
		anchors: make(map[string]*connectorv1.Object, len(conn.Objects)),
		names:   newIndex(len(conn.Objects)),
		keys:    newIndex(len(conn.Objects)),
		links:   map[string]*Link{},
		of:      map[string][]*Link{},
		entries: map[string][]*Entry{},
		seating: map[string]bool{},
		leaving: map[string]bool{},
		members: map[string]map[string]bool{},
	}
	for _, t := range conn.Types {
		v.types[t.GetName()] = t
	}
	for _, o := range conn.Objects {
		v.anchors[o.GetAnchor()] = o
		v.names.put(o.GetName().Key(conn.CaseRule), o)
		for _, k := range o.GetKeys() {
			v.keys.put(k, o)
		}
	}
	return v
}

// account is an identity's link for a purpose: of several the first whose object
// exists.
func (v *view) account(identity, purpose string) *Link {
	var first *Link
	for _, l := range v.of[identity] {
		if l.Purpose != purpose {
			continue
		}
		if v.anchors[l.Anchor] != nil {
			return l
		}
		if first == nil {
			first = l
		}
	}
	return first
}

// idle says why nothing at all is planned on the connector, empty when
// something may be.
func (v *view) idle() string {
	switch {
	case v.conn.Suspended != "":
		return "connector is suspended: " + v.conn.Suspended
	case v.conn.Snapshot == nil:
		return "connector has not been observed yet; run its agent until a snapshot has come"
	case v.conn.Mode == ModeObserve:
		return "connector is in mode observe; the client moves it to adopt or enforce in agent.yaml"
	default:
		return ""
	}
}

// complete reports whether absence means anything in the snapshot.
func (v *view) complete() bool { return v.conn.Snapshot.GetComplete() }

// isMember reports whether the group names the object by any of its link keys.
func (v *view) isMember(group, obj *connectorv1.Object) bool {
	set := v.memberSet(group)
	for _, k := range obj.GetKeys() {
		if set[k] {
			return true
		}
	}
	return false
}

func (v *view) memberSet(group *connectorv1.Object) map[string]bool {
	set, known := v.members[group.GetAnchor()]
	if !known {
		set = make(map[string]bool, len(group.GetMembers()))
		for _, k := range group.GetMembers() {
			set[k] = true
		}
		v.members[group.GetAnchor()] = set
	}
	return set
}

// canBeMember reports whether the object has a link key of the kind by which the
// group's type names members, and is the only one that has it.
func (v *view) canBeMember(group *connectorv1.Object, obj *connectorv1.Object) bool {
	prefix := v.types[group.GetType()].GetMemberKey()
	for _, k := range obj.GetKeys() {
		if strings.HasPrefix(k, prefix) && v.keys.only(k) != nil {
			return true
		}
	}
	return false
}

// reference returns how the ledger remembers a link key.
func (v *view) reference(key []byte) []byte {
	if o := v.keys.only(string(key)); o != nil {
		return anchorValue(o.GetAnchor())
	}
	return key
}

// values returns an attribute as the ledger remembers it: references by anchor.
func (v *view) values(obj *connectorv1.Object, name string) [][]byte {
	raw := obj.Attribute(name)
	if v.rule(obj, name) != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
		return raw
	}
	out := make([][]byte, len(raw))
	for i, key := range raw {
		out[i] = v.reference(key)
	}
	return out
}

func (v *view) rule(obj *connectorv1.Object, name string) connectorv1.MatchingRule {
	return v.types[obj.GetType()].AttributeType(name).GetRule()
}

// observed returns an entry's item as it is now, in the form of Before and Last.
// It is unknown where the item cannot be read, as a credential.
func (v *view) observed(obj *connectorv1.Object, e Entry) (now [][]byte, known bool) {
	switch e.Item {
	case ItemExists:
		return truth(true), true
	case ItemName:
		return [][]byte{[]byte(obj.GetName().Text())}, true
	case ItemEnabled:
		return enabled(obj.GetEnablement()), obj.GetEnablement() != connectorv1.Enablement_ENABLEMENT_UNSPECIFIED
	case ItemMember:
		member := v.anchors[e.Member]
		return truth(member != nil && v.isMember(obj, member)), true
	case ItemAttribute:
		now = v.values(obj, e.Attribute)
		if t := v.types[obj.GetType()].AttributeType(e.Attribute); t == nil || t.GetMultiValued() {
			now = only(t.GetRule(), now, []byte(e.Value))
		}
		return now, true
	default:
		return nil, false
	}
}

// sameAsLast reports whether an item still is what Reeve wrote last, under the
// rules by which the directory compares. (What was there before is compared by
// octet: undoing gives back the very bytes.)
func (v *view) sameAsLast(obj *connectorv1.Object, e Entry, now [][]byte) bool {
	switch e.Item {
	case ItemName:
		return obj.GetName().Key(v.conn.CaseRule) == e.LastName.Key(v.conn.CaseRule)
	case ItemAttribute:
		return connectorv1.SameValues(v.rule(obj, e.Attribute), now, e.Last)
	default:
		return sameOctets(now, e.Last)
	}
}

// entry finds the topmost entry of an item: the MSP's lies upon the client's.
func (v *view) entry(anchor string, match func(*Entry) bool) *Entry {
	var found *Entry
	for _, e := range v.entries[anchor] {
		if match(e) && (found == nil || e.Cause == planv1.Cause_CAUSE_MSP) {
			found = e
		}
	}
	return found
}

func (v *view) itemEntry(anchor string, item Item) *Entry {
	return v.entry(anchor, func(e *Entry) bool { return e.Item == item })
}

// created reports whether Reeve made the object.
func (v *view) created(anchor string) bool {
	if l := v.links[anchor]; l != nil && l.Created {
		return true
	}
	e := v.itemEntry(anchor, ItemExists)
	return e != nil && !isTrue(e.Before)
}

func truth(b bool) [][]byte {
	if b {
		return [][]byte{[]byte("true")}
	}
	return [][]byte{[]byte("false")}
}

func isTrue(v [][]byte) bool { return len(v) == 1 && string(v[0]) == "true" }

func enabled(e connectorv1.Enablement) [][]byte {
	return truth(e == connectorv1.Enablement_ENABLEMENT_ENABLED)
}

func anchorValue(anchor string) []byte { return []byte(anchorPrefix + anchor) }

const anchorPrefix = "anchor:"

func sameOctets(a, b [][]byte) bool {
	return connectorv1.SameValues(connectorv1.MatchingRule_MATCHING_RULE_EXACT, a, b)
}

func otherCause(c planv1.Cause) planv1.Cause {
	if c == planv1.Cause_CAUSE_CLIENT {
		return planv1.Cause_CAUSE_MSP
	}
	return planv1.Cause_CAUSE_CLIENT
}

func touchedValues(t interface {
	GetAttributes() []*connectorv1.Attribute
}, name string) [][]byte {
	for _, a := range t.GetAttributes() {
		if strings.EqualFold(a.GetName(), name) {
			return a.GetValues()
		}
	}
	return nil
}
