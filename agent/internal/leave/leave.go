package leave

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/reevehq/reeve/plugins/sdk"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Directory is a connector to undo on. pluginhost's instances are.
type Directory interface {
	Types() []*connectorv1.ObjectType
	CaseRule() connectorv1.CaseRule
	Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error)
	Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error)
}

// Result is what leaving did, each line for people.
type Result struct {
	Undone, Kept, Residue, Failed []string
}

// Options say what to leave.
type Options struct {
	// Receipts are all that were kept, oldest first.
	Receipts []*auditv1.Receipt
	// Directory returns the connector of an alias.
	Directory func(alias string) (Directory, error)
	// Record makes a receipt durable before the next step; nil in a dry run.
	Record func(ctx context.Context, r *auditv1.Receipt) error
	// DryRun reads and changes nothing.
	DryRun bool
}

// Undo takes back what the MSP caused: memberships first, then values, names and
// enablement, created objects last. What fails is listed and the rest goes on;
// an error means that not even that was possible.
func Undo(ctx context.Context, o Options) (*Result, error) {
	u := &undo{Options: o, out: &Result{}, directories: map[string]Directory{}, down: map[string]bool{}}
	objects := ledger(o.Receipts, u.rule)
	for _, step := range []func(context.Context, *object) error{u.members, u.attributes, u.place, u.enablement, u.existence} {
		for _, object := range objects {
			if u.down[object.connector] {
				continue
			}
			if err := step(ctx, object); err != nil {
				return u.out, err
			}
		}
	}
	return u.out, nil
}

type undo struct {
	Options
	out         *Result
	directories map[string]Directory
	down        map[string]bool
	count       int
}

func (u *undo) directory(alias string) (Directory, error) {
	if d, ok := u.directories[alias]; ok {
		return d, nil
	}
	d, err := u.Directory(alias)
	if err == nil {
		u.directories[alias] = d
	}
	return d, err
}

func (u *undo) typ(alias, name string) *connectorv1.ObjectType {
	d, err := u.directory(alias)
	if err != nil {
		return nil
	}
	types := d.Types()
	if at := slices.IndexFunc(types, func(t *connectorv1.ObjectType) bool { return t.GetName() == name }); at >= 0 {
		return types[at]
	}
	return nil
}

func (u *undo) rule(alias, typ, attribute string) connectorv1.MatchingRule {
	return u.typ(alias, typ).AttributeType(attribute).GetRule()
}

// errGone means that the directory says an object is not there.
var errGone = errors.New("it is no longer there")

// read returns an object as it is now; errGone if it is not.
func (u *undo) read(ctx context.Context, alias, typ, anchor string) (*connectorv1.Object, error) {
	d, err := u.directory(alias)
	if err != nil {
		return nil, err
	}
	results, err := d.Read(ctx, []*connectorv1.ObjectRef{{Type: typ, Anchor: anchor}})
	if err != nil {
		return nil, err
	}
	switch r := results[0].GetOutcome().(type) {
	case *connectorv1.ReadResult_Object:
		return r.Object, nil
	case *connectorv1.ReadResult_Absent:
		return nil, errGone
	case *connectorv1.ReadResult_Problem:
		return nil, sdk.FromProto(r.Problem)
	}
	return nil, errors.New("the connector did not answer")
}

// find reads an object whose type the receipt does not tell.
func (u *undo) find(ctx context.Context, alias, anchor string) (*connectorv1.Object, error) {
	d, err := u.directory(alias)
	if err != nil {
		return nil, err
	}
	for _, t := range d.Types() {
		o, err := u.read(ctx, alias, t.GetName(), anchor)
		if !errors.Is(err, errGone) {
			return o, err
		}
	}
	return nil, errGone
}

// present reads an object for a step. done is true when the step is over: the
// object is gone, or cannot be read, which is then said.
func (u *undo) present(ctx context.Context, o *object) (now *connectorv1.Object, done bool) {
	now, err := u.read(ctx, o.connector, o.typ, o.anchor)
	switch {
	case err == nil:
		return now, false
	case errors.Is(err, errGone):
		u.note(&u.out.Residue, "%s: the client has deleted it; it is not made again", o.where())
	default:
		u.fail(o, "read it", err)
	}
	return nil, true
}

func (u *undo) note(list *[]string, format string, args ...any) {
	line := sdk.Clean(fmt.Sprintf(format, args...))
	if !slices.Contains(*list, line) {
		*list = append(*list, line)
	}
}

func (u *undo) fail(o *object, what string, err error) {
	u.note(&u.out.Failed, "%s: could not %s: %v", o.where(), what, err)
	if sdk.HasCode(err, sdk.CodeUnreachable) || sdk.HasCode(err, sdk.CodeBindRefused) {
		u.down[o.connector] = true
		u.note(&u.out.Failed, "%s: the rest of it was not tried; run leave again when it is back", o.connector)
	}
}

func (o *object) where() string {
	name := o.label
	if name == "" {
		name = o.anchor
	}
	return o.connector + ": " + name
}

