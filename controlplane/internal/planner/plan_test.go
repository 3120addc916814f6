package planner

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var asOf = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

func types() []*connectorv1.ObjectType {
	ops := []connectorv1.OperationKind{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}
	return []*connectorv1.ObjectType{
		{Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Operations: ops, Attributes: []*connectorv1.AttributeType{
			{Name: "mail", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, MultiValued: true},
			{Name: "manager", Rule: connectorv1.MatchingRule_MATCHING_RULE_REFERENCE},
			{Name: "sid", ReadOnly: true},
			{Name: "sn", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, Required: true},
			{Name: "title", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE},
		}},
		{Name: "team", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", Operations: ops, MemberKey: "dn:"},
	}
}

func name(uid string) *connectorv1.Name {
	return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("uid", uid)}}
}

func account(uid string) *connectorv1.Object {
	return &connectorv1.Object{Type: "person", Anchor: "a-" + uid, Name: name(uid), Keys: []string{"dn:" + uid}, Display: uid,
		Enablement: connectorv1.Enablement_ENABLEMENT_ENABLED,
		Attributes: []*connectorv1.Attribute{{Name: "sn", Values: [][]byte{[]byte("S")}}}}
}

func team(cn string, members ...string) *connectorv1.Object {
	g := &connectorv1.Object{Type: "team", Anchor: "g-" + cn, Keys: []string{"dn:cn=" + cn},
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("cn", cn)}}}
	for _, m := range members {
		g.Members = append(g.Members, "dn:"+m)
	}
	slices.Sort(g.Members)
	return g
}

func tenant(objects ...*connectorv1.Object) Input {
	wide := policy.Budget{Floor: 100}
	return Input{
		Plan: "p", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, AsOf: asOf,
		Rules: policy.Rules{Budgets: policy.Budgets{Disable: wide, Delete: wide, Membership: wide}},
		Connectors: []Connector{{
			Alias: "ad", Agent: "dc1", Mode: ModeEnforce, CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE, Types: types(),
			Snapshot: &planv1.SnapshotHeader{Connector: "ad", Complete: true}, Objects: objects,
		}},
	}
}

func wants(subject, uid string, change func(*policy.Account)) policy.Desired {
	a := policy.Account{Connector: "ad", Purpose: "normal", Type: "person", Name: []policy.Component{{{"uid", uid}}}, Enabled: true,
		Cause: "client", Rule: "base/staff", Attributes: []policy.DesiredAttribute{{Name: "sn", Values: []string{"S"}, Authority: policy.Initial}}}
	if change != nil {
		change(&a)
	}
	return policy.Desired{Subject: subject, Accounts: []policy.Account{a}}
}

func link(identity, uid string) Link {
	return Link{Connector: "ad", Anchor: "a-" + uid, Identity: identity, Purpose: "normal"}
}

// summary prints a plan's changes as people read them, in order.
func summary(t *testing.T, in Input) ([]string, []Finding) {
	t.Helper()
	out, err := Plan(in)
	if err != nil {
		t.Fatalf("Plan: %v", err)
	}
	var lines []string
	for _, a := range out.Agents {
		for _, c := range a.Changes {
			lines = append(lines, c.GetOperation().Kind().Word()+" "+c.GetDisplay())
		}
	}
	return lines, out.Findings
}

