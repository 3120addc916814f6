package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/agent/internal/journal"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Names, display texts and values stay in bodies, which can be erased; headers
// know people by their random ids only.
func TestHeadersHoldNothingPersonal(t *testing.T) {
	ctx := context.Background()
	j, err := journal.Open(ctx, journal.Options{
		Path: filepath.Join(t.TempDir(), "j.db"), Key: ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32)), ReserveBytes: 1, MinFree: 1,
		Identity: journal.Identity{TrustDomain: "d", Tenant: "fabrikam", Agent: "a", Epoch: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	at := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	r := Recorder{Actor: "spiffe://d/tenant/fabrikam/agent/a", Now: func() time.Time { return at }, Uncertainty: 250 * time.Millisecond}
	const person = "Anna-Personal"
	order := journal.Order{ID: "o", Sequence: 3, PlanDigest: []byte("plan"), PolicyVersion: "7"}
	change := &planv1.Change{Id: "c", Identity: "random-id", Ticket: "T-1", Display: person, Reason: person}
	hold := journal.Hold{ID: "h", Change: "c", Identity: "random-id", Member: person, Due: at}
	err = j.Commit(ctx, func(tx *journal.Tx) error {
		_, err := r.Receipt(tx, ForChange(order, change), &auditv1.Receipt{Anchor: person, Result: auditv1.Receipt_RESULT_APPLIED})
		settled := func() error {
			_, err := r.ObligationSettled(tx, hold, "removed", nil)
			return err
		}
		return errors.Join(err, r.Started(tx, "1.0", "g"), r.OrderAdmitted(tx, order), r.OrderEnded(tx, order, &auditv1.OrderEvent{}),
			r.OrderRefused(tx, ForChange(order, change), &auditv1.Refusal{Sentence: person}), r.DryRun(tx, Context{}, &auditv1.Refusal{Sentence: person}),
			r.ObligationAccepted(tx, hold), settled(), r.Paused(tx, person), r.Resumed(tx, person),
			r.Left(tx, person), r.ForkSeen(tx, person, person), r.Clock(tx, LocalRoot, person))
	})
	if err != nil {
		t.Fatal(err)
	}
	batch, err := j.Spool(ctx, 0, 100)
	if err != nil {
		t.Fatal(err)
	}
	want := []auditv1.Type{
		auditv1.Type_TYPE_RECEIPT, auditv1.Type_TYPE_AGENT_STARTED, auditv1.Type_TYPE_ORDER_ADMITTED, auditv1.Type_TYPE_ORDER_ENDED,
		auditv1.Type_TYPE_ORDER_REFUSED, auditv1.Type_TYPE_DRY_RUN, auditv1.Type_TYPE_OBLIGATION_ACCEPTED, auditv1.Type_TYPE_OBLIGATION_SETTLED,
		auditv1.Type_TYPE_PAUSED, auditv1.Type_TYPE_RESUMED, auditv1.Type_TYPE_LEFT, auditv1.Type_TYPE_FORK_SEEN, auditv1.Type_TYPE_CLOCK,
	}
	if len(batch.GetRecords()) != len(want) {
		t.Fatalf("%d records, want %d", len(batch.GetRecords()), len(want))
	}
	for i, record := range batch.GetRecords() {
		if bytes.Contains(record.GetHeader(), []byte(person)) {
			t.Errorf("the header of record %d names a person", i)
		}
		var h auditv1.Header
		var body auditv1.Body
		if err := errors.Join(planv1.Decode(record.GetHeader(), &h), planv1.Decode(record.GetBody(), &body)); err != nil {
			t.Fatal(err)
		}
		if h.GetType() != want[i] || h.GetTenant() != "fabrikam" || !h.GetAt().AsTime().Equal(at) || h.GetUncertaintyMs() != 250 || h.GetActor() == "" || body.GetBody() == nil {
			t.Errorf("record %d: %v, %v", i, &h, &body)
		}
	}
	var h auditv1.Header
	if err := planv1.Decode(batch.GetRecords()[0].GetHeader(), &h); err != nil {
		t.Fatal(err)
	}
	if h.GetSubject() != "random-id" || h.GetChange() != "c" || h.GetTicket() != "T-1" || h.GetPolicyVersion() != "7" || string(h.GetPlanDigest()) != "plan" {
		t.Errorf("header of the receipt: %v", &h)
	}
}
