package planner

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func leaving(ledger []Entry, objects ...*connectorv1.Object) Input {
	in := tenant(objects...)
	in.Purpose, in.Ledger = planv1.Purpose_PURPOSE_OFFBOARD, ledger
	for i := range in.Ledger {
		e := &in.Ledger[i]
		e.Connector, e.Rule = "ad", "base/role"
		if e.Cause == 0 {
			e.Cause = msp
		}
	}
	return in
}

func titled(o *connectorv1.Object, title string) *connectorv1.Object {
	o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: "title", Values: [][]byte{[]byte(title)}})
	return o
}

func TestOffboarding(t *testing.T) {
	created := Entry{Anchor: "a-anna", Item: ItemExists, Before: truth(false), Last: truth(true), LastName: name("anna")}
	seated := Entry{Anchor: "g-files", Item: ItemMember, Member: "a-anna", Before: truth(false), Last: truth(true)}
	wrote := Entry{Anchor: "a-anna", Item: ItemAttribute, Attribute: "title", Before: [][]byte{[]byte("Clerk")}, Last: [][]byte{[]byte("Boss")}}
	renamed := Entry{Anchor: "a-anna", Item: ItemName, Before: [][]byte{[]byte("uid=berit")}, BeforeName: name("berit"), Last: [][]byte{[]byte("uid=anna")}, LastName: name("anna")}
	clients := func(e Entry) Entry { e.Cause = client; return e }
	for _, c := range []struct {
		name    string
		in      Input
		changes []string
		finding FindingKind
		says    string
	}{
		{"an account that Reeve made goes out of its groups, then goes", leaving([]Entry{created, seated}, account("anna"), team("files", "anna")),
			[]string{"remove member uid=anna", "delete uid=anna"}, FindingResidue, "author of 2 changes"},
		{"also out of those the client caused", leaving([]Entry{created, clients(seated)}, account("anna"), team("files", "anna")),
			[]string{"remove member uid=anna", "delete uid=anna"}, "", ""},
		{"what others gave it goes with it and is listed", leaving([]Entry{created}, titled(account("anna"), "x"), team("files", "anna")),
			[]string{"delete uid=anna"}, FindingResidue, "values of title, membership in cn=files"},
		{"what the client caused stays", leaving([]Entry{clients(created), clients(seated)}, account("anna"), team("files", "anna")),
			nil, FindingHandedOver, "1 membership"},
		{"a value is given back", leaving([]Entry{wrote}, titled(account("anna"), "Boss")), []string{"update uid=anna"}, "", ""},
		{"unless others wrote over it", leaving([]Entry{wrote}, titled(account("anna"), "Other")), nil, FindingDiverged, "title"},
		{"what others gave back needs nothing", leaving([]Entry{wrote}, titled(account("anna"), "Clerk")), nil, "", ""},
		{"an object that others deleted is not made anew", leaving([]Entry{wrote, created}), nil, "", ""},
		{"one that others renamed is followed", leaving([]Entry{{Anchor: "a-carl", Item: ItemEnabled, Before: truth(true), Last: truth(false)}},
			&connectorv1.Object{Type: "person", Anchor: "a-carl", Name: name("renamed"), Enablement: 2}), []string{"enable uid=renamed"}, "", ""},
		{"a name is given back", leaving([]Entry{renamed}, account("anna")), []string{"rename uid=anna"}, "", ""},
		{"unless it is taken", leaving([]Entry{renamed}, account("anna"), account("berit")), nil, FindingResidue, "is taken by another"},
		{"a revoked password does not come back", leaving([]Entry{{Anchor: "a-anna", Item: ItemCredential, Last: [][]byte{[]byte("revoked")}}}, account("anna")),
			nil, FindingResidue, "does not come back"},
		{"the last member of a group that needs one", func() Input {
			in := leaving([]Entry{seated}, account("anna"), team("files", "anna"))
			in.Connectors[0].Types[1].NeedsMember = true
			return in
		}(), nil, FindingResidue, "the group's last"},
		{"nothing after an incomplete snapshot", func() Input {
			in := leaving([]Entry{created}, account("anna"))
			in.Connectors[0].Snapshot = &planv1.SnapshotHeader{}
			return in
		}(), nil, FindingHeld, "incomplete"},
		{"the MSP's layer alone is taken off the client's", leaving([]Entry{
			clients(Entry{Anchor: "a-anna", Item: ItemAttribute, Attribute: "title", Before: [][]byte{[]byte("A")}, Last: [][]byte{[]byte("Clerk")}}), wrote,
		}, titled(account("anna"), "Boss")), []string{"update uid=anna"}, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, findings := summary(t, c.in)
			if !slices.Equal(changes, c.changes) {
				t.Errorf("changes %q, want %q (findings %v)", changes, c.changes, findings)
			}
			if c.finding != "" && !slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == c.finding && strings.Contains(f.Sentence, c.says) }) {
				t.Errorf("findings %v, want %s saying %q", findings, c.finding, c.says)
			}
		})
	}
}

