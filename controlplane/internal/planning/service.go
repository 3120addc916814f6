package planning

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/rehearsal"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Records puts an act into the tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Ledger is what Reeve wrote in a tenant, sorted as planner.CompareEntries.
type Ledger interface {
	All(t tx.Tx, tenant string) ([]planner.Entry, error)
	// Settle forgets what a complete snapshot shows to be undone by others.
	Settle(t tx.Tx, tenant string, conn planner.Connector, observed time.Time) error
}

// Tenants looks a tenant up.
type Tenants interface {
	Lookup(t tx.Tx, id string) (tenant.Tenant, error)
}

// Config is what a Service works with.
type Config struct {
	DB            *tx.DB
	Store         Store
	Tenants       Tenants
	Inventory     inventory.Store
	Identities    *identity.Service
	IdentityStore identity.Store
	Grants        grant.Store
	Policies      *policystore.Service
	Ledger        Ledger
	Records       Records
	TrustDomain   string
	// MSP is the id of the MSP's own tenant.
	MSP string
	// Solo says in every plan that one person may make and approve it.
	Solo bool
	Now  func() time.Time
	// Made is told after a plan with changes is durable; it must not block.
	Made func(tenant string, agents []string)
}

// Service makes plans. It is safe for concurrent use.
type Service struct {
	Config
}

// New returns the service.
func New(c Config) *Service {
	return &Service{Config: c}
}

// Refresh folds what was observed into identities, so that people see it before
// anybody makes a plan.
func (s *Service) Refresh(ctx context.Context, tenantID string) error {
	_, err := s.refresh(ctx, tenantID)
	return err
}

var errMoved = errors.New("the estate changed while it was read")

// refresh reads the estate beside the writer and folds it in by one short
// transaction, from anew when something changed in between.
func (s *Service) refresh(ctx context.Context, tenantID string) (e estate, err error) {
	for range 5 {
		if err = s.DB.View(ctx, func(t tx.Tx) (err error) {
			e, err = s.observe(t, tenantID)
			return err
		}); err != nil {
			return e, err
		}
		err = s.DB.Do(ctx, func(t tx.Tx) error { return s.fold(t, tenantID, &e) })
		if !errors.Is(err, errMoved) {
			return e, err
		}
	}
	return e, fmt.Errorf("%w: %s; try again", err, tenantID)
}

// fold folds an estate in that was read before.
func (s *Service) fold(t tx.Tx, tenantID string, e *estate) error {
	now, err := s.Inventory.Connectors(t, tenantID)
	if err != nil {
		return err
	}
	program, err := s.program(t, tenantID)
	if err != nil {
		return err
	}
	if program != e.program || !slices.EqualFunc(now, e.connectors, func(a, b inventory.Connector) bool {
		return a.Alias == b.Alias && a.Current == b.Current && a.Suspended == b.Suspended && a.Trusted() == b.Trusted() && a.Rebind == b.Rebind
	}) {
		return errMoved
	}
	e.unread = nil
	if err := s.reconcile(t, tenantID, e); err != nil {
		return err
	}
	unrecorded, err := s.unrecorded(t, tenantID)
	if err != nil {
		return err
	}
	for _, c := range e.connectors {
		if c.Source() || !c.Header.GetComplete() || unrecorded[c.Alias] {
			continue
		}
		if err := s.Ledger.Settle(t, tenantID, connector(c, e.objects[c.Alias]), c.Header.GetObservedAt().AsTime()); err != nil {
			return err
		}
	}
	if e.changeKey, err = s.Store.ChangeKey(t, tenantID, newKey()); err != nil {
		return err
	}
	// Reconciling may have suspended a source.
	e.connectors, err = s.Inventory.Connectors(t, tenantID)
	return err
}

// unrecorded are the connectors on which a plan is under way. A snapshot may show
// what it did before the receipts come, and would be taken for somebody else's
// doing; once the order's end is on record every receipt is in the ledger.
func (s *Service) unrecorded(t tx.Tx, tenantID string) (map[string]bool, error) {
	plans, err := s.Store.InPhase(t, tenantID, operatorv1.PlanState_PHASE_RUNNING)
	if err != nil {
		return nil, err
	}
	aliases := map[string]bool{}
	for _, p := range plans {
		manifest := new(planv1.Manifest)
		if err := planv1.Decode(p.Manifest, manifest); err != nil {
			return nil, fmt.Errorf("manifest of plan %s: %w", p.ID, err)
		}
		for _, audience := range manifest.GetAudiences() {
			for _, alias := range audience.GetConnectors() {
				aliases[alias] = true
			}
		}
	}
	return aliases, nil
}

