package approval

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	// ErrDigest is returned when the digest that was displayed is not the plan's.
	ErrDigest = errors.New("the plan is not the one that was displayed")
	// ErrMaker is returned when somebody approves their own plan.
	ErrMaker = errors.New("who made a plan may not approve it")
	// ErrTwice is returned when somebody approves a plan again that others must
	// approve too.
	ErrTwice = errors.New("one operator's approval counts once; another one must approve it too")
	// ErrBlocked is returned for a plan that may not be approved; the error says
	// why.
	ErrBlocked = errors.New("plan may not be approved")
)

// Records puts an act into the tenant's log, in the caller's transaction.
type Records interface {
	AppendAct(t tx.Tx, tenant string, h *auditv1.Header, b *auditv1.Body) (index uint64, err error)
}

// Service is safe for concurrent use.
type Service struct {
	db    *tx.DB
	plans planning.Store
	audit Records
	now   func() time.Time
	// solo allows a maker to approve: an MSP of one person, and the plan says so.
	solo bool
	// approved is told after an approval is durable.
	approved func(plan string)
}

// New returns the service. approved must not block.
func New(db *tx.DB, plans planning.Store, audit Records, now func() time.Time, solo bool, approved func(plan string)) *Service {
	return &Service{db: db, plans: plans, audit: audit, now: now, solo: solo, approved: approved}
}

// Blocked says why a plan may not be approved; empty when it may.
func Blocked(p planning.Plan, dryRuns []planning.DryRun, agents []string) string {
	if p.Changes == 0 {
		return "it changes nothing"
	}
	if p.Rehearsal.GetVerdict() == planv1.Rehearsal_VERDICT_FAILED {
		why := "offboarding would not take back all that the MSP causes"
		for _, f := range p.Findings {
			if f.Kind == planning.FindingRehearsal {
				why = f.Object + ": " + f.Sentence
				break
			}
		}
		return "its rehearsal failed: " + why
	}
	ran := map[string]bool{}
	for _, d := range dryRuns {
		ran[d.Agent] = true
		if n := len(d.Refusals); n > 0 {
			return fmt.Sprintf("guardrails at agent %s refuse %d of its changes: %s", d.Agent, n, d.Refusals[0].GetSentence())
		}
	}
	for _, a := range agents {
		if !ran[a] {
			return fmt.Sprintf("agent %s has not checked it against its guardrails yet; is it connected?", a)
		}
	}
	return ""
}

// Approve approves the plan whose digest was displayed. It waits on while policy
// wants more operators.
func (s *Service) Approve(ctx context.Context, plan string, digest []byte, actor, reason string) error {
	return s.db.Do(ctx, func(t tx.Tx) error {
		p, err := s.plans.Plan(t, plan)
		if err != nil {
			return err
		}
		switch {
		case p.Phase != operatorv1.PlanState_PHASE_WAITING:
			return fmt.Errorf("%w: %s is %s", planning.ErrPhase, plan, PhaseWord(p.Phase))
		case !bytes.Equal(digest, p.Digest):
			return fmt.Errorf("%w: %s has digest %x; show it again and approve what you see", ErrDigest, plan, p.Digest)
		case p.MadeBy == actor && !s.solo:
			return fmt.Errorf("%w: %s was made by %s", ErrMaker, plan, actor)
		}
		manifest := new(planv1.Manifest)
		if err := planv1.Decode(p.Manifest, manifest); err != nil {
			return err
		}
		dryRuns, err := s.plans.DryRuns(t, plan)
		if err != nil {
			return err
		}
		if why := Blocked(p, dryRuns, Agents(manifest)); why != "" {
			return fmt.Errorf("%w: %s", ErrBlocked, why)
		}
		before, err := s.plans.Approvals(t, plan)
		if err != nil {
			return err
		}
		for _, a := range before {
			if a.Approval.GetActor() == actor {
				return fmt.Errorf("%w: %s approved %s", ErrTwice, actor, plan)
			}
		}
		at := timestamppb.New(s.now())
		entry, err := s.audit.AppendAct(t, p.Tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_PLAN_APPROVED, Actor: actor, PlanDigest: p.Digest, PolicyVersion: manifest.GetPolicyVersion()},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "approve plan", Object: plan, Reason: reason}}})
		if err != nil {
			return err
		}
		if err := s.plans.PutApproval(t, plan, planning.Approval{Entry: entry, Approval: &planv1.Approval{
			Kind: planv1.Approval_KIND_OPERATOR, Actor: actor, PlanDigest: p.Digest, At: at,
		}}); err != nil {
			return err
		}
		if len(before)+1 < p.Operators {
			return nil
		}
		if err := s.plans.SetPhase(t, plan, operatorv1.PlanState_PHASE_WAITING, operatorv1.PlanState_PHASE_APPROVED); err != nil {
			return err
		}
		t.OnCommit(func() { s.approved(plan) })
		return nil
	})
}

// Reject ends a waiting plan.
func (s *Service) Reject(ctx context.Context, plan, actor, reason string) error {
	return s.db.Do(ctx, func(t tx.Tx) error {
		p, err := s.plans.Plan(t, plan)
		if err != nil {
			return err
		}
		if err := s.plans.SetPhase(t, plan, operatorv1.PlanState_PHASE_WAITING, operatorv1.PlanState_PHASE_REJECTED); err != nil {
			return fmt.Errorf("%w: only a waiting plan can be rejected, it is %s", err, PhaseWord(p.Phase))
		}
		_, err = s.audit.AppendAct(t, p.Tenant,
			&auditv1.Header{Type: auditv1.Type_TYPE_PLAN_REJECTED, Actor: actor, PlanDigest: p.Digest},
			&auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "reject plan", Object: plan, Reason: reason}}})
		return err
	})
}

// Agents returns the names of the agents a manifest has changes for.
func Agents(m *planv1.Manifest) []string {
	names := make([]string, len(m.GetAudiences()))
	for i, a := range m.GetAudiences() {
		names[i] = a.GetAgent()
	}
	return names
}

// PhaseWord returns a phase as people read it.
func PhaseWord(p planning.Phase) string {
	switch p {
	case operatorv1.PlanState_PHASE_WAITING:
		return "waiting for approval"
	case operatorv1.PlanState_PHASE_APPROVED:
		return "approved"
	case operatorv1.PlanState_PHASE_RUNNING:
		return "running"
	case operatorv1.PlanState_PHASE_ENDED:
		return "ended"
	case operatorv1.PlanState_PHASE_REJECTED:
		return "rejected"
	case operatorv1.PlanState_PHASE_REFUSED:
		return "refused"
	case operatorv1.PlanState_PHASE_SUPERSEDED:
		return "superseded"
	default:
		return "unknown"
	}
}
