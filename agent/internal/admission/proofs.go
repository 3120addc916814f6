package admission

import (
	"bytes"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// acts checks that the acts behind the plan are in the tenant's log, and that the
// approvals are of this plan, backed by such an act or by a client's signature,
// and not by the maker alone. It returns the approvers of the client who signed.
func (a *Admitter) acts(o *planv1.Order, p *plan, trust Trust, cosigned string, now time.Time) (signed []string, r *auditv1.Refusal) {
	var made []*auditv1.Header
	var approved []*auditv1.Header
	for i, proof := range o.GetProofs() {
		h, r := a.proven(proof, trust, cosigned)
		if r != nil {
			r.Sentence = fmt.Sprintf("proof %d: %s", i, r.GetSentence())
			return nil, r
		}
		if h.GetTenant() != a.o.Journal.Identity().Tenant || !bytes.Equal(h.GetPlanDigest(), p.digest) {
			return nil, refusal(CodeProof, "proof %d is of an act about another plan or tenant", i)
		}
		switch h.GetType() {
		case auditv1.Type_TYPE_PLAN_MADE:
			made = append(made, h)
		case auditv1.Type_TYPE_PLAN_APPROVED:
			approved = append(approved, h)
		}
	}
	if len(made) == 0 || len(approved) == 0 {
		return nil, refusal(CodeProof, "the order does not prove that the plan was made and approved on record; send it again with both proofs")
	}
	if len(o.GetApprovals()) == 0 {
		return nil, refusal(CodeApproval, "nobody approved the plan")
	}
	for i, approval := range o.GetApprovals() {
		if !bytes.Equal(approval.GetPlanDigest(), p.digest) {
			return nil, refusal(CodeApproval, "approval %d is of another plan", i)
		}
		switch approval.GetKind() {
		case planv1.Approval_KIND_CLIENT:
			who, err := VerifyApproval(approval.GetStatement(), approval.GetSignature(), a.statement(p.digest), a.o.Approvers, now)
			if err != nil {
				return nil, refusal(CodeApproval, "approval %d: %v", i, err)
			}
			signed = append(signed, who)
		case planv1.Approval_KIND_OPERATOR, planv1.Approval_KIND_POLICY:
			if !slices.ContainsFunc(approved, func(h *auditv1.Header) bool { return h.GetActor() == approval.GetActor() }) {
				return nil, refusal(CodeApproval, "approval %d by %q is not among the acts that the order proves", i, approval.GetActor())
			}
			if approval.GetKind() == planv1.Approval_KIND_OPERATOR && !p.manifest.GetSoloOperator() &&
				slices.ContainsFunc(made, func(h *auditv1.Header) bool { return h.GetActor() == approval.GetActor() }) {
				return nil, refusal(CodeApproval, "%q made the plan and approved it; another operator must, or the plan must say that the MSP has only one", approval.GetActor())
			}
		default:
			return nil, refusal(CodeApproval, "approval %d is of no known kind", i)
		}
	}
	return signed, nil
}

func (a *Admitter) statement(planDigest []byte) Statement {
	id := a.o.Journal.Identity()
	return Statement{TrustDomain: id.TrustDomain, Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch, PlanDigest: planDigest, GuardrailsDigest: a.GuardrailsDigest()}
}

// Statement is what an approver of the client would sign for a plan at this
// agent; `reeve-agent plan approve` shows and signs it.
func (a *Admitter) Statement(planDigest []byte, notAfter time.Time) Statement {
	s := a.statement(planDigest)
	s.NotAfter = notAfter.UTC().Truncate(time.Second)
	return s
}

// proven returns the header of the record that a proof shows to be in the log.
func (a *Admitter) proven(proof *planv1.InclusionProof, trust Trust, cosigned string) (*auditv1.Header, *auditv1.Refusal) {
	c, err := tlogproof.OpenCheckpoint([]byte(proof.GetCheckpoint()), a.o.LogOrigin, trust.Checkpoints)
	if err != nil {
		return nil, refusal(CodeProof, "%v", err)
	}
	if cosigned != "" {
		last, err := tlogproof.OpenCheckpoint([]byte(cosigned), a.o.LogOrigin, trust.Checkpoints)
		// A key that has left the root document signs no more; what it signed
		// was checked when it was cosigned.
		if err == nil && last.Size == c.Size && last.Hash != c.Hash {
			return nil, refusal(CodeProof, "the log shows two histories at size %d: keep the checkpoint file and ask the MSP", c.Size)
		}
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