// A group that was renamed behind Reeve's back looks as if no entitlement named
// it: nobody loses a membership for that.
func TestRenamedGroupLosesNobody(t *testing.T) {
	in := tenant(account("anna"), team("renamed", "anna"))
	in.Links = []Link{link("1", "anna")}
	in.Ledger = []Entry{{Connector: "ad", Anchor: "g-renamed", Item: ItemMember, Member: "a-anna", Before: truth(false), Last: truth(true), Cause: msp}}
	in.Entitlements = []policy.Entitlement{{ID: "files/rw", Connector: "ad", Type: "team", Name: []policy.Component{{{"cn", "files"}}}}}
	d := wants("1", "anna", nil)
	d.Entitlements = []policy.Entitled{{Entitlement: "files/rw", Connector: "ad", Purpose: "normal", Cause: "msp"}}
	in.Desired = []policy.Desired{d}
	changes, findings := summary(t, in)
	if len(changes) != 0 || !slices.ContainsFunc(findings, func(f Finding) bool { return strings.Contains(f.Sentence, "if it was renamed") }) {
		t.Errorf("changes %q, findings %v", changes, findings)
	}
	// Once the entitlement itself is gone, the membership goes.
	in.Entitlements, in.Desired[0].Entitlements = nil, nil
	if changes, _ = summary(t, in); !slices.Equal(changes, []string{"remove member uid=anna"}) {
		t.Errorf("changes %q", changes)
	}
}

// A timed grant carries its end; its prolongation is planned anew, its end is no
// accident that a budget could hold back.
func TestTimedGrants(t *testing.T) {
	in := tenant(account("anna"), team("files"))
	in.Links = []Link{link("1", "anna")}
	in.Rules.Budgets.Membership = policy.Budget{}
	in.Entitlements = []policy.Entitlement{{ID: "files/rw", Connector: "ad", Type: "team", Name: []policy.Component{{{"cn", "files"}}}}}
	grant := policy.Entitled{Entitlement: "files/rw", Connector: "ad", Purpose: "normal", Cause: "msp", Grant: "g1", End: asOf.Add(time.Hour)}
	d := wants("1", "anna", nil)
	d.Entitlements = []policy.Entitled{grant}
	in.Desired = []policy.Desired{d}
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	c := out.Agents[0].Changes[0]
	if c.GetGrant() != "g1" || !c.GetEndsAt().AsTime().Equal(grant.End) {
		t.Fatalf("change %v", c)
	}
	in.Connectors[0].Objects[1] = team("files", "anna")
	in.Ledger = []Entry{{Connector: "ad", Anchor: "g-files", Item: ItemMember, Member: "a-anna", Before: truth(false), Last: truth(true),
		Cause: msp, Grant: "g1", EndsAt: grant.End, Change: c.GetId()}}
	if changes, _ := summary(t, in); len(changes) != 0 {
		t.Errorf("settled, and planned %q", changes)
	}
	in.Desired[0].Entitlements[0].End = grant.End.Add(time.Hour)
	if changes, _ := summary(t, in); !slices.Equal(changes, []string{"add member uid=anna"}) {
		t.Errorf("prolonged, and planned %q", changes)
	}
	in.Desired[0].Entitlements[0].End, in.AsOf = grant.End, grant.End
	if changes, _ := summary(t, in); !slices.Equal(changes, []string{"remove member uid=anna"}) {
		t.Errorf("ended, and planned %q", changes)
	}
	// Another reason keeps it.
	role := grant
	role.Grant, role.End = "", asOf.AddDate(1, 0, 0)
	in.Desired[0].Entitlements = append(in.Desired[0].Entitlements, role)
	if changes, _ := summary(t, in); !slices.Equal(changes, []string{"add member uid=anna"}) {
		t.Errorf("held for another reason, and planned %q", changes)
	}
}

