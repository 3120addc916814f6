package faults_test

import (
	"maps"
	"strings"
	"testing"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// Between plan and approval somebody takes a name that the plan creates and
// changes a value that it changes: just these changes and what depends on them
// are not carried out, the record says why, and planning again comes to rest.
func TestStaleBaseIsAConflict(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(6)
	e.Unix = true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	r.Applied(r.CarryOut())
	people := e.People()
	renamed, edited := people[1], people[2]
	e.Rename(t, renamed, "Renamed By HR")
	e.Rename(t, edited, "Edited By HR")
	joiners := e.Hire(t, 3)
	taken := joiners[1]
	r.Observe()
	p := r.Plan()
	theirs := taken + ":$2y$05$abcdefghijklmnopqrstuuJ0cYx1bTtqkS5l6qVxT0s4pYyQy4n2e\n"
	e.Edit(t, e.Users(), func(text string) string { return text + theirs })
	e.Edit(t, e.Passwd(), func(text string) string { return strings.Replace(text, ":Person 2:", ":Edited By Hand:", 1) })
	r.Approve(p)
	got := r.Ended(p.GetId()).GetState()
	results := map[string]map[auditv1.Receipt_Result]int{}
	for _, c := range r.Changes(p.GetId()) {
		who := c.GetChange().GetConnector()
		switch {
		case strings.Contains(c.GetSentence(), taken) && who == "web":
			who = "taken"
		case strings.Contains(c.GetSentence(), edited) && who == "unix":
			who = "edited"
		default:
			who = "rest"
		}
		if results[who] == nil {
			results[who] = map[auditv1.Receipt_Result]int{}
		}
		results[who][c.GetReceipt().GetResult()]++
		if c.GetReceipt().GetResult() == auditv1.Receipt_RESULT_CONFLICT && c.GetReceipt().GetProblem().GetRemedy() == "" {
			t.Errorf("the conflict of %s names no remedy: %v", c.GetSentence(), c.GetReceipt().GetProblem())
		}
	}
	applied, conflict, skipped := auditv1.Receipt_RESULT_APPLIED, auditv1.Receipt_RESULT_CONFLICT, auditv1.Receipt_RESULT_SKIPPED
	if !maps.Equal(results["taken"], map[auditv1.Receipt_Result]int{conflict: 1, skipped: 3}) ||
		!maps.Equal(results["edited"], map[auditv1.Receipt_Result]int{conflict: 1}) || len(results["rest"]) != 1 || results["rest"][applied] == 0 {
		t.Fatalf("results are %v (%v)", results, got)
	}
	if got.GetPhase() != operatorv1.PlanState_PHASE_ENDED || got.GetConflicts() != 2 || got.GetSkipped() != 3 {
		t.Fatalf("the plan ended as %v", got)
	}
	if watched := r.Try("plan", "watch", p.GetId()); watched.Code != 6 {
		t.Errorf("plan watch ends with %d, for changes that were not applied 6 is documented", watched.Code)
	}
	names := e.Gecos(t)
	if names[renamed] != "Renamed By HR" || names[edited] != "Edited By Hand" || names[taken] == "" {
		t.Errorf("passwd says %v", names)
	}
	if e.Accounts(t)[taken] != strings.TrimSpace(strings.TrimPrefix(theirs, taken+":")) {
		t.Error("the account that somebody else made was written to")
	}
	// The client's account is adopted, and the value is policy's to enforce.
	r.Observe()
	r.Applied(r.CarryOut())
	if e.Gecos(t)[edited] != "Edited By HR" {
		t.Errorf("passwd says %q of %s", e.Gecos(t)[edited], edited)
	}
	r.Provisioned(e.People())
	r.Converged()
	// What others wrote stays theirs.
	r.Offboard(func(name, before string) string {
		if name == "htpasswd" {
			return before + theirs
		}
		return before
	})
}
