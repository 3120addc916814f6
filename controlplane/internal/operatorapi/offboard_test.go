package operatorapi

import (
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// TestNothingOfTheMSPsIsForgotten: offboarding ends when what the MSP caused is
// seen to be gone, not when nobody can look.
func TestNothingOfTheMSPsIsForgotten(t *testing.T) {
	msp := planner.Entry{Connector: "corp", Cause: planv1.Cause_CAUSE_MSP}
	client := planner.Entry{Connector: "corp", Cause: planv1.Cause_CAUSE_CLIENT}
	seen := planner.Connector{Alias: "corp", Mode: planner.ModeEnforce, Snapshot: &planv1.SnapshotHeader{}}
	with := func(change func(*planner.Connector)) planner.Connector {
		c := seen
		change(&c)
		return c
	}
	for _, c := range []struct {
		name       string
		entry      planner.Entry
		connectors []planner.Connector
		changes    int
		want       string
	}{
		{"changes are left", msp, []planner.Connector{seen}, 2, "2 changes"},
		{"the planner saw the connector and found nothing to take", msp, []planner.Connector{seen}, 0, ""},
		{"suspended", msp, []planner.Connector{with(func(c *planner.Connector) { c.Suspended = "fingerprint" })}, 0, "corp"},
		{"set back to observe", msp, []planner.Connector{with(func(c *planner.Connector) { c.Mode = planner.ModeObserve })}, 0, "corp"},
		{"never observed again", msp, []planner.Connector{with(func(c *planner.Connector) { c.Snapshot = nil })}, 0, "corp"},
		{"gone", msp, nil, 0, "corp cannot be taken back: the connector is gone"},
		{"what the client caused stays anyway", client, nil, 0, ""},
	} {
		out := planner.Output{Agents: []planner.AgentChanges{{Changes: make([]*planv1.Change, c.changes)}}}
		got := notTakenBack(planner.Input{Ledger: []planner.Entry{c.entry}, Connectors: c.connectors}, out)
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
