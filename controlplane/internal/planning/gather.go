package planning

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// estate is a tenant's connectors with the objects of their current snapshots.
type estate struct {
	connectors []inventory.Connector
	objects    map[string][]*connectorv1.Object
}

func (s *Service) estate(t tx.Tx, tenant string) (estate, error) {
	e := estate{objects: map[string][]*connectorv1.Object{}}
	var err error
	if e.connectors, err = s.Inventory.Connectors(t, tenant); err != nil {
		return e, err
	}
	for _, c := range e.connectors {
		if e.objects[c.Alias], err = inventory.Objects(t, s.Inventory, c); err != nil {
			return e, err
		}
	}
	return e, nil
}

// reconcile folds the estate into identities. Without a policy there is no
// mapping, and nothing to fold.
func (s *Service) reconcile(t tx.Tx, tenant string, zone *time.Location, e estate) error {
	program, err := s.Policies.Program(t, tenant)
	if errors.Is(err, policystore.ErrUnbound) {
		return nil
	}
	if err != nil {
		return err
	}
	var sources []identity.SourceSnapshot
	var targets []identity.TargetSnapshot
	for _, c := range e.connectors {
		if c.Header == nil || c.Suspended != "" || !c.Trusted() {
			continue
		}
		if c.Source() {
			sources = append(sources, identity.SourceSnapshot{
				Connector: c.Alias, Snapshot: c.Header.GetSnapshot(), Complete: c.Header.GetComplete(),
				At: c.Header.GetObservedAt().AsTime(), Objects: e.objects[c.Alias],
			})
			continue
		}
		targets = append(targets, identity.TargetSnapshot{Connector: c.Alias, Types: c.State.GetTypes(), Objects: e.objects[c.Alias]})
	}
	outcome, err := s.Identities.Reconcile(t, tenant, sources, targets, mapper{program: program, zone: zone})
	if err != nil {
		return err
	}
	for alias, why := range outcome.Suspend {
		if err := s.Inventory.SetSuspended(t, tenant, alias, why); err != nil {
			return err
		}
	}
	for _, problem := range outcome.Problems {
		s.Log.Warn("source row left out", "tenant", tenant, "problem", problem)
	}
	return nil
}

// mapper lets identity read rows by the tenant's policy.
type mapper struct {
	program *policy.Program
	zone    *time.Location
}

// Row implements identity.Mapper.
func (m mapper) Row(connector string, o *connectorv1.Object) (identity.Row, bool, error) {
	if !m.program.IsSource(connector, o.GetType()) {
		return identity.Row{}, false, nil
	}
	r, err := m.program.Source(connector, o.GetType(), o)
	if err != nil {
		return identity.Row{}, false, err
	}
	row := identity.Row{InScope: r.InScope, Kind: r.Kind, Label: label(r), Attributes: r.Attributes, Suspended: !r.Active}
	for _, ref := range r.References {
		row.References = append(row.References, identity.Reference{Name: ref.Name, Attribute: ref.Attribute, Values: ref.Values})
	}
	if !r.Start.IsZero() {
		row.Starts = r.Start.First(m.zone)
	}
	if !r.End.IsZero() {
		row.Ends = r.End.Last(m.zone)
	}
	return row, true, nil
}

// label picks a name for people from what the mapping gave.
func label(r policy.SourceRow) string {
	for _, names := range [][]string{{"display_name"}, {"given_name", "family_name"}, {"login"}, {"email"}} {
		var parts []string
		for _, n := range names {
			if v := r.Attributes[n]; len(v) > 0 {
				parts = append(parts, v[0])
			}
		}
		if len(parts) == len(names) {
			return strings.Join(parts, " ")
		}
	}
	return r.Key
}

// Matches implements identity.Mapper.
func (m mapper) Matches() []identity.Match {
	var matches []identity.Match
	for _, c := range m.program.Correlations() {
		match := identity.Match{Connector: c.Connector, Type: c.Type, Purpose: c.Purpose}
		for _, p := range c.Match {
			match.Pairs = append(match.Pairs, identity.Pair{Identity: p.Identity, Object: p.Object})
		}
		matches = append(matches, match)
	}
	return matches
}

