package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/reevehq/reeve/agent/internal/guardrails"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// maxRead is how many objects one Read takes.
const maxRead = 100

// Survey is what the agent itself read on one connector: the objects that some
// operations name, and, when what groups hold counts (needsGroups), every group. It is the only ground on which guardrails judge.
type Survey struct {
	dir     Directory
	types   map[string]*connectorv1.ObjectType
	rule    connectorv1.CaseRule
	results map[string]*connectorv1.ReadResult
	groups  *guardrails.Groups
	losers  bool // whether Subject tells them
}

// Look reads what the operations name by anchor, and by name: the place where a
// create, rename or move leads. groups, if not nil, stands in for reading them
// again. An error wraps ErrDirectory and means that nothing is known.
func Look(ctx context.Context, dir Directory, operations []*connectorv1.Operation, groups *guardrails.Groups) (*Survey, error) {
	if err := dir.Ready(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	s := &Survey{dir: dir, types: map[string]*connectorv1.ObjectType{}, rule: dir.CaseRule(), results: map[string]*connectorv1.ReadResult{}, groups: groups}
	for _, t := range dir.Types() {
		s.types[t.GetName()] = t
	}
	var refs []*connectorv1.ObjectRef
	for _, op := range operations {
		refs = append(refs, Refs(op)...)
	}
	if err := s.Read(ctx, refs); err != nil {
		return nil, err
	}
	var places []*connectorv1.ObjectRef
	for _, op := range operations {
		if place := s.Target(op); place != nil {
			places = append(places, place)
		}
	}
	if err := s.Read(ctx, places); err != nil {
		return nil, err
	}
	if s.groups == nil && slices.ContainsFunc(operations, s.needsGroups) {
		all, err := dir.Groups(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDirectory, err)
		}
		s.groups = guardrails.NewGroups(all)
	}
	return s, nil
}

// Refs returns the objects that an operation names by anchor.
func Refs(op *connectorv1.Operation) []*connectorv1.ObjectRef {
	refs := append([]*connectorv1.ObjectRef{op.GetObject()}, op.GetCreate().GetMembers()...)
	for _, d := range op.GetUpdate().GetDeltas() {
		refs = append(refs, d.GetAddRefs()...)
		refs = append(refs, d.GetRemoveRefs()...)
	}
	refs = append(refs, op.GetAddMember().GetMember(), op.GetRemoveMember().GetMember())
	return slices.DeleteFunc(refs, func(r *connectorv1.ObjectRef) bool { return r.GetAnchor() == "" })
}

// Target names the place that must be free for a create, rename or move; nil for
// other operations, and while the object is not known.
func (s *Survey) Target(op *connectorv1.Operation) *connectorv1.ObjectRef {
	ref := &connectorv1.ObjectRef{Type: op.GetObject().GetType()}
	if create := op.GetCreate(); create != nil {
		ref.Name = create.GetName()
		return ref
	}
	if op.GetRename() == nil && op.GetMove() == nil {
		return nil
	}
	o := s.Object(op.GetObject())
	if o == nil {
		return nil
	}
	ref.Name = guardrails.NameAfter(o, op)
	return ref
}

// Read adds objects to the survey; those it has are not read again.
func (s *Survey) Read(ctx context.Context, refs []*connectorv1.ObjectRef) error {
	var todo []*connectorv1.ObjectRef
	for _, ref := range refs {
		key := s.key(ref)
		if _, known := s.results[key]; !known {
			s.results[key] = nil
			todo = append(todo, ref)
		}
	}
	for batch := range slices.Chunk(todo, maxRead) {
		results, err := s.dir.Read(ctx, batch)
		if err == nil && len(results) != len(batch) {
			err = errAnswers
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDirectory, err)
		}
		for i, ref := range batch {
			s.results[s.key(ref)] = results[i]
		}
	}
	return nil
}

func (s *Survey) key(ref *connectorv1.ObjectRef) string {
	if ref.GetAnchor() != "" {
		return ref.GetType() + "\x00a" + ref.GetAnchor()
	}
	return ref.GetType() + "\x00n" + ref.GetName().Key(s.rule)
}

// Result returns what reading said of the object; nil if it was not read.
func (s *Survey) Result(ref *connectorv1.ObjectRef) *connectorv1.ReadResult {
	return s.results[s.key(ref)]
}

// Object returns the object as read; nil if it is absent or could not be read. An
// answer about another object than was asked for counts as none.
func (s *Survey) Object(ref *connectorv1.ObjectRef) *connectorv1.Object {
	o := s.Result(ref).GetObject()
	if o == nil || ref.GetAnchor() != "" && o.GetAnchor() != ref.GetAnchor() ||
		ref.GetAnchor() == "" && o.GetName().Key(s.rule) != ref.GetName().Key(s.rule) {
		return nil
	}
	return o
}

// Guarded reads the protected subjects of these anchors as they are now, if what
// they are counts for any of the operations. Those that are not there, or that the
// bind account may not read, are left out. An error wraps ErrDirectory.
func (s *Survey) Guarded(ctx context.Context, anchors []string, operations []*connectorv1.Operation) ([]*connectorv1.Object, error) {
	if !slices.ContainsFunc(operations, s.carriesOthers) {
		return nil, nil
	}
	var refs []*connectorv1.ObjectRef
	for _, anchor := range anchors {
		for typ := range s.types {
			refs = append(refs, &connectorv1.ObjectRef{Type: typ, Anchor: anchor})
		}
	}
	if err := s.Read(ctx, refs); err != nil {
		return nil, err
	}
	var out []*connectorv1.Object
	for _, ref := range refs {
		if o := s.Object(ref); o != nil {
			out = append(out, o)
		}
	}
	return out, nil
}

