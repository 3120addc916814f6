package connectortest

import (
	"maps"
	"slices"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func deletion(o *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}
}

func enabling(o *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Enable{Enable: &connectorv1.Enable{}}}
}

func disabling(o *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}}
}

func adding(group, member *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(group), Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: ref(member)}}}
}

func removing(group, member *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(group), Action: &connectorv1.Operation_RemoveMember{RemoveMember: &connectorv1.RemoveMember{Member: ref(member)}}}
}

func setting(o *connectorv1.Object, secret string) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_SetCredential{
		SetCredential: &connectorv1.SetCredential{Kind: "password", Secret: []byte(secret)}}}
}

func revoking(o *connectorv1.Object) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_RevokeCredential{
		RevokeCredential: &connectorv1.RevokeCredential{Kind: "password"}}}
}

func updating(o *connectorv1.Object, attribute string, remove, add [][]byte) *connectorv1.Operation {
	return &connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{
		Deltas: []*connectorv1.ValueDelta{{Attribute: attribute, Remove: remove, Add: add}}}}}
}

// wrote fails unless the object reads as it was written, under each attribute's
// rule: otherwise the next plan would write it again.
func (s *session) wrote(t *connectorv1.ObjectType, o *connectorv1.Object, attribute string, values [][]byte) {
	s.Helper()
	a := t.AttributeType(attribute)
	if a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE || a.GetSecret() {
		return
	}
	if got := o.Attribute(attribute); !connectorv1.SameValues(a.GetRule(), got, values) {
		s.Errorf("%s %s: wrote %q, reads %q, not the same under %s: declare the rule by which the directory compares, or refuse the value",
			t.GetName(), attribute, values, got, a.GetRule())
	}
}

func tryCreate(s *session) {
	for _, t := range s.sampled(opCreate) {
		op := s.creation(t, "kit-create")
		s.done(op)
		create := op.GetCreate()
		o := s.read(&connectorv1.ObjectRef{Type: t.GetName(), Name: create.GetName()})
		if o == nil {
			s.Fatalf("create %s: done, and absent when read by name %s", t.GetName(), create.GetName().Text())
		}
		if got := o.GetName().Key(s.describe.GetCaseRule()); got != create.GetName().Key(s.describe.GetCaseRule()) {
			s.Errorf("create %s: named %s, reads %s", t.GetName(), create.GetName().Text(), o.GetName().Text())
		}
		for _, a := range create.GetAttributes() {
			s.wrote(t, o, a.GetName(), a.GetValues())
		}
		if t.Allows(opEnable) && o.GetEnablement() != connectorv1.Enablement_ENABLEMENT_DISABLED {
			s.Errorf("create %s: a type that can be enabled is created disabled, got %s", t.GetName(), o.GetEnablement())
		}
		all, end := s.observe()
		if seen := all[o.GetAnchor()]; seen == nil || seen.Digest() != o.Digest() || !end.GetComplete() {
			s.Errorf("create %s: Observe sees %v, Read %v", t.GetName(), seen, o)
		}
		other := s.make(t, "kit-create-other")
		if other.GetAnchor() == o.GetAnchor() {
			s.Errorf("create %s: two objects share the anchor %q", t.GetName(), o.GetAnchor())
		}
	}
}

func values(texts ...string) [][]byte {
	out := make([][]byte, len(texts))
	for i, text := range texts {
		out[i] = []byte(text)
	}
	return out
}

func tryUpdate(s *session) {
	for _, t := range s.sampled(opUpdate) {
		o := s.make(t, "kit-update")
		sample := s.target.Samples[t.GetName()]
		for _, attribute := range slices.Sorted(maps.Keys(sample.Values)) {
			a := t.AttributeType(attribute)
			if a == nil || a.GetReadOnly() || a.GetSecret() {
				s.Errorf("Sample gives values for %s, which cannot be written", attribute)
				continue
			}
			original, before := o.Attribute(attribute), s.state()
			have := original
			for _, value := range sample.Values[attribute] {
				s.done(updating(o, attribute, have, values(value)))
				have = values(value)
				s.wrote(t, s.read(ref(o)), attribute, have)
			}
			if vs := sample.Values[attribute]; a.GetMultiValued() && len(vs) > 1 {
				if !a.GetRequired() {
					s.done(updating(o, attribute, have, nil))
					s.wrote(t, s.read(ref(o)), attribute, nil)
				}
				s.done(updating(o, attribute, nil, values(vs...)))
				s.wrote(t, s.read(ref(o)), attribute, values(vs...))
				s.done(updating(o, attribute, values(vs[0]), nil))
				have = values(vs[1:]...)
				s.wrote(t, s.read(ref(o)), attribute, have)
			}
			s.done(updating(o, attribute, have, original))
			s.wrote(t, s.read(ref(o)), attribute, original)
			s.unchanged(before, "writing "+attribute+" there and back")
		}
	}
}

func tryEnablement(s *session) {
	for _, t := range s.sampled(opEnable) {
		o := s.make(t, "kit-enable")
		disabled := s.state()
		s.done(enabling(o))
		if got := s.read(ref(o)).GetEnablement(); got != connectorv1.Enablement_ENABLEMENT_ENABLED {
			s.Errorf("enable %s: reads %s", t.GetName(), got)
		}
		if !t.Allows(opDisable) {
			continue
		}
		s.done(disabling(o))
		if got := s.read(ref(o)).GetEnablement(); got != connectorv1.Enablement_ENABLEMENT_DISABLED {
			s.Errorf("disable %s: reads %s", t.GetName(), got)
		}
		s.unchanged(disabled, "enable and disable")
	}
}

