package flatfile

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// edge is what a target takes from the world around it.
type edge struct {
	now    func() time.Time
	random io.Reader
}

// tables are the files of a target, by place in format.files; one that does not
// exist is nil.
type tables []*table

// entry is one object with the lines it was read from.
type entry struct {
	object *connectorv1.Object
	// hash is the password field, never part of the object.
	hash string
}

// format knows one kind of target; target does locking, reading and writing
// for it.
type format interface {
	types() []*connectorv1.ObjectType
	// files in the order in which they are written: stopping between two of
	// them leaves nothing that grants more than before or after.
	files() []targetFile
	// lock takes the locks of the format's own tools.
	lock(ctx context.Context) (unlock func(), err error)
	// entries reads all objects; findings are lines that could not be.
	entries(t tables) ([]*entry, []*connectorv1.Problem)
	// lookup reads one; a problem means that it cannot be told.
	lookup(t tables, ref *connectorv1.ObjectRef) (*entry, *sdk.Problem)
	// create and change return the tables after the effect. They are asked
	// again after a failure, so what is so already is no problem.
	create(t tables, op *connectorv1.Operation) (tables, *sdk.Problem)
	change(t tables, e *entry, op *connectorv1.Operation) (tables, *sdk.Problem)
}

type targetFile struct {
	path string
	nis  bool
}

// target is an instance over files that are written.
type target struct {
	alias  string
	format format
}

// Types implements sdk.Instance.
func (t *target) Types() []*connectorv1.ObjectType { return t.format.types() }

// Capabilities implements sdk.Instance: expects are checked under the lock.
func (t *target) Capabilities() []connectorv1.Capability {
	return []connectorv1.Capability{connectorv1.Capability_CAPABILITY_ATOMIC_EXPECT}
}

// Close implements sdk.Instance.
func (t *target) Close() error { return nil }

func (t *target) load(ctx context.Context) ([]*content, tables, error) {
	files := t.format.files()
	paths := make([]string, len(files))
	for i, f := range files {
		paths[i] = f.path
	}
	read, err := readStable(ctx, t.alias, paths)
	if err != nil {
		return nil, nil, err
	}
	parsed := make(tables, len(read))
	for i, c := range read {
		parsed[i] = parseTable(c.data, files[i].nis)
	}
	return read, parsed, nil
}

// Check implements sdk.Checker.
func (t *target) Check(ctx context.Context) (*connectorv1.CheckResponse, error) {
	out := &connectorv1.CheckResponse{}
	read, parsed, err := t.load(ctx)
	if err != nil {
		out.Problems = []*connectorv1.Problem{sdk.AsProblem(err, t.alias, "check").Proto()}
		return out, nil
	}
	out.Reachable = true
	entries, findings := t.format.entries(parsed)
	out.Server, out.Problems = fmt.Sprintf("%d files, %d objects", len(read), len(entries)), findings
	for _, c := range read {
		out.Rights = append(out.Rights, &connectorv1.Right{What: "replace", Where: c.path, Allowed: writable(c.path), Certain: true})
		out.Fingerprint = append(out.Fingerprint, &connectorv1.Fact{Name: "path", Value: c.path}, &connectorv1.Fact{Name: "owner uid", Value: owner(c.info)})
	}
	return out, nil
}

// Observe implements sdk.Observer.
func (t *target) Observe(ctx context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	_, parsed, err := t.load(ctx)
	if err != nil {
		return sdk.Completeness{}, err
	}
	entries, findings := t.format.entries(parsed)
	for _, e := range entries {
		if err := emit(e.object); err != nil {
			return sdk.Completeness{}, err
		}
	}
	return sdk.Completeness{Method: "whole files, unchanged while they were read", Findings: findings}, nil
}

// Read implements sdk.Reader.
func (t *target) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	_, parsed, err := t.load(ctx)
	if err != nil {
		return nil, err
	}
	results := make([]*connectorv1.ReadResult, len(refs))
	for i, ref := range refs {
		switch e, p := t.format.lookup(parsed, ref); {
		case p != nil:
			results[i] = problemResult(p)
		case e == nil:
			results[i] = absentResult()
		default:
			results[i] = foundResult(e.object)
		}
	}
	return results, nil
}