// carriesOthers reports whether the operation reaches more than what it names: who
// is in a group, or lies under an object.
func (s *Survey) carriesOthers(op *connectorv1.Operation) bool {
	switch action := op.GetAction().(type) {
	case *connectorv1.Operation_Rename, *connectorv1.Operation_Move, *connectorv1.Operation_Delete:
		return true
	case *connectorv1.Operation_Create:
		return slices.ContainsFunc(action.Create.GetMembers(), s.hasMembers)
	case *connectorv1.Operation_AddMember:
		return s.hasMembers(action.AddMember.GetMember())
	case *connectorv1.Operation_RemoveMember:
		return s.hasMembers(action.RemoveMember.GetMember())
	}
	return false
}

func (s *Survey) hasMembers(ref *connectorv1.ObjectRef) bool {
	return len(s.Object(ref).GetMembers()) > 0
}

// CountLosers reads every group, unless it is known, if an operation takes
// something from all who are in one: through groups within it too. An error wraps
// ErrDirectory.
func (s *Survey) CountLosers(ctx context.Context, operations []*connectorv1.Operation) error {
	takes := func(op *connectorv1.Operation) bool {
		return op.GetDelete() != nil && s.hasMembers(op.GetObject()) || op.GetRemoveMember() != nil && s.carriesOthers(op)
	}
	s.losers = slices.ContainsFunc(operations, takes)
	if s.groups != nil || !s.losers {
		return nil
	}
	all, err := s.dir.Groups(ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDirectory, err)
	}
	s.groups = guardrails.NewGroups(all)
	return nil
}

// Type returns the declaration of an object type; nil if there is none.
func (s *Survey) Type(name string) *connectorv1.ObjectType { return s.types[name] }

// Rule is the connector's case rule.
func (s *Survey) Rule() connectorv1.CaseRule { return s.rule }

// Groups returns the groups as read, for the next survey; nil if they were not
// needed.
func (s *Survey) Groups() *guardrails.Groups { return s.groups }

// needsGroups reports whether all groups count for the operation: it adds to a
// group which could itself be a member, so that what is above it matters, or gives
// a name which some group may hold already.
func (s *Survey) needsGroups(op *connectorv1.Operation) bool {
	switch op.GetAction().(type) {
	case *connectorv1.Operation_AddMember:
		return s.nestable(s.Object(op.GetObject()))
	case *connectorv1.Operation_Create, *connectorv1.Operation_Rename, *connectorv1.Operation_Move:
		for _, t := range s.types {
			if t.GetKind() == connectorv1.Kind_KIND_GROUP {
				return true
			}
		}
	}
	return false
}

func (s *Survey) nestable(o *connectorv1.Object) bool {
	for _, t := range s.types {
		if t.GetKind() == connectorv1.Kind_KIND_GROUP && slices.ContainsFunc(o.GetKeys(), func(key string) bool { return strings.HasPrefix(key, t.GetMemberKey()) }) {
			return true
		}
	}
	return false
}

// Subject puts together what guardrails judge of a change. planned stands in for
// an object that another change of the plan creates and that does not exist yet;
// createdHere says which objects this agent created.
func (s *Survey) Subject(c *planv1.Change, planned func(change string) *connectorv1.Object, createdHere func(anchor string) bool) guardrails.Subject {
	op := c.GetOperation()
	find := func(ref *connectorv1.ObjectRef) *connectorv1.Object {
		switch {
		case ref == nil:
			return nil
		case ref.GetChange() != "":
			return planned(ref.GetChange())
		default:
			return s.Object(ref)
		}
	}
	out := guardrails.Subject{Change: c}
	if op.GetCreate() == nil {
		out.Object = find(op.GetObject())
		out.CreatedHere = op.GetObject().GetChange() != "" || createdHere(op.GetObject().GetAnchor())
	}
	for _, ref := range op.GetCreate().GetMembers() {
		out.Members = append(out.Members, find(ref))
	}
	if s.groups != nil {
		switch {
		case op.GetCreate() != nil:
			out.Named = s.groups.Naming(op.GetCreate().GetName(), nil)
		case out.Object != nil && (op.GetRename() != nil || op.GetMove() != nil):
			out.Named = s.groups.Naming(guardrails.NameAfter(out.Object, op), out.Object.GetKeys())
		}
	}
	if m := op.GetAddMember(); m != nil {
		out.Member = find(m.GetMember())
		switch {
		case out.Object == nil:
		case s.groups != nil:
			out.Above, out.AboveKnown = s.groups.Above(out.Object), true
		default:
			// Nothing can name this group as a member, or it does not exist yet.
			out.AboveKnown = out.Object.GetAnchor() == "" || !s.nestable(out.Object)
		}
	}
	if m := op.GetRemoveMember(); m != nil {
		out.Member = find(m.GetMember())
	}
	loser := out.Member
	if op.GetDelete() != nil {
		loser = out.Object
	}
	if (op.GetDelete() != nil || op.GetRemoveMember() != nil) && s.losers && len(loser.GetMembers()) > 0 {
		out.Losers = s.groups.Below(loser)
	}
	return out
}

// Planned is the object that a create describes, before it exists.
func Planned(op *connectorv1.Operation) *connectorv1.Object {
	return &connectorv1.Object{Type: op.GetObject().GetType(), Name: op.GetCreate().GetName(), Attributes: op.GetCreate().GetAttributes()}
}

var (
	// errUnknownConnector means an alias that agent.yaml does not have.
	errUnknownConnector = errors.New("no such connector")
	errAnswers          = errors.New("the connector did not answer every question; report it to its author")
)
