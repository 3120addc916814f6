package cli

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func phaseWord(p operatorv1.PlanState_Phase) string {
	switch p {
	case operatorv1.PlanState_PHASE_WAITING:
		return "waiting for approval"
	case operatorv1.PlanState_PHASE_APPROVED:
		return "approved, not sent yet"
	}
	return word(p, "PHASE_")
}

// phaseSentence says a phase of a plan named before it.
func phaseSentence(p operatorv1.PlanState_Phase) string {
	if p == operatorv1.PlanState_PHASE_ENDED {
		return "has ended"
	}
	return "is " + phaseWord(p)
}

func purposeWord(p planv1.Purpose) string {
	if p == planv1.Purpose_PURPOSE_OFFBOARD {
		return "offboarding"
	}
	return word(p, "PURPOSE_")
}

// tally says what became of a plan's changes; empty before anything did.
func tally(s *operatorv1.PlanState) string {
	var parts []string
	for _, n := range []struct {
		count uint32
		text  string
	}{
		{s.GetApplied(), "applied"}, {s.GetAlready(), "already so"}, {s.GetConflicts(), "in conflict"},
		{s.GetSkipped(), "skipped"}, {s.GetRefused(), "refused"}, {s.GetFailed(), "failed"},
	} {
		if n.count > 0 {
			parts = append(parts, number(n.count)+" "+n.text)
		}
	}
	return strings.Join(parts, ", ")
}

// planHeader prints what a plan is and whether it may go on.
func (p *printer) planHeader(plan *operatorv1.Plan) {
	phase := plan.GetState().GetPhase()
	p.line("%s  %s for %s, %s", p.strong("Plan "+plan.GetId()), purposeWord(plan.GetPurpose()), plan.GetTenant(), phaseWord(phase))
	m := plan.GetManifest()
	made := plan.GetMadeBy() + ", " + p.time(plan.GetMade())
	if asOf := p.time(m.GetAsOf()); asOf != "" && asOf != p.time(plan.GetMade()) {
		made += ", as of " + asOf
	}
	var approvals []string
	for _, by := range plan.GetApprovals() {
		approvals = append(approvals, approvalWords(by)+", "+p.time(by.GetAt()))
	}
	solo := ""
	if m.GetSoloOperator() {
		solo = "one person may make and approve plans here"
	}
	digest := hex.EncodeToString(plan.GetDigest())
	p.facts("  ", "made by", made, "digest", digest, "policy", m.GetPolicyVersion(), "changes", number(plan.GetState().GetTotal()),
		"rehearsal", rehearsalWords(plan.GetRehearsal()), "guardrails", guardrailWords(plan), "approved", strings.Join(approvals, "; "),
		"note", solo, "so far", tally(plan.GetState()))
	if plan.GetBlocked() != "" {
		p.line("  %s: %s", p.bad("Cannot be approved"), plan.GetBlocked())
	}
}

func approvalWords(by *planv1.Approval) string {
	switch by.GetKind() {
	case planv1.Approval_KIND_POLICY:
		return "by policy"
	case planv1.Approval_KIND_CLIENT:
		return "by the client, " + by.GetActor()
	}
	return "by " + by.GetActor()
}

func rehearsalWords(r *planv1.Rehearsal) string {
	ways := "; " + number(r.GetForwardChanges()) + " forward, " + number(r.GetBackwardChanges()) + " back"
	switch r.GetVerdict() {
	case planv1.Rehearsal_VERDICT_ROUND_TRIP:
		return "offboarding would take back what the MSP causes, all of it" + ways
	case planv1.Rehearsal_VERDICT_RESIDUE:
		return "offboarding would lead back but for " + count(len(r.GetResidue()), "thing that stays", "things that stay") + ways
	case planv1.Rehearsal_VERDICT_FAILED:
		return "FAILED: offboarding would not take back all that the MSP causes"
	}
	return "not rehearsed"
}