// ours reports that the object itself goes, so that nothing in it need be put
// back.
func (o *object) ours() bool { return o.created == planv1.Cause_CAUSE_MSP || o.deleted != 0 }

// apply carries out one step and reads back whether it holds.
func (u *undo) apply(ctx context.Context, o *object, what string, op *connectorv1.Operation, holds func(*connectorv1.Object) bool, before *auditv1.Touched) error {
	if u.DryRun {
		u.note(&u.out.Undone, "%s: %s", o.where(), what)
		return nil
	}
	d, err := u.directory(o.connector)
	if err != nil {
		return err
	}
	u.count++
	op.Id = fmt.Sprintf("leave-%d", u.count)
	op.Object = &connectorv1.ObjectRef{Type: o.typ, Anchor: o.anchor}
	results, applyErr := d.Apply(ctx, []*connectorv1.Operation{op})
	// Only what is read counts, whatever Apply said.
	now, err := u.read(ctx, o.connector, o.typ, o.anchor)
	if err != nil && !errors.Is(err, errGone) {
		u.fail(o, what, err)
		return ctx.Err()
	}
	receipt := &auditv1.Receipt{
		Order: "leave", Change: op.GetId(), Connector: o.connector, Anchor: o.anchor, Type: o.typ, Operation: op.Kind(),
		Cause: planv1.Cause_CAUSE_MSP, Result: auditv1.Receipt_RESULT_APPLIED, Before: before,
		Member: op.GetAddMember().GetMember().GetAnchor() + op.GetRemoveMember().GetMember().GetAnchor(),
		After:  &auditv1.Touched{Exists: now != nil, Name: now.GetName(), Enablement: now.GetEnablement()},
	}
	if holds(now) {
		u.note(&u.out.Undone, "%s: %s", o.where(), what)
	} else {
		receipt.Result = auditv1.Receipt_RESULT_FAILED
		if applyErr == nil && len(results) == 1 && results[0].GetProblem() != nil {
			applyErr = sdk.FromProto(results[0].GetProblem())
		}
		if applyErr == nil {
			applyErr = errors.New("the directory says it was done, and it was not")
		}
		receipt.Problem = sdk.AsProblem(applyErr, o.where(), what).Proto()
		u.fail(o, what, applyErr)
	}
	return u.Record(ctx, receipt)
}

func (u *undo) members(ctx context.Context, o *object) error {
	if len(o.members) == 0 || o.ours() {
		return nil
	}
	group, done := u.present(ctx, o)
	if done {
		return ctx.Err()
	}
	for _, anchor := range slices.Sorted(maps.Keys(o.members)) {
		m := o.members[anchor]
		if m.first == m.last {
			continue
		}
		if m.cause != planv1.Cause_CAUSE_MSP {
			u.note(&u.out.Kept, "%s: a membership that the client caused", o.where())
			continue
		}
		if err := u.member(ctx, o, group, anchor, m); err != nil {
			return err
		}
	}
	return nil
}

func (u *undo) member(ctx context.Context, o *object, group *connectorv1.Object, anchor string, m *presence) error {
	who, err := u.find(ctx, o.connector, anchor)
	if errors.Is(err, errGone) {
		u.note(&u.out.Residue, "%s: a member that the client has deleted", o.where())
		return nil
	}
	if err != nil {
		u.fail(o, "read a member", err)
		return ctx.Err()
	}
	prefix := u.typ(o.connector, o.typ).GetMemberKey()
	is := func(g *connectorv1.Object) bool {
		return slices.ContainsFunc(who.GetKeys(), func(k string) bool {
			return strings.HasPrefix(k, prefix) && slices.Contains(g.GetMembers(), k)
		})
	}
	if is(group) == m.first {
		return nil
	}
	ref := &connectorv1.ObjectRef{Type: who.GetType(), Anchor: anchor}
	before := &auditv1.Touched{Exists: true, Member: m.last}
	if m.first {
		return u.apply(ctx, o, "give "+who.GetName().Text()+" the membership back",
			&connectorv1.Operation{Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: ref}}}, is, before)
	}
	return u.apply(ctx, o, "take "+who.GetName().Text()+" out",
		&connectorv1.Operation{Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: ref}}},
		func(g *connectorv1.Object) bool { return !is(g) }, before)
}