// input gathers what a plan follows from, at one moment, in one transaction.
func (s *Service) input(t tx.Tx, tenant string, purpose planv1.Purpose, asOf time.Time, e estate) (planner.Input, error) {
	in := planner.Input{TrustDomain: s.TrustDomain, Tenant: tenant, Purpose: purpose, AsOf: asOf, SoloOperator: s.Solo}
	for _, c := range e.connectors {
		in.Connectors = append(in.Connectors, connector(c, e.objects[c.Alias]))
	}
	accounts, err := s.IdentityStore.Accounts(t, tenant)
	if err != nil {
		return in, err
	}
	for _, a := range accounts {
		in.Links = append(in.Links, planner.Link{Connector: a.Connector, Anchor: a.Anchor, Identity: a.Identity, Purpose: a.Purpose, Created: a.Created})
	}
	if in.Ledger, err = s.Ledger.All(t, tenant); err != nil {
		return in, err
	}
	program, err := s.Policies.Program(t, tenant)
	if errors.Is(err, policystore.ErrUnbound) && purpose == planv1.Purpose_PURPOSE_OFFBOARD {
		// What was done is in the ledger; a tenant can always leave.
		return in, nil
	}
	if err != nil {
		return in, err
	}
	in.Entitlements, in.Rules = program.Entitlements(), program.Rules()
	in.PolicyVersion = program.Name() + " " + program.Version()
	in.PolicyDigest, in.ParametersDigest = program.Digest(), program.ParametersDigest()
	if purpose == planv1.Purpose_PURPOSE_OFFBOARD {
		return in, nil
	}
	return in, s.desire(t, &in, program)
}

// desire evaluates policy for everybody it may speak of.
func (s *Service) desire(t tx.Tx, in *planner.Input, program *policy.Program) error {
	allowance := policy.NewAllowance(policy.PlanCost)
	metered := program.Metered(allowance)
	grants, err := s.Grants.List(t, in.Tenant, "", 0)
	if err != nil {
		return err
	}
	byIdentity := map[string][]policy.Grant{}
	for _, g := range grants {
		if g.Open(in.AsOf) {
			byIdentity[g.Identity] = append(byIdentity[g.Identity], policy.Grant{
				ID: g.ID, Entitlement: g.Entitlement, Cause: g.Cause, Reason: g.Reason, Ticket: g.Ticket, Start: g.Starts, End: g.Ends,
			})
		}
	}
	subjects, err := s.subjects(t, in.Tenant, in.AsOf, in.Rules.Leaver)
	if err != nil {
		return err
	}
	guests, err := s.guests(t, in, grants)
	if err != nil {
		return err
	}
	for _, subject := range append(subjects, guests...) {
		name := subject.ID
		if subject.MSP {
			name = grant.MSPPrefix + strings.TrimPrefix(subject.ID, guestPrefix)
		}
		d, err := metered.Desired(subject, byIdentity[name], in.AsOf)
		switch {
		case errors.Is(err, policy.ErrCost) && allowance.Spent() > policy.PlanCost:
			// Going on would judge people by the order they come in.
			return fmt.Errorf("desired state of identity %s: %w", subject.ID, err)
		case err != nil:
			in.Unjudged = append(in.Unjudged, planner.Unjudged{Identity: subject.ID, Why: err.Error()})
			s.Log.Warn("policy could not be evaluated for an identity", "tenant", in.Tenant, "identity", subject.ID, "error", err)
		default:
			in.Desired = append(in.Desired, d)
		}
		switch subject.State {
		case policy.StateLeaver:
			in.Leavers = append(in.Leavers, subject.ID)
		case policy.StateSuspended:
			in.Suspended = append(in.Suspended, subject.ID)
		}
	}
	slices.SortFunc(in.Desired, func(a, b policy.Desired) int { return strings.Compare(a.Subject, b.Subject) })
	slices.Sort(in.Leavers)
	slices.Sort(in.Suspended)
	return nil
}

