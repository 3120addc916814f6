package cli

import (
	"context"

	"github.com/spf13/cobra"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) schedule() *cobra.Command {
	return noun("schedule", "Work that happens by the clock", a.scheduleAdd(), a.scheduleList(), a.scheduleRemove())
}

func (a *app) scheduleAdd() *cobra.Command {
	var cron, work string
	c := &cobra.Command{
		Use: "add TENANT NAME", Short: "Observe or plan by the clock", Args: takes, ValidArgsFunction: a.completeTenants,
		Example: "  reeve schedule add fabrikam nightly --cron \"0 3 * * *\" --work plan",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			if cron == "" || work == "" {
				return usageError{said: "--cron and --work are both needed", remedy: "such as --cron \"0 3 * * *\" --work plan"}
			}
			r, err := s.schedules.AddSchedule(ctx, &operatorv1.AddScheduleRequest{
				Schedule: &operatorv1.Schedule{Tenant: args[0], Name: args[1], Cron: cron, Work: work},
			})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) { p.schedules([]*operatorv1.Schedule{r.GetSchedule()}) })
		}),
	}
	c.Flags().StringVar(&cron, "cron", "", "minute hour day month weekday, in the tenant's time zone")
	c.Flags().StringVar(&work, "work", "", "observe or plan")
	return c
}

func (p *printer) schedules(list []*operatorv1.Schedule) {
	var rows [][]string
	for _, s := range list {
		rows = append(rows, []string{s.GetName(), s.GetCron(), s.GetWork(), p.time(s.GetNextRun()), p.time(s.GetLastRun()), s.GetLastOutcome()})
	}
	p.table("", []string{"NAME", "CRON", "WORK", "NEXT", "LAST", "OUTCOME"}, rows)
}

func (a *app) scheduleList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List schedules", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.schedules.ListSchedules(ctx, &operatorv1.ListSchedulesRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.schedules(r.GetSchedules())
				p.none(len(r.GetSchedules()), "no schedules; add one with `reeve schedule add "+args[0]+" NAME`")
			})
		}),
	}
}

func (a *app) scheduleRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove TENANT NAME", Short: "Remove a schedule", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.schedules.RemoveSchedule(ctx, &operatorv1.RemoveScheduleRequest{Tenant: args[0], Name: args[1]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) { p.line("%s of %s is removed", args[1], args[0]) })
		}),
	}
}