func guardrailWords(plan *operatorv1.Plan) string {
	var agents []string
	for _, audience := range plan.GetManifest().GetAudiences() {
		agents = append(agents, audience.GetAgent())
	}
	at := ""
	if len(agents) > 0 {
		at = " at " + strings.Join(agents, ", ")
	}
	switch n := len(plan.GetRefusals()); {
	case n > 0 && plan.GetState().GetPhase() == operatorv1.PlanState_PHASE_REFUSED:
		return "the order was refused" + at
	case n > 0:
		return "would refuse " + count(n, "change", "changes") + at
	case !plan.GetDryRunDone():
		return "not checked yet" + at + "; the agent does it when it is connected"
	case len(agents) == 0:
		return "nothing to check"
	}
	return "checked" + at + ": nothing would be refused"
}

// counts prints how many changes of which kind go where.
func (p *printer) counts(changes []*operatorv1.PlannedChange) {
	type kind struct{ connector, operation string }
	counts := map[kind]int{}
	for _, c := range changes {
		counts[kind{c.GetChange().GetConnector(), c.GetChange().GetOperation().Kind().Word()}]++
	}
	var rows [][]string
	for _, k := range slices.SortedFunc(maps.Keys(counts), func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.connector, b.connector), cmp.Compare(a.operation, b.operation))
	}) {
		rows = append(rows, []string{k.connector, k.operation, number(counts[k])})
	}
	if len(rows) > 0 {
		p.gap()
		p.table("  ", []string{"CONNECTOR", "OPERATION", "CHANGES"}, rows)
	}
}

// findingWords name the planner's kinds of findings, in the order of their
// weight.
var findingWords = []struct {
	kind  planner.FindingKind
	title string
}{
	{planner.FindingConflictOfDuty, "Separation of duties"},
	{planner.FindingCollision, "Names that are taken"},
	{planner.FindingHeld, "Held back"},
	{planner.FindingDiverged, "Changed by others since, left alone"},
	{planner.FindingUnexplained, "Not explained by policy"},
	{planner.FindingResidue, "Left behind"},
	{planner.FindingHandedOver, "Handed over to the client"},
}

type findingGroup struct {
	title string
	list  []*operatorv1.Finding
}

func groupFindings(list []*operatorv1.Finding) []findingGroup {
	byKind := map[string][]*operatorv1.Finding{}
	for _, f := range list {
		byKind[f.GetKind()] = append(byKind[f.GetKind()], f)
	}
	var groups []findingGroup
	for _, w := range findingWords {
		if of := byKind[string(w.kind)]; len(of) > 0 {
			groups = append(groups, findingGroup{w.title, of})
			delete(byKind, string(w.kind))
		}
	}
	// A newer control plane may know more kinds.
	for _, kind := range slices.Sorted(maps.Keys(byKind)) {
		groups = append(groups, findingGroup{strings.ReplaceAll(kind, "_", " "), byKind[kind]})
	}
	return groups
}

func (p *printer) findings(list []*operatorv1.Finding, limit int) {
	for _, g := range groupFindings(list) {
		p.gap()
		p.line("%s (%s)", p.warn(g.title), styled(number(len(g.list))))
		cut(p, "  ", sayOnce(g.list), limit, func(s string) { p.line("  - %s", s) })
	}
}

// namedObjects is how many objects of one sentence are named.
const namedObjects = 3

// sayOnce lists what findings say, each sentence once, after what it holds for.
func sayOnce(list []*operatorv1.Finding) []string {
	var order []string
	about := map[string][]string{}
	for _, f := range list {
		s := f.GetSentence()
		if _, known := about[s]; !known {
			order = append(order, s)
		}
		about[s] = append(about[s], findingObject(f))
	}
	for i, s := range order {
		times := len(about[s])
		objects := slices.DeleteFunc(about[s], func(o string) bool { return o == "" })
		if len(objects) == 0 && times > 1 {
			order[i] = s + " (" + number(times) + " times)"
			continue
		}
		if more := len(objects) - namedObjects; more > 0 {
			objects = append(objects[:namedObjects:namedObjects], "and "+number(more)+" more")
		}
		order[i] = strings.TrimSpace(strings.Join(append([]string{strings.Join(objects, "; ")}, s), ": "))
		order[i] = strings.Trim(order[i], ": ")
	}
	return order
}

