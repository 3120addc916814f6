package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// batch is one Apply under way.
type batch struct {
	*Instance
	targets *found
}

// Apply implements sdk.Applier. One search finds what all operations refer to;
// changes of one group's members become one request; operations of different
// objects run side by side on one connection, those of one object in order.
func (i *Instance) Apply(ctx context.Context, ops []*connectorv1.Operation) []*connectorv1.ApplyResult {
	results := make([]*connectorv1.ApplyResult, len(ops))
	b := &batch{Instance: i}
	targets, err := i.find(ctx, &i.writing, i.bases(), anchorsOf(ops), i.targetAttributes(ops))
	if err != nil {
		for n, op := range ops {
			results[n] = sdk.Refused(op, i.problem(err, label(op), "find what the operation refers to"))
		}
		return results
	}
	b.targets = targets
	jobs := jobsOf(ops)
	parallel(len(jobs), func(k int) {
		for n, result := range b.run(ctx, ops, jobs[k]) {
			results[n] = result
		}
	})
	return results
}

// label names an operation's object where nothing better is known.
func label(op *connectorv1.Operation) string {
	if c := op.GetCreate(); c != nil {
		return c.GetName().Text()
	}
	if n := op.GetObject().GetName(); n != nil {
		return n.Text()
	}
	return op.GetObject().GetType() + " " + op.GetObject().GetAnchor()
}

// jobsOf gathers the indexes of operations on one object.
func jobsOf(ops []*connectorv1.Operation) [][]int {
	at := map[string]int{}
	var jobs [][]int
	for n, op := range ops {
		key := label(op)
		k, known := at[key]
		if !known {
			k = len(jobs)
			at[key], jobs = k, append(jobs, nil)
		}
		jobs[k] = append(jobs[k], n)
	}
	return jobs
}

func anchorsOf(ops []*connectorv1.Operation) []string {
	var anchors []string
	add := func(refs ...*connectorv1.ObjectRef) {
		for _, ref := range refs {
			if ref.GetAnchor() != "" {
				anchors = append(anchors, ref.GetAnchor())
			}
		}
	}
	for _, op := range ops {
		add(op.GetObject(), op.GetAddMember().GetMember(), op.GetRemoveMember().GetMember())
		add(op.GetCreate().GetMembers()...)
		for _, d := range op.GetUpdate().GetDeltas() {
			add(d.GetAddRefs()...)
			add(d.GetRemoveRefs()...)
		}
	}
	slices.Sort(anchors)
	return slices.Compact(anchors)
}

// targetAttributes are what operations need to know of the entries, beside
// where they are.
func (i *Instance) targetAttributes(ops []*connectorv1.Operation) []string {
	attributes := []string{versionAttribute, "objectClass", "uid"}
	if d := i.settings.Disable; d.Method == DisablePPolicy {
		attributes = append(attributes, lockAttribute)
	} else if d.Method == DisableAttribute {
		attributes = append(attributes, d.Attribute.Name)
	}
	for _, op := range ops {
		for _, e := range op.GetExpect() {
			attributes = append(attributes, e.GetAttribute())
		}
		if t := i.typeNamed(op.GetObject().GetType()); t != nil {
			for _, d := range op.GetUpdate().GetDeltas() {
				if t.unmatched[strings.ToLower(d.GetAttribute())] {
					attributes = append(attributes, d.GetAttribute())
				}
			}
		}
	}
	slices.Sort(attributes)
	return slices.Compact(attributes)
}

// run carries out the operations of one object and returns results by index.
func (b *batch) run(ctx context.Context, ops []*connectorv1.Operation, indexes []int) map[int]*connectorv1.ApplyResult {
	results := map[int]*connectorv1.ApplyResult{}
	var members []*memberChange
	for _, n := range indexes {
		op := ops[n]
		t := b.typeNamed(op.GetObject().GetType())
		if t == nil {
			results[n] = sdk.Refused(op, sdk.NewProblem(sdk.CodeUnknownType, label(op), op.Kind().Word(), "use a type that the instance has"))
			continue
		}
		if c, p := b.memberChange(op, n); p != nil {
			results[n] = sdk.Conflict(op, p)
		} else if c != nil {
			members = append(members, c)
		} else {
			results[n] = b.single(ctx, t, op)
		}
	}
	if len(members) > 0 {
		b.changeMembers(ctx, members, results)
	}
	return results
}

