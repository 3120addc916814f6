package admission_test

import (
	"bytes"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
)

// TestStatementGolden: an approver's SSH signature is over these bytes, and must
// verify for as long as the record of it is kept.
func TestStatementGolden(t *testing.T) {
	got := admission.Statement{
		TrustDomain: "msp.example", Tenant: "fabrikam", Agent: "dc1", Epoch: 2, PlanDigest: bytes.Repeat([]byte{0xab}, 4),
		GuardrailsDigest: "c0ffee", NotAfter: time.Date(2026, 3, 1, 9, 30, 0, 0, time.FixedZone("CET", 3600)),
	}.Format()
	const want = `reeve plan approval v1
trust-domain: msp.example
tenant: fabrikam
agent: dc1
epoch: 2
plan: abababab
guardrails: c0ffee
decision: approve
not-after: 2026-03-01T08:30:00Z
`
	if string(got) != want {
		t.Errorf("the statement is\n%s\nwant\n%s", got, want)
	}
	if _, err := admission.ParseStatement(got); err != nil {
		t.Error(err)
	}
}