// isMember reports whether one of the member's link keys is among the group's
// members.
func isMember(group, member *connectorv1.Object) bool {
	return slices.ContainsFunc(member.GetKeys(), func(key string) bool { return slices.Contains(group.GetMembers(), key) })
}

func tryMembers(s *session) {
	for _, t := range s.sampled(opAdd) {
		sample := s.target.Samples[t.GetName()]
		if sample.Member == "" {
			s.Errorf("type %q adds members: the Sample must name their type", t.GetName())
			continue
		}
		group := s.make(t, "kit-group")
		first, second := s.make(s.typeNamed(sample.Member), "kit-first"), s.make(s.typeNamed(sample.Member), "kit-second")
		before := s.state()
		s.done(adding(group, first))
		s.done(adding(group, second))
		now := s.read(ref(group))
		if !isMember(now, first) || !isMember(now, second) {
			s.Errorf("add member to %s: keys %v and %v are not among members %v", t.GetName(), first.GetKeys(), second.GetKeys(), now.GetMembers())
		}
		if !t.Allows(opRemove) {
			continue
		}
		s.done(removing(group, first))
		now = s.read(ref(group))
		if isMember(now, first) || !isMember(now, second) {
			s.Errorf("remove member from %s: members are %v after %v was removed", t.GetName(), now.GetMembers(), first.GetKeys())
		}
		s.done(removing(group, second))
		s.unchanged(before, "adding and removing members")
	}
}

func tryRename(s *session) {
	for _, t := range s.sampled(opRename) {
		o := s.make(t, "kit-rename")
		before := s.state()
		there, back := s.target.Samples[t.GetName()].Create("kit-renamed").GetName(), o.GetName()
		for _, to := range []*connectorv1.Name{there, back} {
			s.done(&connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Rename{Rename: &connectorv1.Rename{To: to.Leaf()}}})
			s.isAt(o, to)
		}
		s.unchanged(before, "renaming there and back")
	}
}

// isAt fails unless the object keeps its anchor under the name.
func (s *session) isAt(o *connectorv1.Object, name *connectorv1.Name) {
	s.Helper()
	now := s.read(ref(o))
	rule := s.describe.GetCaseRule()
	if now == nil || now.GetName().Key(rule) != name.Key(rule) {
		s.Fatalf("want anchor %q under %s, got %s", o.GetAnchor(), name.Text(), now.GetName().Text())
	}
}

func tryMove(s *session) {
	for _, t := range s.sampled(opMove) {
		place := s.target.Samples[t.GetName()].MoveTo
		if place == nil {
			continue
		}
		o := s.make(t, "kit-move")
		before := s.state()
		for _, to := range [][]*connectorv1.Component{place, o.GetName().Parent().GetComponents()} {
			s.done(&connectorv1.Operation{Object: ref(o), Action: &connectorv1.Operation_Move{Move: &connectorv1.Move{To: to}}})
			s.isAt(o, &connectorv1.Name{Components: append([]*connectorv1.Component{o.GetName().Leaf()}, to...)})
		}
		s.unchanged(before, "moving there and back")
	}
}

func (s *session) secret(t *connectorv1.ObjectType) string {
	if secret := s.target.Samples[t.GetName()].Secret; secret != "" {
		return secret
	}
	return "Kit-7xQ:pâté/ 9vT=Lm"
}

func tryCredentials(s *session) {
	for _, t := range s.sampled(opSet) {
		o, secret := s.make(t, "kit-credential"), s.secret(t)
		for _, try := range []string{secret, secret + "2"} {
			if r := s.apply(setting(o, try)); r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
				s.Fatalf("set credential: %s", said(r))
			}
			if t.Allows(opEnable) {
				s.done(enabling(o))
			}
			s.login(o, try, true)
		}
		s.login(o, secret, false)
		if t.Allows(opDisable) && t.Allows(opEnable) {
			s.done(disabling(o))
			s.login(o, secret+"2", false)
			s.done(enabling(o))
			s.login(o, secret+"2", true)
		}
		if t.Allows(opRevoke) {
			s.done(revoking(o))
			s.login(o, secret+"2", false)
		}
	}
}

func (s *session) login(o *connectorv1.Object, secret string, want bool) {
	s.Helper()
	if s.dir.Verify == nil {
		return
	}
	if got := s.dir.Verify(s, s.read(ref(o)), []byte(secret)); got != want {
		s.Errorf("login of %s with the secret: want %v, got %v", o.GetName().Text(), want, got)
	}
}

func tryDelete(s *session) {
	for _, t := range s.sampled(opDelete) {
		// What a type needs beside itself is made before and stays.
		s.creation(t, "kit-delete")
		before := s.state()
		o := s.make(t, "kit-delete")
		s.done(deletion(o))
		if now := s.read(ref(o)); now != nil {
			s.Errorf("delete %s: reads %v", t.GetName(), now)
		}
		if all, _ := s.observe(); all[o.GetAnchor()] != nil {
			s.Errorf("delete %s: Observe still sees it", t.GetName())
		}
		s.unchanged(before, "create and delete")
	}
}
