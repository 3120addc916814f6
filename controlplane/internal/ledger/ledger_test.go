package ledger_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// text is an entry in full, for comparing.
func text(e planner.Entry) string {
	names := fmt.Sprint(proto.MarshalOptions{Deterministic: true}.Marshal(e.BeforeName)) + fmt.Sprint(proto.MarshalOptions{Deterministic: true}.Marshal(e.LastName)) +
		fmt.Sprint(e.BeforeName == nil, e.LastName == nil)
	e.BeforeName, e.LastName, e.EndsAt = nil, nil, e.EndsAt.UTC()
	return fmt.Sprintf("%+v %s", e, names)
}

func texts(list []planner.Entry) string {
	var out []string
	for _, e := range list {
		out = append(out, text(e))
	}
	return strings.Join(out, "\n")
}

func all(t testing.TB, e *intaketest.Estate, tenant string) (list []planner.Entry) {
	t.Helper()
	e.Do(func(x tx.Tx) (err error) { list, err = e.Ledger.All(x, tenant); return err })
	return list
}

// look is a type with a single-valued, a multi-valued and a binary attribute.
var look = planner.Look{Type: &connectorv1.ObjectType{Name: "person", Attributes: []*connectorv1.AttributeType{
	{Name: "mail", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE},
	{Name: "phone", Rule: connectorv1.MatchingRule_MATCHING_RULE_TELEPHONE, MultiValued: true},
	{Name: "photo", Rule: connectorv1.MatchingRule_MATCHING_RULE_EXACT, MultiValued: true},
}}}

// Receipts one by one through the store give the same ledger as all of them in
// the planner's memory, and no tenant sees another's.
func TestStoreAgreesWithThePlanner(t *testing.T) {
	e := intaketest.New(t)
	run := 0
	rapid.Check(t, func(r *rapid.T) {
		run++
		tenant := fmt.Sprintf("t%d", run)
		var want []planner.Entry
		for range rapid.IntRange(1, 12).Draw(r, "receipts") {
			change, receipt := draw(r)
			want = planner.Advance(want, look, change, receipt)
			e.Do(func(x tx.Tx) error { return e.Ledger.Apply(x, tenant, look, change, receipt, intaketest.Start) })
			if got := all(t, e, tenant); texts(got) != texts(want) {
				r.Fatalf("stored:\n%s\nwant:\n%s", texts(got), texts(want))
			}
		}
		for _, anchor := range []string{"a", "b", "g"} {
			var object []planner.Entry
			e.Do(func(x tx.Tx) (err error) { object, err = e.Ledger.Object(x, tenant, "erp", anchor); return err })
			var part []planner.Entry
			for _, entry := range want {
				if entry.Anchor == anchor || entry.Member == anchor {
					part = append(part, entry)
				}
			}
			if texts(object) != texts(part) {
				r.Fatalf("object %s:\n%s\nwant:\n%s", anchor, texts(object), texts(part))
			}
		}
	})
	if list := all(t, e, "nobody"); len(list) != 0 {
		t.Fatalf("another tenant's entries: %v", list)
	}
}

func draw(r *rapid.T) (*planv1.Change, *auditv1.Receipt) {
	cause := rapid.SampledFrom([]planv1.Cause{planv1.Cause_CAUSE_MSP, planv1.Cause_CAUSE_CLIENT}).Draw(r, "cause")
	receipt := &auditv1.Receipt{
		Order: "o", Change: rapid.StringMatching(`c[0-9]`).Draw(r, "change"), Connector: "erp", Type: "person", Cause: cause,
		Result: rapid.SampledFrom([]auditv1.Receipt_Result{auditv1.Receipt_RESULT_APPLIED, auditv1.Receipt_RESULT_ALREADY, auditv1.Receipt_RESULT_FAILED}).Draw(r, "result"),
		Anchor: rapid.SampledFrom([]string{"a", "b"}).Draw(r, "anchor"),
		Before: &auditv1.Touched{Exists: true}, After: &auditv1.Touched{Exists: true},
	}
	change := &planv1.Change{Id: receipt.GetChange(), Identity: "i-" + receipt.GetAnchor(), Rule: "rule", Operation: &connectorv1.Operation{}}
	switch rapid.SampledFrom([]string{"member", "mail", "phone", "photo", "disable", "delete"}).Draw(r, "kind") {
	case "member":
		receipt.Member, receipt.Anchor, receipt.Type = receipt.GetAnchor(), "g", "group"
		receipt.Before.Member, receipt.After.Member = rapid.Bool().Draw(r, "was"), rapid.Bool().Draw(r, "is")
		receipt.Operation = connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER
	case "mail":
		attribute(r, change, receipt, "mail", [][]byte{[]byte("x@e"), []byte("y@e")})
	case "phone":
		attribute(r, change, receipt, "phone", [][]byte{[]byte("+47 1"), []byte("+47 2")})
	case "photo":
		attribute(r, change, receipt, "photo", [][]byte{{0xff, 0x00}, {0xfe}, {}})
	case "disable":
		receipt.Operation = connectorv1.OperationKind_OPERATION_KIND_DISABLE
		receipt.Before.Enablement, receipt.After.Enablement = connectorv1.Enablement_ENABLEMENT_ENABLED, connectorv1.Enablement_ENABLEMENT_DISABLED
	case "delete":
		receipt.Operation = connectorv1.OperationKind_OPERATION_KIND_DELETE
		receipt.Before.Name = &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("uid", receipt.GetAnchor())}}
		receipt.After.Exists = false
	}
	return change, receipt
}

