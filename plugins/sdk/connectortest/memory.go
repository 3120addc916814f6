package connectortest

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Memory is a fake connector: accounts and groups kept in RAM and, after each
// change, in a JSON file (MemoryState) that a test may read and write from
// outside and that survives the process. Its settings are MemorySettings.
type Memory struct{}

// MemorySettings are the settings of a Memory instance. All but State make it
// misbehave.
type MemorySettings struct {
	// State is the path of the JSON file; one that is not there is empty.
	State string `json:"state"`
	// FailAfter fails Observe with UNREACHABLE after that many objects, and
	// Apply, as unknown, after that many operations; 0 never.
	FailAfter int `json:"fail_after,omitempty"`
	// Slow waits before each object and operation, as in "20ms".
	Slow string `json:"slow,omitempty"`
	// Lie is "done" (answers done and changes nothing), "twice" (emits each
	// object twice), "undeclared" and "secret" (emit such an attribute) or
	// "panic" (panics at the first object and operation).
	Lie string `json:"lie,omitempty"`
}

// Describe implements sdk.Connector.
func (Memory) Describe() *connectorv1.DescribeResponse {
	return &connectorv1.DescribeResponse{
		Name: "memory", Version: "1.0.0", CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE, Types: memoryTypes(),
		ConfigSchema: `{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object","additionalProperties":false,"required":["state"],"properties":{` +
			`"state":{"type":"string"},"fail_after":{"type":"integer","minimum":0},"slow":{"type":"string"},"lie":{"enum":["done","twice","undeclared","secret","panic"]}}}`,
	}
}

func memoryTypes() []*connectorv1.ObjectType {
	ignore, exact := connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, connectorv1.MatchingRule_MATCHING_RULE_EXACT
	return []*connectorv1.ObjectType{
		{
			Name: "account", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "login",
			Attributes: []*connectorv1.AttributeType{
				{Name: "displayName", Rule: ignore},
				{Name: "login", Rule: ignore, ReadOnly: true},
				{Name: "mail", Rule: ignore, MultiValued: true},
				{Name: "number", Rule: connectorv1.MatchingRule_MATCHING_RULE_INTEGER},
				{Name: "password", Rule: exact, Secret: true},
				{Name: "shell", Rule: exact, Dangerous: true},
			},
			Operations: []connectorv1.OperationKind{
				connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE,
				connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE,
				connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE,
				connectorv1.OperationKind_OPERATION_KIND_DELETE, connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL,
				connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL,
			},
		},
		{
			Name: "group", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", MemberKey: "id:",
			Attributes: []*connectorv1.AttributeType{
				{Name: "cn", Rule: ignore, ReadOnly: true},
				{Name: "description", Rule: ignore},
			},
			Operations: []connectorv1.OperationKind{
				connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE,
				connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_DELETE,
				connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER,
			},
		},
	}
}

// Open implements sdk.Connector.
func (Memory) Open(_ context.Context, settings sdk.Settings) (sdk.Instance, error) {
	m := &memory{alias: settings.Alias, changed: make(chan struct{})}
	if err := settings.Decode(&m.settings); err != nil {
		return nil, err
	}
	if m.settings.State == "" {
		return nil, settings.Problem("state", "is missing", "give the path of a JSON file")
	}
	if m.settings.Slow != "" {
		slow, err := time.ParseDuration(m.settings.Slow)
		if err != nil {
			return nil, settings.Problem("slow", "is not a duration", `write it as in "20ms"`).WithCause(err)
		}
		m.slow = slow
	}
	return m, m.load()
}

type memory struct {
	alias    string
	settings MemorySettings
	slow     time.Duration

	mu      sync.Mutex
	state   MemoryState
	changed chan struct{}
	applied int
}

func (m *memory) Types() []*connectorv1.ObjectType { return memoryTypes() }