// guestPrefix begins the id that an identity of the MSP's tenant has in another:
// it cannot be mistaken for one of the tenant's own.
const guestPrefix = "msp-"

// guests are the identities of the MSP's own tenant that a grant names here, or
// that still own an account here.
func (s *Service) guests(t tx.Tx, in *planner.Input, grants []grant.Grant) ([]policy.Subject, error) {
	if in.Tenant == s.MSP {
		return nil, nil
	}
	wanted := map[string]bool{}
	for _, g := range grants {
		if id, ok := strings.CutPrefix(g.Identity, grant.MSPPrefix); ok {
			wanted[id] = true
		}
	}
	for _, l := range in.Links {
		if id, ok := strings.CutPrefix(l.Identity, guestPrefix); ok {
			wanted[id] = true
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	staff, err := s.subjects(t, s.MSP, in.AsOf, in.Rules.Leaver)
	if err != nil {
		return nil, err
	}
	var guests []policy.Subject
	for _, subject := range staff {
		if !wanted[subject.ID] {
			continue
		}
		subject.ID, subject.MSP = guestPrefix+subject.ID, true
		guests = append(guests, subject)
	}
	return guests, nil
}

// subjects returns the tenant's identities as policy sees them, references
// resolved.
func (s *Service) subjects(t tx.Tx, tenant string, asOf time.Time, rule policy.LeaverRule) ([]policy.Subject, error) {
	identities, err := s.IdentityStore.List(t, tenant, "", 0)
	if err != nil {
		return nil, err
	}
	holders := map[[2]string][]string{}
	for _, id := range identities {
		for name, values := range id.Attributes {
			for _, v := range values {
				holders[[2]string{name, v}] = append(holders[[2]string{name, v}], id.ID)
			}
		}
	}
	subjects := make([]policy.Subject, len(identities))
	for i, id := range identities {
		subjects[i] = Subject(id, asOf, rule)
		for _, ref := range id.References {
			for _, v := range ref.Values {
				// A reference that fits nobody, or several, refers to nobody.
				if ids := holders[[2]string{ref.Attribute, v}]; len(ids) == 1 {
					subjects[i].Attributes[ref.Name] = append(subjects[i].Attributes[ref.Name], ids[0])
				}
			}
		}
	}
	return subjects, nil
}

// Subject says at which stage of life an identity is at a moment.
func Subject(id identity.Identity, asOf time.Time, rule policy.LeaverRule) policy.Subject {
	s := policy.Subject{ID: id.ID, Kind: id.Kind, Attributes: map[string][]string{}, State: policy.StateActive, Start: id.Starts, End: id.Ends}
	for name, values := range id.Attributes {
		s.Attributes[name] = values
	}
	switch {
	case !id.Ends.IsZero() && asOf.After(id.Ends):
		s.State, s.LeftAt = policy.StateLeaver, id.Ends
	case id.Missing > 0 && id.Missing >= rule.Snapshots && !asOf.Before(id.MissingSince.Add(rule.Grace)):
		s.State, s.LeftAt = policy.StateLeaver, id.MissingSince
	case asOf.Before(id.Starts):
		s.State = policy.StatePending
	case id.Suspended:
		s.State = policy.StateSuspended
	}
	return s
}

func connector(c inventory.Connector, objects []*connectorv1.Object) planner.Connector {
	out := planner.Connector{
		Alias: c.Alias, Agent: c.Agent, Source: c.Source(), CaseRule: c.State.GetCaseRule(), Types: c.State.GetTypes(),
		Snapshot: c.Header, Objects: objects, Suspended: c.Suspended,
	}
	if !c.Trusted() && out.Suspended == "" {
		out.Suspended = "its fingerprint is not confirmed; compare it and run `reeve source confirm`"
	}
	switch c.State.GetMode() {
	case agentv1.ConnectorState_MODE_ENFORCE:
		out.Mode = planner.ModeEnforce
	case agentv1.ConnectorState_MODE_ADOPT:
		out.Mode = planner.ModeAdopt
	default:
		out.Mode = planner.ModeObserve
	}
	return out
}