// What cannot be undone because its object or its member is out of sight is told.
func TestWhatIsOutOfSightIsTold(t *testing.T) {
	in := leaving([]Entry{
		{Type: "team", Anchor: "g-files", Item: ItemMember, Member: "a-anna", Keys: []string{"dn:ann"}, Before: truth(false), Last: truth(true)},
		{Type: "person", Anchor: "a-hidden", Item: ItemAttribute, Attribute: "title", Last: [][]byte{[]byte("T")}},
		{Type: "person", Anchor: "a-theirs", Item: ItemAttribute, Attribute: "title", Last: [][]byte{[]byte("T")}, Cause: planv1.Cause_CAUSE_CLIENT},
	}, account("anna"), team("files", "ann"))
	changes, findings := summary(t, in)
	if len(changes) != 0 || len(findings) != 2 {
		t.Fatalf("changes %q, findings %v", changes, findings)
	}
	for _, want := range []string{`member name "dn:ann"`, "anchor a-hidden is not observed"} {
		if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == FindingResidue && strings.Contains(f.Sentence, want) }) {
			t.Errorf("nothing says %q: %v", want, findings)
		}
	}
}

// Values that policy put others in the place of come back in the order in which
// they stood, which the letters do not tell.
func TestValuesComeBackInTheirOrder(t *testing.T) {
	values := func(list ...string) *auditv1.Touched {
		a := &connectorv1.Attribute{Name: "mail"}
		for _, v := range list {
			a.Values = append(a.Values, []byte(v))
		}
		return &auditv1.Touched{Exists: true, Attributes: []*connectorv1.Attribute{a}}
	}
	delta := &connectorv1.ValueDelta{Attribute: "mail", Remove: [][]byte{[]byte("a"), []byte("m"), []byte("z")}, Add: [][]byte{[]byte("new")}}
	change := &planv1.Change{Operation: &connectorv1.Operation{Action: &connectorv1.Operation_Update{Update: &connectorv1.Update{Deltas: []*connectorv1.ValueDelta{delta}}}}}
	ledger := Advance(nil, Look{Type: types()[0]}, change, &auditv1.Receipt{
		Connector: "ad", Anchor: "a-anna", Type: "person", Result: auditv1.Receipt_RESULT_APPLIED, Cause: msp,
		Operation: connectorv1.OperationKind_OPERATION_KIND_UPDATE, Before: values("z", "a", "m"), After: values("new"),
	})
	anna := account("anna")
	anna.Attributes = append(anna.Attributes, values("new").GetAttributes()...)
	out, err := Plan(leaving(ledger, anna))
	if err != nil {
		t.Fatal(err)
	}
	back := out.Agents[0].Changes[0].GetOperation().GetUpdate().GetDeltas()[0]
	if got := string(bytes.Join(back.GetAdd(), []byte(" "))); got != "z a m" || string(back.GetRemove()[0]) != "new" {
		t.Errorf("gives back %q", got)
	}
}
