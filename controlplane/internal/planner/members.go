package planner

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// seat is one membership policy wants, with the reason that speaks for it.
type seat struct {
	*target
	identity string
	reason   policy.Entitled
	cause    planv1.Cause
}

// governed is a group that entitlements name, or that the ledger remembers.
type governed struct {
	group         *connectorv1.Object
	authoritative bool
	// cause of who must go because the group is authoritative.
	cause         planv1.Cause
	named         bool
	seats         map[string]*seat
	adds, removes []*planv1.Change
	// stuck is the member that cannot go because it is the last.
	stuck string
}

// memberships plans who comes into and goes out of groups.
func (p *plan) memberships() error {
	groups, err := p.governs()
	if err != nil {
		return err
	}
	if p.standing != nil && !p.standing.governsSame(groups) {
		return errOthersGroups
	}
	for i := range p.in.Desired {
		if err := p.seats(&p.in.Desired[i], groups.byEntitlement); err != nil {
			return err
		}
	}
	for _, key := range groups.keys() {
		g, v := groups.all[key], p.views[key.connector]
		if groups.skips(key) {
			p.find(FindingHeld, key.connector, g.group.GetName().Text(), "",
				"Reeve put members into this group and no entitlement names it, while another entitlement's group is missing; if it was renamed, correct the entitlement's name.")
			continue
		}
		p.seatMembers(v, g)
		p.unseat(v, g)
		p.keepOne(v, g)
		p.keepStuck(v, g)
	}
	p.deleteAfterLeaving()
	return nil
}

func (p *plan) missing(v *view, e *policy.Entitlement) string {
	name := "its group"
	if n := nameOf(e.Name); n != nil {
		name = "group " + n.Text()
	}
	if !v.complete() {
		return "Entitlement " + strconv.Quote(e.ID) + " waits: " + name + " was not in the last snapshot, which is incomplete."
	}
	return "Entitlement " + strconv.Quote(e.ID) + " cannot be given: " + name + " of type " + e.Type +
		" does not exist; create it or correct the entitlement's name."
}

// group finds an entitlement's group, nil when there is none of that type.
func (v *view) group(e *policy.Entitlement) *connectorv1.Object {
	group := v.names.last(nameOf(e.Name).Key(v.conn.CaseRule))
	if group.GetType() != e.Type || v.types[e.Type] == nil {
		return nil
	}
	return group
}

// seats notes the memberships one identity should have. Reasons are sorted, so
// the first for a group speaks; the membership is the client's as soon as one
// of the reasons is.
func (p *plan) seats(d *policy.Desired, byEntitlement map[string]*governed) error {
	for _, e := range d.Entitlements {
		ent := p.entitlements[e.Entitlement]
		if ent == nil {
			p.find(FindingHeld, e.Connector, e.Entitlement, d.Subject,
				"Entitlement "+strconv.Quote(e.Entitlement)+" is not in the policy bundle; end the grant or add the entitlement.")
			continue
		}
		g, t := byEntitlement[e.Entitlement], p.targets[targetKey{ent.Connector, d.Subject, e.Purpose}]
		if g == nil || p.ended(e) {
			continue
		}
		if t == nil || t.leaving {
			p.find(FindingHeld, ent.Connector, e.Entitlement, d.Subject, fmt.Sprintf(
				"Entitlement %s waits until the identity has a %s account on %s.", strconv.Quote(e.Entitlement), e.Purpose, ent.Connector))
			continue
		}
		cause, err := causeOf(e.Cause)
		if err != nil {
			return fmt.Errorf("entitlement %q of identity %q: %w", e.Entitlement, d.Subject, err)
		}
		key := t.create
		if t.obj != nil {
			key = t.obj.GetAnchor()
		}
		have := g.seats[key]
		if have == nil {
			g.seats[key] = &seat{target: t, identity: d.Subject, reason: e, cause: cause}
			continue
		}
		if cause == planv1.Cause_CAUSE_CLIENT {
			have.cause = cause
		}
		if compareEnds(e, have.reason) < 0 {
			have.reason = e
		}
	}
	return nil
}

// seatMembers adds who is missing, and gives a membership that Reeve made its new
// reason when the old one gave way.
func (p *plan) seatMembers(v *view, g *governed) {
	t := v.types[g.group.GetType()]
	for _, key := range g.unsettled(v) {
		s := g.seats[key]
		hold := func(sentence string) {
			p.find(FindingHeld, v.conn.Alias, g.group.GetName().Text(), s.identity, sentence)
		}
		if s.obj != nil && !v.isMember(g.group, s.obj) && !v.canBeMember(g.group, s.obj) {
			hold("The account cannot be a member: it has no name of its own of the kind by which this group names its members. Give it one, or use another group.")
			continue
		}
		if !t.Allows(connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER) {
			hold("The connector cannot add members to groups of type " + t.GetName() + "; add it by hand.")
			continue
		}
		c := p.on(v, g.group, &connectorv1.Operation{Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: s.ref()}}})
		c.Display, c.Cause, c.Identity = s.display(), s.cause, s.identity
		c.Rule, c.Reason, c.Ticket, c.Grant = s.reason.Rule, s.reason.Reason, s.reason.Ticket, s.reason.Grant
		if !s.reason.End.IsZero() {
			c.EndsAt = timestamppb.New(s.reason.End)
		}
		g.adds = append(g.adds, p.add(c, levelMembers, s.create))
	}
}

