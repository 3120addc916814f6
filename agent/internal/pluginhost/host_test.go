package pluginhost_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reevehq/reeve/agent/internal/pluginhost"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// The test binary is the connector as well: the fake directory Memory.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := sdk.Serve(connectortest.Memory{}); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

type memory struct {
	t     *testing.T
	state string
	host  *pluginhost.Host
	*pluginhost.Instance
}

func start(t *testing.T, settings string, release ...string) *memory {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m := &memory{t: t, state: filepath.Join(t.TempDir(), "memory.json")}
	err = connectortest.MemoryState{Next: 3, Objects: []connectortest.MemoryObject{
		{Type: "account", Anchor: "1", Leaf: "anna", Place: "staff", Attributes: map[string][]string{"mail": {"anna@fabrikam.example"}, "displayName": {"Anna"}}, Password: "hidden"},
		{Type: "group", Anchor: "2", Leaf: "files", Place: "staff", Members: []string{"1"}},
	}}.Write(m.state)
	if err != nil {
		t.Fatal(err)
	}
	m.host, err = pluginhost.New([]pluginhost.Spec{{
		Alias: "dir", Connector: "memory", Command: []string{self, "serve"}, Release: release,
		Role: agentv1.ConnectorState_ROLE_TARGET, Mode: agentv1.ConnectorState_MODE_ADOPT,
		Settings: []byte(`{"state":"` + m.state + `"` + settings + `}`),
	}}, pluginhost.Options{Dir: filepath.Join(t.TempDir(), strings.Repeat("long", 30)), FirstPause: 10 * time.Millisecond, MostPause: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.host.Close)
	if m.Instance, err = m.host.Instance("dir"); err != nil {
		t.Fatal(err)
	}
	return m
}

func observed(t *testing.T, m *memory) []*connectorv1.Object {
	t.Helper()
	var out []*connectorv1.Object
	if _, err := m.Observe(t.Context(), func(o []*connectorv1.Object) error { out = append(out, o...); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestNothingLeavesThatIsNotReleased(t *testing.T) {
	for name, c := range map[string]struct {
		release []string
		want    string
	}{
		"nothing by default":   {nil, ""},
		"what is listed":       {[]string{"MAIL"}, "mail"},
		"secrets never":        {[]string{"mail", "password"}, "mail"},
		"unknown is no wish":   {[]string{"salary"}, ""},
		"several, as declared": {[]string{"mail", "displayName"}, "displayName mail"},
	} {
		t.Run(name, func(t *testing.T) {
			m := start(t, "", c.release...)
			for _, o := range observed(t, m) {
				if o.GetType() != "account" {
					continue
				}
				// Even an object that carries a secret or something undeclared.
				o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: "password", Values: [][]byte{[]byte("x")}},
					&connectorv1.Attribute{Name: "salary", Values: [][]byte{[]byte("x")}})
				m.Released(o)
				var names []string
				for _, a := range o.GetAttributes() {
					names = append(names, a.GetName())
				}
				if got := strings.Join(names, " "); got != c.want {
					t.Errorf("released %q, want %q", got, c.want)
				}
				if o.GetAnchor() == "" || len(o.GetKeys()) == 0 {
					t.Error("anchor or keys were lost")
				}
			}
		})
	}
}

func TestConnectorIsStartedAgain(t *testing.T) {
	m := start(t, "")
	if len(observed(t, m)) != 2 {
		t.Fatal("not all objects were observed")
	}
	if h := m.Health(); !h.Running || !h.Reachable || h.LastWork.IsZero() {
		t.Errorf("health after work: %+v", h)
	}
	m.KillForTest()
	// Whatever the first calls meet, soon one succeeds.
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		results, err := m.Read(ctx, []*connectorv1.ObjectRef{{Type: "account", Anchor: "1"}})
		if err == nil {
			if results[0].GetObject().GetAnchor() != "1" {
				t.Errorf("read %v", results[0])
			}
			break
		}
		if ctx.Err() != nil {
			t.Fatal(err)
		}
	}
	if h := m.Health(); h.Restarts != 1 || !h.Reachable {
		t.Errorf("health after restart: %+v", h)
	}
}

func TestGroupsAreReadWholeOrNotAtAll(t *testing.T) {
	m := start(t, "")
	groups, err := m.Groups(t.Context())
	if err != nil || len(groups) != 1 || groups[0].GetAnchor() != "2" {
		t.Errorf("groups %v, %v", groups, err)
	}
	if _, err := start(t, `,"fail_after":1`).Groups(t.Context()); err == nil {
		t.Error("groups of a directory that broke off")
	}
}

func TestWrongSettingsAreToldAtOnce(t *testing.T) {
	m := start(t, `,"colour":"red"`)
	_, err := m.Check(t.Context())
	if !sdk.HasCode(err, sdk.CodeConfig) || !strings.Contains(err.Error(), "colour") {
		t.Errorf("error %v", err)
	}
	if s := m.State(); s.GetReachable() || len(s.GetProblems()) != 1 {
		t.Errorf("state %v", s)
	}
	if _, err := m.host.Instance("other"); !errors.Is(err, pluginhost.ErrUnknownAlias) {
		t.Errorf("unknown alias: %v", err)
	}
}

// TestAChangedProgramIsNotStarted: agent.yaml names the program's SHA-256, and
// another program at its place is not run.
func TestAChangedProgramIsNotStarted(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	right := sha256.Sum256(program)
	for name, c := range map[string]struct {
		sha256 []byte
		runs   bool
	}{
		"the program": {right[:], true},
		"another one": {make([]byte, sha256.Size), false},
	} {
		t.Run(name, func(t *testing.T) {
			host, err := pluginhost.New([]pluginhost.Spec{{
				Alias: "dir", Connector: "memory", Command: []string{self, "serve"}, SHA256: c.sha256,
				Role: agentv1.ConnectorState_ROLE_TARGET, Mode: agentv1.ConnectorState_MODE_ADOPT,
				Settings: []byte(`{"state":"` + filepath.Join(t.TempDir(), "memory.json") + `"}`),
			}}, pluginhost.Options{Dir: t.TempDir(), FirstPause: 10 * time.Millisecond, MostPause: 50 * time.Millisecond})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(host.Close)
			i, err := host.Instance("dir")
			if err != nil {
				t.Fatal(err)
			}
			_, err = i.Check(t.Context())
			if changed := sdk.HasCode(err, sdk.CodeBinaryChanged); changed == c.runs {
				t.Errorf("checked: %v", err)
			}
		})
	}
}
