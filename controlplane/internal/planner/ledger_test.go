package planner

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"
)

const (
	msp    = planv1.Cause_CAUSE_MSP
	client = planv1.Cause_CAUSE_CLIENT
)

var person = types()[0]

func titles(v string) *auditv1.Touched {
	t := &auditv1.Touched{Exists: true}
	if v != "" {
		t.Attributes = []*connectorv1.Attribute{{Name: "title", Values: [][]byte{[]byte(v)}}}
	}
	return t
}

// title is a write of a single-valued attribute.
func title(cause planv1.Cause, before, after string) (*planv1.Change, *auditv1.Receipt) {
	c := &planv1.Change{Id: before + ">" + after, Identity: "1", Operation: &connectorv1.Operation{Action: &connectorv1.Operation_Update{
		Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{{Attribute: "title"}}}}}}
	return c, &auditv1.Receipt{Change: c.Id, Connector: "ad", Anchor: "a", Type: "person", Cause: cause, Result: auditv1.Receipt_RESULT_APPLIED,
		Operation: connectorv1.OperationKind_OPERATION_KIND_UPDATE, Before: titles(before), After: titles(after)}
}

func member(cause planv1.Cause, result auditv1.Receipt_Result, before, after bool, ends time.Time) (*planv1.Change, *auditv1.Receipt) {
	op := connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER
	if !after {
		op = connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER
	}
	c := &planv1.Change{Id: "m"}
	if !ends.IsZero() {
		c.EndsAt = timestamppb.New(ends)
	}
	return c, &auditv1.Receipt{Change: "m", Connector: "ad", Anchor: "g", Member: "a", Type: "team", Cause: cause, Result: result, Operation: op,
		Before: &auditv1.Touched{Exists: true, Member: before}, After: &auditv1.Touched{Exists: true, Member: after}}
}

// lines prints entries as cause: before > last.
func lines(entries []Entry) []string {
	var out []string
	for _, e := range entries {
		out = append(out, fmt.Sprintf("%s %s: %s > %s", map[planv1.Cause]string{msp: "msp", client: "client"}[e.Cause], e.Item, join(e.Before), join(e.Last)))
	}
	slices.Sort(out)
	return out
}

func join(v [][]byte) string {
	if len(v) == 0 {
		return "-"
	}
	return string(v[0])
}

func TestAdvanceLayersOfOneValue(t *testing.T) {
	type write struct {
		cause         planv1.Cause
		before, after string
	}
	for _, c := range []struct {
		name   string
		writes []write
		want   []string
	}{
		{"the first pre-image is kept, the last value noted", []write{{msp, "A", "B"}, {msp, "B", "C"}}, []string{"msp attribute: A > C"}},
		{"back at the pre-image the entry ends", []write{{msp, "A", "B"}, {msp, "B", "A"}}, nil},
		{"only to the byte: another writing of the value remains to be undone", []write{{msp, "A", "B"}, {msp, "B", "a"}}, []string{"msp attribute: A > a"}},
		{"what others wrote in between is the newer pre-image", []write{{msp, "A", "B"}, {msp, "X", "B"}}, []string{"msp attribute: X > B"}},
		{"the MSP lies upon the client", []write{{client, "A", "B"}, {msp, "B", "C"}}, []string{"client attribute: A > B", "msp attribute: B > C"}},
		{"undoing the MSP leaves the client's", []write{{client, "A", "B"}, {msp, "B", "C"}, {msp, "C", "B"}}, []string{"client attribute: A > B"}},
		{"the client takes the MSP's place", []write{{msp, "A", "B"}, {client, "B", "C"}}, []string{"client attribute: A > C"}},
		{"and keeps its own pre-image", []write{{client, "A", "B"}, {msp, "B", "C"}, {client, "C", "D"}}, []string{"client attribute: A > D"}},
		{"the client gives back what the MSP changed", []write{{msp, "A", "B"}, {client, "B", "A"}}, nil},
		{"what already was so begins nothing", []write{{msp, "A", "A"}}, nil},
		{"a value set for the first time", []write{{msp, "", "B"}}, []string{"msp attribute: - > B"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var entries []Entry
			for _, w := range c.writes {
				change, receipt := title(w.cause, w.before, w.after)
				entries = Advance(entries, Look{Type: person}, change, receipt)
			}
			if got := lines(entries); !slices.Equal(got, c.want) {
				t.Errorf("ledger %q, want %q", got, c.want)
			}
		})
	}
}

