package admission

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// acts checks that the acts behind the plan are in the tenant's log, and that the
// approvals are of this plan, backed by such an act or by a client's signature,
// and not by the maker alone. It returns the approvers of the client who signed.
func (a *Admitter) acts(ctx context.Context, o *planv1.Order, p *plan, trust Trust, cosigned string, now time.Time) (signed []string, r *auditv1.Refusal, err error) {
	var made []*auditv1.Header
	var approved []*auditv1.Header
	continues := ""
	for i, proof := range o.GetProofs() {
		// The proofs of an order stand on one checkpoint: it is held against the
		// witnessed one once.
		if c := proof.GetCheckpoint(); c != continues {
			r, err := a.continues(ctx, c, trust, cosigned)
			if r != nil || err != nil {
				return nil, r, err
			}
			continues = c
		}
		h, r := a.proven(proof, trust)
		if r != nil {
			r.Sentence = fmt.Sprintf("proof %d: %s", i, r.GetSentence())
			return nil, r, nil
		}
		if h.GetTenant() != a.o.Journal.Identity().Tenant || !bytes.Equal(h.GetPlanDigest(), p.digest) {
			return nil, refusal(CodeProof, "proof %d is of an act about another plan or tenant", i), nil
		}
		switch h.GetType() {
		case auditv1.Type_TYPE_PLAN_MADE:
			made = append(made, h)
		case auditv1.Type_TYPE_PLAN_APPROVED:
			approved = append(approved, h)
		}
	}
	if len(made) == 0 || len(approved) == 0 {
		return nil, refusal(CodeProof, "the order does not prove that the plan was made and approved on record; send it again with both proofs"), nil
	}
	if len(o.GetApprovals()) == 0 {
		return nil, refusal(CodeApproval, "nobody approved the plan"), nil
	}
	for i, approval := range o.GetApprovals() {
		if !bytes.Equal(approval.GetPlanDigest(), p.digest) {
			return nil, refusal(CodeApproval, "approval %d is of another plan", i), nil
		}
		switch approval.GetKind() {
		case planv1.Approval_KIND_CLIENT:
			who, err := VerifyApproval(approval.GetStatement(), approval.GetSignature(), a.statement(p.digest), a.o.Approvers, now)
			if err != nil {
				return nil, refusal(CodeApproval, "approval %d: %v", i, err), nil
			}
			signed = append(signed, who)
		case planv1.Approval_KIND_OPERATOR, planv1.Approval_KIND_POLICY:
			if !slices.ContainsFunc(approved, func(h *auditv1.Header) bool { return h.GetActor() == approval.GetActor() }) {
				return nil, refusal(CodeApproval, "approval %d by %q is not among the acts that the order proves", i, approval.GetActor()), nil
			}
			if approval.GetKind() == planv1.Approval_KIND_OPERATOR && !p.manifest.GetSoloOperator() &&
				slices.ContainsFunc(made, func(h *auditv1.Header) bool { return h.GetActor() == approval.GetActor() }) {
				return nil, refusal(CodeApproval, "%q made the plan and approved it; another operator must, or the plan must say that the MSP has only one", approval.GetActor()), nil
			}
		default:
			return nil, refusal(CodeApproval, "approval %d is of no known kind", i), nil
		}
	}
	return signed, nil, nil
}

func (a *Admitter) statement(planDigest []byte) Statement {
	id := a.o.Journal.Identity()
	return Statement{TrustDomain: id.TrustDomain, Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch, PlanDigest: planDigest, GuardrailsDigest: a.GuardrailsDigest()}
}

// Statement is what an approver of the client signs for a plan at this agent.
func (a *Admitter) Statement(planDigest []byte, notAfter time.Time) Statement {
	s := a.statement(planDigest)
	s.NotAfter = notAfter.UTC().Truncate(time.Second)
	return s
}

// continues checks that the log an order shows and the log this agent cosigned are
// one history, whichever of the two checkpoints is the newer.
func (a *Admitter) continues(ctx context.Context, shown string, trust Trust, cosigned string) (*auditv1.Refusal, error) {
	if cosigned == "" {
		return nil, nil
	}
	c, err := tlogproof.OpenCheckpoint([]byte(shown), a.o.LogOrigin, trust.Checkpoints)
	if err != nil {
		return refusal(CodeProof, "%v", err), nil
	}
	last, err := tlogproof.OpenCheckpoint([]byte(cosigned), a.o.LogOrigin, trust.Checkpoints)
	if err != nil {
		// A key that has left the root document signs no more; what it signed was
		// checked when it was cosigned.
		if last.Checkpoint, err = tlogproof.ParseCheckpoint(noteText(cosigned)); err != nil {
			return nil, fmt.Errorf("the checkpoint cosigned last: %w", err)
		}
	}
	older, newer := last.Checkpoint, c.Checkpoint
	if older.Size > newer.Size {
		older, newer = newer, older
	}
	var proof tlog.TreeProof
	if older.Size != newer.Size {
		if proof, err = a.o.Growth(ctx, uint64(older.Size), uint64(newer.Size)); err != nil {
			return nil, fmt.Errorf("the log's growth from %d to %d entries could not be proven: %w", older.Size, newer.Size, err)
		}
	}
	if err := tlogproof.CheckConsistency(proof, older, newer); err != nil {
		return refusal(CodeProof, "the log shows two histories, at %d and %d entries: keep the checkpoint file and ask the MSP", older.Size, newer.Size), nil
	}
	return nil, nil
}

// noteText is a signed note without its signatures.
func noteText(signed string) string {
	text, _, _ := strings.Cut(signed, "\n\n")
	return text + "\n"
}

// proven returns the header of the record that a proof shows to be in the log.
func (a *Admitter) proven(proof *planv1.InclusionProof, trust Trust) (*auditv1.Header, *auditv1.Refusal) {
	c, err := tlogproof.OpenCheckpoint([]byte(proof.GetCheckpoint()), a.o.LogOrigin, trust.Checkpoints)
	if err != nil {
		return nil, refusal(CodeProof, "%v", err)
	}
	hashes := make(tlog.RecordProof, len(proof.GetHashes()))
	for i, h := range proof.GetHashes() {
		if len(h) != tlog.HashSize {
			return nil, refusal(CodeProof, "a hash in it has %d bytes", len(h))
		}
		hashes[i] = tlog.Hash(h)
	}
	if proof.GetIndex() >= 1<<62 {
		return nil, refusal(CodeProof, "its index is beyond any log")
	}
	if err := tlogproof.CheckInclusion(hashes, c.Checkpoint, int64(proof.GetIndex()), tlogproof.LeafHash(proof.GetEntry())); err != nil {
		return nil, refusal(CodeProof, "%v", err)
	}
	var entry auditv1.Entry
	var header auditv1.Header
	if err := planv1.Decode(proof.GetEntry(), &entry); err != nil {
		return nil, refusal(CodeProof, "%v", err)
	}
	if err := planv1.Decode(entry.GetHeader(), &header); err != nil {
		return nil, refusal(CodeProof, "%v", err)
	}
	if entry.GetAgent() != "" {
		return nil, refusal(CodeProof, "it is of an agent's record, not of an act of the control plane")
	}
	return &header, nil
}