// single carries out an operation that is not about members.
func (b *batch) single(ctx context.Context, t *objectType, op *connectorv1.Operation) *connectorv1.ApplyResult {
	switch op.GetAction().(type) {
	case *connectorv1.Operation_Create:
		return b.create(ctx, t, op)
	case *connectorv1.Operation_Update:
		return b.asserted(ctx, t, op, b.update)
	case *connectorv1.Operation_Rename:
		return b.asserted(ctx, t, op, b.rename)
	case *connectorv1.Operation_Move:
		return b.asserted(ctx, t, op, b.move)
	case *connectorv1.Operation_Enable, *connectorv1.Operation_Disable:
		return b.asserted(ctx, t, op, b.setEnablement)
	case *connectorv1.Operation_Delete:
		return b.asserted(ctx, t, op, b.remove)
	case *connectorv1.Operation_SetCredential:
		return b.asserted(ctx, t, op, b.setCredential)
	case *connectorv1.Operation_RevokeCredential:
		return b.asserted(ctx, t, op, b.revokeCredential)
	default:
		return sdk.Refused(op, sdk.NewProblem(sdk.CodeUnsupported, label(op), op.Kind().Word(), "plan only operations that the type declares"))
	}
}

// target is the entry an operation is about, as last read.
type target struct {
	t     *objectType
	op    *connectorv1.Operation
	entry *ldap.Entry
	// anchor is the attribute, id its value.
	anchor, id string
	// atomic is set when the whole entry must still be as it was read.
	atomic bool
}

// errStale tells asserted that the entry changed since it was read.
var errStale = errors.New("the entry changed while it was worked on")

// asserted finds the operation's entry, compares expect, and calls effect with
// what asserts both. An entry that changed in between is read again, a few
// times.
func (b *batch) asserted(ctx context.Context, t *objectType, op *connectorv1.Operation, effect func(context.Context, *target) error) *connectorv1.ApplyResult {
	id := op.GetObject().GetAnchor()
	entry, unsure, anchor := b.targets.entries[id], b.targets.unsure, b.targets.anchor
	for attempt := 1; ; attempt++ {
		if entry == nil && unsure != nil {
			return sdk.Refused(op, unsure)
		}
		if entry == nil {
			return b.gone(op)
		}
		target := &target{t: t, op: op, entry: entry, anchor: anchor, id: id, atomic: len(op.GetExpect()) > 0}
		if p := b.checkExpect(target); p != nil {
			if already, err := b.already(ctx, target); err == nil && already {
				return sdk.Done(op)
			}
			return sdk.Conflict(op, p)
		}
		err := effect(ctx, target)
		code := resultCode(err)
		var partly unknownError
		stale := !errors.As(err, &partly) && (errors.Is(err, errStale) || code == ldap.LDAPResultAssertionFailed || code == ldap.LDAPResultNoSuchObject)
		if !stale || attempt == attempts {
			return b.result(op, displayDN(entry.DN), err)
		}
		again, findErr := b.find(ctx, &b.writing, b.bases(), []string{id}, b.targetAttributes([]*connectorv1.Operation{op}))
		if findErr != nil {
			return sdk.Refused(op, b.problem(findErr, displayDN(entry.DN), op.Kind().Word()))
		}
		entry, unsure, anchor = again.entries[id], again.unsure, again.anchor
	}
}

// gone is the result for an object that is not there.
func (b *batch) gone(op *connectorv1.Operation) *connectorv1.ApplyResult {
	if op.GetDelete() != nil {
		return sdk.Done(op)
	}
	return sdk.Conflict(op, sdk.NewProblem(sdk.CodeNotFound, label(op), op.Kind().Word(), "it was deleted, or hidden from the bind account: read again and plan again"))
}

// conflictError makes an effect's outcome a conflict.
type conflictError struct{ *sdk.Problem }

// unknownError makes an effect's outcome unknown: a part of it happened.
type unknownError struct{ *sdk.Problem }

// result makes the outcome of what a request came to.
func (b *batch) result(op *connectorv1.Operation, object string, err error) *connectorv1.ApplyResult {
	var conflict conflictError
	var unknown unknownError
	var p *sdk.Problem
	switch {
	case err == nil:
		return sdk.Done(op)
	case errors.As(err, &conflict):
		return sdk.Conflict(op, conflict.Problem)
	case errors.As(err, &unknown):
		return sdk.Unknown(op, unknown.Problem)
	case errors.Is(err, errNotSent):
		return sdk.Refused(op, b.problem(err, object, op.Kind().Word()))
	case errors.As(err, &p):
		return sdk.Refused(op, p)
	case errors.Is(err, errStale), resultCode(err) == ldap.LDAPResultAssertionFailed:
		return sdk.Conflict(op, sdk.NewProblem(sdk.CodeConflict, object, op.Kind().Word(), "somebody keeps changing it: read again and plan again").WithCause(err))
	case !isAnswer(err):
		return sdk.Unknown(op, b.problem(err, object, op.Kind().Word()))
	case resultCode(err) == ldap.LDAPResultEntryAlreadyExists:
		return sdk.Conflict(op, b.problem(err, object, op.Kind().Word()))
	default:
		return sdk.Refused(op, b.problem(err, object, op.Kind().Word()))
	}
}

