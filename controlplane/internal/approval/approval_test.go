package approval_test

import (
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// TestWhatMayNotBeApproved: a plan is approved only when its rehearsal passed and
// every agent that it is for has found it within its guardrails.
func TestWhatMayNotBeApproved(t *testing.T) {
	ran := func(agent string, refusals ...*auditv1.Refusal) planning.DryRun {
		return planning.DryRun{Agent: agent, Refusals: refusals}
	}
	for name, c := range map[string]struct {
		changes int
		verdict planv1.Rehearsal_Verdict
		finding string
		dryRuns []planning.DryRun
		why     string
	}{
		"everything is well":                  {changes: 1, dryRuns: []planning.DryRun{ran("dc1"), ran("dc2")}},
		"it changes nothing":                  {dryRuns: []planning.DryRun{ran("dc1"), ran("dc2")}, why: "changes nothing"},
		"its rehearsal failed":                {changes: 1, verdict: planv1.Rehearsal_VERDICT_FAILED, dryRuns: []planning.DryRun{ran("dc1"), ran("dc2")}, why: "rehearsal failed"},
		"its rehearsal failed, and says why":  {changes: 1, verdict: planv1.Rehearsal_VERDICT_FAILED, finding: "keeps mail", dryRuns: []planning.DryRun{ran("dc1"), ran("dc2")}, why: "uid=anna: keeps mail"},
		"guardrails of one agent refuse it":   {changes: 1, dryRuns: []planning.DryRun{ran("dc1"), ran("dc2", &auditv1.Refusal{Sentence: "out of scope"})}, why: "agent dc2 refuse 1 of its changes: out of scope"},
		"one agent has not seen it":           {changes: 1, dryRuns: []planning.DryRun{ran("dc1")}, why: "agent dc2 has not checked it"},
		"nobody has":                          {changes: 1, why: "agent dc1 has not checked it"},
		"another agent's word is no help":     {changes: 1, dryRuns: []planning.DryRun{ran("dc1"), ran("dc3")}, why: "agent dc2 has not checked it"},
		"an agent that is not asked refuses":  {changes: 1, dryRuns: []planning.DryRun{ran("dc1"), ran("dc2"), ran("dc3", &auditv1.Refusal{})}, why: "agent dc3 refuse"},
		"a refusal counts before who is late": {changes: 1, dryRuns: []planning.DryRun{ran("dc1", &auditv1.Refusal{Sentence: "out of scope"})}, why: "agent dc1 refuse"},
	} {
		t.Run(name, func(t *testing.T) {
			p := planning.Plan{Changes: c.changes, Rehearsal: &planv1.Rehearsal{Verdict: c.verdict}}
			if c.finding != "" {
				p.Findings = []planner.Finding{{Kind: "other", Object: "uid=bo", Sentence: "is odd"}, {Kind: planning.FindingRehearsal, Object: "uid=anna", Sentence: c.finding}}
			}
			got := approval.Blocked(p, c.dryRuns, []string{"dc1", "dc2"})
			if (got == "") != (c.why == "") || !strings.Contains(got, c.why) {
				t.Errorf("blocked by %q, want %q", got, c.why)
			}
		})
	}
}