func TestPlan(t *testing.T) {
	disabled := account("anna")
	disabled.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
	entitlement := policy.Entitlement{ID: "files/rw", Connector: "ad", Type: "team", Name: []policy.Component{{{"cn", "Files"}}}, Authority: policy.Additive}
	second := policy.Entitlement{ID: "files/audit", Connector: "ad", Type: "team", Name: []policy.Component{{{"cn", "Audit"}}}, Authority: policy.Additive}
	holding := func(d policy.Desired, e ...policy.Entitled) policy.Desired {
		d.Entitlements = e
		return d
	}
	role := func(id string) policy.Entitled {
		return policy.Entitled{Entitlement: id, Connector: "ad", Purpose: "normal", Cause: "client", Rule: "base/staff"}
	}
	for _, c := range []struct {
		name    string
		in      func() Input
		changes []string
		finding FindingKind
		says    string
	}{
		{name: "a joiner is created disabled, then in groups, then given a password, then enabled", in: func() Input {
			in := tenant(team("files"))
			in.Entitlements = []policy.Entitlement{entitlement}
			in.Desired = []policy.Desired{holding(wants("1", "anna", func(a *policy.Account) {
				a.Credential = &policy.Credential{Recipient: "hr"}
			}), role("files/rw"))}
			return in
		}, changes: []string{"create uid=anna", "add member uid=anna", "set credential uid=anna", "enable uid=anna"}},
		{name: "whom policy cannot be evaluated for keeps what they have", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Entitlements = []policy.Entitlement{entitlement}
			in.Links = []Link{link("1", "anna")}
			in.Links[0].Created = true
			in.Ledger = []Entry{{Connector: "ad", Type: "team", Anchor: "g-files", Item: ItemMember, Member: "a-anna",
				Before: [][]byte{[]byte("false")}, Last: [][]byte{[]byte("true")}, Cause: planv1.Cause_CAUSE_CLIENT, Identity: "1"}}
			in.Unjudged = []Unjudged{{Identity: "1", Why: "her login cannot be seen"}}
			return in
		}, finding: FindingHeld, says: "cannot be seen"},
		{name: "but not their access once they left", in: func() Input {
			in := tenant(account("anna"))
			in.Links = []Link{link("1", "anna")}
			in.Leavers = []string{"1"}
			in.Unjudged = []Unjudged{{Identity: "1", Why: "her login cannot be seen"}}
			return in
		}, changes: []string{"disable uid=anna"}},
		{name: "before the start date the account stays disabled", in: func() Input {
			in := tenant()
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Enabled = false })}
			return in
		}, changes: []string{"create uid=anna"}},
		{name: "no creation before enforce", in: func() Input {
			in := tenant()
			in.Connectors[0].Mode = ModeAdopt
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingHeld, says: "enforce"},
		{name: "a taken name is a collision, whatever its case", in: func() Input {
			in := tenant(account("Anna"))
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingCollision, says: "taken"},
		{name: "two who want one name both wait", in: func() Input {
			in := tenant()
			in.Desired = []policy.Desired{wants("1", "anna", nil), wants("2", "ANNA", nil)}
			return in
		}, finding: FindingCollision, says: "wanted for"},
		{name: "an existing membership that policy would grant is adopted unchanged", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Entitlements, in.Links = []policy.Entitlement{entitlement}, []Link{link("1", "anna")}
			in.Desired = []policy.Desired{holding(wants("1", "anna", nil), role("files/rw"))}
			return in
		}},
		{name: "one that policy does not explain is reported", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Entitlements, in.Links = []policy.Entitlement{entitlement}, []Link{link("1", "anna")}
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingUnexplained, says: "anna"},
		{name: "an authoritative entitlement takes the rest out", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Entitlements = []policy.Entitlement{entitlement}
			in.Entitlements[0].Authority, in.Entitlements[0].Cause = policy.Authoritative, "msp"
			return in
		}, changes: []string{"remove member uid=anna"}},
		{name: "and does not before enforce", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Connectors[0].Mode = ModeAdopt
			in.Links = []Link{link("1", "anna")}
			in.Entitlements = []policy.Entitlement{entitlement}
			in.Entitlements[0].Authority, in.Entitlements[0].Cause = policy.Authoritative, "msp"
			return in
		}, finding: FindingUnexplained, says: "anna"},
		{name: "a leaver is disabled, stripped and loses the password", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"))
			in.Entitlements, in.Links, in.Leavers = []policy.Entitlement{entitlement}, []Link{link("1", "anna")}, []string{"1"}
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Enabled = false })}
			return in
		}, changes: []string{"disable uid=anna", "remove member uid=anna", "revoke credential uid=anna"}},
		{name: "what others disabled stays disabled", in: func() Input {
			in := tenant(disabled)
			in.Links = []Link{{Connector: "ad", Anchor: "a-anna", Identity: "1", Purpose: "normal", Created: true}}
			in.Ledger = []Entry{{Connector: "ad", Type: "person", Anchor: "a-anna", Item: ItemEnabled, Before: truth(false), Last: truth(true), Cause: planv1.Cause_CAUSE_CLIENT}}
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingDiverged, says: "disabled outside"},
		{name: "what Reeve disabled is enabled again", in: func() Input {
			in := tenant(disabled)
			in.Links = []Link{link("1", "anna")}
			in.Ledger = []Entry{{Connector: "ad", Type: "person", Anchor: "a-anna", Item: ItemEnabled, Before: truth(true), Last: truth(false), Cause: planv1.Cause_CAUSE_CLIENT}}
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, changes: []string{"enable uid=anna"}},
		{name: "retention has passed: what the client had and lets go is deleted", in: func() Input {
			in := tenant(disabled)
			in.Links, in.Leavers = []Link{link("1", "anna")}, []string{"1"}
			in.Ledger = []Entry{{Connector: "ad", Anchor: "a-anna", Item: ItemCredential, Last: [][]byte{[]byte("revoked")}, Cause: planv1.Cause_CAUSE_CLIENT}}
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Enabled, a.Delete = false, true })}
			return in
		}, changes: []string{"delete uid=anna"}},
		{name: "but never what the MSP only adopted", in: func() Input {
			in := tenant(disabled)
			in.Links = []Link{link("1", "anna")}
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Enabled, a.Delete, a.Cause = false, true, "msp" })}
			return in
		}, finding: FindingHeld, says: "did not make it"},
		{name: "equal under the matching rule is no change", in: func() Input {
			in := tenant(account("anna"))
			in.Links = []Link{link("1", "anna")}
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) {
				a.Attributes = []policy.DesiredAttribute{{Name: "sn", Values: []string{" s "}, Authority: policy.Enforce}}
			})}
			return in
		}},
		{name: "an attribute the connector does not write is reported", in: func() Input {
			in := tenant(account("anna"))
			in.Links = []Link{link("1", "anna")}
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) {
				a.Attributes = []policy.DesiredAttribute{{Name: "sid", Values: []string{"1"}, Authority: policy.Enforce}}
			})}
			return in
		}, finding: FindingHeld, says: "cannot be written"},
		{name: "duties kept apart: the one held stays", in: func() Input {
			in := tenant(account("anna"), team("files", "anna"), team("audit"))
			in.Entitlements, in.Links = []policy.Entitlement{entitlement, second}, []Link{link("1", "anna")}
			in.Rules.Separation = [][2]string{{"files/audit", "files/rw"}}
			in.Desired = []policy.Desired{holding(wants("1", "anna", nil), role("files/rw"), role("files/audit"))}
			return in
		}, finding: FindingConflictOfDuty, says: "files/audit"},
		{name: "a suspended connector plans nothing", in: func() Input {
			in := tenant()
			in.Connectors[0].Suspended = "anchors changed"
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingHeld, says: "anchors changed"},
		{name: "a connector never observed plans nothing", in: func() Input {
			in := tenant()
			in.Connectors[0].Snapshot = nil
			in.Desired = []policy.Desired{wants("1", "anna", nil)}
			return in
		}, finding: FindingHeld, says: "not been observed"},
		{name: "an account nobody asks for any more is disabled if Reeve made it", in: func() Input {
			in := tenant(account("anna"), account("berit"))
			in.Links = []Link{{Connector: "ad", Anchor: "a-anna", Identity: "1", Purpose: "normal", Created: true}, link("2", "berit")}
			return in
		}, changes: []string{"disable uid=anna"}},
		{name: "nobody gets a second account while a case is open", in: func() Input {
			in := tenant(account("anna"), account("berit"))
			in.Desired = []policy.Desired{wants("1", "carl", nil), wants("2", "dora", nil)}
			in.Undecided = []Undecided{{"ad", "1"}, {"web", "2"}}
			return in
		}, changes: []string{"create uid=dora", "enable uid=dora"}, finding: FindingHeld, says: "a case is open"},
		{name: "the MSP's values on the client's new account are a change of their own", in: func() Input {
			in := tenant()
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) {
				a.Attributes = append(a.Attributes,
					policy.DesiredAttribute{Name: "mail", Values: []string{"a@msp"}, Authority: policy.Additive, Cause: "msp", Rule: "base/care"},
					policy.DesiredAttribute{Name: "title", Values: []string{"T"}, Authority: policy.Enforce})
			})}
			return in
		}, changes: []string{"create uid=anna", "update uid=anna", "enable uid=anna"}},
		{name: "urgent takes only from leavers", in: func() Input {
			in := tenant(account("anna"), account("berit"), account("carl"))
			in.Purpose = planv1.Purpose_PURPOSE_URGENT
			in.Links, in.Suspended = []Link{link("1", "anna"), link("2", "berit")}, []string{"2"}
			off := func(a *policy.Account) { a.Enabled = false }
			in.Desired = []policy.Desired{wants("1", "anna", off), wants("2", "berit", off), wants("3", "dora", nil)}
			return in
		}, changes: []string{"disable uid=berit"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			changes, findings := summary(t, c.in())
			if !sameLines(changes, c.changes) {
				t.Errorf("changes %q, want %q (findings %v)", changes, c.changes, findings)
			}
			found := c.finding == "" || slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == c.finding && strings.Contains(f.Sentence, c.says) })
			if !found {
				t.Errorf("findings %v, want %s saying %q", findings, c.finding, c.says)
			}
		})
	}
}