func (m *memory) Capabilities() []connectorv1.Capability {
	return []connectorv1.Capability{connectorv1.Capability_CAPABILITY_ATOMIC_EXPECT}
}

func (m *memory) Close() error { return nil }

func (m *memory) Check(context.Context) (*connectorv1.CheckResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, err
	}
	return &connectorv1.CheckResponse{
		Reachable: true, Server: "memory (a fake)", BoundAs: "nobody",
		Rights:      []*connectorv1.Right{{What: "write", Where: m.settings.State, Allowed: true}},
		Fingerprint: []*connectorv1.Fact{{Name: "state", Value: m.settings.State}},
	}, nil
}

func (m *memory) wait(ctx context.Context) error {
	if m.slow == 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(m.slow):
		return nil
	}
}

func (m *memory) Observe(ctx context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	m.mu.Lock()
	err := m.load()
	state := m.state.clone()
	m.mu.Unlock()
	if err != nil {
		return sdk.Completeness{}, err
	}
	for i, o := range state.Objects {
		if m.settings.Lie == "panic" {
			panic("memory was told to panic")
		}
		if m.settings.FailAfter > 0 && i >= m.settings.FailAfter {
			return sdk.Completeness{}, sdk.NewProblem(sdk.CodeUnreachable, m.alias, "observe", "memory was told to fail")
		}
		if err := m.wait(ctx); err != nil {
			return sdk.Completeness{}, err
		}
		out := o.object()
		switch m.settings.Lie {
		case "twice":
			if err := emit(o.object()); err != nil {
				return sdk.Completeness{}, err
			}
		case "undeclared", "secret":
			name := map[string]string{"undeclared": "shoeSize", "secret": "password"}[m.settings.Lie]
			out.Attributes = append(out.Attributes, &connectorv1.Attribute{Name: name, Values: [][]byte{[]byte("hunter2")}})
		}
		if err := emit(out); err != nil {
			return sdk.Completeness{}, err
		}
	}
	return sdk.Completeness{Method: "whole state in RAM", Cursor: cursorAt(state.Revision)}, nil
}

func (m *memory) Read(_ context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.load(); err != nil {
		return nil, err
	}
	results := make([]*connectorv1.ReadResult, len(refs))
	for i, ref := range refs {
		if o := m.state.find(ref); o != nil {
			results[i] = &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Object{Object: o.object()}}
		} else {
			results[i] = &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Absent{Absent: &connectorv1.Absent{}}}
		}
	}
	return results, nil
}

func cursorAt(revision int) []byte {
	b, err := json.Marshal(revision)
	if err != nil {
		panic(err) // an int always encodes
	}
	return b
}

func (m *memory) Changes(_ context.Context, cursor []byte, tell sdk.Telling) (sdk.Completeness, error) {
	m.mu.Lock()
	err := m.load()
	state := m.state.clone()
	m.mu.Unlock()
	if err != nil {
		return sdk.Completeness{}, err
	}
	since, err := strconv.Atoi(string(cursor))
	if err != nil || since > state.Revision || since < 0 {
		return sdk.Completeness{}, sdk.NewProblem(sdk.CodeCursorLost, m.alias, "changes", "read everything with Observe").
			WithSaid(fmt.Sprintf("cursor %q is not mine", cursor))
	}
	for _, o := range state.Objects {
		if o.Revision > since {
			if err := tell.Changed(o.object()); err != nil {
				return sdk.Completeness{}, err
			}
		}
	}
	for _, g := range state.Gone {
		if g.Revision > since {
			if err := tell.Removed(g.Anchor); err != nil {
				return sdk.Completeness{}, err
			}
		}
	}
	return sdk.Completeness{Method: "revisions of the state", Cursor: cursorAt(state.Revision)}, nil
}

func (m *memory) Watch(ctx context.Context, _ []byte, changed func()) error {
	for {
		m.mu.Lock()
		next := m.changed
		m.mu.Unlock()
		changed()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-next:
		}
	}
}
