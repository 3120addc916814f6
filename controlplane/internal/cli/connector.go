package cli

import (
	"bufio"
	"context"
	"strings"

	"github.com/spf13/cobra"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

func (a *app) connector() *cobra.Command {
	return noun("connector", "Connectors that agents run", &cobra.Command{
		Use: "list TENANT", Short: "List a tenant's connectors", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.connectors.ListConnectors(ctx, &operatorv1.ListConnectorsRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				p.connectors("", r.GetConnectors())
				p.none(len(r.GetConnectors()), "no connectors; they come with the client's agent, see `reeve agent list "+args[0]+"`")
			})
		}),
	})
}

func (p *printer) connectors(indent string, list []*operatorv1.Connector) {
	var rows [][]string
	for _, c := range list {
		st := c.GetState()
		rows = append(rows, []string{
			st.GetAlias(), st.GetConnector(), role(c), mode(c), c.GetAgent(), yesNo(st.GetReachable()), confirmed(c),
			number(c.GetSnapshot().GetObjects()), p.time(c.GetSnapshot().GetObservedAt()),
		})
	}
	p.table(indent, []string{"ALIAS", "CONNECTOR", "ROLE", "MODE", "AGENT", "REACHABLE", "CONFIRMED", "OBJECTS", "OBSERVED"}, rows)
	for _, c := range list {
		p.troubles(indent+"  ", c)
	}
}

// troubles prints why a connector is not used as it could be.
func (p *printer) troubles(indent string, c *operatorv1.Connector) {
	alias := c.GetState().GetAlias()
	if c.GetSuspended() != "" {
		p.line("%s%s is left out of plans: %s", styled(indent), p.warn(alias), c.GetSuspended())
	}
	if c.GetSnapshot() != nil && !c.GetSnapshot().GetComplete() {
		p.line("%s%s was not read to its end: nothing is removed because of what was not seen", styled(indent), p.warn(alias))
	}
	for _, pr := range c.GetState().GetProblems() {
		p.line("%s%s: %s", styled(indent), p.warn(alias), problemLine(pr.GetObject(), pr.GetSaid(), pr.GetRemedy()))
	}
}

// problemLine says a problem in one line.
func problemLine(object, said, remedy string) string {
	text := said
	if object != "" {
		text = object + ": " + text
	}
	if remedy != "" {
		text += "; " + remedy
	}
	return text
}

func role(c *operatorv1.Connector) string { return word(c.GetState().GetRole(), "ROLE_") }
func mode(c *operatorv1.Connector) string { return word(c.GetState().GetMode(), "MODE_") }

func confirmed(c *operatorv1.Connector) string {
	if c.GetState().GetRole() == agentv1.ConnectorState_ROLE_TARGET {
		return "-"
	}
	return yesNo(c.GetConfirmed())
}

func (a *app) observe() *cobra.Command {
	return &cobra.Command{
		Use: "observe TENANT [ALIAS]", Short: "Ask for a fresh snapshot of one connector, or of all", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			r, err := s.connectors.Observe(ctx, &operatorv1.ObserveRequest{Tenant: args[0], Connector: optional(args, 1)})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) {
				if len(r.GetAsked()) > 0 {
					p.line("Asked for %s; see `reeve connector list %s`.", strings.Join(r.GetAsked(), ", "), args[0])
				}
				p.none(len(r.GetAsked()), "nobody was asked: no agent of "+args[0]+" is connected; see `reeve agent list "+args[0]+"`")
			})
		}),
	}
}

func (a *app) source() *cobra.Command {
	return noun("source", "Sources and their fingerprints", a.sourceShow(), a.sourceConfirm())
}

