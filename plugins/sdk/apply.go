package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/grpc"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Apply implements connector/v1: one response a request, results in the order
// of the operations. What the instance does not declare is refused here and
// never reaches it.
func (s *Server) Apply(stream grpc.BidiStreamingServer[connectorv1.ApplyRequest, connectorv1.ApplyResponse]) error {
	instance, declared, err := s.configured()
	if err != nil {
		return err
	}
	applier, ok := instance.(Applier)
	if !ok {
		return NewProblem(CodeUnsupported, s.alias, "apply", "use it as a source: this instance changes nothing")
	}
	seen := map[string]bool{}
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if n := len(request.GetOperations()); n > maxRefs {
			return NewProblem(CodeSizeLimit, s.alias, fmt.Sprintf("apply %d operations", n), fmt.Sprintf("send at most %d at a time", maxRefs))
		}
		for _, op := range request.GetOperations() {
			if op.GetId() == "" || seen[op.GetId()] {
				return NewProblem(CodeInvalidValue, s.alias, fmt.Sprintf("apply operation %q", Clean(op.GetId())), "give each operation of a stream its own id")
			}
			seen[op.GetId()] = true
		}
		results := s.applyBatch(stream.Context(), applier, declared, request.GetOperations())
		if err := stream.Send(&connectorv1.ApplyResponse{Results: results}); err != nil {
			return err
		}
	}
}

func (s *Server) applyBatch(ctx context.Context, applier Applier, declared *declaration, operations []*connectorv1.Operation) []*connectorv1.ApplyResult {
	results := make([]*connectorv1.ApplyResult, len(operations))
	var admitted []*connectorv1.Operation
	var place []int
	for i, op := range operations {
		if p := declared.checkOperation(op); p != nil {
			results[i] = Refused(op, p)
			continue
		}
		admitted, place = append(admitted, op), append(place, i)
	}
	if declared.transactions && len(admitted) < len(operations) {
		for i, op := range admitted {
			results[place[i]] = Refused(op, NewProblem(CodeConflict, s.alias, op.Kind().Word(), "correct the refused operations of the same batch").
				WithSaid("another operation of the transaction was refused"))
		}
		return results
	}
	if len(admitted) == 0 {
		return results
	}
	var got []*connectorv1.ApplyResult
	err := s.guard(ctx, "apply", func(ctx context.Context) error {
		got = applier.Apply(ctx, admitted)
		return nil
	})
	for i, op := range admitted {
		results[place[i]] = s.checkResult(op, got, i, err)
	}
	return results
}

// checkResult accepts a result only if it answers this operation. Anything else
// means that nobody knows what happened.
func (s *Server) checkResult(op *connectorv1.Operation, got []*connectorv1.ApplyResult, i int, err error) *connectorv1.ApplyResult {
	if err != nil {
		return Unknown(op, AsProblem(err, s.alias, op.Kind().Word()))
	}
	if i >= len(got) || got[i].GetOperationId() != op.GetId() {
		return Unknown(op, connectorBug(s.alias, op.Kind().Word(), "the result is missing or answers another operation"))
	}
	r := got[i]
	switch r.GetOutcome() {
	case connectorv1.Outcome_OUTCOME_DONE:
		if r.Problem != nil {
			r.Problem = FromProto(r.Problem).Proto()
		}
		return r
	case connectorv1.Outcome_OUTCOME_CONFLICT, connectorv1.Outcome_OUTCOME_REFUSED, connectorv1.Outcome_OUTCOME_UNKNOWN:
		if r.GetProblem() == nil {
			r.Problem = connectorBug(s.alias, op.Kind().Word(), "no reason given").Proto()
		}
		r.Problem = FromProto(r.Problem).Proto()
		return r
	default:
		return Unknown(op, connectorBug(s.alias, op.Kind().Word(), "no outcome given"))
	}
}

// Done is the result of an operation whose effect the directory confirmed, or
// that was there already.
func Done(op *connectorv1.Operation) *connectorv1.ApplyResult {
	return &connectorv1.ApplyResult{OperationId: op.GetId(), Outcome: connectorv1.Outcome_OUTCOME_DONE}
}

