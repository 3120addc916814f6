package admission

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Pin looks up the protected names of a connector and remembers their anchors, so
// that a protection stays with the object when its name changes. A name that is
// not there, or that the bind account may not read, pins nothing.
func (a *Admitter) Pin(ctx context.Context, alias string) error {
	c, ok := a.o.Connectors[alias]
	if !ok {
		return fmt.Errorf("%w: %s", errUnknownConnector, alias)
	}
	if c.Guardrails == nil {
		return nil
	}
	var known map[string]string
	err := a.o.Journal.View(ctx, func(tx *journal.Tx) (err error) {
		known, err = tx.Pins(alias)
		return err
	})
	if err != nil {
		return err
	}
	var refs []*connectorv1.ObjectRef
	pins := map[*connectorv1.ObjectRef]string{}
	for _, p := range c.Guardrails.Protected {
		if p.Name.Parsed() == nil {
			continue
		}
		for _, t := range c.Directory.Types() {
			ref := &connectorv1.ObjectRef{Type: t.GetName(), Name: p.Name.Parsed()}
			refs = append(refs, ref)
			pins[ref] = p.Pin()
		}
	}
	found := map[string]string{}
	for batch := range slices.Chunk(refs, maxRead) {
		results, err := c.Directory.Read(ctx, batch)
		if err == nil && len(results) != len(batch) {
			err = errAnswers
		}
		if err != nil {
			return fmt.Errorf("%w: look up protected names: %w", ErrDirectory, err)
		}
		for i, r := range results {
			if anchor := r.GetObject().GetAnchor(); anchor != "" && known[anchor] != pins[batch[i]] {
				found[anchor] = pins[batch[i]]
			}
		}
	}
	if len(found) == 0 {
		return nil
	}
	return a.o.Journal.Commit(ctx, func(tx *journal.Tx) error {
		for _, anchor := range slices.Sorted(maps.Keys(found)) {
			if err := tx.PutPin(alias, found[anchor], anchor); err != nil {
				return err
			}
		}
		return nil
	})
}

// verdict is what the guardrails say of a whole plan.
type verdict struct {
	refusals []*auditv1.Refusal
	signed   []string
	charges  []journal.Charge
}

// limits judges every change that is to run, on objects read now. signed names
// the approvers whose signature is valid.
func (a *Admitter) limits(ctx context.Context, p *plan, signed []string, now time.Time) (*verdict, error) {
	v := &verdict{signed: signed}
	byAlias := map[string][]*planv1.Change{}
	for _, c := range p.live() {
		byAlias[c.GetConnector()] = append(byAlias[c.GetConnector()], c)
	}
	for _, alias := range slices.Sorted(maps.Keys(byAlias)) {
		if err := a.limitsOf(ctx, alias, byAlias[alias], p, signed, now, v); err != nil {
			return nil, fmt.Errorf("connector %s: %w", alias, err)
		}
	}
	return v, nil
}

func (a *Admitter) limitsOf(ctx context.Context, alias string, changes []*planv1.Change, p *plan, signed []string, now time.Time, v *verdict) error {
	if err := a.Pin(ctx, alias); err != nil {
		return err
	}
	c := a.o.Connectors[alias]
	operations := make([]*connectorv1.Operation, len(changes))
	for i, change := range changes {
		operations[i] = change.GetOperation()
	}
	survey, err := Look(ctx, c.Directory, operations, nil)
	if err != nil {
		return err
	}
	if err := survey.CountLosers(ctx, operations); err != nil {
		return err
	}
	var pins map[string]string
	err = a.o.Journal.View(ctx, func(tx *journal.Tx) (err error) {
		pins, err = tx.Pins(alias)
		return err
	})
	if err != nil {
		return err
	}
	guarded, err := survey.Guarded(ctx, c.Guardrails.Anchors(pins), operations)
	if err != nil {
		return err
	}
	return a.o.Journal.View(ctx, func(tx *journal.Tx) error {
		booked, err := tx.Charges(now.Add(-24 * time.Hour))
		if err != nil {
			return err
		}
		var readErr error
		createdHere := func(anchor string) bool {
			here, err := tx.CreatedHere(alias, anchor)
			readErr = errors.Join(readErr, err)
			return here
		}
		planned := func(id string) *connectorv1.Object { return Planned(p.byID[id].GetOperation()) }
		checker := c.Guardrails.Checker(c.Directory.Types(), c.Directory.CaseRule(), pins)
		checker.Guard(guarded)
		var charges, earlier []guardrails.Charge
		for _, change := range changes {
			s := survey.Subject(change, planned, createdHere)
			refused := checker.Check(s, now)
			for _, r := range refused {
				v.refusals = append(v.refusals, &auditv1.Refusal{Code: CodeGuardrail, Change: r.Change, Rule: r.Rule, Sentence: r.Sentence})
			}
			if len(refused) > 0 {
				continue
			}
			if rule := checker.NeedsSignature(s); rule != "" && !slices.ContainsFunc(signed, checker.Approves) {
				v.refusals = append(v.refusals, &auditv1.Refusal{Code: CodeApproval, Change: change.GetId(), Rule: rule,
					Sentence: fmt.Sprintf("%s asks for an approver's signature on change %s; run `reeve-agent plan approve` at the client", rule, change.GetId())})
			}
			for _, ch := range guardrails.Charges(s) {
				charges = append(charges, ch)
				v.charges = append(v.charges, journal.Charge{Connector: alias, Kind: ch.Kind, Subject: ch.Subject})
			}
		}
		for _, b := range booked {
			if b.Connector == alias {
				earlier = append(earlier, guardrails.Charge{Kind: b.Kind, Subject: b.Subject})
			}
		}
		if !slices.ContainsFunc(signed, checker.Approves) {
			for _, r := range checker.Budget(charges, earlier) {
				v.refusals = append(v.refusals, &auditv1.Refusal{Code: CodeBudget, Rule: r.Rule, Sentence: r.Sentence})
			}
		}
		return readErr
	})
}
