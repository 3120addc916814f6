package rehearsal

import (
	"cmp"
	"slices"
	"strings"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Run applies a plan's changes in order of their levels, as an agent does: one
// that depends on another that did not succeed is skipped. It returns the input
// as it is then, with connectors observed again and ledger and links moved on by
// the receipts as intake does it, and a receipt for each change in the order of
// application.
func (t *Twin) Run(in planner.Input, out planner.Output) (planner.Input, []Applied) {
	var changes []*planv1.Change
	for _, a := range out.Agents {
		changes = append(changes, a.Changes...)
	}
	slices.SortFunc(changes, func(a, b *planv1.Change) int {
		return cmp.Or(cmp.Compare(a.GetLevel(), b.GetLevel()), strings.Compare(a.GetId(), b.GetId()))
	})
	accounts := map[string]planner.Creation{}
	for _, c := range out.Creations {
		accounts[c.Change] = c
	}
	book, links := planner.NewBook(in.Ledger), slices.Clone(in.Links)
	done, gone := map[string]bool{}, map[place]bool{}
	applied := make([]Applied, 0, len(changes))
	for _, c := range changes {
		r := t.attempt(c, done)
		a := Applied{c, r}
		applied = append(applied, a)
		book.Advance(t.look(c), c, r)
		if !a.Succeeded() {
			continue
		}
		done[c.GetId()] = true
		if made, ok := accounts[c.GetId()]; ok {
			links = append(links, planner.Link{
				Connector: made.Connector, Anchor: r.GetAnchor(), Identity: made.Identity, Purpose: made.Purpose, Created: true,
			})
		}
		if c.GetOperation().GetDelete() != nil {
			gone[place{r.GetConnector(), r.GetAnchor()}] = true
		}
	}
	links = slices.DeleteFunc(links, func(l planner.Link) bool { return gone[place{l.Connector, l.Anchor}] })
	in.Connectors, in.Ledger, in.Links = t.Connectors(), book.Entries(), links
	return in, applied
}

func (t *Twin) attempt(c *planv1.Change, done map[string]bool) *auditv1.Receipt {
	missing := slices.IndexFunc(c.GetDependsOn(), func(d string) bool { return !done[d] })
	if missing < 0 {
		return t.Apply(c)
	}
	return &auditv1.Receipt{
		Change: c.GetId(), Connector: c.GetConnector(), Result: auditv1.Receipt_RESULT_SKIPPED,
		Problem: &connectorv1.Problem{Code: "SKIPPED", Object: c.GetDisplay(), Said: "change " + c.GetDependsOn()[missing] + " did not succeed"},
	}
}

// Applied is a change and what it did.
type Applied struct {
	Change  *planv1.Change
	Receipt *auditv1.Receipt
}

// Succeeded reports whether the target is as the change wants it.
func (a Applied) Succeeded() bool {
	r := a.Receipt.GetResult()
	return r == auditv1.Receipt_RESULT_APPLIED || r == auditv1.Receipt_RESULT_ALREADY
}