func TestAdvanceMemberships(t *testing.T) {
	const applied, already = auditv1.Receipt_RESULT_APPLIED, auditv1.Receipt_RESULT_ALREADY
	type write struct {
		cause         planv1.Cause
		result        auditv1.Receipt_Result
		before, after bool
	}
	for _, c := range []struct {
		name   string
		writes []write
		want   []string
	}{
		{"an add that already was so is not Reeve's", []write{{msp, already, true, true}}, nil},
		{"added and taken out again", []write{{msp, applied, false, true}, {msp, applied, true, false}}, nil},
		{"the MSP's membership becomes the client's", []write{{msp, applied, false, true}, {client, already, true, true}}, []string{"client member: false > true"}},
		{"and back", []write{{client, applied, false, true}, {msp, already, true, true}}, []string{"msp member: false > true"}},
		{"what the client took out the MSP gave again", []write{{client, applied, true, false}, {msp, applied, false, true}}, []string{"client member: true > false", "msp member: false > true"}},
		{"a refused change moves nothing", []write{{msp, auditv1.Receipt_RESULT_REFUSED, false, true}}, nil},
		{"a failed one neither", []write{{msp, auditv1.Receipt_RESULT_FAILED, false, true}}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var entries []Entry
			for _, w := range c.writes {
				change, receipt := member(w.cause, w.result, w.before, w.after, time.Time{})
				entries = Advance(entries, Look{}, change, receipt)
			}
			if got := lines(entries); !slices.Equal(got, c.want) {
				t.Errorf("ledger %q, want %q", got, c.want)
			}
		})
	}
}

// A grant that is prolonged keeps its pre-image and gets the new end; an agent's
// own removal at the end has no change and ends the entry.
func TestAdvanceTimedMembership(t *testing.T) {
	change, receipt := member(msp, auditv1.Receipt_RESULT_APPLIED, false, true, asOf)
	entries := Advance(nil, Look{}, change, receipt)
	change, receipt = member(msp, auditv1.Receipt_RESULT_ALREADY, true, true, asOf.Add(time.Hour))
	entries = Advance(entries, Look{}, change, receipt)
	if len(entries) != 1 || !entries[0].EndsAt.Equal(asOf.Add(time.Hour)) || isTrue(entries[0].Before) {
		t.Fatalf("prolonged: %+v", entries)
	}
	_, receipt = member(msp, auditv1.Receipt_RESULT_APPLIED, true, false, time.Time{})
	if entries = Advance(entries, Look{}, nil, receipt); len(entries) != 0 {
		t.Errorf("after the end: %+v", entries)
	}
}

func TestAdvanceDelete(t *testing.T) {
	deleted := &auditv1.Receipt{Change: "d", Connector: "ad", Anchor: "a", Type: "person", Cause: client, Result: auditv1.Receipt_RESULT_APPLIED,
		Operation: connectorv1.OperationKind_OPERATION_KIND_DELETE, Before: &auditv1.Touched{Exists: true, Name: name("anna")}, After: &auditv1.Touched{}}
	c, r := title(msp, "A", "B")
	adopted := Advance(nil, Look{Type: person}, c, r)
	c, r = member(msp, auditv1.Receipt_RESULT_APPLIED, false, true, time.Time{})
	adopted = Advance(adopted, Look{}, c, r)
	if got, want := lines(Advance(adopted, Look{}, nil, deleted)), []string{"client exists: true > false"}; !slices.Equal(got, want) {
		t.Errorf("of an adopted object remains %q, want %q", got, want)
	}
	made := append(adopted, Entry{Connector: "ad", Anchor: "a", Item: ItemExists, Before: truth(false), Last: truth(true), Cause: client})
	if got := lines(Advance(made, Look{}, nil, deleted)); got != nil {
		t.Errorf("of one that Reeve made remains %q", got)
	}
}

