package cli

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func TestPlanShow(t *testing.T) {
	f := &fakeOperator{plan: testPlan(), changes: testChanges(), page: 5}
	b := newBench(t, f)
	golden(t, "plan-show.txt", b.must("plan", "show", "P-7"))
	golden(t, "plan-show-all.txt", b.must("plan", "show", "P-7", "--all"))
	golden(t, "plan-make.txt", b.must("plan", "make", "fabrikam", "--urgent"))
	if asked := got[*operatorv1.MakePlanRequest](f); len(asked) != 1 || asked[0].GetPurpose() != planv1.Purpose_PURPOSE_URGENT {
		t.Errorf("asked for %v, want one urgent plan", asked)
	}
	f.changes = settledChanges()
	golden(t, "plan-show-changes.txt", b.must("plan", "show", "P-7", "--changes"))
}

func TestEmptyPlan(t *testing.T) {
	b := newBench(t, &fakeOperator{plan: &operatorv1.Plan{Id: "P-8", Tenant: "fabrikam", DryRunDone: true}})
	if out := b.must("plan", "make", "fabrikam"); !strings.Contains(out, "Nothing to change") {
		t.Errorf("an empty plan is shown as\n%s", out)
	}
	if out := b.must("plan", "show", "P-8"); !strings.Contains(out, "No changes.") {
		t.Errorf("an empty plan is shown as\n%s", out)
	}
}

// TestApproveSendsWhatWasDisplayed: the digest that goes out is the one that was
// on the screen, on each of the ways.
func TestApproveSendsWhatWasDisplayed(t *testing.T) {
	open := testPlan()
	open.Blocked, open.Refusals = "", nil
	digest := hex.EncodeToString(testDigest)
	for _, c := range []struct {
		name     string
		args     []string
		terminal bool
		input    string
		blocked  string
		code     int
		shown    bool
	}{
		{name: "on a terminal, yes", terminal: true, input: "y\n", code: ExitDone, shown: true},
		{name: "on a terminal, no", terminal: true, input: "\n", code: ExitRefused, shown: true},
		{name: "on a terminal, end of input", terminal: true, code: ExitRefused, shown: true},
		{name: "off a terminal", input: "y\n", code: ExitUsage, shown: true},
		{name: "off a terminal with --yes", args: []string{"--yes"}, code: ExitDone, shown: true},
		{name: "with the digest", args: []string{"--digest", digest}, code: ExitDone},
		{name: "with half a digest", args: []string{"--digest", digest[:32]}, code: ExitUsage},
		{name: "blocked", args: []string{"--yes"}, blocked: "it changes nothing", code: ExitRefused, shown: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			plan := proto.CloneOf(open)
			plan.Blocked = c.blocked
			f := &fakeOperator{plan: plan, changes: testChanges()}
			b := newBench(t, f)
			b.terminal, b.input = c.terminal, c.input
			code, out, errs := b.run(append([]string{"plan", "approve", "P-7", "--reason", "reviewed"}, c.args...)...)
			if code != c.code {
				t.Fatalf("exit code %d, want %d\n%s\n%s", code, c.code, out, errs)
			}
			if c.shown && !strings.Contains(out, digest) {
				t.Errorf("the summary does not show the digest:\n%s", out)
			}
			sent := got[*operatorv1.ApprovePlanRequest](f)
			if c.code != ExitDone {
				if len(sent) > 0 {
					t.Errorf("approved all the same: %v", sent)
				}
				return
			}
			if len(sent) != 1 || !bytes.Equal(sent[0].GetDigest(), testDigest) || sent[0].GetReason() != "reviewed" {
				t.Errorf("sent %v, want the digest that was displayed", sent)
			}
		})
	}
}

// TestApproveWaitsForDryRun: a plan that was just made is not refused because
// its agents are still checking it, and one that nobody checks is not waited for
// without end.
func TestApproveWaitsForDryRun(t *testing.T) {
	plan := testPlan()
	plan.Blocked, plan.Refusals, plan.DryRunDone = "", nil, false
	f := &fakeOperator{plan: plan, changes: testChanges(), dryRunAfter: 3}
	if out := newBench(t, f).must("plan", "approve", "P-7", "--yes"); !strings.Contains(out, "nothing would be refused") {
		t.Errorf("shown before the dry run was done:\n%s", out)
	}
	f = &fakeOperator{plan: proto.CloneOf(plan), changes: testChanges()}
	f.plan.DryRunDone, f.plan.Blocked = false, "agent dc1 has not checked it"
	if code, _, errs := newBench(t, f).run("plan", "approve", "P-7", "--yes"); code != ExitRefused || !strings.Contains(errs, "has not checked it") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}

func TestApproveKeepsJSONClean(t *testing.T) {
	plan := testPlan()
	plan.Blocked = ""
	b := newBench(t, &fakeOperator{plan: plan, changes: testChanges()})
	code, out, errs := b.run("-o", "json", "plan", "approve", "P-7", "--yes")
	if code != ExitDone || !strings.Contains(errs, hex.EncodeToString(testDigest)) {
		t.Errorf("exit code %d, the summary on standard error is\n%s", code, errs)
	}
	if err := protojson.Unmarshal([]byte(out), new(operatorv1.ApprovePlanResponse)); err != nil {
		t.Errorf("standard output is no response: %v\n%s", err, out)
	}
}

