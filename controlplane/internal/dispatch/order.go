package dispatch

import (
	"errors"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// ErrNotFound is returned for an order that is not the asking agent's.
var ErrNotFound = errors.New("order not found")

// State is an order's stage.
type State string

const (
	StateWaiting    State = "waiting"
	StateFetched    State = "fetched"
	StateEnded      State = "ended"
	StateRefused    State = "refused"
	StateSuperseded State = "superseded"
)

// Order is a plan's sending to one agent.
type Order struct {
	ID, Tenant, Agent, Plan string
	Epoch, Sequence         uint64
	// Envelope is verbatim.
	Envelope []byte
	State    State
	Expires  time.Time
	// Summary of the end; zero before.
	Summary *auditv1.OrderEvent
	// Refusal says why the agent refused the order; zero unless it did.
	Refusal *auditv1.Refusal
}

// Receipt is what came back for one change.
type Receipt struct {
	Change string
	// Entry in the tenant's log.
	Entry   uint64
	Receipt *auditv1.Receipt
}

// Store keeps orders in the caller's transaction.
type Store interface {
	Put(t tx.Tx, o Order) error
	// Order returns ErrNotFound for an unknown id.
	Order(t tx.Tx, id string) (Order, error)
	// OfPlan returns the plan's orders sorted by agent.
	OfPlan(t tx.Tx, plan string) ([]Order, error)
	// Open returns the orders an agent has not ended, by sequence; of all agents of
	// all tenants when both are empty.
	Open(t tx.Tx, tenant, agent string) ([]Order, error)
	SetState(t tx.Tx, id string, state State, summary *auditv1.OrderEvent) error
	// SetRefused ends an order that its agent refused.
	SetRefused(t tx.Tx, id string, why *auditv1.Refusal) error
	// LastSequence of an agent's epoch; 0 before the first.
	LastSequence(t tx.Tx, tenant, agent string, epoch uint64) (uint64, error)

	PutReceipt(t tx.Tx, tenant, plan string, r Receipt) error
	// Results counts a plan's receipts by what the changes came to.
	Results(t tx.Tx, plan string) (map[auditv1.Receipt_Result]uint32, error)
	// Receipt returns that of a plan's change; ok is false while there is none.
	Receipt(t tx.Tx, plan, change string) (r Receipt, ok bool, err error)
	// OfOpenOrders returns the receipts of a connector's changes in orders that have
	// not ended.
	OfOpenOrders(t tx.Tx, tenant, connector string) ([]Receipt, error)
	// Find returns the receipts of a tenant's change over all plans, newest last.
	Find(t tx.Tx, tenant, change string) ([]Receipt, error)
}
