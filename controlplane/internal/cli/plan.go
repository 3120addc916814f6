package cli

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func (a *app) plan() *cobra.Command {
	return noun("plan", "Plans: make, show, approve, watch", a.planMake(), a.planList(), a.planShow(), a.planApprove(), a.planReject(), a.planWatch())
}

func (a *app) planMake() *cobra.Command {
	var urgent bool
	c := &cobra.Command{
		Use: "make TENANT", Short: "Plan what policy says, from what was observed", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			req := &operatorv1.MakePlanRequest{Tenant: args[0], Purpose: planv1.Purpose_PURPOSE_CHANGE}
			if urgent {
				req.Purpose = planv1.Purpose_PURPOSE_URGENT
			}
			r, err := s.plans.MakePlan(ctx, req)
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.planHeader(r.GetPlan())
				p.findingCounts(r.GetPlan().GetFindings())
				p.line("")
				p.nextForPlan(r.GetPlan())
			})
		}),
	}
	c.Flags().BoolVar(&urgent, "urgent", false, "only what leavers and suspended people lose; may overtake a waiting plan")
	return c
}

// nextForPlan names the commands that follow.
func (p *printer) nextForPlan(plan *operatorv1.Plan) {
	if plan == nil {
		return
	}
	if plan.GetState().GetTotal() == 0 {
		if plan.GetPurpose() == planv1.Purpose_PURPOSE_OFFBOARD {
			p.line("Nothing to take back.")
		} else {
			p.line("Nothing to change: everything already is as policy says.")
		}
		return
	}
	if len(plan.GetRefusals()) > 0 {
		p.line("Next: reeve plan show %s", plan.GetId())
		return
	}
	p.line("Next: reeve plan show %s; reeve plan approve %s; reeve plan watch %s", plan.GetId(), plan.GetId(), plan.GetId())
}

func (a *app) planList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's plans, newest first", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.plans.ListPlans, &operatorv1.ListPlansRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, plan := range r.GetPlans() {
					rows = append(rows, []string{plan.GetId(), purposeWord(plan.GetPurpose()), phaseWord(plan.GetState().GetPhase()),
						number(plan.GetState().GetTotal()), tally(plan.GetState()), plan.GetMadeBy(), p.time(plan.GetMade())})
				}
				p.table("", []string{"PLAN", "PURPOSE", "STATE", "CHANGES", "OUTCOME", "MADE BY", "MADE"}, rows)
				p.none(len(rows), "no plans; make one with `reeve plan make "+args[0]+"`")
			})
		}),
	}
}

func (a *app) planShow() *cobra.Command {
	var changes, all bool
	c := &cobra.Command{
		Use: "show PLAN", Short: "Show what a plan would do and why", Args: takes,
		Long: "Shows the plan, how its rehearsal and the guardrails' dry run went, counts, findings\n" +
			"and changes. Long lists are cut; --all cuts none. --changes shows the changes alone,\n" +
			"each with what became of it; with -o json that is the changes' own response, always\n" +
			"complete.",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			limit := someRows
			if changes {
				limit = 5 * someRows
			}
			if all {
				limit = 0
			}
			if a.output == outputJSON && !changes {
				r, err := s.plans.GetPlan(ctx, &operatorv1.GetPlanRequest{Plan: args[0]})
				if err != nil {
					return err
				}
				return a.show(r, nil)
			}
			plan, list, err := a.fetchPlan(ctx, s, args[0])
			if err != nil {
				return err
			}
			return a.show(list, func(p *printer) {
				if !changes {
					p.planHeader(plan)
					p.counts(list.GetChanges())
					p.findings(plan.GetFindings(), limit)
					p.refusals(plan, limit)
					p.residue(plan.GetRehearsal(), limit)
				}
				p.changes(list.GetChanges(), limit)
			})
		}),
	}
	c.Flags().BoolVar(&changes, "changes", false, "the changes alone, with what became of them")
	c.Flags().BoolVar(&all, "all", false, "cut no list")
	return c
}

func (a *app) fetchPlan(ctx context.Context, s services, id string) (*operatorv1.Plan, *operatorv1.ListChangesResponse, error) {
	r, err := s.plans.GetPlan(ctx, &operatorv1.GetPlanRequest{Plan: id})
	if err != nil {
		return nil, nil, err
	}
	list, err := pages(ctx, a, s.plans.ListChanges, &operatorv1.ListChangesRequest{Plan: id})
	return r.GetPlan(), list, err
}

