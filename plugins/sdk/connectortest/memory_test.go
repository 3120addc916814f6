package connectortest_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		if err := sdk.Serve(connectortest.Memory{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func setup(t testing.TB) connectortest.Directory {
	path := filepath.Join(t.TempDir(), "state.json")
	start := connectortest.MemoryState{Revision: 1, Next: 2, Objects: []connectortest.MemoryObject{
		{Type: "account", Anchor: "account-1", Leaf: "anna", Place: "people", Attributes: map[string][]string{"mail": {"anna@fabrikam.example"}}, Revision: 1},
		{Type: "group", Anchor: "group-2", Leaf: "staff", Place: "groups", Members: []string{"account-1"}, Revision: 1},
	}}
	if err := start.Write(path); err != nil {
		t.Fatal(err)
	}
	settings, err := json.Marshal(connectortest.MemorySettings{State: path})
	if err != nil {
		t.Fatal(err)
	}
	read := func(t testing.TB) connectortest.MemoryState {
		s, err := connectortest.ReadMemoryState(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	return connectortest.Directory{
		Settings: settings,
		State: func(t testing.TB) string {
			s := read(t)
			s.Revision, s.Next, s.Gone = 0, 0, nil
			for i := range s.Objects {
				s.Objects[i].Revision = 0
			}
			raw, err := json.MarshalIndent(s, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		},
		Verify: func(t testing.TB, object *connectorv1.Object, secret []byte) bool {
			for _, o := range read(t).Objects {
				if o.Anchor == object.GetAnchor() {
					return !o.Disabled && o.Password == string(secret)
				}
			}
			return false
		},
	}
}

func samples() map[string]connectortest.Sample {
	name := func(typ, leaf, place string) *connectorv1.Name {
		return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(typ, leaf), connectorv1.NewComponent("ou", place)}}
	}
	return map[string]connectortest.Sample{
		"account": {
			Create: func(leaf string) *connectorv1.Create {
				return &connectorv1.Create{Name: name("login", leaf, "people"), Attributes: []*connectorv1.Attribute{
					{Name: "displayName", Values: [][]byte{[]byte("Anna  Example")}}, {Name: "number", Values: [][]byte{[]byte("007")}}}}
			},
			Values: map[string][]string{"displayName": {"One", "Two"}, "mail": {"a@fabrikam.example", "B@fabrikam.example"}, "number": {"7", "+08"}},
			MoveTo: []*connectorv1.Component{connectorv1.NewComponent("ou", "elsewhere")},
		},
		"group": {
			Create: func(leaf string) *connectorv1.Create { return &connectorv1.Create{Name: name("cn", leaf, "groups")} },
			Values: map[string][]string{"description": {"One", "Two"}}, Member: "account",
		},
	}
}

func TestMemoryInProcess(t *testing.T) {
	connectortest.Run(t, connectortest.Target{Connector: connectortest.Memory{}, Setup: setup, Samples: samples()})
}

func TestMemoryAsProcess(t *testing.T) {
	connectortest.Run(t, connectortest.Target{Command: []string{os.Args[0]}, Setup: setup, Samples: samples()})
}
