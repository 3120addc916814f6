package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) identity() *cobra.Command {
	return noun("identity", "Governed identities", a.identityList(), a.identityExplain())
}

func (a *app) identityList() *cobra.Command {
	var state string
	c := &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's identities", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.identities.ListIdentities, &operatorv1.ListIdentitiesRequest{Tenant: args[0], State: state})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				var rows [][]string
				for _, id := range r.GetIdentities() {
					var on []string
					for _, account := range id.GetAccounts() {
						on = append(on, account.GetConnector())
					}
					rows = append(rows, []string{id.GetLabel(), id.GetKind(), id.GetState(), strings.Join(on, ","), p.time(id.GetEnds()), id.GetId()})
				}
				p.table("", []string{"NAME", "KIND", "STATE", "ACCOUNTS", "ENDS", "ID"}, rows)
				p.none(len(rows), "no identities; they come from confirmed sources, see `reeve connector list "+args[0]+"`")
			})
		}),
	}
	c.Flags().StringVar(&state, "state", "", "only identities in this state, such as active or leaver")
	return c
}

func (a *app) identityExplain() *cobra.Command {
	return &cobra.Command{
		Use: "explain TENANT WHO", Short: "Say why an identity has what it has", Args: takes, ValidArgsFunction: a.completeTenants,
		Long: "WHO is an id, a login or a name that only one identity has. For each account, value\n" +
			"and entitlement it shows the rule that leads to it, the plan and change that did it and\n" +
			"its record in the tenant's log. What Reeve found and did not write is said to be adopted.",
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.identities.ExplainIdentity(ctx, &operatorv1.ExplainIdentityRequest{Tenant: args[0], Identity: args[1]})
			if err != nil {
				return err
			}
			proven, size, err := checkProof(r.GetProof())
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.explanation(r)
				if proven {
					p.line("")
					p.line("Record %s is proven to be in the log of %s; `reeve audit verify` checks its signatures.",
						number(r.GetProof().GetIndex()), count(size, "record", "records"))
				}
			})
		}),
	}
}

func (a *app) cases() *cobra.Command {
	return noun("case", "What correlation left open", a.caseList(), a.caseDecide())
}

func (a *app) caseList() *cobra.Command {
	return &cobra.Command{
		Use: "list TENANT", Short: "List open cases", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := pages(ctx, a, s.identities.ListCases, &operatorv1.ListCasesRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				for _, c := range r.GetCases() {
					p.oneCase(c)
				}
				p.none(len(r.GetCases()), "no open cases")
				if len(r.GetCases()) > 0 {
					p.line("Decide: reeve case decide %s CASE CANDIDATE|none --reason TEXT", args[0])
				}
			})
		}),
	}
}

func (p *printer) oneCase(c *operatorv1.Case) {
	p.line("%s  %s on %s, %s", p.strong(c.GetId()), c.GetKind(), c.GetConnector(), c.GetSubject())
	p.line("  %s", c.GetSentence())
	p.facts("  ", "candidates", strings.Join(c.GetCandidates(), ", "), "opened", p.time(c.GetOpened()), "decision", c.GetDecision())
}

func (a *app) caseDecide() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "decide TENANT CASE CANDIDATE|none", Short: "Link a candidate, or none of them", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.identities.DecideCase(ctx, &operatorv1.DecideCaseRequest{Tenant: args[0], Case: args[1], Candidate: args[2], Reason: reason})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) { p.oneCase(r.GetCase()) })
		}),
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}