// sameLines compares plans; changes of one level have no order of their own.
func sameLines(got, want []string) bool {
	return slices.Equal(got, want) || slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) && !strings.HasPrefix(want[0], "create")
}

func TestBudgetHoldsBackOnlyItsKind(t *testing.T) {
	in := tenant()
	for i := range 40 {
		uid, id := fmt.Sprintf("u%02d", i), fmt.Sprintf("id%02d", i)
		in.Connectors[0].Objects = append(in.Connectors[0].Objects, account(uid))
		in.Links = append(in.Links, link(id, uid))
		in.Desired = append(in.Desired, wants(id, uid, func(a *policy.Account) {
			a.Enabled = i >= 5
			a.Attributes = append(a.Attributes, policy.DesiredAttribute{Name: "title", Values: []string{"x"}, Authority: policy.Enforce})
		}))
	}
	in.Rules.Budgets.Disable = policy.Budget{Percent: 5, Floor: 4}
	changes, findings := summary(t, in)
	if len(changes) != 40 || slices.ContainsFunc(changes, func(l string) bool { return strings.HasPrefix(l, "disable") }) {
		t.Errorf("5 of 40 over a budget of 5 percent and 4: %q", changes)
	}
	if !slices.ContainsFunc(findings, func(f Finding) bool { return f.Kind == FindingHeld && strings.Contains(f.Sentence, "5 of 40") }) {
		t.Errorf("findings do not name the numbers: %v", findings)
	}
	for _, fits := range []policy.Budget{{Percent: 5, Floor: 5}, {Percent: 13, Floor: 0}} {
		in.Rules.Budgets.Disable = fits
		if changes, _ = summary(t, in); len(changes) != 45 {
			t.Errorf("budget %+v: %d changes, want all 45", fits, len(changes))
		}
	}
}

