package cli

import (
	"context"

	"github.com/spf13/cobra"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) tenant() *cobra.Command {
	return noun("tenant", "Client organisations", a.tenantAdd(), a.tenantList(), a.tenantShow(), a.tenantOffboard())
}

func (a *app) tenantAdd() *cobra.Command {
	var owner, zone string
	c := &cobra.Command{
		Use: "add TENANT", Short: "Take a client on", Args: takes,
		Example: "  reeve tenant add fabrikam --owner it@fabrikam.example --zone Europe/Oslo",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.tenants.AddTenant(ctx, &operatorv1.AddTenantRequest{Id: args[0], Owner: owner, Zone: zone})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.tenant(r.GetTenant())
				p.line("")
				p.line("Next: reeve agent invite %s AGENT", args[0])
			})
		}),
	}
	c.Flags().StringVar(&owner, "owner", "", "who answers for the client, such as an address")
	c.Flags().StringVar(&zone, "zone", "", "the client's time zone, such as Europe/Oslo: end dates are inclusive in it")
	return c
}

func (p *printer) tenant(t *operatorv1.Tenant) {
	kind := "client"
	if t.GetMsp() {
		kind = "the MSP itself"
	}
	p.line("%s  %s, %s", p.strong(t.GetId()), kind, t.GetState())
	bound := t.GetPolicy()
	if bound == "" {
		bound = "none bound"
	}
	p.facts("  ", "owner", t.GetOwner(), "zone", t.GetZone(), "policy", bound+" "+t.GetPolicyVersion(), "since", p.time(t.GetCreated()))
}

func (a *app) tenantList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List tenants", Args: takes,
		RunE: a.run(func(ctx context.Context, s services, _ []string) error {
			r, err := pages(ctx, a, s.tenants.ListTenants, &operatorv1.ListTenantsRequest{})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, t := range r.GetTenants() {
					rows = append(rows, []string{t.GetId(), t.GetState(), t.GetOwner(), t.GetZone(), t.GetPolicy() + " " + t.GetPolicyVersion(), p.time(t.GetCreated())})
				}
				p.table("", []string{"TENANT", "STATE", "OWNER", "ZONE", "POLICY", "SINCE"}, rows)
				p.none(len(rows), "no tenants; add one with `reeve tenant add TENANT`")
			})
		}),
	}
}

// none says that a list is empty, and what would fill it.
func (p *printer) none(rows int, sentence string) {
	if rows == 0 {
		p.line("%s", sentence)
	}
}

func (a *app) tenantShow() *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT", Short: "Show a tenant", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.tenants.GetTenant(ctx, &operatorv1.GetTenantRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) { p.tenant(r.GetTenant()) })
		}),
	}
}

func (a *app) tenantOffboard() *cobra.Command {
	var finish, force, all bool
	var reason string
	c := &cobra.Command{
		Use: "offboard TENANT", Short: "Make the plan that takes back what the MSP caused; then end the agents' identities", Args: takes,
		Long: "Makes the offboarding plan, which is shown, approved and watched like every other\n" +
			"plan. When it has ended, the same command with --finish ends the identities of the\n" +
			"client's agents and lists what stays behind.",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.tenants.OffboardTenant(ctx, &operatorv1.OffboardTenantRequest{Tenant: args[0], Reason: reason, Finish: finish, Force: force})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				limit := someRows
				if all {
					limit = 0
				}
				if r.GetPlan() != nil {
					p.planHeader(r.GetPlan())
				}
				p.findings(r.GetResidue(), limit)
				p.gap()
				p.none(len(r.GetResidue()), "Nothing of it stays behind.")
				if r.GetFinished() {
					p.line("%s is offboarded: the identities of its agents have ended.", args[0])
					p.line("Its log stays: reeve audit export %s --out FILE", args[0])
					return
				}
				p.nextForPlan(r.GetPlan())
				p.line("When it has ended: reeve tenant offboard %s --finish", args[0])
			})
		}),
	}
	c.Flags().BoolVar(&finish, "finish", false, "end the agents' identities, once the offboarding plan has ended")
	c.Flags().BoolVar(&force, "force", false, "with --finish: although something could not be taken back")
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	c.Flags().BoolVar(&all, "all", false, "list everything that stays")
	return c
}

// completeTenants completes the first argument.
func (a *app) completeTenants(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(c.Context(), completionPatience)
	defer cancel()
	s, err := a.connect()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	r, err := s.tenants.ListTenants(ctx, &operatorv1.ListTenantsRequest{PageSize: pageSize})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var list []string
	for _, t := range r.GetTenants() {
		list = append(list, t.GetId())
	}
	return list, cobra.ShellCompDirectiveNoFileComp
}