// Preview derives what a plan of that purpose would be and keeps nothing.
func (s *Service) Preview(ctx context.Context, tenantID string, purpose planv1.Purpose) (planner.Input, planner.Output, error) {
	in, unread, err := s.gather(ctx, tenantID, purpose)
	if err != nil {
		return in, planner.Output{}, err
	}
	out, err := planner.Plan(in)
	out.Findings = append(out.Findings, unread...)
	return in, out, err
}

// gather returns the input of a plan, and what was found before planning.
func (s *Service) gather(ctx context.Context, tenantID string, purpose planv1.Purpose) (in planner.Input, found []planner.Finding, err error) {
	e, err := s.refresh(ctx, tenantID)
	if err != nil {
		return in, nil, err
	}
	if !observed(e) {
		return in, nil, fmt.Errorf("%w: %s", ErrNothingObserved, tenantID)
	}
	err = s.DB.View(ctx, func(t tx.Tx) error {
		in, err = s.input(t, tenantID, purpose, s.Now(), e)
		return err
	})
	return in, e.unread, err
}

func observed(e estate) bool {
	for _, c := range e.connectors {
		if c.Header != nil {
			return true
		}
	}
	return false
}

// FindingRehearsal is what the rehearsal found wrong with a plan.
const FindingRehearsal planner.FindingKind = "rehearsal"

// Make derives a plan, rehearses it with the offboarding that follows from it,
// and keeps both with the act that made it. The planner runs outside of any
// transaction: what it follows from is named in the manifest, and the agent
// checks every base value again at the effect.
func (s *Service) Make(ctx context.Context, tenantID string, purpose planv1.Purpose, actor string) (Plan, error) {
	if purpose == planv1.Purpose_PURPOSE_UNSPECIFIED {
		purpose = planv1.Purpose_PURPOSE_CHANGE
	}
	if err := s.DB.View(ctx, func(t tx.Tx) error { return s.served(t, tenantID, purpose) }); err != nil {
		return Plan{}, err
	}
	in, unread, err := s.gather(ctx, tenantID, purpose)
	if err != nil {
		return Plan{}, err
	}
	in.Plan = newPlanID(in.AsOf)
	out, err := planner.Plan(in)
	if err != nil {
		return Plan{}, fmt.Errorf("plan for %s: %w", tenantID, err)
	}
	rehearsed, problems := rehearsal.Rehearse(in)
	for _, problem := range problems {
		out.Findings = append(out.Findings, planner.Finding{
			Kind: FindingRehearsal, Object: problem.GetObject(), Sentence: problem.GetSaid() + "; " + problem.GetRemedy(),
		})
	}
	out.Findings = append(out.Findings, unread...)
	changes, people, privileged := weigh(out, in)
	operators, tiers := s.tiers(in, changes, people, privileged)
	out.Findings = append(out.Findings, tiers...)
	encoded, err := planner.Encode(in, out, newSalt)
	if err != nil {
		return Plan{}, err
	}
	p := Plan{
		ID: in.Plan, Tenant: tenantID, Purpose: purpose, Phase: operatorv1.PlanState_PHASE_WAITING,
		Digest: encoded.Digest, Manifest: encoded.Manifest, Rehearsal: rehearsed, Findings: out.Findings, MadeBy: actor, Made: in.AsOf,
	}
	p.Changes, p.People, p.Privileged, p.Operators = changes, people, privileged, operators
	if p.Changes == 0 {
		// Nothing to approve: it is kept as the answer that it is.
		p.Phase = operatorv1.PlanState_PHASE_ENDED
	}
	manifest := new(planv1.Manifest)
	if err := planv1.Decode(encoded.Manifest, manifest); err != nil {
		return p, err
	}
	chunks := make([]Chunk, len(encoded.Chunks))
	for i, bytes := range encoded.Chunks {
		chunks[i] = Chunk{Ordinal: i, Agent: manifest.GetChunks()[i].GetAgent(), Bytes: bytes}
	}
	err = s.DB.Do(ctx, func(t tx.Tx) (err error) {
		if err := s.served(t, tenantID, purpose); err != nil {
			return err
		}
		p.Entry, err = s.Records.AppendAct(t, tenantID,
			&auditv1.Header{Type: auditv1.Type_TYPE_PLAN_MADE, Actor: actor, PlanDigest: p.Digest, PolicyVersion: in.PolicyVersion},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "make plan", Object: p.ID, Details: []*auditv1.Act_Detail{
				{Name: "changes", Value: fmt.Sprint(p.Changes)}, {Name: "people", Value: fmt.Sprint(p.People)},
				{Name: "rehearsal", Value: rehearsed.GetVerdict().String()},
			}}}})
		if err != nil {
			return err
		}
		if p.Changes > 0 {
			agents := make([]string, len(out.Agents))
			for i, a := range out.Agents {
				agents[i] = a.Agent
			}
			t.OnCommit(func() { s.Made(tenantID, agents) })
		}
		return s.Store.Put(t, p, chunks, out.Creations)
	})
	return p, err
}

