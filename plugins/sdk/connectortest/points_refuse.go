package connectortest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func tryUndeclared(s *session) {
	for _, t := range s.types {
		o := &connectorv1.Object{Type: t.GetName(), Anchor: "nobody"}
		for kind, op := range map[connectorv1.OperationKind]*connectorv1.Operation{
			opUpdate: updating(o, "anything", nil, values("x")),
			opRename: {Object: ref(o), Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: connectorv1.NewComponent("x", "y")}}},
			opMove:   {Object: ref(o), Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{}}},
			opEnable: enabling(o), opDisable: disabling(o), opDelete: deletion(o),
			opAdd: adding(o, o), opRemove: removing(o, o), opSet: setting(o, "x"), opRevoke: revoking(o),
		} {
			// A source has no Apply at all.
			if !t.Allows(kind) && slices.ContainsFunc(s.types, func(t *connectorv1.ObjectType) bool { return len(t.GetOperations()) > 0 }) {
				s.refused(op, "undeclared "+kind.Word()+" of "+t.GetName())
			}
		}
	}
	for _, t := range s.sampled(opUpdate) {
		o := s.make(t, "kit-undeclared")
		s.refused(updating(o, "noSuchAttribute", nil, values("x")), "update of an undeclared attribute of "+t.GetName())
		for _, a := range t.GetAttributes() {
			if a.GetReadOnly() || a.GetSecret() {
				s.refused(updating(o, a.GetName(), nil, values("x")), "update of "+a.GetName()+", which is read only or secret")
			}
		}
	}
}

// falsehood returns an assertion about the object that does not hold.
func falsehood(t *connectorv1.ObjectType, o *connectorv1.Object) []*connectorv1.Assertion {
	for _, a := range o.GetAttributes() {
		if t.AttributeType(a.GetName()).GetRule() != connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			return []*connectorv1.Assertion{{Attribute: a.GetName()}}
		}
	}
	return nil
}

func tryExpect(s *session) {
	for _, t := range s.sampled(opCreate) {
		sample := s.target.Samples[t.GetName()]
		o := s.make(t, "kit-expect")
		var tries []*connectorv1.Operation
		for _, attribute := range slices.Sorted(maps.Keys(sample.Values)) {
			if t.Allows(opUpdate) {
				last := sample.Values[attribute][len(sample.Values[attribute])-1]
				if connectorv1.HasValue(t.AttributeType(attribute).GetRule(), o.Attribute(attribute), []byte(last)) {
					last = sample.Values[attribute][0]
				}
				tries = append(tries, updating(o, attribute, o.Attribute(attribute), values(last)))
			}
		}
		if t.Allows(opRename) {
			tries = append(tries, &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Rename{
				Rename: &connectorv1.Rename{To: sample.Create("kit-expect-renamed").GetName().Leaf()}}})
		}
		if t.Allows(opAdd) && sample.Member != "" {
			tries = append(tries, adding(o, s.make(s.typeNamed(sample.Member), "kit-expect-member")))
		}
		if t.Allows(opEnable) {
			tries = append(tries, enabling(o))
		}
		if t.Allows(opSet) {
			tries = append(tries, setting(o, s.secret(t)))
		}
		if t.Allows(opDelete) {
			tries = append(tries, deletion(o))
		}
		for _, op := range tries {
			if op.Expect = falsehood(t, o); op.Expect == nil {
				continue
			}
			before := s.state()
			r := s.apply(op)
			what := fmt.Sprintf("%s of %s expecting %s to be unset", op.Kind().Word(), t.GetName(), op.GetExpect()[0].GetAttribute())
			if r.GetOutcome() != connectorv1.Outcome_OUTCOME_CONFLICT {
				s.Errorf("%s: want conflict, got %s", what, said(r))
			} else {
				s.readable(r.GetProblem(), what)
			}
			s.unchanged(before, what)
		}
		for _, op := range tries {
			if u := op.GetUpdate(); u != nil {
				d := u.GetDeltas()[0]
				op.Expect = []*connectorv1.Assertion{{Attribute: d.GetAttribute(), Values: o.Attribute(d.GetAttribute())}}
				if r := s.apply(op); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
					s.Errorf("update of %s expecting what is there: want done, got %s", d.GetAttribute(), said(r))
				}
				break
			}
		}
	}
}