// checkExpect compares the base values the operation asserts.
func (b *batch) checkExpect(t *target) *sdk.Problem {
	for _, e := range t.op.GetExpect() {
		declared := t.t.byName[strings.ToLower(e.GetAttribute())]
		if declared == nil {
			return sdk.NewProblem(sdk.CodeUnknownAttribute, displayDN(t.entry.DN), "compare "+e.GetAttribute(), "use an attribute that the type declares")
		}
		have, p := b.values(declared, t.entry.DN, t.entry.GetEqualFoldRawAttributeValues(e.GetAttribute()))
		if p != nil {
			return p
		}
		if !connectorv1.SameValues(declared.GetRule(), have, e.GetValues()) {
			return sdk.NewProblem(sdk.CodeConflict, displayDN(t.entry.DN), "compare "+declared.GetName()+" with what the plan was made from",
				"somebody changed it meanwhile: read again and plan again").WithSaid(fmt.Sprintf("it has %d values, not the %d expected ones", len(have), len(e.GetValues())))
		}
	}
	return nil
}

// already reports whether the operation's effect is there, in which case its
// base values cannot be.
func (b *batch) already(ctx context.Context, t *target) (bool, error) {
	switch a := t.op.GetAction().(type) {
	case *connectorv1.Operation_Update:
		deltas, p := b.deltas(ctx, t)
		if p != nil {
			return false, p
		}
		now, err := b.reread(ctx, t, deltas)
		if err != nil {
			return false, err
		}
		return !slices.ContainsFunc(deltas, func(d delta) bool { _, any := b.rest(now.entry, d); return any }), nil
	case *connectorv1.Operation_Rename:
		dn, err := parseDN(t.entry.DN)
		return err == nil && sameLeaf(dn, a.Rename.GetTo()), err
	case *connectorv1.Operation_Move:
		_, parent := splitRDN(t.entry.DN)
		above, err := parseDN(parent)
		return err == nil && dnKey(above) == dnKey(parsed(&connectorv1.Name{Components: a.Move.GetTo()})), err
	case *connectorv1.Operation_Enable:
		return b.enablement(t.entry.GetEqualFoldAttributeValues) == connectorv1.Enablement_ENABLEMENT_ENABLED, nil
	case *connectorv1.Operation_Disable:
		return b.enablement(t.entry.GetEqualFoldAttributeValues) == connectorv1.Enablement_ENABLEMENT_DISABLED, nil
	case *connectorv1.Operation_AddMember, *connectorv1.Operation_RemoveMember:
		c, p := b.memberChange(t.op, 0)
		if p != nil {
			return false, p
		}
		is, err := b.holds(ctx, t, c.value)
		return is == c.add, err
	default:
		return false, nil
	}
}

// controls assert that the entry is still the one that was read, and with
// atomic that nothing in it changed.
func (t *target) controls(s *server) []ldap.Control {
	if !s.asserts() {
		return nil
	}
	filter := "(" + t.anchor + "=" + ldap.EscapeFilter(t.id) + ")"
	if version := t.entry.GetEqualFoldAttributeValue(versionAttribute); t.atomic && version != "" {
		filter = "(&" + filter + "(" + versionAttribute + "=" + ldap.EscapeFilter(version) + "))"
	}
	return []ldap.Control{assertion{filter}}
}

// modify sends one modify of the target.
func (b *batch) modify(ctx context.Context, t *target, changes []ldap.Change, extra ...ldap.Control) error {
	return b.do(ctx, &b.writing, func(s *session) error {
		request := ldap.NewModifyRequest(t.entry.DN, append(t.controls(s.server), extra...))
		request.Changes = changes
		return s.conn.Modify(request)
	})
}

func change(operation uint, attribute string, values ...string) ldap.Change {
	return ldap.Change{Operation: operation, Modification: ldap.PartialAttribute{Type: attribute, Vals: values}}
}

// dn resolves a reference to the DN its object has now.
func (b *batch) dn(ref *connectorv1.ObjectRef) (string, *ldap.Entry, *sdk.Problem) {
	if n := ref.GetName(); len(n.GetComponents()) > 0 {
		return n.Text(), nil, nil
	}
	if e := b.targets.entries[ref.GetAnchor()]; e != nil {
		return e.DN, e, nil
	}
	if b.targets.unsure != nil {
		return "", nil, b.targets.unsure
	}
	return "", nil, sdk.NewProblem(sdk.CodeNotFound, ref.GetType()+" "+ref.GetAnchor(), "refer to it", "it was deleted, or hidden from the bind account: read again and plan again")
}
