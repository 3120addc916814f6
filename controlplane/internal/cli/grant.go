package cli

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) grant() *cobra.Command {
	return noun("grant", "Access that somebody was given", a.grantAdd(), a.grantList(), a.grantEnd())
}

func (a *app) grantAdd() *cobra.Command {
	var identity, entitlement, valid, reason, ticket string
	c := &cobra.Command{
		Use: "add TENANT", Short: "Give an identity an entitlement, for a time", Args: takes,
		Long: "IDENTITY is an id, a login or a name in the tenant, or msp/LOGIN for one of the MSP's\n" +
			"own people. The grant ends by itself; the agent takes it back, control plane reachable\n" +
			"or not. It is carried out by the next plan: see `reeve plan make`.",
		Example:           "  reeve grant add fabrikam --identity msp/kari --entitlement files/admins --for 2h --reason \"file server is full\" --ticket T-1042",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			for _, f := range []struct{ flag, value string }{{"--identity", identity}, {"--entitlement", entitlement}, {"--reason", reason}} {
				if f.value == "" {
					return usageError{said: f.flag + " is missing"}
				}
			}
			req := &operatorv1.AddGrantRequest{Tenant: args[0], Identity: identity, Entitlement: entitlement, Reason: reason, Ticket: ticket}
			if valid != "" {
				d, err := policy.ParseDuration(valid)
				if err != nil {
					return usagef("--for %s: %v", valid, err)
				}
				req.ValidFor = durationpb.New(d)
			}
			r, err := s.grants.AddGrant(ctx, req)
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.oneGrant(r.GetGrant())
				p.line("")
				p.line("Next: reeve plan make %s", args[0])
			})
		}),
	}
	f := c.Flags()
	f.StringVar(&identity, "identity", "", "who gets it")
	f.StringVar(&entitlement, "entitlement", "", "what, as policy names it")
	f.StringVar(&valid, "for", "", "how long, such as 2h or 30d; without it the grant stays until it is ended, where policy allows that")
	f.StringVar(&reason, "reason", "", "why, for the record")
	f.StringVar(&ticket, "ticket", "", "the ticket it belongs to")
	return c
}

func (p *printer) oneGrant(g *operatorv1.Grant) {
	ends := p.time(g.GetEnds())
	if ends == "" {
		ends = "when somebody ends it"
	}
	p.line("%s  %s has %s, %s", p.strong(g.GetId()), g.GetIdentity(), g.GetEntitlement(), g.GetState())
	p.facts("  ", "from", p.time(g.GetStarts()), "until", ends, "reason", g.GetReason(), "ticket", g.GetTicket())
}

func (a *app) grantList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List grants", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.grants.ListGrants, &operatorv1.ListGrantsRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, g := range r.GetGrants() {
					rows = append(rows, []string{g.GetId(), g.GetIdentity(), g.GetEntitlement(), g.GetState(), p.time(g.GetEnds()), g.GetTicket(), g.GetReason()})
				}
				p.table("", []string{"GRANT", "IDENTITY", "ENTITLEMENT", "STATE", "UNTIL", "TICKET", "REASON"}, rows)
				p.none(len(rows), "no grants")
			})
		}),
	}
}

func (a *app) grantEnd() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "end TENANT GRANT", Short: "End a grant before its time", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.grants.EndGrant(ctx, &operatorv1.EndGrantRequest{Tenant: args[0], Grant: args[1], Reason: reason})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.oneGrant(r.GetGrant())
				p.line("")
				p.line("Next: reeve plan make %s", args[0])
			})
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}
