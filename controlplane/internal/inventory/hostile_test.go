package inventory_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/inventory"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const target = agentv1.ConnectorState_ROLE_TARGET

func (d desk) report(t *testing.T, agent string, aliases ...string) error {
	t.Helper()
	var states []*agentv1.ConnectorState
	for _, alias := range aliases {
		states = append(states, state(alias, target, "dc=fabrikam"))
	}
	return d.Report(context.Background(), "fabrikam", agent, states)
}

func (d desk) get(t *testing.T, alias string) inventory.Connector {
	t.Helper()
	list, err := d.Connectors(context.Background(), "fabrikam")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Alias == alias {
			return c
		}
	}
	t.Fatalf("%s is not there", alias)
	return inventory.Connector{}
}

func TestConnectorTakenOutOfTheConfigurationIsSetAside(t *testing.T) {
	d := open(t, t.TempDir())
	for _, step := range []struct {
		agent   string
		aliases []string
		aside   bool
	}{
		{"dc1", []string{"corp", "web"}, false}, {"dc1", []string{"corp"}, true}, {"dc2", []string{"erp"}, true},
		{"dc1", nil, true}, {"dc1", []string{"web", "corp"}, false},
	} {
		if err := d.report(t, step.agent, step.aliases...); err != nil {
			t.Fatal(err)
		}
		if got := d.get(t, "web").Suspended; (got != "") != step.aside {
			t.Fatalf("after %s reported %v: %q", step.agent, step.aliases, got)
		}
	}
	if got := d.get(t, "erp").Suspended; got != "" {
		t.Fatalf("another agent's connector: %q", got)
	}
}

func TestConnectorOfAnEndedAgentFindsANewHome(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	hr := []*agentv1.ConnectorState{state("hr", agentv1.ConnectorState_ROLE_SOURCE, "dc=fabrikam")}
	if err := d.Report(ctx, "fabrikam", "dc1", hr); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Confirm(ctx, "fabrikam", "hr", d.get(t, "hr").Fingerprint, "operator:kari", time.Now()); err != nil {
		t.Fatal(err)
	}
	if err := d.Report(ctx, "fabrikam", "dc2", hr); !errors.Is(err, inventory.ErrOtherAgent) {
		t.Fatalf("an agent took another's connector: %v", err)
	}
	d.ended["dc1"] = true
	if err := d.Report(ctx, "fabrikam", "dc2", hr); err != nil {
		t.Fatal(err)
	}
	if c := d.get(t, "hr"); c.Agent != "dc2" || c.Trusted() {
		t.Fatalf("at %s, trusted %v", c.Agent, c.Trusted())
	}
}

func TestHostileObservationsAreRefused(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	for _, aliases := range [][]string{{""}, {"a\x1b[2J"}, {"corp", "corp"}, {strings.Repeat("x", 300)}, make([]string, 300)} {
		if err := d.report(t, "dc1", aliases...); !errors.Is(err, inventory.ErrInvalid) {
			t.Errorf("aliases %q: %v", aliases[0], err)
		}
	}
	if err := d.report(t, "dc1", "corp"); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: "corp"}); !errors.Is(err, inventory.ErrInvalid) {
		t.Errorf("snapshot without a name: %v", err)
	}
	r, err := d.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Batch(ctx, &agentv1.ObservedBatch{Objects: []*connectorv1.Object{object("", "x")}}); !errors.Is(err, inventory.ErrInvalid) {
		t.Errorf("object without anchor: %v", err)
	}
	for name, h := range map[string]*planv1.SnapshotHeader{
		"none":              nil,
		"another connector": {Connector: "erp", Snapshot: "s1", ObservedAt: timestamppb.Now()},
		"another snapshot":  {Connector: "corp", Snapshot: "s2", ObservedAt: timestamppb.Now()},
		"no time":           {Connector: "corp", Snapshot: "s1"},
		"year 33658":        {Connector: "corp", Snapshot: "s1", ObservedAt: &timestamppb.Timestamp{Seconds: 1e12}},
	} {
		if err := r.End(ctx, &agentv1.SnapshotEnd{Header: h}); !errors.Is(err, inventory.ErrInvalid) {
			t.Errorf("header %s: %v", name, err)
		}
	}
}

// An object that comes and goes in one incomplete snapshot leaves what was there
// before, once.
func TestIncompleteSnapshotMayContradictItself(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	if err := d.report(t, "dc1", "corp"); err != nil {
		t.Fatal(err)
	}
	if err := d.send(ctx, "fabrikam", "s1", "", nil, map[string]string{"a": "1", "b": "1"}, true); err != nil {
		t.Fatal(err)
	}
	r, err := d.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s2", Base: "s1"})
	if err != nil {
		t.Fatal(err)
	}
	for _, batch := range []*agentv1.ObservedBatch{
		{Objects: []*connectorv1.Object{object("a", "2"), object("c", "1")}, Removed: []string{"a", "c", "nobody"}},
		{Objects: []*connectorv1.Object{object("b", "2")}},
	} {
		if err := r.Batch(ctx, batch); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.End(ctx, &agentv1.SnapshotEnd{Header: &planv1.SnapshotHeader{Connector: "corp", Snapshot: "s2", ObservedAt: timestamppb.Now()}}); err != nil {
		t.Fatal(err)
	}
	if got := d.current(t, "fabrikam"); len(got) != 2 || got["a"] != "1" || got["b"] != "2" {
		t.Fatalf("%v", got)
	}
}