// unsettled are the keys of seats that nobody has, or has for another reason,
// sorted.
func (g *governed) unsettled(v *view) []string {
	var keys []string
	for key, s := range g.seats {
		if s.obj != nil && v.isMember(g.group, s.obj) {
			e := v.memberEntry(g.group.GetAnchor(), s.obj.GetAnchor())
			if e == nil || !isTrue(e.Last) || e.Cause == s.cause && e.EndsAt.Equal(s.reason.End) && (s.reason.End.IsZero() || e.Grant == s.reason.Grant) {
				continue
			}
		}
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// memberEntry is the topmost entry of a membership.
func (v *view) memberEntry(group, member string) *Entry {
	entries := v.entries[group]
	at, _ := slices.BinarySearchFunc(entries, member, func(e *Entry, member string) int {
		if e.Item != ItemMember {
			return strings.Compare(string(e.Item), string(ItemMember))
		}
		return strings.Compare(e.Member, member)
	})
	var top *Entry
	for ; at < len(entries) && entries[at].Item == ItemMember && entries[at].Member == member; at++ {
		if top == nil || entries[at].Cause == planv1.Cause_CAUSE_MSP {
			top = entries[at]
		}
	}
	return top
}

// unseat takes out whom policy no longer wants, as far as it may.
func (p *plan) unseat(v *view, g *governed) {
	members, unknown := v.lookedAt(g.group, g.authoritative)
	if unknown > 0 && g.authoritative {
		p.find(FindingUnexplained, v.conn.Alias, g.group.GetName().Text(), "", fmt.Sprintf(
			"%d members of this group are not observed objects; widen the connector's scope or review them by hand.", unknown))
	}
	for _, anchor := range members {
		obj, link := v.anchors[anchor], v.links[anchor]
		if g.seats[anchor] != nil {
			continue
		}
		e := v.memberEntry(g.group.GetAnchor(), anchor)
		added := e != nil && isTrue(e.Last) && !isTrue(e.Before)
		identity := ""
		if link != nil {
			identity = link.Identity
		}
		if p.unjudged[identity] && !p.leavers[identity] {
			continue
		}
		t := p.targets[targetKey{v.conn.Alias, identity, link.purpose()}]
		var cause planv1.Cause
		var rule, reason string
		switch {
		case added && link != nil:
			cause, rule, reason = e.Cause, e.Rule, "no role or grant asks for the membership any more"
		case g.named && link != nil && p.leavers[identity] && (t != nil || p.unjudged[identity]):
			cause, reason = planv1.Cause_CAUSE_CLIENT, "the person has left"
			if t != nil {
				rule = t.want.Rule
			}
		case g.authoritative && v.conn.Mode == ModeEnforce && v.types[obj.GetType()].GetKind() == connectorv1.Kind_KIND_ACCOUNT:
			cause, reason = g.cause, "the entitlement's members are exactly those that policy names"
			if t != nil {
				rule = t.want.Rule
			}
		case g.named && link != nil || added:
			p.loudly(v, anchor)
			p.find(FindingUnexplained, v.conn.Alias, g.group.GetName().Text(), identity,
				"Member "+obj.GetName().Text()+" is not explained by policy; grant it, or remove it by hand.")
			continue
		default:
			continue
		}
		p.loudly(v, anchor)
		p.removeMember(v, g, obj, e, &planv1.Change{Cause: cause, Rule: rule, Reason: reason, Identity: identity})
	}
}

func (p *plan) removeMember(v *view, g *governed, obj *connectorv1.Object, e *Entry, why *planv1.Change) {
	if !v.complete() || !v.types[g.group.GetType()].Allows(connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER) {
		p.find(FindingHeld, v.conn.Alias, g.group.GetName().Text(), why.GetIdentity(),
			"Member "+obj.GetName().Text()+" should go, and cannot be taken out now: the last snapshot is incomplete or the connector cannot; remove it by hand if it is urgent.")
		return
	}
	c := p.on(v, g.group, &connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: refTo(obj)}}})
	c.Display, c.Cause, c.Rule, c.Reason, c.Identity = obj.GetName().Text(), why.GetCause(), why.GetRule(), why.GetReason(), why.GetIdentity()
	c.Removal = planv1.Removal_REMOVAL_MEMBERSHIP
	person := why.GetIdentity()
	if person == "" {
		person = anchorPrefix + v.conn.Alias + "/" + obj.GetAnchor()
	}
	if e != nil {
		c.Grant = e.Grant
		if !isTrue(e.Before) {
			c.Undoes = e.Change
		}
	}
	g.removes = append(g.removes, p.add(c, levelTake))
	// The end of a timed grant was decided when it was given: the agent keeps it
	// by itself, so it is no accident that a budget could prevent.
	if e == nil || e.EndsAt.IsZero() || e.EndsAt.After(p.in.AsOf) {
		p.loses(c, person)
	}
}