func TestPlanWatch(t *testing.T) {
	const (
		approved   = operatorv1.PlanState_PHASE_APPROVED
		running    = operatorv1.PlanState_PHASE_RUNNING
		over       = operatorv1.PlanState_PHASE_ENDED
		refused    = operatorv1.PlanState_PHASE_REFUSED
		superseded = operatorv1.PlanState_PHASE_SUPERSEDED
	)
	for _, c := range []struct {
		name, golden string
		watches      [][]*operatorv1.WatchPlanResponse
		code         int
	}{
		{"everything", "watch-done.txt", [][]*operatorv1.WatchPlanResponse{{
			watched(approved, 0, 0, 0, 0), watched(running, 4, 0, 0, 0), watched(running, 4, 0, 0, 0), watched(over, 15, 1, 0, 0),
		}}, ExitDone},
		{"some in conflict", "watch-conflict.txt", [][]*operatorv1.WatchPlanResponse{{watched(running, 4, 1, 0, 0), watched(over, 13, 1, 1, 1)}}, ExitConflict},
		{"control plane restarts", "watch-restart.txt", [][]*operatorv1.WatchPlanResponse{
			{watched(running, 4, 0, 0, 0)}, {}, {watched(running, 9, 0, 0, 0), watched(over, 16, 0, 0, 0)},
		}, ExitDone},
		{"refused", "watch-refused.txt", [][]*operatorv1.WatchPlanResponse{{watched(refused, 0, 0, 0, 0)}}, ExitRefused},
		{"superseded", "watch-superseded.txt", [][]*operatorv1.WatchPlanResponse{{watched(superseded, 0, 0, 0, 0)}}, ExitConflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fakeOperator{watches: c.watches, changes: settledChanges()}
			if c.code == ExitRefused {
				c.watches[0][0].Plan.Refusals = testPlan().GetRefusals()
			}
			code, out, errs := newBench(t, f).run("plan", "watch", "P-7")
			if code != c.code || errs != "" {
				t.Errorf("exit code %d, want %d; standard error:\n%s", code, c.code, errs)
			}
			golden(t, c.golden, out)
		})
	}
}

func TestPlanWatchUnknown(t *testing.T) {
	if code, out, errs := newBench(t, &fakeOperator{}).run("plan", "watch", "P-9"); code != ExitNotFound || out != "" || !strings.Contains(errs, "P-9") {
		t.Errorf("exit code %d\n%s\n%s", code, out, errs)
	}
}

// TestPlanWatchGone: a control plane that does not come back is given up.
func TestPlanWatchGone(t *testing.T) {
	watches := [][]*operatorv1.WatchPlanResponse{{watched(operatorv1.PlanState_PHASE_RUNNING, 1, 0, 0, 0)}}
	for range watchPatience + 1 {
		watches = append(watches, nil)
	}
	if code, _, errs := newBench(t, &fakeOperator{watches: watches}).run("plan", "watch", "P-7"); code != ExitUnreachable || !strings.Contains(errs, "unreachable") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}

// TestPlanWatchOnATerminal: one line, drawn again and again.
func TestPlanWatchOnATerminal(t *testing.T) {
	b := newBench(t, &fakeOperator{watches: [][]*operatorv1.WatchPlanResponse{{
		watched(operatorv1.PlanState_PHASE_RUNNING, 4, 0, 0, 0), watched(operatorv1.PlanState_PHASE_ENDED, 16, 0, 0, 0),
	}}})
	b.terminal = true
	code, out, errs := b.run("plan", "watch", "P-7")
	if code != ExitDone {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(errs, "\n") || strings.Count(errs, "\r\x1b[2K") != 3 || !strings.HasSuffix(errs, "\r\x1b[2K") {
		t.Errorf("progress is %q, want one line, drawn twice and wiped", errs)
	}
	if !strings.Contains(errs, "[######------------------] P-7") || !strings.Contains(out, "everything was applied") {
		t.Errorf("progress %q, outcome %q", errs, out)
	}
}

func TestPlanWatchJSON(t *testing.T) {
	states := []*operatorv1.WatchPlanResponse{watched(operatorv1.PlanState_PHASE_RUNNING, 4, 0, 0, 0), watched(operatorv1.PlanState_PHASE_ENDED, 14, 0, 1, 1)}
	code, out, errs := newBench(t, &fakeOperator{watches: [][]*operatorv1.WatchPlanResponse{states}}).run("plan", "watch", "P-7", "-o", "json")
	if code != ExitConflict || errs != "" {
		t.Errorf("exit code %d\n%s", code, errs)
	}
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if len(lines) != len(states) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(states), out)
	}
	for i, line := range lines {
		r := new(operatorv1.WatchPlanResponse)
		if err := protojson.Unmarshal([]byte(line), r); err != nil || !proto.Equal(r, states[i]) {
			t.Errorf("line %d: %v\n%s", i, err, line)
		}
	}
}