// findSource asks for one connector.
func (a *app) findSource(ctx context.Context, s services, tenant, alias string) (*operatorv1.Connector, error) {
	r, err := s.connectors.ListConnectors(ctx, &operatorv1.ListConnectorsRequest{Tenant: tenant})
	if err != nil {
		return nil, err
	}
	for _, c := range r.GetConnectors() {
		if c.GetState().GetAlias() == alias {
			return c, nil
		}
	}
	return nil, local(ExitNotFound, "NOT_FOUND", tenant+" "+alias, "", "the tenant has no connector of this alias", "list what there is with `reeve connector list "+tenant+"`")
}

func (p *printer) source(c *operatorv1.Connector) {
	p.line("%s  %s (%s) at agent %s", p.strong(c.GetState().GetAlias()), role(c), c.GetState().GetConnector(), c.GetAgent())
	var pairs []string
	for _, f := range c.GetState().GetFingerprint() {
		pairs = append(pairs, f.GetName(), f.GetValue())
	}
	p.line("  What identifies it:")
	p.facts("    ", pairs...)
	p.facts("  ", "fingerprint", c.GetFingerprintSha256(), "confirmed", yesNo(c.GetConfirmed()))
	p.troubles("  ", c)
}

func (a *app) sourceShow() *cobra.Command {
	return &cobra.Command{
		Use: "show TENANT ALIAS", Short: "Show what identifies a source", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			c, err := a.findSource(ctx, s, args[0], args[1])
			if err != nil {
				return err
			}
			return a.show(&operatorv1.ListConnectorsResponse{Connectors: []*operatorv1.Connector{c}}, func(p *printer) { p.source(c) })
		}),
	}
}

func (a *app) sourceConfirm() *cobra.Command {
	var fingerprint string
	c := &cobra.Command{
		Use: "confirm TENANT ALIAS", Short: "Accept a source's fingerprint after comparing it with the client", Args: takes,
		Long: "Before its fingerprint is confirmed nothing a source says leads to access. Compare it\n" +
			"with the client by another way than this one: `reeve-agent connector check` shows it\n" +
			"there. On a terminal the fingerprint is shown and you are asked; elsewhere name the\n" +
			"one that was compared with --fingerprint.",
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			given := strings.ToLower(strings.ReplaceAll(fingerprint, ":", ""))
			if given == "" {
				c, err := a.findSource(ctx, s, args[0], args[1])
				if err != nil {
					return err
				}
				p := a.printer(a.asking())
				p.source(c)
				if err := p.flush(); err != nil {
					return err
				}
				if !a.canAsk() {
					return usageError{said: "--fingerprint is missing: there is no terminal to ask on", remedy: "compare the fingerprint with the client by another way and name it with --fingerprint"}
				}
				if err := a.ask(ctx, "Does the client, asked by another way, see the same fingerprint?"); err != nil {
					return err
				}
				given = c.GetFingerprintSha256()
			}
			r, err := s.connectors.ConfirmSource(ctx, &operatorv1.ConfirmSourceRequest{Tenant: args[0], Connector: args[1], FingerprintSha256: given})
			if err != nil {
				return err
			}
			return a.show(r, func(p *printer) { p.line("%s of %s is confirmed: %s", args[1], args[0], given) })
		}),
	}
	c.Flags().StringVar(&fingerprint, "fingerprint", "", "the SHA-256 that was compared")
	return c
}

// canAsk reports whether a person is at the other end.
func (a *app) canAsk() bool { return a.env.IsTerminal(a.env.In) && a.env.IsTerminal(a.env.Err) }

// ask puts a question; anything but yes is an error.
func (a *app) ask(ctx context.Context, question string) error {
	p := a.printer(a.env.Err)
	// Not line: the answer belongs behind the question.
	_, _ = p.w.WriteString(clean(question) + " [y/N] ")
	if err := p.flush(); err != nil {
		return err
	}
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.env.In).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case word := <-answer:
		if word == "y" || word == "yes" {
			return nil
		}
		return local(ExitRefused, "DECLINED", a.object, "", "you did not say yes; nothing was done", "run it again once you are sure")
	}
}
