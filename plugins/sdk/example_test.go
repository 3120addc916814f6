package sdk_test

import (
	"context"
	"fmt"
	"os"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// badges is a source of people that somebody keeps in a map.
type badges struct{ people map[string]string }

func (badges) Describe() *connectorv1.DescribeResponse {
	return &connectorv1.DescribeResponse{
		Name: "badges", Version: "0.1.0", CaseRule: connectorv1.CaseRule_CASE_RULE_EXACT,
		Types: badgeTypes(), ConfigSchema: `{"type":"object","properties":{"site":{"type":"string"}}}`,
	}
}

func badgeTypes() []*connectorv1.ObjectType {
	return []*connectorv1.ObjectType{{
		Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "badge",
		Attributes: []*connectorv1.AttributeType{{Name: "name", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, ReadOnly: true}},
	}}
}

func (b badges) Open(_ context.Context, settings sdk.Settings) (sdk.Instance, error) {
	var s struct {
		Site string `json:"site"`
	}
	if err := settings.Decode(&s); err != nil {
		return nil, err
	}
	if s.Site == "" {
		return nil, settings.Problem("site", "is missing", "name the site whose badges are read")
	}
	return b, nil
}

func (badges) Types() []*connectorv1.ObjectType       { return badgeTypes() }
func (badges) Capabilities() []connectorv1.Capability { return nil }
func (badges) Close() error                           { return nil }
func (b badges) object(badge string) *connectorv1.Object {
	return &connectorv1.Object{
		Type: "person", Anchor: badge, Display: b.people[badge], Keys: []string{"badge:" + badge},
		Name:       &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("badge", badge)}},
		Attributes: []*connectorv1.Attribute{{Name: "name", Values: [][]byte{[]byte(b.people[badge])}}},
	}
}

func (badges) Check(context.Context) (*connectorv1.CheckResponse, error) {
	return &connectorv1.CheckResponse{Reachable: true, Fingerprint: []*connectorv1.Fact{{Name: "site", Value: "oslo"}}}, nil
}

func (b badges) Observe(_ context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	for badge := range b.people {
		if err := emit(b.object(badge)); err != nil {
			return sdk.Completeness{}, err
		}
	}
	return sdk.Completeness{Method: "whole map"}, nil
}

func (b badges) Read(_ context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	results := make([]*connectorv1.ReadResult, len(refs))
	for i, ref := range refs {
		results[i] = &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Absent{}}
		if _, ok := b.people[ref.GetAnchor()]; ok {
			results[i].Outcome = &connectorv1.ReadResult_Object{Object: b.object(ref.GetAnchor())}
		}
	}
	return results, nil
}

// A whole source connector; started by hand it says what it is.
func Example() {
	if err := sdk.Serve(badges{people: map[string]string{"17": "Anna"}}); err != nil {
		fmt.Fprintln(os.Stdout, err)
	}
	// Output: this is a Reeve connector; the agent starts it, it does nothing by itself
}