func TestSettle(t *testing.T) {
	anna := account("anna")
	anna.Attributes = append(anna.Attributes, &connectorv1.Attribute{Name: "title", Values: [][]byte{[]byte("Now")}})
	conn := tenant(anna, team("files"), team("left", "ann")).Connectors[0]
	value := func(before, last string) Entry {
		return Entry{Connector: "ad", Type: "person", Anchor: "a-anna", Item: ItemAttribute, Attribute: "title", Before: [][]byte{[]byte(before)}, Last: [][]byte{[]byte(last)}, Cause: msp}
	}
	gone := value("A", "B")
	gone.Anchor = "nobody"
	foreign := value("A", "B")
	foreign.Connector = "other"
	for name, c := range map[string]struct {
		entry    Entry
		kept     bool
		diverged bool
	}{
		"still what Reeve wrote, in another case": {value("Then", "NOW"), true, false},
		"others put it back":                      {value("Now", "B"), false, false},
		"others changed it":                       {value("A", "B"), true, true},
		"the object is not seen":                  {gone, true, false},
		"another connector":                       {foreign, true, false},
		"others took the member out": {Entry{Connector: "ad", Anchor: "g-files", Item: ItemMember, Member: "a-anna",
			Before: truth(false), Last: truth(true), Cause: msp}, false, false},
		"the member was renamed and its old name stays": {Entry{Connector: "ad", Anchor: "g-left", Item: ItemMember, Member: "a-anna",
			Keys: []string{"dn:ann"}, Before: truth(false), Last: truth(true), Cause: msp}, true, true},
		"the member was deleted and its name stays": {Entry{Connector: "ad", Anchor: "g-left", Item: ItemMember, Member: "a-ann",
			Keys: []string{"dn:ann"}, Before: truth(false), Last: truth(true), Cause: msp}, true, true},
		"the member was deleted and its name with it": {Entry{Connector: "ad", Anchor: "g-files", Item: ItemMember, Member: "a-ann",
			Keys: []string{"dn:ann"}, Before: truth(false), Last: truth(true), Cause: msp}, false, false},
		"Reeve took the new name out and the old one stays": {Entry{Connector: "ad", Anchor: "g-left", Item: ItemMember, Member: "a-anna",
			Keys: []string{"dn:ann", "dn:anna"}, Before: truth(false), Last: truth(false), Cause: msp}, true, true},
		"Reeve took the new name out and the old one is gone": {Entry{Connector: "ad", Anchor: "g-files", Item: ItemMember, Member: "a-anna",
			Keys: []string{"dn:ann", "dn:anna"}, Before: truth(false), Last: truth(false), Cause: msp}, false, false},
		"others enabled what Reeve disabled": {Entry{Connector: "ad", Anchor: "a-anna", Item: ItemEnabled, Before: truth(true), Last: truth(false), Cause: msp}, false, false},
		"a credential cannot be seen":        {Entry{Connector: "ad", Anchor: "a-anna", Item: ItemCredential, Last: [][]byte{[]byte("set")}, Cause: msp}, true, false},
	} {
		got := Settle([]Entry{c.entry}, conn)
		if len(got) == 1 != c.kept || c.kept && got[0].Diverged != c.diverged {
			t.Errorf("%s: %+v", name, got)
		}
	}
	conn.Snapshot = &planv1.SnapshotHeader{}
	if got := Settle([]Entry{gone}, conn); len(got) != 1 {
		t.Errorf("an incomplete snapshot settled %v", gone)
	}
}

// A Book is Advance on the whole, whatever it is split into.
func TestBookIsAdvance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		book, plain := NewBook(nil), []Entry(nil)
		state := map[string]bool{}
		for range rapid.IntRange(1, 30).Draw(t, "receipts") {
			cause := rapid.SampledFrom([]planv1.Cause{msp, client}).Draw(t, "cause")
			object := rapid.SampledFrom([]string{"a", "b", "g"}).Draw(t, "object")
			var c *planv1.Change
			var r *auditv1.Receipt
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				r = &auditv1.Receipt{Operation: connectorv1.OperationKind_OPERATION_KIND_DELETE, Before: &auditv1.Touched{Exists: true}, After: &auditv1.Touched{},
					Connector: "ad", Cause: cause, Result: auditv1.Receipt_RESULT_APPLIED}
			case 1:
				c, r = title(cause, rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "before"), rapid.SampledFrom([]string{"", "A", "B"}).Draw(t, "after"))
			default:
				key := object + "/member"
				next := rapid.Bool().Draw(t, "in")
				c, r = member(cause, auditv1.Receipt_RESULT_APPLIED, state[key], next, time.Time{})
				state[key] = next
			}
			r.Anchor = object
			book.Advance(Look{Type: person}, c, r)
			plain = Advance(plain, Look{Type: person}, c, r)
		}
		if got := book.Entries(); len(got)+len(plain) > 0 && !reflect.DeepEqual(got, plain) {
			t.Fatalf("book %+v\nplain %+v", got, plain)
		}
	})
}