// findingObject is what a finding is about, as far as its sentence does not say.
func findingObject(f *operatorv1.Finding) string {
	if strings.Contains(f.GetSentence(), f.GetObject()) {
		if strings.Contains(f.GetSentence(), f.GetConnector()) {
			return ""
		}
		return f.GetConnector()
	}
	return strings.TrimSpace(f.GetConnector() + " " + f.GetObject())
}

func (p *printer) findingCounts(list []*operatorv1.Finding) {
	var pairs []string
	for _, g := range groupFindings(list) {
		pairs = append(pairs, g.title, number(len(g.list)))
	}
	if len(pairs) > 0 {
		p.gap()
		p.facts("  ", pairs...)
	}
}

func (p *printer) refusals(plan *operatorv1.Plan, limit int) {
	if len(plan.GetRefusals()) == 0 {
		return
	}
	p.gap()
	title := "Guardrails would refuse"
	if plan.GetState().GetPhase() == operatorv1.PlanState_PHASE_REFUSED {
		title = "The agent refused"
	}
	p.line("%s (%s)", p.bad(title), styled(number(len(plan.GetRefusals()))))
	cut(p, "  ", plan.GetRefusals(), limit, func(r *auditv1.Refusal) {
		where := r.GetChange()
		if r.GetRule() != "" {
			where += " (guardrail " + r.GetRule() + ")"
		}
		p.line("  - %s", r.GetSentence())
		p.line("    %s", p.faint(strings.TrimSpace(r.GetCode()+" "+where)))
	})
}

func (p *printer) residue(r *planv1.Rehearsal, limit int) {
	if len(r.GetResidue()) == 0 {
		return
	}
	p.gap()
	p.line("%s (%s)", p.warn("Offboarding would leave behind"), styled(number(len(r.GetResidue()))))
	cut(p, "  ", r.GetResidue(), limit, func(line string) { p.line("  - %s", line) })
}

// changes prints changes by level, in the order in which they run.
func (p *printer) changes(list []*operatorv1.PlannedChange, limit int) {
	byLevel := map[uint32][]*operatorv1.PlannedChange{}
	for _, c := range list {
		byLevel[c.GetChange().GetLevel()] = append(byLevel[c.GetChange().GetLevel()], c)
	}
	levels := slices.Sorted(maps.Keys(byLevel))
	for i, level := range levels {
		p.gap()
		title := "Changes"
		if len(levels) > 1 {
			title = "Step " + number(i+1) + " of " + number(len(levels))
		}
		p.line("%s (%s)", p.strong(title), styled(count(len(byLevel[level]), "change", "changes")))
		cut(p, "  ", byLevel[level], limit, p.change)
	}
	p.none(len(list), "No changes.")
}

func (p *printer) change(c *operatorv1.PlannedChange) {
	change := c.GetChange()
	sentence := c.GetSentence()
	if sentence == "" {
		sentence = strings.TrimSpace(change.GetOperation().Kind().Word() + " " + change.GetDisplay())
	}
	because := change.GetReason()
	switch rule := change.GetRule(); {
	case because == "":
		because = rule
	case rule != "" && rule != because:
		because += " (" + rule + ")"
	}
	if change.GetTicket() != "" {
		because += ", ticket " + change.GetTicket()
	}
	if because != "" {
		because = " — " + because
	}
	p.line("  %s: %s%s", p.strong(change.GetConnector()), sentence, p.faint(because))
	until := p.time(change.GetEndsAt())
	if until != "" {
		until += ", taken back by the agent itself"
	}
	p.facts("      ", "until", until, "result", receiptWords(c.GetReceipt()))
}

// receiptWords says what became of a change; empty without a receipt.
func receiptWords(r *auditv1.Receipt) string {
	if r == nil {
		return ""
	}
	words := word(r.GetResult(), "RESULT_")
	if r.GetResult() == auditv1.Receipt_RESULT_ALREADY {
		words = "it already was so"
	}
	if pr := r.GetProblem(); pr != nil {
		words += ": " + problemLine(pr.GetObject(), pr.GetSaid(), pr.GetRemedy())
	}
	return words
}