// served refuses plans that the tenant's state does not allow: one that is being
// handed back gets no new access.
func (s *Service) served(t tx.Tx, tenantID string, purpose planv1.Purpose) error {
	n, err := s.Tenants.Lookup(t, tenantID)
	if err != nil || n.State == tenant.Active || n.State == tenant.Offboarding && purpose == planv1.Purpose_PURPOSE_OFFBOARD {
		return err
	}
	return fmt.Errorf("%w: %s is %s; go on with `reeve tenant offboard %s`", tenant.ErrConflict, n.ID, n.State, n.ID)
}

// FindingApproval says who must approve a plan beside one operator.
const FindingApproval planner.FindingKind = "approval"

// tiers says how many operators must approve a plan by the tenant's policy. An
// MSP of one has no second.
func (s *Service) tiers(in planner.Input, changes, people int, privileged bool) (operators int, findings []planner.Finding) {
	offboarding := in.Purpose == planv1.Purpose_PURPOSE_OFFBOARD
	say := func(sentence string) {
		findings = append(findings, planner.Finding{Kind: FindingApproval, Object: "policy " + in.PolicyVersion, Sentence: sentence})
	}
	operators = 1
	if changes > 0 && !s.Solo && in.Rules.Tiers.TwoOperators.Needed(people, privileged, offboarding) {
		operators = 2
		say("Two operators must approve this plan, neither of them its maker.")
	}
	if changes > 0 && in.Rules.Tiers.Client.Needed(people, privileged, offboarding) {
		say("Policy wants the client's approval of this plan: only guardrails at the agent can demand it, so get it before you approve.")
	}
	return operators, findings
}

// weigh counts what approval tiers ask about.
func weigh(out planner.Output, in planner.Input) (changes, people int, privileged bool) {
	above := map[string]bool{}
	for _, e := range in.Entitlements {
		above[e.ID] = e.Privileged
	}
	// gives are the reasons for which somebody gets something privileged.
	type reason struct{ identity, connector, rule, grant string }
	gives := map[reason]bool{}
	for _, d := range in.Desired {
		for _, e := range d.Entitlements {
			if above[e.Entitlement] {
				gives[reason{d.Subject, e.Connector, e.Rule, e.Grant}] = true
			}
		}
	}
	touched := map[string]bool{}
	for _, a := range out.Agents {
		changes += len(a.Changes)
		for _, c := range a.Changes {
			if c.GetIdentity() != "" {
				touched[c.GetIdentity()] = true
			}
			if c.GetOperation().GetAddMember() != nil {
				privileged = privileged || gives[reason{c.GetIdentity(), c.GetConnector(), c.GetRule(), c.GetGrant()}]
			}
		}
	}
	return changes, len(touched), privileged
}

// Received links the account that a create made, and forgets one that a delete
// took away, in intake's transaction.
func (s *Service) Received(t tx.Tx, tenantID, plan string, receipt *auditv1.Receipt) error {
	if receipt.GetAnchor() == "" {
		return nil
	}
	if r := receipt.GetResult(); r != auditv1.Receipt_RESULT_APPLIED && r != auditv1.Receipt_RESULT_ALREADY {
		return nil
	}
	if !receipt.GetAfter().GetExists() && receipt.GetBefore().GetExists() {
		return s.IdentityStore.DeleteAccount(t, tenantID, receipt.GetConnector(), receipt.GetAnchor())
	}
	c, ok, err := s.Store.Creation(t, plan, receipt.GetChange())
	if err != nil || !ok {
		return err
	}
	return s.IdentityStore.PutAccount(t, tenantID, identity.Account{
		Connector: c.Connector, Anchor: receipt.GetAnchor(), Identity: c.Identity, Purpose: c.Purpose, Type: receipt.GetType(),
		Created: receipt.GetResult() == auditv1.Receipt_RESULT_APPLIED,
	})
}

// newPlanID begins with the moment, so that ids sort by age.
func newPlanID(at time.Time) string {
	var random [4]byte
	rand.Read(random[:]) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	return fmt.Sprintf("plan-%011x%s", at.UnixMilli(), hex.EncodeToString(random[:]))
}

func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	return key
}

func newSalt() []byte {
	salt := make([]byte, 16)
	rand.Read(salt) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	return salt
}
