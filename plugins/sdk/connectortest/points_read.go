package connectortest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func tryDescribe(s *session) {
	again, err := s.client.Describe(s.ctx)
	if err != nil {
		s.Fatalf("Describe after Configure: %v", err)
	}
	if !proto.Equal(s.describe, again) {
		s.Errorf("Describe answers differently after Configure: it must not depend on settings")
	}
	if again.GetName() == "" || strings.Count(again.GetVersion(), ".") < 2 || again.GetCaseRule() == connectorv1.CaseRule_CASE_RULE_UNSPECIFIED {
		s.Errorf("Describe must give name, semantic version and case rule, got %q, %q, %v", again.GetName(), again.GetVersion(), again.GetCaseRule())
	}
	if !json.Valid([]byte(again.GetConfigSchema())) {
		s.Errorf("config_schema is not JSON: %q", again.GetConfigSchema())
	}
	for _, t := range s.types {
		if !slices.ContainsFunc(again.GetTypes(), func(d *connectorv1.ObjectType) bool { return d.GetName() == t.GetName() && d.GetKind() == t.GetKind() }) {
			s.Errorf("type %q of the instance is not described, or with another kind", t.GetName())
		}
		if (t.Allows(opAdd) || t.Allows(opRemove)) && t.GetMemberKey() == "" {
			s.Errorf("type %q takes members and has no member_key", t.GetName())
		}
	}
}

func tryConfigure(s *session) {
	if _, err := s.client.Configure(s.ctx, s.configuration(s.dir.Settings)); err == nil {
		s.Errorf("a second Configure was accepted: an instance is configured once")
	}
	fresh := s.target.start(s)
	if _, err := fresh.Observe(s.ctx, func([]*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeNotConfigured) {
		s.Errorf("Observe before Configure: want %s, got %v", sdk.CodeNotConfigured, err)
	}
	var settings map[string]any
	if err := json.Unmarshal(s.dir.Settings, &settings); err != nil {
		s.Fatalf("Setup's settings are not a JSON object: %v", err)
	}
	settings["no_such_setting"] = true
	unknown, err := json.Marshal(settings)
	if err != nil {
		s.Fatal(err)
	}
	_, err = fresh.Configure(s.ctx, s.configuration(unknown))
	if !sdk.HasCode(err, sdk.CodeConfig) || !strings.Contains(err.Error(), "no_such_setting") {
		s.Errorf("an unknown setting: want a %s problem that names it, got %v", sdk.CodeConfig, err)
	}
}

func tryCheck(s *session) {
	before := s.state()
	r, err := s.client.Check(s.ctx)
	if err != nil {
		s.Fatalf("Check: %v", err)
	}
	if !r.GetReachable() || len(r.GetFingerprint()) == 0 {
		s.Errorf("Check of a directory that is there: want reachable and a fingerprint, got %v", r)
	}
	again, err := s.client.Check(s.ctx)
	if err != nil {
		s.Fatalf("Check again: %v", err)
	}
	if !slices.EqualFunc(r.GetFingerprint(), again.GetFingerprint(), func(a, b *connectorv1.Fact) bool { return proto.Equal(a, b) }) {
		s.Errorf("the fingerprint of the same directory differs: %v, then %v", r.GetFingerprint(), again.GetFingerprint())
	}
	for _, p := range r.GetProblems() {
		s.readable(p, "Check")
	}
	s.unchanged(before, "Check")
}

func tryObserve(s *session) {
	before := s.state()
	objects, end := s.observe()
	if !end.GetComplete() || end.GetMethod() == "" {
		s.Errorf("Observe of what Setup prepared: want complete with a method, got %v", end)
	}
	if uint64(len(objects)) != end.GetCount() {
		s.Errorf("Observe: %d anchors in %d objects: an anchor stands for one object", len(objects), end.GetCount())
	}
	if len(objects) == 0 {
		s.Errorf("Observe: Setup must put objects there, none was seen")
	}
	again, _ := s.observe()
	if !maps.EqualFunc(objects, again, func(a, b *connectorv1.Object) bool { return a.Digest() == b.Digest() }) {
		s.Errorf("two reads of an unchanged directory differ: %v, then %v", objects, again)
	}
	owner := map[string]string{}
	for _, o := range objects {
		for _, key := range o.GetKeys() {
			if other, taken := owner[key]; taken {
				s.Errorf("link key %q belongs to %s and %s", key, other, o.GetAnchor())
			}
			owner[key] = o.GetAnchor()
		}
	}
	s.unchanged(before, "Observe")
}

func tryCancel(s *session) {
	ctx, cancel := context.WithCancel(s.ctx)
	_, err := s.client.Observe(ctx, func([]*connectorv1.Object) error { cancel(); return nil })
	cancel()
	if err != nil && !errors.Is(err, context.Canceled) {
		s.Errorf("a cancelled Observe: want the cancellation, got %v", err)
	}
	stop := errors.New("enough")
	if _, err := s.client.Observe(s.ctx, func([]*connectorv1.Object) error { return stop }); !errors.Is(err, stop) {
		s.Errorf("an Observe whose reader stops: want the reader's error, got %v", err)
	}
	if _, end := s.observe(); !end.GetComplete() {
		s.Errorf("Observe after a cancelled one is not complete: %v", end)
	}
}

func tryRead(s *session) {
	objects, _ := s.observe()
	for chunk := range slices.Chunk(slices.Collect(maps.Values(objects)), 100) {
		var byAnchor, byName []*connectorv1.ObjectRef
		for _, o := range chunk {
			byAnchor = append(byAnchor, ref(o))
			byName = append(byName, &connectorv1.ObjectRef{Type: o.GetType(), Name: o.GetName()})
		}
		for how, refs := range map[string][]*connectorv1.ObjectRef{"anchor": byAnchor, "name": byName} {
			results, err := s.client.Read(s.ctx, refs)
			if err != nil {
				s.Fatalf("Read by %s: %v", how, err)
			}
			for i, r := range results {
				if r.GetObject() == nil || r.GetObject().Digest() != chunk[i].Digest() {
					s.Errorf("Read by %s: want what Observe saw, %v, got %v", how, chunk[i], r)
				}
			}
		}
	}
	for _, t := range s.types {
		results, err := s.client.Read(s.ctx, []*connectorv1.ObjectRef{{Type: t.GetName(), Anchor: "00000000-0000-4000-8000-000000000000"}})
		if err != nil {
			s.Fatalf("Read of an anchor that is not there: %v", err)
		}
		if results[0].GetObject() != nil {
			s.Errorf("Read of an anchor that is not there found %v", results[0].GetObject())
		}
	}
}