// lookedAt are the members to look at; those not observed are counted where it
// matters.
func (v *view) lookedAt(group *connectorv1.Object, count bool) (anchors []string, unknown int) {
	if v.within == nil {
		return v.membersOf(group)
	}
	if count {
		_, unknown = v.membersOf(group)
	}
	set := v.memberSet(group)
	for _, anchor := range keysOf(v.within) {
		seen := func(k string) bool { return set[k] && v.keys.only(k) != nil }
		if slices.ContainsFunc(v.anchors[anchor].GetKeys(), seen) {
			anchors = append(anchors, anchor)
		}
	}
	return anchors, unknown
}

// membersOf returns the anchors of the group's members, sorted, and how many
// link keys name none or several objects.
func (v *view) membersOf(group *connectorv1.Object) (anchors []string, unknown int) {
	for _, k := range group.GetMembers() {
		if found := v.keys.only(k); found != nil {
			anchors = append(anchors, found.GetAnchor())
		} else {
			unknown++
		}
	}
	slices.Sort(anchors)
	return slices.Compact(anchors), unknown
}

// keepOne lets the last removal wait for the first addition where a group may
// not be empty, and holds it where there is none.
func (p *plan) keepOne(v *view, g *governed) {
	if !v.types[g.group.GetType()].GetNeedsMember() || len(g.removes) == 0 {
		return
	}
	members, unknown := v.membersOf(g.group)
	joining := slices.DeleteFunc(slices.Clone(g.adds), func(c *planv1.Change) bool {
		_, in := slices.BinarySearch(members, c.GetOperation().GetAddMember().GetMember().GetAnchor())
		return in
	})
	if len(g.removes) < len(members)+unknown {
		return
	}
	last, first := p.lastOut(g, joining)
	if first != nil {
		last.DependsOn = append(last.DependsOn, first.GetId())
		return
	}
	p.drop([]string{last.GetId()})
	g.stuck = last.GetOperation().GetRemoveMember().GetMember().GetAnchor()
	kind := FindingHeld
	if p.in.Purpose == planv1.Purpose_PURPOSE_OFFBOARD {
		kind = FindingResidue
	}
	p.find(kind, v.conn.Alias, g.group.GetName().Text(), last.GetIdentity(),
		"Member "+last.GetDisplay()+" should go and is the group's last, which this type of group may not lose; add another member or delete the group.")
}

// keepStuck holds the deletion of an account that a group cannot be without.
func (p *plan) keepStuck(v *view, g *governed) {
	if g.stuck == "" {
		return
	}
	for _, id := range keysOf(p.changes) {
		c := p.changes[id]
		if c.GetConnector() != v.conn.Alias || c.GetOperation().GetDelete() == nil || c.GetOperation().GetObject().GetAnchor() != g.stuck {
			continue
		}
		for _, dependent := range p.drop([]string{id}) {
			d := p.changes[dependent]
			p.find(FindingHeld, d.GetConnector(), d.GetDisplay(), d.GetIdentity(), "This change waits for a name that is not free yet.")
			delete(p.changes, dependent)
		}
		p.find(FindingHeld, v.conn.Alias, c.GetDisplay(), c.GetIdentity(),
			"The object is kept because "+g.group.GetName().Text()+" cannot be without it; add another member there.")
	}
}

// deleteAfterLeaving lets the deletion of an account wait until it is out of the
// groups that this plan takes it out of.
func (p *plan) deleteAfterLeaving() {
	out := map[object][]string{}
	for _, id := range keysOf(p.changes) {
		c := p.changes[id]
		if r := c.GetOperation().GetRemoveMember(); r != nil {
			member := object{c.GetConnector(), r.GetMember().GetAnchor()}
			out[member] = append(out[member], id)
		}
	}
	for _, c := range p.changes {
		if c.GetOperation().GetDelete() != nil {
			c.DependsOn = append(c.DependsOn, out[object{c.GetConnector(), c.GetOperation().GetObject().GetAnchor()}]...)
		}
	}
}

func (l *Link) purpose() string {
	if l == nil {
		return ""
	}
	return l.Purpose
}