// hostile are texts that mean something to some file, protocol or terminal.
func hostile() []string {
	return []string{
		"kit,comma", `kit"quote`, `kit\back`, "kit+plus", "kit=equals", "kit<>;", "#kit", " kit", "kit ", "kit  two",
		"kit:colon", "kit\nroot::0:0::/:/bin/sh", "kit\r", "kit\ttab", "kit\x00nul", "kit*)(uid=*", "kit'; drop table--",
		"../kit", "kit/slash", "-kit", "!kit", "~kit", "kit\u202egnp", "Kït-Ünïcode-日本", "kit\x1b[31m", strings.Repeat("k", 300),
	}
}

func tryHostileNames(s *session) {
	for _, t := range s.sampled(opCreate) {
		s.creation(t, "kit-hostile")
		for _, leaf := range hostile() {
			before := s.state()
			op := s.creation(t, leaf)
			name := op.GetCreate().GetName()
			r := s.apply(op)
			switch r.GetOutcome() {
			case connectorv1.Outcome_OUTCOME_REFUSED:
				s.readable(r.GetProblem(), fmt.Sprintf("create %q", leaf))
				s.unchanged(before, fmt.Sprintf("the refused create of %q", leaf))
				continue
			case connectorv1.Outcome_OUTCOME_DONE:
			default:
				s.Errorf("create %q: want done or refused, got %s", leaf, said(r))
				continue
			}
			o := s.read(&connectorv1.ObjectRef{Type: t.GetName(), Name: name})
			if o == nil || o.GetName().Key(s.describe.GetCaseRule()) != name.Key(s.describe.GetCaseRule()) {
				s.Errorf("create %q: done, and reads %s: round trip the name or refuse it", leaf, o.GetName().Text())
				continue
			}
			all, end := s.observe()
			if seen := all[o.GetAnchor()]; !end.GetComplete() || seen == nil || seen.Digest() != o.Digest() {
				s.Errorf("create %q: Observe sees %v, end %v", leaf, seen, end)
			}
			if t.Allows(opDelete) {
				s.done(deletion(o))
				s.unchanged(before, fmt.Sprintf("create and delete of %q", leaf))
			}
		}
	}
}

func tryHostileValues(s *session) {
	for _, t := range s.sampled(opUpdate) {
		o := s.make(t, "kit-values")
		for _, attribute := range slices.Sorted(maps.Keys(s.target.Samples[t.GetName()].Values)) {
			a := t.AttributeType(attribute)
			if a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
				continue
			}
			for _, value := range hostile() {
				before, have := s.state(), s.read(ref(o)).Attribute(attribute)
				r := s.apply(updating(o, attribute, have, values(value)))
				switch r.GetOutcome() {
				case connectorv1.Outcome_OUTCOME_REFUSED:
					s.readable(r.GetProblem(), fmt.Sprintf("%s = %q", attribute, value))
					s.unchanged(before, fmt.Sprintf("the refused value %q of %s", value, attribute))
				case connectorv1.Outcome_OUTCOME_DONE:
					s.wrote(t, s.read(ref(o)), attribute, values(value))
					s.done(updating(o, attribute, values(value), have))
					s.unchanged(before, fmt.Sprintf("writing %q to %s and back", value, attribute))
				default:
					s.Errorf("%s = %q: want done or refused, got %s", attribute, value, said(r))
				}
			}
		}
	}
}

func tryBatch(s *session) {
	for _, t := range s.sampled(opCreate) {
		s.creation(t, "kit-batch")
		before := s.state()
		var operations []*connectorv1.Operation
		for i := range 120 {
			op := s.creation(t, fmt.Sprintf("kit-batch-%d", i))
			op.Id = fmt.Sprintf("%s-%d", t.GetName(), i)
			operations = append(operations, op)
		}
		results, err := s.client.Apply(s.ctx, operations)
		if err != nil {
			s.Fatalf("Apply of %d operations: %v", len(operations), err)
		}
		for i, r := range results {
			if r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
				s.Errorf("create %d of a batch: %s", i, said(r))
			}
		}
		if !t.Allows(opDelete) {
			continue
		}
		var deletions []*connectorv1.Operation
		for i, op := range operations {
			o := s.read(&connectorv1.ObjectRef{Type: t.GetName(), Name: op.GetCreate().GetName()})
			if o == nil {
				s.Fatalf("create %d of a batch: absent", i)
			}
			d := deletion(o)
			d.Id = fmt.Sprintf("%s-delete-%d", t.GetName(), i)
			deletions = append(deletions, d)
		}
		if _, err := s.client.Apply(s.ctx, deletions); err != nil {
			s.Fatalf("Apply of %d deletions: %v", len(deletions), err)
		}
		s.unchanged(before, "creating and deleting a batch")
	}
}