func (u *undo) attributes(ctx context.Context, o *object) error {
	if len(o.values) == 0 || o.ours() {
		return nil
	}
	now, done := u.present(ctx, o)
	if done {
		return ctx.Err()
	}
	for k, v := range o.values {
		if v.cause != planv1.Cause_CAUSE_MSP && v.first != v.last {
			u.note(&u.out.Kept, "%s: a value of %s that the client caused", o.where(), k.attribute)
		}
	}
	typ := u.typ(o.connector, o.typ)
	deltas, diverged := o.undoValues(now, typ)
	for _, attribute := range diverged {
		u.note(&u.out.Residue, "%s: %s diverged: others have changed it since", o.where(), attribute)
	}
	if len(deltas) == 0 {
		return nil
	}
	holds := func(after *connectorv1.Object) bool {
		return !slices.ContainsFunc(deltas, func(d *connectorv1.ValueDelta) bool {
			matching, have := typ.AttributeType(d.GetAttribute()).GetRule(), after.Attribute(d.GetAttribute())
			has := func(v []byte) bool { return connectorv1.HasValue(matching, have, v) }
			return slices.ContainsFunc(d.GetRemove(), has) ||
				slices.ContainsFunc(d.GetAdd(), func(v []byte) bool { return !has(v) })
		})
	}
	var names []string
	touched := &auditv1.Touched{Exists: true}
	for _, d := range deltas {
		names = append(names, d.GetAttribute())
		touched.Attributes = append(touched.Attributes, &connectorv1.Attribute{Name: d.GetAttribute(), Values: now.Attribute(d.GetAttribute())})
	}
	return u.apply(ctx, o, "put back "+strings.Join(names, ", "),
		&connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: deltas}}}, holds, touched)
}

func (u *undo) place(ctx context.Context, o *object) error {
	if o.name == nil || o.ours() {
		return nil
	}
	if o.name.cause != planv1.Cause_CAUSE_MSP {
		u.note(&u.out.Kept, "%s: a name that the client caused", o.where())
		return nil
	}
	now, done := u.present(ctx, o)
	if done {
		return ctx.Err()
	}
	d, err := u.directory(o.connector)
	if err != nil {
		return err
	}
	rule := d.CaseRule()
	same := func(a, b *connectorv1.Name) bool { return a.Key(rule) == b.Key(rule) }
	if same(now.GetName(), o.name.first) {
		return nil
	}
	if !same(now.GetName(), o.name.last) {
		u.note(&u.out.Residue, "%s: the name diverged: others have changed it since", o.where())
		return nil
	}
	before := &auditv1.Touched{Exists: true, Name: now.GetName()}
	if !same(now.GetName().Parent(), o.name.first.Parent()) {
		target := &connectorv1.Name{Components: append([]*connectorv1.Component{now.GetName().Leaf()}, o.name.first.Parent().GetComponents()...)}
		err := u.apply(ctx, o, "move it back under "+o.name.first.Parent().Text(),
			&connectorv1.Operation{Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: o.name.first.Parent().GetComponents()}}},
			func(after *connectorv1.Object) bool { return same(after.GetName(), target) }, before)
		if err != nil {
			return err
		}
	}
	if now.GetName().Leaf().Key(rule) == o.name.first.Leaf().Key(rule) {
		return nil
	}
	return u.apply(ctx, o, "give it back its name "+o.name.first.Leaf().Text(),
		&connectorv1.Operation{Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: o.name.first.Leaf()}}},
		func(after *connectorv1.Object) bool {
			return after.GetName().Leaf().Key(rule) == o.name.first.Leaf().Key(rule)
		}, before)
}

func (u *undo) enablement(ctx context.Context, o *object) error {
	if o.enabled == nil || o.ours() || o.enabled.first == o.enabled.last {
		return nil
	}
	if o.enabled.cause != planv1.Cause_CAUSE_MSP {
		u.note(&u.out.Kept, "%s: enabled or disabled because of the client", o.where())
		return nil
	}
	now, done := u.present(ctx, o)
	if done {
		return ctx.Err()
	}
	if now.GetEnablement() != o.enabled.last {
		return nil
	}
	op, what := &connectorv1.Operation{Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}, "disable it again"
	if o.enabled.first == connectorv1.Enablement_ENABLEMENT_ENABLED {
		op, what = &connectorv1.Operation{Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}, "enable it again"
	}
	return u.apply(ctx, o, what, op, func(after *connectorv1.Object) bool { return after.GetEnablement() == o.enabled.first },
		&auditv1.Touched{Exists: true, Enablement: now.GetEnablement()})
}

func (u *undo) existence(ctx context.Context, o *object) error {
	switch {
	case o.deleted != 0:
		if o.created == 0 {
			u.note(&u.out.Residue, "%s: it was deleted and cannot be made again as it was", o.where())
		}
		return nil
	case o.created == planv1.Cause_CAUSE_CLIENT:
		u.note(&u.out.Kept, "%s: the client caused it", o.where())
		return nil
	case o.created == planv1.Cause_CAUSE_MSP:
		if now, err := u.read(ctx, o.connector, o.typ, o.anchor); errors.Is(err, errGone) {
			return nil
		} else if err != nil {
			u.fail(o, "read it", err)
			return ctx.Err()
		} else {
			return u.apply(ctx, o, "delete it again", &connectorv1.Operation{Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}},
				func(after *connectorv1.Object) bool { return after == nil }, &auditv1.Touched{Exists: true, Name: now.GetName()})
		}
	}
	if o.credential {
		u.note(&u.out.Residue, "%s: its password was changed and the old one is not known", o.where())
	}
	return nil
}
