package ldap

import (
	"context"
	"slices"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// memberChange is one add_member or remove_member, resolved.
type memberChange struct {
	op    *connectorv1.Operation
	index int
	add   bool
	// value is the member as the group's attribute names it.
	value string
}

// memberChange resolves a member operation; nil for all others. A member that
// is not there is a conflict.
func (b *batch) memberChange(op *connectorv1.Operation, index int) (*memberChange, *sdk.Problem) {
	ref, add := op.GetAddMember().GetMember(), op.GetAddMember() != nil
	if op.GetRemoveMember() != nil {
		ref = op.GetRemoveMember().GetMember()
	}
	if ref == nil {
		return nil, nil
	}
	value, p := b.memberValue(b.typeNamed(op.GetObject().GetType()), ref)
	if p != nil {
		return nil, p
	}
	return &memberChange{op: op, index: index, add: add, value: value}, nil
}

// memberValue names a member: by its DN, or by the uid of its RDN, or its first
// uid.
func (b *batch) memberValue(t *objectType, ref *connectorv1.ObjectRef) (string, *sdk.Problem) {
	dn, entry, p := b.dn(ref)
	if p != nil || t.memberKey == dnKeyPrefix {
		return dn, p
	}
	if parts, err := parseDN(dn); err == nil && len(parts) > 0 {
		for _, p := range parts[0] {
			if canonicalType(p.typ) == "uid" && !p.binary {
				return p.value, nil
			}
		}
	}
	if entry != nil {
		if uid := entry.GetEqualFoldAttributeValue("uid"); uid != "" {
			return uid, nil
		}
	}
	return "", sdk.NewProblem(sdk.CodeInvalidValue, displayDN(dn), "name it as a member", "give it a uid: a "+t.name+" names members by uid")
}

// newMembers are the member values of a group to create.
func (b *batch) newMembers(t *objectType, op *connectorv1.Operation) ([]string, *sdk.Problem) {
	if t.member == "" {
		return nil, nil
	}
	var out []string
	for _, ref := range op.GetCreate().GetMembers() {
		value, p := b.memberValue(t, ref)
		if p != nil {
			return nil, p
		}
		out = append(out, value)
	}
	if len(out) == 0 && t.memberKey == dnKeyPrefix && b.placeholder != "" {
		out = []string{b.placeholder}
	}
	return out, nil
}

// changeMembers carries out the changes of one group: together if nothing
// speaks against it, halved while they fail.
func (b *batch) changeMembers(ctx context.Context, changes []*memberChange, results map[int]*connectorv1.ApplyResult) {
	var together []*memberChange
	for n, c := range changes {
		// What has a base of its own to assert, or meets itself, stands alone.
		twice := slices.ContainsFunc(changes, func(o *memberChange) bool { return o != changes[n] && o.value == c.value })
		if len(c.op.GetExpect()) > 0 || twice {
			b.changeMember(ctx, []*memberChange{c}, results)
			continue
		}
		together = append(together, c)
	}
	if len(together) > 0 {
		b.changeMember(ctx, together, results)
	}
}

func (b *batch) changeMember(ctx context.Context, changes []*memberChange, results map[int]*connectorv1.ApplyResult) {
	first := changes[0]
	t := b.typeNamed(first.op.GetObject().GetType())
	var failed error
	done := b.asserted(ctx, t, first.op, func(ctx context.Context, g *target) error {
		failed = b.modifyMembers(ctx, g, changes)
		return failed
	})
	if done.GetOutcome() == connectorv1.Outcome_OUTCOME_DONE || len(changes) == 1 || failed == nil || !isAnswer(failed) {
		for _, c := range changes {
			results[c.index] = &connectorv1.ApplyResult{OperationId: c.op.GetId(), Outcome: done.GetOutcome(), Problem: done.GetProblem()}
		}
		return
	}
	// The server refused the whole for a part of it.
	half := len(changes) / 2
	b.changeMember(ctx, changes[:half], results)
	b.changeMember(ctx, changes[half:], results)
}

// modifyMembers sends one modify for all changes.
func (b *batch) modifyMembers(ctx context.Context, g *target, changes []*memberChange) error {
	var add, remove []string
	for _, c := range changes {
		if c.add {
			add = append(add, c.value)
		} else {
			remove = append(remove, c.value)
		}
	}
	held, err := b.holdsPlaceholder(ctx, g, len(add) > 0)
	if err != nil {
		return err
	}
	var mods []ldap.Change
	if len(add) > 0 {
		mods = append(mods, change(ldap.AddAttribute, g.t.member, add...))
	}
	if held {
		mods = append(mods, change(ldap.DeleteAttribute, g.t.member, b.placeholder))
	}
	if len(remove) > 0 {
		mods = append(mods, change(ldap.DeleteAttribute, g.t.member, remove...))
	}
	err = b.sendMembers(ctx, g, mods)
	switch code := resultCode(err); {
	case code == ldap.LDAPResultObjectClassViolation && len(remove) > 0 && b.usesPlaceholder(g.t):
		// The last member went: somebody who is nobody takes the place.
		return b.sendMembers(ctx, g, append([]ldap.Change{change(ldap.AddAttribute, g.t.member, b.placeholder)}, mods...))
	case len(changes) == 1 && !held && (len(add) > 0 && code == ldap.LDAPResultAttributeOrValueExists || len(remove) > 0 && code == ldap.LDAPResultNoSuchAttribute):
		return nil // it was so already
	}
	return err
}

// sendMembers lets the server overlook what is so already where it can.
func (b *batch) sendMembers(ctx context.Context, g *target, mods []ldap.Change) error {
	return b.do(ctx, &b.writing, func(s *session) error {
		controls := g.controls(s.server)
		if s.server.control(oidPermissiveModify) {
			controls = append(controls, ldap.NewControlString(oidPermissiveModify, true, ""))
		}
		request := ldap.NewModifyRequest(g.entry.DN, controls)
		request.Changes = mods
		return s.conn.Modify(request)
	})
}

func (b *batch) usesPlaceholder(t *objectType) bool {
	return t.memberKey == dnKeyPrefix && b.placeholder != ""
}

// holdsPlaceholder asks whether the group stands empty.
func (b *batch) holdsPlaceholder(ctx context.Context, g *target, matters bool) (bool, error) {
	if !matters || !b.usesPlaceholder(g.t) {
		return false, nil
	}
	return b.holds(ctx, g, b.placeholder)
}

// holds asks for one member without reading them all.
func (b *batch) holds(ctx context.Context, g *target, member string) (bool, error) {
	var result *ldap.SearchResult
	err := b.ask(ctx, &b.writing, func(s *session) (err error) {
		filter := "(" + g.t.member + "=" + ldap.EscapeFilter(member) + ")"
		result, err = s.conn.Search(ldap.NewSearchRequest(g.entry.DN, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, filter, []string{noAttributes}, nil))
		return err
	})
	switch {
	case err == nil:
		return len(result.Entries) > 0, nil
	case isAnswer(err):
		return false, err
	default:
		// Nothing was sent that could have changed anything.
		return false, b.problem(err, displayDN(g.entry.DN), "see whether it has the member")
	}
}
