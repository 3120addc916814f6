package planning

import (
	"errors"
	"fmt"
	"maps"
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
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// estate is a tenant's connectors with the objects of their current snapshots,
// and how its policy reads them.
type estate struct {
	connectors []inventory.Connector
	objects    map[string][]*connectorv1.Object
	// program and mapper are nil without a policy.
	program *policy.Program
	mapper  *mapper
	// changeKey names changes.
	changeKey []byte
	// unread are rows of sources that the mapping could not read.
	unread []planner.Finding
}

// observe reads the estate and maps its source rows: the long part of folding,
// which must not keep writers waiting.
func (s *Service) observe(t tx.Tx, tenant string) (estate, error) {
	e := estate{objects: map[string][]*connectorv1.Object{}}
	tn, err := s.Tenants.Lookup(t, tenant)
	if err != nil {
		return e, err
	}
	zone, err := tn.Location()
	if err != nil {
		return e, err
	}
	if e.connectors, err = s.Inventory.Connectors(t, tenant); err != nil {
		return e, err
	}
	for _, c := range e.connectors {
		if e.objects[c.Alias], err = inventory.Objects(t, s.Inventory, c); err != nil {
			return e, err
		}
	}
	if e.program, err = s.program(t, tenant); err != nil || e.program == nil {
		return e, err
	}
	e.mapper = &mapper{program: e.program, zone: zone, rows: map[*connectorv1.Object]mapped{}}
	for _, c := range e.connectors {
		if !c.Source() || !counts(c) {
			continue
		}
		for _, o := range e.objects[c.Alias] {
			e.mapper.rows[o] = e.mapper.read(c.Alias, o)
		}
	}
	return e, nil
}

// program is nil for a tenant without a policy.
func (s *Service) program(t tx.Tx, tenant string) (*policy.Program, error) {
	p, err := s.Policies.Program(t, tenant)
	if errors.Is(err, policystore.ErrUnbound) {
		return nil, nil
	}
	return p, err
}

// counts reports whether what a connector's snapshot says is folded in.
func counts(c inventory.Connector) bool {
	return c.Header != nil && c.Suspended == "" && c.Trusted()
}

// reconcile folds the estate into identities. Without a policy there is no
// mapping, and nothing to fold.
func (s *Service) reconcile(t tx.Tx, tenant string, e *estate) error {
	if e.mapper == nil {
		return nil
	}
	var sources []identity.SourceSnapshot
	var targets []identity.TargetSnapshot
	for _, c := range e.connectors {
		if !counts(c) {
			continue
		}
		if c.Source() {
			sources = append(sources, identity.SourceSnapshot{
				Connector: c.Alias, Snapshot: c.Header.GetSnapshot(), Complete: c.Header.GetComplete(),
				At: c.Header.GetObservedAt().AsTime(), Objects: e.objects[c.Alias], Same: sameDirectory(e.connectors, c), Rebind: c.Rebind,
			})
			if c.Rebind {
				if err := s.Inventory.SetRebind(t, tenant, c.Alias, false); err != nil {
					return err
				}
			}
			continue
		}
		targets = append(targets, identity.TargetSnapshot{Connector: c.Alias, Types: c.State.GetTypes(), Objects: e.objects[c.Alias]})
	}
	outcome, err := s.Identities.Reconcile(t, tenant, sources, targets, e.mapper)
	if err != nil {
		return err
	}
	for _, alias := range slices.Sorted(maps.Keys(outcome.Suspend)) {
		why := outcome.Suspend[alias]
		if err := s.Inventory.SetSuspended(t, tenant, alias, why); err != nil {
			return err
		}
		if _, err := s.Records.AppendAct(t, tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_SUSPENDED, Actor: "control-plane"},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "suspend connector", Object: alias, Reason: why}}}); err != nil {
			return err
		}
	}
	for _, p := range outcome.Problems {
		e.unread = append(e.unread, planner.Finding{
			Kind: planner.FindingHeld, Connector: p.Connector, Object: p.Connector, Sentence: "A row is left out and its subject stays as it was: " + p.Said + ".",
		})
	}
	return nil
}

// sameDirectory names the other connectors that reach the directory of c: one that
// is source and target has an alias for each.
func sameDirectory(all []inventory.Connector, c inventory.Connector) []string {
	var same []string
	for _, other := range all {
		if other.Alias != c.Alias && c.Fingerprint != "" && other.Fingerprint == c.Fingerprint {
			same = append(same, other.Alias)
		}
	}
	return same
}

// mapper lets identity read rows by the tenant's policy. Rows that were read
// before are not read again.
type mapper struct {
	program *policy.Program
	zone    *time.Location
	rows    map[*connectorv1.Object]mapped
}

type mapped struct {
	row identity.Row
	ok  bool
	err error
}

// Row implements identity.Mapper.
func (m *mapper) Row(connector string, o *connectorv1.Object) (identity.Row, bool, error) {
	r, known := m.rows[o]
	if !known {
		r = m.read(connector, o)
	}
	return r.row, r.ok, r.err
}

func (m *mapper) read(connector string, o *connectorv1.Object) mapped {
	if !m.program.IsSource(connector, o.GetType()) {
		return mapped{}
	}
	r, err := m.program.Source(connector, o.GetType(), o)
	if err != nil {
		return mapped{err: err}
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
	return mapped{row: row, ok: true}
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
func (m *mapper) Matches() []identity.Match {
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

// input gathers what a plan follows from beside the estate, in one transaction.
func (s *Service) input(t tx.Tx, tenant string, purpose planv1.Purpose, asOf time.Time, e estate) (planner.Input, error) {
	in := planner.Input{TrustDomain: s.TrustDomain, Tenant: tenant, Purpose: purpose, AsOf: asOf, SoloOperator: s.Solo, ChangeKey: e.changeKey}
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
	cases, err := s.IdentityStore.Cases(t, tenant, false)
	if err != nil {
		return in, err
	}
	for _, c := range cases {
		// Which side is the identity depends on the case; no anchor is one.
		for _, id := range append([]string{c.Subject}, c.Candidates...) {
			in.Undecided = append(in.Undecided, planner.Undecided{Connector: c.Connector, Identity: id})
		}
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

// LocalID is the id that a tenant knows an identity by: its own, or for one of
// the MSP's, which grants name msp/ID, a guest's.
func LocalID(identity string) string {
	if id, ok := strings.CutPrefix(identity, grant.MSPPrefix); ok {
		return guestPrefix + id
	}
	return identity
}

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
	unseen, err := s.unseen(t, tenant, asOf)
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
		if unseen[id.ID] {
			id.Missing = 0
		}
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

// staleAfter is how long a source may go unread before it says nothing any more
// of who is absent from it.
const staleAfter = 7 * 24 * time.Hour

// unseen are the identities of whose absence nothing can be said at a moment: a
// source of theirs is suspended, not confirmed, gone, not read completely or not
// read lately. Their grace must not run out while nobody looks.
func (s *Service) unseen(t tx.Tx, tenant string, asOf time.Time) (map[string]bool, error) {
	connectors, err := s.Inventory.Connectors(t, tenant)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, c := range connectors {
		seen[c.Alias] = c.Source() && counts(c) && c.Header.GetComplete() && c.Header.GetObservedAt().AsTime().Add(staleAfter).After(asOf)
	}
	links, err := s.IdentityStore.Links(t, tenant)
	if err != nil {
		return nil, err
	}
	unseen := map[string]bool{}
	for _, l := range links {
		if !seen[l.Connector] {
			unseen[l.Identity] = true
		}
	}
	return unseen, nil
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