func attribute(r *rapid.T, change *planv1.Change, receipt *auditv1.Receipt, name string, values [][]byte) {
	pick := func(label string) [][]byte {
		var out [][]byte
		for _, v := range values {
			if rapid.Bool().Draw(r, label) {
				out = append(out, v)
			}
		}
		return out
	}
	before, after := pick("before"), pick("after")
	receipt.Operation = connectorv1.OperationKind_OPERATION_KIND_UPDATE
	receipt.Before.Attributes = []*connectorv1.Attribute{{Name: name, Values: before}}
	receipt.After.Attributes = []*connectorv1.Attribute{{Name: name, Values: after}}
	change.Operation.Action = &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{{Attribute: name, Remove: before, Add: after}}}}
}

func membership(member string) *auditv1.Receipt {
	return &auditv1.Receipt{
		Connector: "erp", Type: "group", Anchor: "g", Member: member, Cause: planv1.Cause_CAUSE_MSP, Result: auditv1.Receipt_RESULT_APPLIED,
		Operation: connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, Before: &auditv1.Touched{Exists: true}, After: &auditv1.Touched{Exists: true, Member: true},
	}
}

func TestListPages(t *testing.T) {
	e := intaketest.New(t)
	e.Do(func(x tx.Tx) error {
		for i := range 25 {
			change := &planv1.Change{Identity: fmt.Sprintf("i%d", i%2)}
			if err := e.Ledger.Apply(x, "fabrikam", planner.Look{}, change, membership(fmt.Sprintf("p%02d", i)), intaketest.Start); err != nil {
				return err
			}
		}
		return nil
	})
	var got []planner.Entry
	for after := (ledger.Key{}); ; after = ledger.KeyOf(got[len(got)-1]) {
		page, err := e.Ledger.List(t.Context(), "fabrikam", after, 10)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if texts(got) != texts(all(t, e, "fabrikam")) || len(got) != 25 || !slices.IsSortedFunc(got, planner.CompareEntries) {
		t.Fatalf("%d entries", len(got))
	}
	var mine []planner.Entry
	e.Do(func(x tx.Tx) (err error) { mine, err = e.Ledger.Identity(x, "fabrikam", "i1"); return err })
	if len(mine) != 12 {
		t.Fatalf("%d entries of one identity", len(mine))
	}
}

// A snapshot says nothing about what was written after it.
func TestSettleLeavesNewerWrites(t *testing.T) {
	e := intaketest.New(t)
	e.Do(func(x tx.Tx) error {
		if err := e.Ledger.Apply(x, "fabrikam", planner.Look{}, nil, membership("old"), intaketest.Start); err != nil {
			return err
		}
		return e.Ledger.Apply(x, "fabrikam", planner.Look{}, nil, membership("new"), intaketest.Start.Add(2*time.Hour))
	})
	// The group stands there without any of them.
	empty := planner.Connector{Alias: "erp", Snapshot: &planv1.SnapshotHeader{Connector: "erp", Complete: true},
		Objects: []*connectorv1.Object{{Type: "group", Anchor: "g"}}}
	e.Do(func(x tx.Tx) error { return e.Ledger.Settle(x, "fabrikam", empty, intaketest.Start.Add(time.Hour)) })
	if list := all(t, e, "fabrikam"); len(list) != 1 || list[0].Member != "new" {
		t.Fatalf("%s", texts(list))
	}
	incomplete := planner.Connector{Alias: "erp", Snapshot: &planv1.SnapshotHeader{Connector: "erp"}}
	e.Do(func(x tx.Tx) error {
		return e.Ledger.Settle(x, "fabrikam", incomplete, intaketest.Start.Add(9*time.Hour))
	})
	if list := all(t, e, "fabrikam"); len(list) != 1 {
		t.Fatal("an incomplete snapshot settled something")
	}
}
