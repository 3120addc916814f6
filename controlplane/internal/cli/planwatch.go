package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// A control plane that restarts comes back within seconds; a watcher waits for
// it this many times, a moment each.
const (
	watchPatience = 60
	watchPause    = time.Second
)

func (a *app) planWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch PLAN", Short: "Follow a plan until it has ended", Args: takes,
		Long: "Shows how far a plan is, on one line of a terminal, elsewhere a line for each change\n" +
			"of its state; with -o json one response a line. It ends with the plan and tells the\n" +
			"outcome in its exit code: 0 when everything was applied, 3 when the plan was rejected\n" +
			"or refused, 6 when some changes were not applied or it was superseded.",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			w := &watcher{app: a, progress: a.progress()}
			defer w.progress.end()
			if err := w.follow(ctx, s, args[0]); err != nil {
				return err
			}
			w.progress.end()
			return w.conclude(ctx, s)
		}),
	}
}

type watcher struct {
	*app
	progress *progress
	plan     *operatorv1.Plan
	said     string
}

func ended(phase operatorv1.PlanState_Phase) bool {
	switch phase {
	case operatorv1.PlanState_PHASE_ENDED, operatorv1.PlanState_PHASE_REJECTED, operatorv1.PlanState_PHASE_REFUSED, operatorv1.PlanState_PHASE_SUPERSEDED:
		return true
	}
	return false
}

// follow watches until the plan has ended. Once the plan was seen, a control
// plane that went away is waited for: the plan goes on without it.
func (w *watcher) follow(ctx context.Context, s services, id string) error {
	for lost := 0; ; {
		before := w.plan
		err := w.stream(ctx, s, id)
		if ended(w.plan.GetState().GetPhase()) {
			return nil
		}
		if w.plan == nil || ctx.Err() != nil || err != nil && status.Code(err) != codes.Unavailable {
			return err
		}
		if w.plan != before {
			lost = 0
		}
		if lost++; lost > watchPatience {
			return err
		}
		w.progress.say("%s  the control plane does not answer, waiting for it…", id)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.env.After(watchPause):
		}
	}
}

func (w *watcher) stream(ctx context.Context, s services, id string) error {
	stream, err := s.plans.WatchPlan(ctx, &operatorv1.WatchPlanRequest{Plan: id})
	if err != nil {
		return err
	}
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return status.Error(codes.Unavailable, "error reading from server: the watch ended before the plan did")
		}
		if err != nil {
			return err
		}
		w.plan = r.GetPlan()
		if err := w.tell(r); err != nil {
			return err
		}
	}
}

// tell shows one state.
func (w *watcher) tell(r *operatorv1.WatchPlanResponse) error {
	if w.output == outputJSON {
		return w.showJSON(r, "")
	}
	st := r.GetPlan().GetState()
	line := r.GetPlan().GetId() + "  " + phaseWord(st.GetPhase())
	if st.GetTotal() > 0 {
		line += "  " + number(settled(st)) + " of " + number(st.GetTotal())
	}
	if t := tally(st); t != "" {
		line += "  " + t
	}
	if line == w.said {
		return nil
	}
	w.said = line
	if w.env.IsTerminal(w.env.Out) && w.progress.on {
		w.progress.say("%s %s", bar(settled(st), st.GetTotal()), line)
		return nil
	}
	_, err := fmt.Fprintln(w.env.Out, clean(line))
	return err
}

// settled counts the changes whose receipts came.
func settled(st *operatorv1.PlanState) uint32 {
	return st.GetApplied() + st.GetAlready() + st.GetConflicts() + st.GetSkipped() + st.GetRefused() + st.GetFailed()
}

const barWidth = 24

func bar(done, total uint32) string {
	full := 0
	if total > 0 {
		full = int(uint64(min(done, total)) * barWidth / uint64(total))
	}
	return "[" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "]"
}

// conclude tells the outcome and turns it into an exit code.
func (w *watcher) conclude(ctx context.Context, s services) error {
	st := w.plan.GetState()
	exit := ExitDone
	switch {
	case st.GetPhase() == operatorv1.PlanState_PHASE_REJECTED || st.GetPhase() == operatorv1.PlanState_PHASE_REFUSED:
		exit = ExitRefused
	case st.GetPhase() == operatorv1.PlanState_PHASE_SUPERSEDED || st.GetApplied()+st.GetAlready() < st.GetTotal():
		exit = ExitConflict
	}
	if w.output != outputJSON {
		if err := w.report(ctx, s, exit); err != nil {
			return err
		}
	}
	if exit != ExitDone {
		return outcome(exit)
	}
	return nil
}

func (w *watcher) report(ctx context.Context, s services, exit int) error {
	st := w.plan.GetState()
	var missed []*operatorv1.PlannedChange
	if settled(st) > 0 && exit != ExitDone {
		list, err := pages(ctx, w.app, s.plans.ListChanges, &operatorv1.ListChangesRequest{Plan: w.plan.GetId()})
		if err != nil {
			return err
		}
		for _, c := range list.GetChanges() {
			if r := c.GetReceipt(); r != nil && r.GetResult() != auditv1.Receipt_RESULT_APPLIED && r.GetResult() != auditv1.Receipt_RESULT_ALREADY {
				missed = append(missed, c)
			}
		}
	}
	p := w.printer(w.env.Out)
	verdict := p.good("everything was applied")
	switch {
	case st.GetPhase() == operatorv1.PlanState_PHASE_SUPERSEDED:
		verdict = p.warn("a newer plan took its place")
	case exit == ExitRefused:
		verdict = p.bad("nothing of it was applied")
	case exit == ExitConflict:
		verdict = p.warn("not everything was applied")
	case st.GetTotal() == 0:
		verdict = p.good("there was nothing to change")
	}
	of := tally(st)
	if of != "" {
		of = ": " + of
	}
	p.line("Plan %s %s, %s%s", p.strong(w.plan.GetId()), phaseSentence(st.GetPhase()), verdict, of)
	p.refusals(w.plan, someRows)
	if len(missed) > 0 {
		p.line("")
		p.line("%s (%s)", p.warn("Not applied"), styled(number(len(missed))))
		for _, c := range missed[:min(len(missed), someRows)] {
			p.change(c)
		}
		if n := len(missed) - someRows; n > 0 {
			p.line("  … and %s more, see reeve plan show %s --changes --all", number(n), w.plan.GetId())
		}
		p.line("")
		p.line("Plan what is left: reeve plan make %s", w.plan.GetTenant())
	}
	return p.flush()
}
