package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// someRows is how many rows of one kind are shown before a list is cut.
const someRows = 10

func (a *app) inventory() *cobra.Command {
	return noun("inventory", "What connectors observe", a.inventoryShow(), a.inventoryObjects())
}

func (a *app) inventoryShow() *cobra.Command {
	var orphans, unexplained, all bool
	c := &cobra.Command{
		Use: "show TENANT", Short: "Show people, services, orphans and what policy does not explain", Args: takes,
		ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			if orphans && unexplained {
				return usagef("--orphans and --unexplained are two lists; ask for one")
			}
			r, err := s.inventory.GetInventory(ctx, &operatorv1.GetInventoryRequest{Tenant: args[0]})
			if err != nil {
				return err
			}
			limit := someRows
			if all {
				limit = 0
			}
			switch {
			case orphans:
				return a.showOrphans(ctx, s, args[0], r.GetCounts())
			case unexplained:
				var only []*operatorv1.Finding
				for _, f := range r.GetFindings() {
					if f.GetKind() == string(planner.FindingUnexplained) {
						only = append(only, f)
					}
				}
				r.Findings = only
				return a.show(r, func(p *printer) {
					p.findings(only, 0)
					p.none(len(only), "policy explains everything that is there")
				})
			}
			return a.show(r, func(p *printer) { p.inventory(args[0], r, limit) })
		}),
	}
	c.Flags().BoolVar(&orphans, "orphans", false, "list the accounts nobody is known to own")
	c.Flags().BoolVar(&unexplained, "unexplained", false, "list what policy does not explain")
	c.Flags().BoolVar(&all, "all", false, "cut no list")
	return c
}

func (a *app) showOrphans(ctx context.Context, s services, tenant string, counts []*operatorv1.InventoryCount) error {
	all := new(operatorv1.ListObjectsResponse)
	for _, n := range counts {
		if n.GetOrphans() == 0 {
			continue
		}
		r, err := pages(ctx, a, s.inventory.ListObjects, &operatorv1.ListObjectsRequest{Tenant: tenant, Connector: n.GetConnector(), Type: n.GetType(), Orphans: true})
		if err != nil {
			return err
		}
		all.Objects = append(all.Objects, r.GetObjects()...)
	}
	return a.show(all, func(p *printer) {
		p.objects(all.GetObjects())
		p.none(len(all.GetObjects()), "no orphans: every account belongs to somebody")
	})
}

func (p *printer) inventory(tenant string, r *operatorv1.GetInventoryResponse, limit int) {
	p.line("%s  %s, %s, %s", p.strong(tenant), count(r.GetPeople(), "person", "people"), count(r.GetServices(), "service", "services"),
		count(r.GetOpenCases(), "open case", "open cases"))
	if r.GetOpenCases() > 0 {
		p.line("  Decide the cases: reeve case list %s", tenant)
	}
	for i, c := range r.GetConnectors() {
		p.branch(i == len(r.GetConnectors())-1, c, r.GetCounts())
	}
	p.none(len(r.GetConnectors()), "  nothing is observed yet; see `reeve agent list "+tenant+"`")
	p.findings(r.GetFindings(), limit)
}

// branch prints one connector of the inventory's tree.
func (p *printer) branch(last bool, c *operatorv1.Connector, counts []*operatorv1.InventoryCount) {
	fork, stem := branches(last)
	facts := role(c) + ", " + mode(c)
	if confirmed(c) != "-" {
		facts += map[bool]string{true: ", confirmed", false: ", not confirmed yet"}[c.GetConfirmed()]
	}
	if at := p.time(c.GetSnapshot().GetObservedAt()); at != "" {
		facts += ", observed " + at
	} else {
		facts += ", not observed yet"
	}
	p.line("%s%s  %s", styled(fork), p.strong(c.GetState().GetAlias()), facts)
	var rows [][]string
	for _, n := range counts {
		if n.GetConnector() != c.GetState().GetAlias() {
			continue
		}
		orphans := ""
		if n.GetOrphans() > 0 {
			orphans = count(n.GetOrphans(), "orphan", "orphans")
		}
		rows = append(rows, []string{n.GetType(), number(n.GetObjects()), number(n.GetLinked()), orphans})
	}
	p.table(stem, []string{"TYPE", "OBJECTS", "LINKED", "ORPHANS"}, rows)
	p.troubles(stem, c)
}

func (a *app) inventoryObjects() *cobra.Command {
	var typ string
	var orphans bool
	c := &cobra.Command{
		Use: "objects TENANT [ALIAS]", Short: "List observed objects of one connector, or of all", Args: takes, ValidArgsFunction: a.completeTenants,
		RunE: a.run(func(ctx context.Context, s services, args []string) error {
			aliases := args[1:]
			if len(aliases) == 0 {
				r, err := s.connectors.ListConnectors(ctx, &operatorv1.ListConnectorsRequest{Tenant: args[0]})
				if err != nil {
					return err
				}
				for _, c := range r.GetConnectors() {
					aliases = append(aliases, c.GetState().GetAlias())
				}
			}
			all := new(operatorv1.ListObjectsResponse)
			for _, alias := range aliases {
				r, err := pages(ctx, a, s.inventory.ListObjects, &operatorv1.ListObjectsRequest{Tenant: args[0], Connector: alias, Type: typ, Orphans: orphans})
				if err != nil {
					return err
				}
				all.Objects = append(all.Objects, r.GetObjects()...)
			}
			return a.show(all, func(p *printer) {
				p.objects(all.GetObjects())
				p.none(len(all.GetObjects()), "no objects; see `reeve connector list "+args[0]+"`")
			})
		}),
	}
	c.Flags().StringVar(&typ, "type", "", "only objects of this type")
	c.Flags().BoolVar(&orphans, "orphans", false, "only objects nobody is known to own")
	return c
}

func (p *printer) objects(list []*operatorv1.InventoryObject) {
	var rows [][]string
	for _, o := range list {
		name := o.GetObject().GetDisplay()
		if name == "" {
			name = o.GetObject().GetName().Text()
		}
		rows = append(rows, []string{o.GetConnector(), o.GetObject().GetType(), name, o.GetIdentity(), word(o.GetObject().GetEnablement(), "ENABLEMENT_"), o.GetObject().GetAnchor()})
	}
	for i := range rows {
		if rows[i][4] == "unspecified" {
			rows[i][4] = ""
		}
	}
	p.table("", []string{"CONNECTOR", "TYPE", "NAME", "IDENTITY", "STATE", "ANCHOR"}, rows)
}
