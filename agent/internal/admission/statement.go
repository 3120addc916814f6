package admission

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/pki/sshsig"
)

// ApprovalNamespace is the SSH signature namespace of a client's approval.
const ApprovalNamespace = "plan-approval.v1@reeve"

// ErrStatement means text that is not a statement in its one form.
var ErrStatement = errors.New("not a statement of approval")

// Statement is what an approver of the client signs: this plan, at this agent,
// under these guardrails, until then.
type Statement struct {
	TrustDomain, Tenant, Agent string
	Epoch                      uint64
	PlanDigest                 []byte
	// GuardrailsDigest in hexadecimal (Admitter.GuardrailsDigest).
	GuardrailsDigest string
	// NotAfter in whole seconds.
	NotAfter time.Time
}

const statementTitle = "reeve plan approval v1"

// Format writes the statement: a title line and one "key: value" line for each
// field, in a fixed order, each ended by a newline.
func (s Statement) Format() []byte {
	return []byte(strings.Join([]string{
		statementTitle,
		"trust-domain: " + s.TrustDomain, "tenant: " + s.Tenant, "agent: " + s.Agent,
		"epoch: " + strconv.FormatUint(s.Epoch, 10),
		"plan: " + hex.EncodeToString(s.PlanDigest),
		"guardrails: " + s.GuardrailsDigest,
		"decision: approve",
		"not-after: " + s.NotAfter.UTC().Format(time.RFC3339),
	}, "\n") + "\n")
}

// ParseStatement reads exactly what Format writes. Errors wrap ErrStatement.
func ParseStatement(text []byte) (Statement, error) {
	lines := strings.Split(string(text), "\n")
	keys := []string{"trust-domain", "tenant", "agent", "epoch", "plan", "guardrails", "decision", "not-after"}
	if len(lines) != len(keys)+2 || lines[0] != statementTitle {
		return Statement{}, fmt.Errorf("%w: it does not begin with %q or has another number of lines", ErrStatement, statementTitle)
	}
	values := map[string]string{}
	for i, key := range keys {
		value, found := strings.CutPrefix(lines[i+1], key+": ")
		if !found {
			return Statement{}, fmt.Errorf("%w: line %d is not %q", ErrStatement, i+2, key)
		}
		values[key] = value
	}
	s := Statement{TrustDomain: values["trust-domain"], Tenant: values["tenant"], Agent: values["agent"], GuardrailsDigest: values["guardrails"]}
	var epochErr, planErr, timeErr error
	s.Epoch, epochErr = strconv.ParseUint(values["epoch"], 10, 64)
	s.PlanDigest, planErr = hex.DecodeString(values["plan"])
	s.NotAfter, timeErr = time.Parse(time.RFC3339, values["not-after"])
	if err := errors.Join(epochErr, planErr, timeErr); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrStatement, err)
	}
	if string(s.Format()) != string(text) {
		return Statement{}, fmt.Errorf("%w: it is not in its one form", ErrStatement)
	}
	return s, nil
}

// VerifyApproval checks an approver's signature over a statement and that the
// statement is about want, whose NotAfter does not count. It returns the
// approver's name.
func VerifyApproval(statement, signature []byte, want Statement, approvers []guardrails.Approver, now time.Time) (string, error) {
	s, err := ParseStatement(statement)
	if err != nil {
		return "", err
	}
	if !now.Before(s.NotAfter) {
		return "", fmt.Errorf("the client's approval ended at %s", s.NotAfter.Format(time.RFC3339))
	}
	want.NotAfter = s.NotAfter
	if string(want.Format()) != string(statement) {
		return "", errors.New("the client's approval is of another plan, agent or epoch, or was given under other guardrails")
	}
	signers := make([]sshsig.AllowedSigner, len(approvers))
	for i, a := range approvers {
		key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(a.Key))
		if err != nil {
			return "", fmt.Errorf("the key of approver %s in agent.yaml cannot be read: %w", a.Name, err)
		}
		signers[i] = sshsig.AllowedSigner{Principals: []string{a.Name}, Key: key, Namespaces: []string{ApprovalNamespace}}
		for _, o := range options {
			if o != "verify-required" {
				return "", fmt.Errorf("the key of approver %s in agent.yaml has the option %q; only verify-required is known", a.Name, o)
			}
			signers[i].VerifyRequired = true
		}
	}
	v, err := sshsig.Verify(signature, statement, ApprovalNamespace, signers, now)
	if err != nil {
		return "", fmt.Errorf("the client's signature: %w", err)
	}
	return v.Signer.Principals[0], nil
}