func (a *app) planApprove() *cobra.Command {
	var digest, reason string
	var yes bool
	c := &cobra.Command{
		Use: "approve PLAN", Short: "Approve the plan with the digest that was displayed", Args: takes,
		Long: "Without --digest the plan is fetched and its summary and digest are shown; you are\n" +
			"asked, and what is approved is the digest that was shown, whatever happened to the\n" +
			"plan since. Without a terminal give the digest you reviewed with --digest, or --yes\n" +
			"to approve what is shown. A plan that the agents have just begun to check against\n" +
			"their guardrails is waited for, for some seconds.",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			shown, err := hex.DecodeString(digest)
			if err != nil || digest != "" && len(shown) != digestBytes {
				return usageError{said: "--digest " + digest + " is no plan digest", remedy: "it has 64 hexadecimal digits and stands in `reeve plan show " + args[0] + "`"}
			}
			if err := a.awaitDryRun(ctx, s, args[0]); err != nil {
				return err
			}
			if digest == "" {
				if shown, err = a.review(ctx, s, args[0], yes); err != nil {
					return err
				}
			}
			r, err := s.plans.ApprovePlan(ctx, &operatorv1.ApprovePlanRequest{Plan: args[0], Digest: shown, Reason: reason})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.line("%s is %s", p.strong(args[0]), phaseWord(r.GetPlan().GetState().GetPhase()))
				p.facts("  ", "digest", hex.EncodeToString(shown))
				p.line("")
				p.line("Next: reeve plan watch %s", args[0])
			})
		}),
	}
	c.Flags().StringVar(&digest, "digest", "", "the digest that was reviewed, in hexadecimal")
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask: approve what is shown")
	return c
}

// A plan cannot be approved before the agents have checked it against their
// guardrails, which takes them a moment: approve waits for it this often, a
// moment each.
const (
	dryRunPatience = 15
	dryRunPause    = time.Second
)

// awaitDryRun returns when the dry run is done or has been waited for long
// enough; what then stands against an approval is the server's to say.
func (a *app) awaitDryRun(ctx context.Context, s services, id string) error {
	progress := a.progress()
	defer progress.end()
	for range dryRunPatience {
		r, err := s.plans.GetPlan(ctx, &operatorv1.GetPlanRequest{Plan: id})
		if err != nil {
			return err
		}
		if r.GetPlan().GetDryRunDone() || r.GetPlan().GetState().GetPhase() != operatorv1.PlanState_PHASE_WAITING {
			return nil
		}
		progress.say("waiting for the guardrails' dry run…")
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.env.After(dryRunPause):
		}
	}
	return nil
}

// digestBytes is the length of a plan digest.
const digestBytes = 32

// asking is where a summary goes that precedes a question: not into a JSON
// document.
func (a *app) asking() interface{ Write([]byte) (int, error) } {
	if a.output == outputJSON {
		return a.env.Err
	}
	return a.env.Out
}

// review displays a plan's summary and returns the digest that it displayed.
func (a *app) review(ctx context.Context, s services, id string, yes bool) ([]byte, error) {
	plan, list, err := a.fetchPlan(ctx, s, id)
	if err != nil {
		return nil, err
	}
	p := a.printer(a.asking())
	p.planHeader(plan)
	p.counts(list.GetChanges())
	p.findingCounts(plan.GetFindings())
	if err := p.flush(); err != nil {
		return nil, err
	}
	switch {
	case plan.GetBlocked() != "":
		return nil, local(ExitRefused, "BLOCKED", id, "", "the plan cannot be approved: "+plan.GetBlocked(), "see refusals and findings with `reeve plan show "+id+"`")
	case yes:
		return plan.GetDigest(), nil
	case !a.canAsk():
		return nil, usageError{said: "--digest is missing: there is no terminal to ask on", remedy: "review the plan and name its digest with --digest, or approve what is shown with --yes"}
	}
	return plan.GetDigest(), a.ask(ctx, "Approve these "+count(plan.GetState().GetTotal(), "change", "changes")+"?")
}

func (a *app) planReject() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "reject PLAN", Short: "End a plan that waits", Args: takes,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.plans.RejectPlan(ctx, &operatorv1.RejectPlanRequest{Plan: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.line("%s is %s; nothing of it was done", p.strong(args[0]), phaseWord(r.GetPlan().GetState().GetPhase()))
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}
