package admission_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// approve signs the statement as the client would.
func (b *bench) approve(digest []byte) *planv1.Approval {
	b.t.Helper()
	statement := b.admit.Statement(digest, b.wall.Add(time.Hour)).Format()
	file := filepath.Join(b.t.TempDir(), "statement")
	b.check(os.WriteFile(file, statement, 0o600))
	out, err := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-f", b.ssh, "-n", admission.ApprovalNamespace, file).CombinedOutput()
	if err != nil {
		b.t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	signature, err := os.ReadFile(file + ".sig")
	b.check(err)
	return &planv1.Approval{Kind: planv1.Approval_KIND_CLIENT, Actor: "it-lead", PlanDigest: digest, Statement: statement, Signature: signature}
}

func TestClientSignatureLetsInWhatNeedsItAndLiftsBudgetsNeverScope(t *testing.T) {
	signed := func(b *bench) admissiontest.Edits {
		return admissiontest.Edits{Order: func(o *planv1.Order) { o.Approvals = append(o.Approvals, b.approve(o.PlanDigest)) }}
	}
	for name, c := range map[string]struct {
		changes []*planv1.Change
		code    string
	}{
		"needs it":     {[]*planv1.Change{enable("c", "a-anna")}, "<nil>"},
		"over budget":  {[]*planv1.Change{del("c", "a-anna"), del("d", "a-bo")}, "<nil>"},
		"out of scope": {[]*planv1.Change{update("c", "a-ceo")}, admission.CodeGuardrail},
	} {
		b := newBench(t, enforce)
		if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(signed(b), c.changes...)))); code != c.code {
			t.Errorf("%s: %s, want %s", name, code, c.code)
		}
	}
	b := newBench(t, enforce)
	other := admissiontest.Edits{Order: func(o *planv1.Order) {
		a := b.approve(planv1.Digest([]byte("another plan")))
		a.PlanDigest = o.PlanDigest
		o.Approvals = append(o.Approvals, a)
	}}
	if code := refusedCode(must(b.admit.Admit(context.Background(), b.order(other, enable("c", "a-anna"))))); code != admission.CodeApproval {
		t.Errorf("a signature of another plan: %s", code)
	}
	late := signed(b)
	d := b.order(late, enable("c", "a-anna"))
	b.wall = b.wall.Add(2 * time.Hour)
	if code := refusedCode(must(b.admit.Admit(context.Background(), d))); code != admission.CodeApproval {
		t.Errorf("a signature that has ended: %s", code)
	}
}

func TestDayBudgetAddsUpAndPasses(t *testing.T) {
	b := newBenchWith(t, enforce, strings.Replace(rails, "plan: {losing_access: 1}", "day: {losing_access: 1}", 1))
	ctx := context.Background()
	admit := func(change, anchor string) (id string, err error) {
		admitted, err := b.admit.Admit(ctx, b.order(admissiontest.Edits{}, del(change, anchor)))
		if err != nil {
			return "", err
		}
		return admitted.Order, nil
	}
	end := func(id string) {
		b.check(b.j.Commit(ctx, func(tx *journal.Tx) error {
			o, found, err := tx.Order(id)
			if err != nil || !found {
				return fmt.Errorf("order %q: %v, %w", id, found, err)
			}
			return tx.EndOrder(o, b.wall)
		}))
	}
	held, err := admit("c", "a-anna")
	b.check(err)
	b.wall = b.wall.Add(23 * time.Hour)
	if _, err := admit("d", "a-bo"); refusedCode(err) != admission.CodeBudget {
		t.Fatalf("a second person within a day: %v", err)
	}
	again, err := admit("again", "a-anna")
	if err != nil {
		t.Fatalf("the same person counts once: %v", err)
	}
	// Held up for days, its effects are still to come, and may come today.
	b.wall = b.wall.Add(48 * time.Hour)
	end(again)
	if _, err := admit("e", "a-bo"); refusedCode(err) != admission.CodeBudget {
		t.Fatalf("a second person while the first order is open: %v", err)
	}
	end(held)
	b.wall = b.wall.Add(23 * time.Hour)
	if _, err := admit("f", "a-bo"); refusedCode(err) != admission.CodeBudget {
		t.Fatalf("a second person within a day of the order's end: %v", err)
	}
	b.wall = b.wall.Add(2 * time.Hour)
	if _, err := admit("g", "a-bo"); err != nil {
		t.Fatalf("after the day has passed: %v", err)
	}
}

func TestDryRunTellsEverythingAndChangesNothing(t *testing.T) {
	b := newBench(t, enforce)
	ctx := context.Background()
	d := b.order(admissiontest.Edits{}, update("ceo", "a-ceo"), enable("needs", "a-anna"), update("fine", "a-bo"))
	d.Envelope = nil
	refusals, err := b.admit.DryRun(ctx, d)
	if err != nil || len(refusals) != 2 || refusals[0].GetCode() != admission.CodeGuardrail || refusals[1].GetCode() != admission.CodeApproval {
		t.Fatalf("got %v, %v", refusals, err)
	}
	fine := b.order(admissiontest.Edits{}, update("fine", "a-bo"))
	if refusals, err := b.admit.DryRun(ctx, fine); err != nil || len(refusals) != 0 {
		t.Fatalf("got %v, %v", refusals, err)
	}
	if n := b.count(auditv1.Type_TYPE_DRY_RUN); n != 2 || b.j.Head().Next != 2 {
		t.Fatalf("%d records of dry runs", n)
	}
	if _, err := b.admit.Admit(ctx, fine); err != nil {
		t.Fatalf("after the dry run: %v", err)
	}
}

func TestStatementHasOneForm(t *testing.T) {
	s := admission.Statement{TrustDomain: "d", Tenant: "t", Agent: "a", Epoch: 3, PlanDigest: []byte{1, 2}, GuardrailsDigest: "ab", NotAfter: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	text := string(s.Format())
	got, err := admission.ParseStatement([]byte(text))
	if err != nil || string(got.Format()) != text {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", text + "\n", strings.Replace(text, "approve", "reject", 1), strings.Replace(text, "epoch: 3", "epoch: 03", 1), strings.Replace(text, "0102", "01020", 1), strings.ToUpper(text)} {
		if _, err := admission.ParseStatement([]byte(bad)); !errors.Is(err, admission.ErrStatement) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