func TestInputsThatContradictEachOther(t *testing.T) {
	for name, in := range map[string]Input{
		"purpose":   {Purpose: 99},
		"connector": {Purpose: 1, Connectors: []Connector{{Alias: "a"}, {Alias: "a"}}},
		"desired":   {Purpose: 1, Desired: []policy.Desired{{Subject: "1"}, {Subject: "1"}}},
		"cause": func() Input {
			in := tenant()
			in.Desired = []policy.Desired{wants("1", "a", func(a *policy.Account) { a.Cause = "x" })}
			return in
		}(),
		"link twice": func() Input { in := tenant(account("a")); in.Links = []Link{link("1", "a"), link("2", "a")}; return in }(),
	} {
		if _, err := Plan(in); !errors.Is(err, ErrInput) {
			t.Errorf("%s: error %v, want ErrInput", name, err)
		}
	}
}

// A change keeps its id from plan to plan, so that supersession can compare.
func TestChangeIDsDoNotDependOnThePlan(t *testing.T) {
	in := tenant(account("anna"))
	in.Links = []Link{link("1", "anna")}
	in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Enabled = false })}
	first, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	in.Plan, in.AsOf = "another", asOf.Add(time.Hour)
	in.Desired[0].Accounts[0].Rule = "base/other"
	second, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := first.Agents[0].Changes[0], second.Agents[0].Changes[0]; a.GetId() != b.GetId() || a.GetId() == "" {
		t.Errorf("ids %q and %q", a.GetId(), b.GetId())
	}
}

// What two roles of different causes write to one account is undone apart, so it
// is changed apart.
func TestCausesOnOneAccountStayApart(t *testing.T) {
	in := tenant(account("anna"))
	in.Links = []Link{link("1", "anna")}
	in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) {
		a.Attributes = append(a.Attributes,
			policy.DesiredAttribute{Name: "mail", Values: []string{"a@msp"}, Authority: policy.Additive, Cause: "msp", Rule: "base/care"},
			policy.DesiredAttribute{Name: "title", Values: []string{"T"}, Authority: policy.Enforce})
	})}
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range out.Agents[0].Changes {
		for _, d := range c.GetOperation().GetUpdate().GetDeltas() {
			got[d.GetAttribute()] = c.GetCause().String() + " " + c.GetRule()
		}
	}
	if len(got) != 2 || got["mail"] != "CAUSE_MSP base/care" || got["title"] != "CAUSE_CLIENT base/staff" {
		t.Errorf("%v", got)
	}
}