// Conflict is the result of an operation whose expect did not hold; nothing was
// changed.
func Conflict(op *connectorv1.Operation, p *Problem) *connectorv1.ApplyResult {
	return &connectorv1.ApplyResult{OperationId: op.GetId(), Outcome: connectorv1.Outcome_OUTCOME_CONFLICT, Problem: p.Proto()}
}

// Refused is the result of an operation that changed nothing.
func Refused(op *connectorv1.Operation, p *Problem) *connectorv1.ApplyResult {
	return &connectorv1.ApplyResult{OperationId: op.GetId(), Outcome: connectorv1.Outcome_OUTCOME_REFUSED, Problem: p.Proto()}
}

// Unknown is the result of an operation that may or may not have happened.
func Unknown(op *connectorv1.Operation, p *Problem) *connectorv1.ApplyResult {
	return &connectorv1.ApplyResult{OperationId: op.GetId(), Outcome: connectorv1.Outcome_OUTCOME_UNKNOWN, Problem: p.Proto()}
}

func (d *declaration) checkOperation(op *connectorv1.Operation) *Problem {
	kind := op.Kind()
	create := op.GetCreate()
	if t := d.types[op.GetObject().GetType()]; t == nil {
		return NewProblem(CodeUnknownType, d.alias+": type "+Clean(op.GetObject().GetType()), kind.Word(), "use a type that the instance declares")
	} else if !t.Allows(kind) {
		return NewProblem(CodeUnsupported, d.alias+": type "+t.GetName(), kind.Word(), "plan only operations that the type declares")
	}
	typeName := op.GetObject().GetType()
	if create == nil {
		if p := d.checkRef(op.GetObject(), false); p != nil {
			return p
		}
	} else if op.GetObject().GetAnchor() != "" || len(create.GetName().GetComponents()) == 0 {
		return NewProblem(CodeInvalidValue, d.alias+": type "+typeName, "create", "a create has a name and no anchor")
	}
	for _, e := range op.GetExpect() {
		if p := d.checkAttribute(typeName, e.GetAttribute(), len(e.GetValues()), false); p != nil {
			return p
		}
	}
	for _, a := range create.GetAttributes() {
		if p := d.checkAttribute(typeName, a.GetName(), len(a.GetValues()), true); p != nil {
			return p
		}
	}
	for _, delta := range op.GetUpdate().GetDeltas() {
		if p := d.checkAttribute(typeName, delta.GetAttribute(), len(delta.GetAdd())+len(delta.GetAddRefs()), true); p != nil {
			return p
		}
	}
	return d.checkOperationRefs(op, create)
}

func (d *declaration) checkOperationRefs(op *connectorv1.Operation, create *connectorv1.Create) *Problem {
	refs := create.GetMembers()
	for _, delta := range op.GetUpdate().GetDeltas() {
		refs = append(append(refs[:len(refs):len(refs)], delta.GetRemoveRefs()...), delta.GetAddRefs()...)
	}
	if m := op.GetAddMember(); m != nil {
		refs = append(refs[:len(refs):len(refs)], m.GetMember())
	}
	if m := op.GetRemoveMember(); m != nil {
		refs = append(refs[:len(refs):len(refs)], m.GetMember())
	}
	for _, ref := range refs {
		if p := d.checkRef(ref, true); p != nil {
			return p
		}
	}
	if c := op.GetSetCredential(); c != nil && len(c.GetSecret()) == 0 {
		return NewProblem(CodeInvalidValue, d.alias, op.Kind().Word(), "the agent must make the secret before it asks for the effect")
	}
	return nil
}

func (d *declaration) checkAttribute(typeName, name string, values int, write bool) *Problem {
	a := d.attributes[typeName][name]
	object := d.alias + ": " + typeName + " attribute " + Clean(name)
	switch {
	case a == nil:
		return NewProblem(CodeUnknownAttribute, object, "use the attribute", "use an attribute that the type declares, spelled as declared")
	case a.GetSecret():
		return NewProblem(CodeNotAllowed, object, "use a secret attribute", "use set credential or revoke credential")
	case write && a.GetReadOnly():
		return NewProblem(CodeReadOnly, object, "write the attribute", "the directory sets it; leave it out of the mapping")
	case values > 1 && !a.GetMultiValued():
		return NewProblem(CodeInvalidValue, object, "give several values", "the attribute holds one value")
	}
	return nil
}
