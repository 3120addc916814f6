package planning

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

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
		// Grants that ended are told too: until the retention has passed a
		// technician's account is kept, disabled.
		byIdentity[g.Identity] = append(byIdentity[g.Identity], policy.Grant{
			ID: g.ID, Entitlement: g.Entitlement, Cause: g.Cause, Reason: g.Reason, Ticket: g.Ticket, Start: g.Starts, End: g.End(),
		})
	}
	subjects, err := s.subjects(t, in.Tenant, in.AsOf, in.Rules.Leaver)
	if err != nil {
		return err
	}
	guests, err := s.guests(t, in, grants)
	if err != nil {
		return err
	}
	asked := make([]policy.Asked, 0, len(subjects)+len(guests))
	for _, subject := range append(subjects, guests...) {
		name := subject.ID
		if subject.MSP {
			name = grant.MSPPrefix + strings.TrimPrefix(subject.ID, guestPrefix)
		}
		asked = append(asked, policy.Asked{Subject: subject, Grants: byIdentity[name]})
	}
	for i, answer := range metered.Everybody(asked, in.AsOf) {
		subject, err := asked[i].Subject, answer.Err
		switch {
		case errors.Is(err, policy.ErrCost) && allowance.Spent() > policy.PlanCost:
			// Going on would judge people by the order they come in.
			return fmt.Errorf("desired state of identity %s: %w", subject.ID, err)
		case err != nil:
			in.Unjudged = append(in.Unjudged, planner.Unjudged{Identity: subject.ID, Why: err.Error()})
		default:
			in.Desired = append(in.Desired, answer.Desired)
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
