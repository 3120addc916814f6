package connectortest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// MemoryState is the whole content of a Memory connector's file.
type MemoryState struct {
	// Revision counts changes; Next is the number of the next anchor.
	Revision int            `json:"revision"`
	Next     int            `json:"next"`
	Objects  []MemoryObject `json:"objects"`
	Gone     []MemoryGone   `json:"gone,omitempty"`
}

// MemoryObject is one account or group.
type MemoryObject struct {
	Type       string              `json:"type"`
	Anchor     string              `json:"anchor"`
	Leaf       string              `json:"leaf"`
	Place      string              `json:"place"`
	Attributes map[string][]string `json:"attributes,omitempty"`
	// Members are anchors.
	Members  []string `json:"members,omitempty"`
	Disabled bool     `json:"disabled,omitempty"`
	Password string   `json:"password,omitempty"`
	Revision int      `json:"revision,omitempty"`
}

// MemoryGone remembers a deletion for incremental reading.
type MemoryGone struct {
	Anchor   string `json:"anchor"`
	Revision int    `json:"revision"`
}

// ReadMemoryState reads the file of a Memory connector; one that is not there
// is the empty state.
func ReadMemoryState(path string) (MemoryState, error) {
	var s MemoryState
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &s)
	}
	return s, err
}

// Write puts the state at path in one step.
func (s MemoryState) Write(path string) error {
	raw, err := json.MarshalIndent(s, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", raw, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func (m *memory) load() error {
	s, err := ReadMemoryState(m.settings.State)
	if err != nil {
		return sdk.NewProblem(sdk.CodeUnreachable, m.alias, "read the state", "see that the file is readable JSON").WithCause(err)
	}
	m.state = s
	return nil
}

func (s MemoryState) clone() MemoryState {
	c := s
	c.Objects, c.Gone = slices.Clone(s.Objects), slices.Clone(s.Gone)
	return c
}

func (o *MemoryObject) naming() string {
	if o.Type == "group" {
		return "cn"
	}
	return "login"
}

func (o *MemoryObject) name() *connectorv1.Name {
	return &connectorv1.Name{Components: []*connectorv1.Component{
		connectorv1.NewComponent(o.naming(), o.Leaf), connectorv1.NewComponent("ou", o.Place),
	}}
}

func (o *MemoryObject) object() *connectorv1.Object {
	out := &connectorv1.Object{
		Type: o.Type, Anchor: o.Anchor, Name: o.name(), Display: o.Leaf + "@" + o.Place,
		Keys: []string{"id:" + o.Anchor},
	}
	out.Attributes = append(out.Attributes, &connectorv1.Attribute{Name: o.naming(), Values: [][]byte{[]byte(o.Leaf)}})
	for name, values := range o.Attributes {
		a := &connectorv1.Attribute{Name: name}
		for _, v := range values {
			a.Values = append(a.Values, []byte(v))
		}
		out.Attributes = append(out.Attributes, a)
	}
	slices.SortFunc(out.Attributes, func(a, b *connectorv1.Attribute) int { return cmp.Compare(a.GetName(), b.GetName()) })
	for _, member := range o.Members {
		out.Members = append(out.Members, "id:"+member)
	}
	if o.Type == "account" {
		out.Enablement = connectorv1.Enablement_ENABLEMENT_ENABLED
		if o.Disabled {
			out.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
		}
	}
	return out
}

func (s *MemoryState) find(ref *connectorv1.ObjectRef) *MemoryObject {
	for i := range s.Objects {
		o := &s.Objects[i]
		if o.Type != ref.GetType() {
			continue
		}
		if o.Anchor == ref.GetAnchor() && ref.GetAnchor() != "" {
			return o
		}
		ignore := connectorv1.CaseRule_CASE_RULE_IGNORE
		if ref.GetName() != nil && o.name().Key(ignore) == ref.GetName().Key(ignore) {
			return o
		}
	}
	return nil
}

// takeName reads a two-level name of the type; others have no place here.
func (o *MemoryObject) takeName(n *connectorv1.Name) *sdk.Problem {
	c := n.GetComponents()
	if len(c) != 2 || len(c[0].GetParts()) != 1 || len(c[1].GetParts()) != 1 ||
		c[0].GetParts()[0].GetType() != o.naming() || c[1].GetParts()[0].GetType() != "ou" || c[0].GetParts()[0].GetValue() == "" {
		return sdk.NewProblem(sdk.CodeInvalidValue, n.Text(), "name the object", fmt.Sprintf("use a name of the form %s=x,ou=y", o.naming()))
	}
	o.Leaf, o.Place = c[0].GetParts()[0].GetValue(), c[1].GetParts()[0].GetValue()
	return nil
}

func cloneObject(o MemoryObject) MemoryObject {
	attributes := make(map[string][]string, len(o.Attributes))
	for k, v := range o.Attributes {
		attributes[k] = slices.Clone(v)
	}
	o.Attributes, o.Members = attributes, slices.Clone(o.Members)
	return o
}

func sameObject(a, b *MemoryObject) bool {
	return a.Disabled == b.Disabled && a.Password == b.Password && proto.Equal(a.object(), b.object())
}
