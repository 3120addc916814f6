package planning

import (
	"errors"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	ErrNotFound = errors.New("plan not found")
	// ErrNothingObserved is returned while no connector has a snapshot.
	ErrNothingObserved = errors.New("nothing is observed yet; connect the agent and wait for its first snapshot")
	// ErrPhase is returned when a plan is not in the phase an act needs.
	ErrPhase = errors.New("plan is in another phase")
)

// Phase is a plan's stage of life.
type Phase = operatorv1.PlanState_Phase

// Plan is a plan as made. Manifest and chunks are kept verbatim.
type Plan struct {
	ID, Tenant string
	Purpose    planv1.Purpose
	Phase      Phase
	Digest     []byte
	Manifest   []byte
	Rehearsal  *planv1.Rehearsal
	Findings   []planner.Finding
	// Changes in all chunks; People whom they touch; Privileged when any gives a
	// privileged entitlement.
	Changes, People int
	Privileged      bool
	// Operators is how many must approve it, by the tenant's policy.
	Operators int
	MadeBy    string
	Made      time.Time
	// Entry is the act that made it, in the tenant's log.
	Entry uint64
}

// Chunk is a part of a plan for one agent, verbatim.
type Chunk struct {
	Ordinal int
	Agent   string
	Bytes   []byte
}

// DryRun is what an agent's guardrails say of a plan.
type DryRun struct {
	Agent      string
	Guardrails string
	Refusals   []*auditv1.Refusal
}

// Approval is one person's, and where its act stands in the tenant's log.
type Approval struct {
	Approval *planv1.Approval
	Entry    uint64
}

// Store keeps plans in the caller's transaction.
type Store interface {
	Put(t tx.Tx, p Plan, chunks []Chunk, creations []planner.Creation) error
	// Creation tells whose account a create makes; ok is false for another change.
	Creation(t tx.Tx, plan, change string) (c planner.Creation, ok bool, err error)
	// Plan returns ErrNotFound for an unknown id.
	Plan(t tx.Tx, id string) (Plan, error)
	// ByDigest returns ErrNotFound for an unknown digest.
	ByDigest(t tx.Tx, digest []byte) (Plan, error)
	// Plans returns up to limit plans of a tenant, newest first; before is the id
	// to go on from.
	Plans(t tx.Tx, tenant, before string, limit int) ([]Plan, error)
	// InPhase returns the plans of a tenant, or of all when it is empty, that are in
	// one of the phases, newest first.
	InPhase(t tx.Tx, tenant string, phases ...Phase) ([]Plan, error)
	// ChangeKey returns the tenant's key for ids of changes; fresh becomes it when
	// there is none.
	ChangeKey(t tx.Tx, tenant string, fresh []byte) ([]byte, error)
	// Chunks returns the chunks for an agent, or all when it is empty, in order.
	Chunks(t tx.Tx, plan, agent string) ([]Chunk, error)
	// Chunk returns one chunk; ok is false past the last.
	Chunk(t tx.Tx, plan string, ordinal int) (c Chunk, ok bool, err error)
	// SetPhase returns ErrPhase unless the plan is in phase from.
	SetPhase(t tx.Tx, plan string, from, to Phase) error

	PutDryRun(t tx.Tx, plan string, d DryRun) error
	DryRuns(t tx.Tx, plan string) ([]DryRun, error)

	PutApproval(t tx.Tx, plan string, a Approval) error
	// Approvals sorted by actor.
	Approvals(t tx.Tx, plan string) ([]Approval, error)
}