// Apply implements sdk.Applier: one lock, one reading and one writing for all
// operations.
func (t *target) Apply(ctx context.Context, operations []*connectorv1.Operation) []*connectorv1.ApplyResult {
	unlock, err := t.format.lock(ctx)
	if err != nil {
		return each(operations, sdk.Refused, fileProblem(t.alias, t.format.files()[0].path, "take the lock", err))
	}
	defer unlock()
	for range 3 {
		results, retry := t.applyLocked(ctx, operations)
		if !retry {
			return results
		}
	}
	return each(operations, sdk.Refused, sdk.NewProblem(sdk.CodeChanging, t.alias+": "+t.format.files()[0].path, "write the file",
		"stop the program that writes the file without taking its lock"))
}

// applyLocked reports retry when a program that does not lock changed a file
// between our reading and our writing.
func (t *target) applyLocked(ctx context.Context, operations []*connectorv1.Operation) (results []*connectorv1.ApplyResult, retry bool) {
	read, before, err := t.load(ctx)
	if err != nil {
		return each(operations, sdk.Refused, sdk.AsProblem(err, t.alias, "read the files")), false
	}
	now := slices.Clone(before)
	var changed []int
	results = make([]*connectorv1.ApplyResult, len(operations))
	for i, op := range operations {
		after, result := t.effect(now, op)
		results[i] = result
		if result.GetOutcome() == connectorv1.Outcome_OUTCOME_DONE && !same(now, after) {
			now = after
			changed = append(changed, i)
		}
	}
	written := false
	for i := range now {
		if now[i].equal(before[i]) {
			continue
		}
		// Once the first is written the set must be finished.
		if !written && !read[i].same() {
			return nil, true
		}
		if err := replaceFile(read[i], now[i].bytes()); err != nil {
			result := sdk.Refused
			if written || errorAfterRename(err) {
				result = sdk.Unknown
			}
			for _, c := range changed {
				results[c] = result(operations[c], fileProblem(t.alias, read[i].path, "write the file", err))
			}
			return results, false
		}
		written = true
	}
	return results, false
}

func same(a, b tables) bool { return slices.EqualFunc(a, b, (*table).equal) }

func each(operations []*connectorv1.Operation, result func(*connectorv1.Operation, *sdk.Problem) *connectorv1.ApplyResult, p *sdk.Problem) []*connectorv1.ApplyResult {
	results := make([]*connectorv1.ApplyResult, len(operations))
	for i, op := range operations {
		results[i] = result(op, p)
	}
	return results
}

func (t *target) effect(now tables, op *connectorv1.Operation) (tables, *connectorv1.ApplyResult) {
	if op.GetCreate() != nil {
		after, p := t.format.create(now, op)
		if p != nil {
			return now, sdk.Refused(op, p)
		}
		return after, sdk.Done(op)
	}
	e, p := t.format.lookup(now, op.GetObject())
	switch {
	case p != nil:
		return now, sdk.Refused(op, p)
	case e == nil && op.GetDelete() != nil:
		return now, sdk.Done(op)
	case e == nil:
		return now, sdk.Refused(op, sdk.NewProblem(sdk.CodeNotFound, t.alias+": "+op.GetObject().GetType()+" "+op.GetObject().GetAnchor(),
			op.Kind().Word(), "observe again and plan anew: it is gone"))
	}
	after, p := t.format.change(now, e, op)
	if p != nil {
		return now, sdk.Refused(op, p)
	}
	if same(now, after) {
		return now, sdk.Done(op)
	}
	for _, expect := range op.GetExpect() {
		rule := t.rule(op.GetObject().GetType(), expect.GetAttribute())
		if !connectorv1.SameValues(rule, e.object.Attribute(expect.GetAttribute()), expect.GetValues()) {
			return now, sdk.Conflict(op, sdk.NewProblem(sdk.CodeConflict, t.alias+": "+e.object.GetName().Text(), op.Kind().Word(),
				"plan again from what is there now").WithSaid("attribute "+expect.GetAttribute()+" has another value than the plan expects"))
		}
	}
	return after, sdk.Done(op)
}

func (t *target) rule(typeName, attribute string) connectorv1.MatchingRule {
	for _, declared := range t.format.types() {
		if declared.GetName() == typeName {
			return declared.AttributeType(attribute).GetRule()
		}
	}
	return connectorv1.MatchingRule_MATCHING_RULE_EXACT
}
