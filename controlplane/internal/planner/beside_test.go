package planner

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// mailed is an account with mail addresses.
func mailed(uid string, addresses ...string) *connectorv1.Object {
	o := account(uid)
	a := &connectorv1.Attribute{Name: "mail"}
	for _, v := range addresses {
		a.Values = append(a.Values, []byte(v))
	}
	o.Attributes = append([]*connectorv1.Attribute{a}, o.Attributes...)
	return o
}

func mail(values ...string) policy.DesiredAttribute {
	return policy.DesiredAttribute{Name: "mail", Values: values, Authority: policy.Additive}
}

// updates prints what a plan does to values.
func updates(t *testing.T, in Input) []string {
	t.Helper()
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, a := range out.Agents {
		for _, c := range a.Changes {
			for _, d := range c.GetOperation().GetUpdate().GetDeltas() {
				line := causeWord(c.GetCause()) + " " + c.GetRule()
				for _, v := range d.GetRemove() {
					line += " -" + string(v)
				}
				for _, v := range d.GetAdd() {
					line += " +" + string(v)
				}
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	return lines
}

// Values that stand beside those of others: who asks for them decides whose they
// are, and what nobody asks for any more goes.
func TestValuesBesideOthers(t *testing.T) {
	of := func(cause string, values ...string) policy.DesiredAttribute {
		a := mail(values...)
		a.Cause, a.Rule = cause, "base/care"
		return a
	}
	added := func(value, cause string) Entry {
		c, _ := causeOf(cause)
		return Entry{Connector: "ad", Type: "person", Anchor: "a-anna", Item: ItemAttribute, Attribute: "mail", Value: value, Last: [][]byte{[]byte(value)},
			Cause: c, Additive: true, Identity: "1", Rule: "base/" + cause}
	}
	enforced := func(e Entry) Entry { e.Additive = false; return e }
	for _, c := range []struct {
		name   string
		there  []string
		wanted []policy.DesiredAttribute
		ledger []Entry
		want   []string
	}{
		{"each cause adds its own", []string{"x@old"}, []policy.DesiredAttribute{mail("a@client"), of("msp", "a@msp")}, nil,
			[]string{"client base/staff +a@client", "msp base/care +a@msp"}},
		{"what others wrote stays", []string{"x@old"}, []policy.DesiredAttribute{mail()}, nil, nil},
		{"what the role asks for no longer goes", []string{"a@client", "x@old"}, []policy.DesiredAttribute{mail()}, []Entry{added("a@client", "client")},
			[]string{"client base/staff -a@client"}},
		{"also when no role maps the attribute", []string{"a@client", "x@old"}, nil, []Entry{added("a@client", "client")}, []string{"client base/client -a@client"}},
		{"and for the cause that added it", []string{"a@client", "a@msp"}, nil, []Entry{added("a@client", "client"), added("a@msp", "msp")},
			[]string{"client base/client -a@client", "msp base/msp -a@msp"}},
		{"but not what was enforced", []string{"a@client"}, nil, []Entry{enforced(added("a@client", "client"))}, nil},
		{"nor what policy now only observes", []string{"a@client"}, []policy.DesiredAttribute{{Name: "mail", Authority: policy.Observe}}, []Entry{added("a@client", "client")}, nil},
		{"the client asks for what the MSP added", []string{"a@msp"}, []policy.DesiredAttribute{mail("a@msp")}, []Entry{added("a@msp", "msp")},
			[]string{"client base/staff +a@msp"}},
		{"the MSP for what the client no longer does", []string{"A@client"}, []policy.DesiredAttribute{mail(), of("msp", "a@client")}, []Entry{added("a@client", "client")},
			[]string{"msp base/care +A@client"}},
		{"what the client enforced stays the client's", []string{"a@client"}, []policy.DesiredAttribute{mail(), of("msp", "a@client")}, []Entry{enforced(added("a@client", "client"))}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := tenant(mailed("anna", c.there...))
			in.Links, in.Ledger = []Link{link("1", "anna")}, c.ledger
			in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Attributes = append(a.Attributes, c.wanted...) })}
			if got := updates(t, in); !slices.Equal(got, c.want) {
				t.Errorf("plans %q, want %q", got, c.want)
			}
			if len(c.want) == 0 {
				return
			}
			// Nothing is left to plan once it was carried out.
			in.Ledger, in.Connectors[0].Objects = carriedOut(t, in)
			if again := updates(t, in); len(again) > 0 {
				t.Errorf("planning again finds %q", again)
			}
		})
	}
}

// carriedOut is the ledger and the one object after the plan's updates.
func carriedOut(t *testing.T, in Input) ([]Entry, []*connectorv1.Object) {
	t.Helper()
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	o, ledger := in.Connectors[0].Objects[0], in.Ledger
	rule := connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE
	for _, c := range out.Agents[0].Changes {
		have := o.Attribute("mail")
		after := without(rule, have, c.GetOperation().GetUpdate().GetDeltas()[0].GetRemove())
		for _, v := range c.GetOperation().GetUpdate().GetDeltas()[0].GetAdd() {
			if !connectorv1.HasValue(rule, after, v) {
				after = append(after, v)
			}
		}
		touched := func(v [][]byte) *auditv1.Touched {
			return &auditv1.Touched{Exists: true, Attributes: []*connectorv1.Attribute{{Name: "mail", Values: v}}}
		}
		ledger = Advance(ledger, Look{Type: person}, c, &auditv1.Receipt{Change: c.GetId(), Connector: "ad", Anchor: "a-anna", Type: "person", Cause: c.GetCause(),
			Result: auditv1.Receipt_RESULT_APPLIED, Operation: c.GetOperation().Kind(), Before: touched(have), After: touched(after)})
		var values []string
		for _, v := range after {
			values = append(values, string(v))
		}
		o = mailed("anna", values...)
	}
	return ledger, []*connectorv1.Object{o}
}

// That somebody left is the client's story, whoever wanted the account: they are
// taken out of every group that entitlements name, and stay out.
func TestLeaversAreStrippedForTheClientsCause(t *testing.T) {
	in := tenant(account("anna"), team("files", "anna"), team("other", "anna"))
	in.Links, in.Leavers = []Link{link("1", "anna")}, []string{"1"}
	in.Entitlements = []policy.Entitlement{{ID: "files/rw", Connector: "ad", Type: "team", Name: []policy.Component{{{"cn", "files"}}}, Authority: policy.Additive, Cause: "msp"}}
	in.Desired = []policy.Desired{wants("1", "anna", func(a *policy.Account) { a.Cause, a.Enabled = "msp", false })}
	out, err := Plan(in)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range out.Agents[0].Changes {
		got = append(got, fmt.Sprintf("%s %s of %s", causeWord(c.GetCause()), c.GetOperation().Kind().Word(), strings.TrimPrefix(c.GetOperation().GetObject().GetAnchor(), "g-")))
	}
	slices.Sort(got)
	want := []string{"client disable of a-anna", "client remove member of files", "client revoke credential of a-anna"}
	if !slices.Equal(got, want) {
		t.Errorf("plans %q, want %q", got, want)
	}
}
