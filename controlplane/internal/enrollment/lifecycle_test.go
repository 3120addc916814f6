package enrollment_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func TestRevocationIsForGood(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	e.AddTenant("contoso")
	e.Ship(a, a.Batch(3))
	if err := e.Enrollment.Revoke(t.Context(), "operator:kari", "contoso", "dc1", "lost"); !errors.Is(err, enrollment.ErrNotFound) {
		t.Fatalf("another tenant's agent: %v", err)
	}
	for range 2 {
		if err := e.Enrollment.Revoke(t.Context(), "operator:kari", "fabrikam", "dc1", "lost"); err != nil {
			t.Fatal(err)
		}
		if _, err := e.Enrollment.Authorize(t.Context(), id(a)); !errors.Is(err, enrollment.ErrRevoked) {
			t.Fatal(err)
		}
		e.Reopen()
	}
	if _, err := e.Enrollment.Renew(t.Context(), id(a), renewal(a, a.Counter, nil)); !errors.Is(err, enrollment.ErrRevoked) {
		t.Fatalf("renew: %v", err)
	}
	if _, err := e.Intake.Ship(t.Context(), "fabrikam", "dc1", a.Batch(1), 0); !errors.Is(err, enrollment.ErrRevoked) {
		t.Fatalf("ship: %v", err)
	}
	list := types(t, e)
	if count(list, auditv1.Type_TYPE_AGENT_REVOKED) != 1 || count(list, auditv1.Type_TYPE_AGENT_KEYS_ENDED) != 1 {
		t.Fatalf("records: %v", list)
	}
	report := e.Recheck("fabrikam", "")
	if len(report.Epochs) != 1 || report.Epochs[0].Ended != "revoked" || report.Epochs[0].Records != 3 {
		t.Fatalf("report: %+v", report)
	}
}

func TestOffboardingEndsKeys(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	e.Ship(a, a.Batch(1))
	e.Do(func(x tx.Tx) error { return e.Enrollment.EndKeys(x, "operator:kari", "fabrikam", "dc1") })
	if _, err := e.Enrollment.Authorize(t.Context(), id(a)); err == nil {
		t.Fatal("the agent is still listened to")
	}
	if report := e.Recheck("fabrikam", ""); report.Epochs[0].Ended != "offboarded" {
		t.Fatalf("report: %+v", report)
	}
}

func TestHelloFindsRestoredJournals(t *testing.T) {
	e := intaketest.New(t)
	a := e.Join("fabrikam", "dc1")
	e.Ship(a, a.Batch(5))
	hello := func(epoch, length uint64, hash []byte) (enrollment.Agent, uint64, error) {
		who, head, err := e.Enrollment.Hello(t.Context(), "fabrikam", "dc1", enrollment.Hello{Version: "0.1.0", Epoch: epoch, ChainLength: length, ChainHash: hash})
		return who, head.Next, err
	}
	if who, length, err := hello(1, 5, a.Head.Link[:]); err != nil || who.Quarantine != "" || length != 5 {
		t.Fatalf("sound journal: %+v %v", who, err)
	}
	if who, _, err := hello(1, 9, nil); err != nil || who.Quarantine != "" {
		t.Fatalf("journal ahead of what was shipped: %+v %v", who, err)
	}
	for _, epoch := range []uint64{0, 18, 1 << 63} {
		if _, _, err := hello(epoch, 5, nil); !errors.Is(err, enrollment.ErrEpoch) {
			t.Fatalf("epoch %d: %v", epoch, err)
		}
	}
	// A session that moves says what its journal held when it began to move.
	if who, _, err := e.Enrollment.Hello(t.Context(), "fabrikam", "dc1", enrollment.Hello{Epoch: 1, ChainLength: 3, Another: true}); err != nil || who.Quarantine != "" {
		t.Fatalf("journal of a session that moves: %+v %v", who, err)
	}
	for range 2 {
		if who, _, err := hello(1, 3, nil); err != nil || !strings.Contains(who.Quarantine, "recover") {
			t.Fatalf("restored journal: %+v %v", who, err)
		}
	}
	if n := count(types(t, e), auditv1.Type_TYPE_SUSPENDED); n != 1 {
		t.Fatalf("%d records of the quarantine", n)
	}
	e.Reopen()
	// It stays so although the journal has grown past what was seen.
	if who, _, err := hello(1, 6, nil); err != nil || who.Quarantine == "" {
		t.Fatalf("quarantine was forgotten: %+v %v", who, err)
	}
	a.Begin(2)
	if who, length, err := hello(2, 0, nil); err != nil || who.Quarantine != "" || who.Epoch != 2 || length != 0 {
		t.Fatalf("recovered: %+v %v", who, err)
	}
	if _, _, err := hello(1, 5, nil); !errors.Is(err, enrollment.ErrEpoch) {
		t.Fatalf("old epoch: %v", err)
	}
	e.Ship(a, a.Batch(2))
	report := e.Recheck("fabrikam", "")
	if len(report.Epochs) != 2 || report.Epochs[0].Ended != "recovered" || report.Epochs[1].Records != 2 {
		t.Fatalf("report: %+v", report)
	}
	// Recovered twice while there was no connection.
	a.Begin(4)
	if who, length, err := hello(4, 0, nil); err != nil || who.Epoch != 4 || length != 0 {
		t.Fatalf("recovered twice: %+v %v", who, err)
	}
	e.Ship(a, a.Batch(2))
	if report := e.Recheck("fabrikam", ""); len(report.Epochs) != 4 || report.Epochs[2].Records != 0 || report.Epochs[3].Records != 2 {
		t.Fatalf("report: %+v", report)
	}
	// Same length, other records.
	if who, _, err := hello(4, 2, make([]byte, 32)); err != nil || who.Quarantine == "" {
		t.Fatalf("exchanged journal: %+v %v", who, err)
	}
}

func TestListsStayWithinTheTenant(t *testing.T) {
	e := intaketest.New(t)
	e.AddTenant("contoso")
	e.Join("contoso", "other")
	for i := range 5 {
		e.Join("fabrikam", fmt.Sprintf("dc%d", i))
	}
	var names []string
	for after := ""; ; {
		list, err := e.Enrollment.List(t.Context(), "fabrikam", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, a := range list {
			names = append(names, a.ID)
		}
		after = names[len(names)-1]
	}
	if strings.Join(names, " ") != "dc0 dc1 dc2 dc3 dc4" {
		t.Fatal(names)
	}
	_, foreign := e.Enrollment.Get(t.Context(), "fabrikam", "other")
	_, missing := e.Enrollment.Get(t.Context(), "fabrikam", "nothing")
	if !errors.Is(foreign, enrollment.ErrNotFound) || foreign.Error() != missing.Error() {
		t.Fatalf("%v, %v", foreign, missing)
	}
}
