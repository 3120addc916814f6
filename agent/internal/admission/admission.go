package admission

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"iter"
	"log/slog"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Codes of refusals.
const (
	CodeSignature    = "SIGNATURE"     // no plan key of the root document signed it, or the envelope is malformed
	CodeRoot         = "ROOT"          // the root document held has expired, or is older than one seen before
	CodePayloadType  = "PAYLOAD_TYPE"  // what was signed is not an order
	CodeUnknownField = "UNKNOWN_FIELD" // signed bytes hold what this agent does not know
	CodeFormat       = "FORMAT"        // a format number this agent does not know
	CodeAudience     = "AUDIENCE"      // another trust domain, tenant or agent
	CodeEpoch        = "EPOCH"         // another epoch of this agent
	CodeSequence     = "SEQUENCE"      // not after the last order
	CodeReplay       = "REPLAY"        // the plan, or the order's id, was used before
	CodeWindow       = "WINDOW"        // too early or too late by the agent's clock
	CodeDigest       = "DIGEST"        // the manifest is not the plan that was signed
	CodeChunk        = "CHUNK"         // a chunk is missing, too much or not as listed
	CodeChange       = "CHANGE"        // a change is not well formed
	CodeProof        = "PROOF"         // the acts behind the plan are not proven
	CodeApproval     = "APPROVAL"      // approvals are missing or of another plan
	CodeRehearsal    = "REHEARSAL"     // the rehearsal failed or is missing
	CodeMode         = "MODE"          // the client has not let Reeve go that far
	CodeGuardrail    = "GUARDRAIL"     // outside the client's guardrails
	CodeBudget       = "BUDGET"        // more at once than the client allows
	CodePaused       = "PAUSED"        // local root has paused orders
	CodeQuarantined  = "QUARANTINED"   // the journal is behind what was seen
	CodeClock        = "CLOCK"         // the clock jumped; orders are frozen
	CodeLeft         = "LEFT"          // the agent has left
	CodeAdmitted     = "ADMITTED"      // in the record of a dry run: nothing to refuse
)

// ErrDirectory means that a directory could not be read now. It refuses nothing:
// the order can be delivered again.
var ErrDirectory = errors.New("directory cannot be read")

// Refused is the error of an order that was refused as a whole, before its first
// effect. Its record is durable.
type Refused struct {
	Order    string
	Refusals []*auditv1.Refusal
}

func (e *Refused) Error() string {
	r := e.Refusals[0]
	text := fmt.Sprintf("order refused (%s): %s", r.GetCode(), r.GetSentence())
	if n := len(e.Refusals) - 1; n > 0 {
		text += fmt.Sprintf(" (and %d more)", n)
	}
	return text
}

// Code is the first refusal's code.
func (e *Refused) Code() string { return e.Refusals[0].GetCode() }

// Directory is what admission needs of a configured connector. pluginhost's
// instances have it. Calls may come from several goroutines.
type Directory interface {
	// Ready waits, as long as ctx lets it, until the instance has been configured
	// or an attempt to start it has failed, and then says why: an order may come
	// while connectors are still being started.
	Ready(ctx context.Context) error
	// Types are what the instance declared when it was configured; none before.
	Types() []*connectorv1.ObjectType
	CaseRule() connectorv1.CaseRule
	// Read answers up to 100 refs in order. An error means that none was read.
	Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error)
	// Groups returns every object of kind group in the instance's scope. It
	// fails when any may be missing: what is above a group must be known whole.
	Groups(ctx context.Context) ([]*connectorv1.Object, error)
}

// Connector is one configured connector as the client set it up.
type Connector struct {
	Mode       agentv1.ConnectorState_Mode
	Role       agentv1.ConnectorState_Role
	Guardrails *guardrails.Guardrails
	Directory  Directory
}

// Trust is what of the root document admission stands on.
type Trust struct {
	// PlanKeys by key id (root.Document.PlanKeySet).
	PlanKeys map[string]ed25519.PublicKey
	// Checkpoints verify the tenant log's checkpoints
	// (root.Document.CheckpointVerifiers).
	Checkpoints []note.Verifier
}

// Options are what admission stands on. All but Cosigned, and Growth with it, and
// Log are required;
// Recipients may be nil when agent.yaml defines none.
type Options struct {
	Journal *journal.Journal
	Clock   *journal.Clock
	Audit   audit.Recorder
	// Trust returns the newest accepted root document's keys.
	Trust func() (Trust, error)
	// LogOrigin is the origin line of the tenant's log, from enrollment.
	LogOrigin string
	// Cosigned returns the checkpoint that this agent cosigned last, a signed
	// note; empty before the first. Nil is an agent that never cosigns.
	Cosigned func() (string, error)
	// Growth asks the control plane for the consistency proof between two sizes
	// of the tenant's log. An error is no proof either way: the order waits.
	Growth     func(ctx context.Context, from, to uint64) (tlog.TreeProof, error)
	Connectors map[string]Connector
	Approvers  []guardrails.Approver
	Recipients interface{ Has(alias string) bool }
	Log        *slog.Logger
}

// Delivery is an order as it arrived, or, without an envelope, a plan to try.
type Delivery struct {
	// Order is the id under which it was fetched: what a refusal names when the
	// envelope itself cannot be believed.
	Order string
	// Envelope is the DSSE envelope over the Order.
	Envelope []byte
	// Manifest is the plan's manifest, verbatim.
	Manifest []byte
	// Chunks yields the chunks for this agent, verbatim and in the manifest's
	// order; they are kept and must not be changed. An error it yields is returned
	// as it is and refuses nothing.
	Chunks iter.Seq2[[]byte, error]
}

// Admitted is an order that was admitted.
type Admitted struct {
	Order   string
	Changes int
	// Again is true when this very order had been admitted before: nothing was
	// done now.
	Again bool
	// Ended is true when it was carried out to its end before.
	Ended bool
}

// Admitter admits orders, one at a time.
type Admitter struct {
	o    Options
	gate chan struct{} // one admission at a time
}

// New returns an Admitter.
func New(o Options) *Admitter {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Cosigned == nil {
		o.Cosigned = func() (string, error) { return "", nil }
	}
	return &Admitter{o: o, gate: make(chan struct{}, 1)}
}

// GuardrailsDigest is the digest, in hexadecimal, of all guardrails and approvers
// in force.
func (a *Admitter) GuardrailsDigest() string {
	byAlias := make(map[string]*guardrails.Guardrails, len(a.o.Connectors))
	for alias, c := range a.o.Connectors {
		byAlias[alias] = c.Guardrails
	}
	return guardrails.Digest(byAlias, a.o.Approvers)
}
