package rehearsal

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"pgregory.net/rapid"
)

var epoch = time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)

var allOperations = []connectorv1.OperationKind{
	connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE,
	connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE,
	connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE,
	connectorv1.OperationKind_OPERATION_KIND_DELETE, connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER,
	connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER, connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL,
	connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL,
}

// personType is an account with every kind of attribute the planner must tell
// apart.
func personType() *connectorv1.ObjectType {
	at := func(name string, rule connectorv1.MatchingRule, multi, required bool) *connectorv1.AttributeType {
		return &connectorv1.AttributeType{Name: name, Rule: rule, MultiValued: multi, Required: required}
	}
	return &connectorv1.ObjectType{
		Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Operations: allOperations,
		Attributes: []*connectorv1.AttributeType{
			at("floor", connectorv1.MatchingRule_MATCHING_RULE_INTEGER, false, false),
			at("mail", connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, true, false),
			at("manager", connectorv1.MatchingRule_MATCHING_RULE_REFERENCE, false, false),
			at("note", connectorv1.MatchingRule_MATCHING_RULE_EXACT, true, false),
			at("phone", connectorv1.MatchingRule_MATCHING_RULE_TELEPHONE, true, false),
			at("sees", connectorv1.MatchingRule_MATCHING_RULE_REFERENCE, true, false),
			at("sn", connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, false, true),
			at("title", connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, false, false),
			at("uid", connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, true, false),
		},
	}
}

func groupType(memberKey string, needsMember bool) *connectorv1.ObjectType {
	return &connectorv1.ObjectType{
		Name: "team", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", Operations: allOperations,
		Attributes: []*connectorv1.AttributeType{{Name: "cn", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE, MultiValued: true}},
		MemberKey:  memberKey, NeedsMember: needsMember,
	}
}

// Words that stress the matching rules: case, spaces, UTF-8, escapes, and pairs
// that are one value under a rule.
var (
	words  = []string{"Ærlig", "ærlig", "Straße, øst", " to  rom ", "to rom", "a+b=c", "x", "X", "日本", "#1"}
	logins = []string{"anna", "Berit", "carl, jr", "dørte", "erik+", "finn", "gro", "hå kon"}
	phones = []string{"+47 22 33 44", "+47223344", "+47-99 00 11", "12"}
	floors = []string{"1", "01", "2", "+3"}
	units  = []string{"people", "guests"}
)

func words1(t *rapid.T, label, attribute string) string {
	switch attribute {
	case "phone":
		return rapid.SampledFrom(phones).Draw(t, label)
	case "floor":
		return rapid.SampledFrom(floors).Draw(t, label)
	default:
		return rapid.SampledFrom(words).Draw(t, label)
	}
}

func accountName(login, unit string) []policy.Component {
	return []policy.Component{{{"uid", login}}, {{"ou", unit}}}
}

func teamName(i int) []policy.Component {
	return []policy.Component{{{"cn", fmt.Sprintf("team %d", i)}}}
}

func wireName(components []policy.Component) *connectorv1.Name {
	n := &connectorv1.Name{}
	for _, c := range components {
		w := &connectorv1.Component{}
		for _, p := range c {
			w.Parts = append(w.Parts, &connectorv1.Part{Type: p[0], Value: p[1]})
		}
		n.Components = append(n.Components, w)
	}
	return n
}

// person is what the test wants of one identity.
type person struct {
	id, cause string
	// want is nil while the identity asks for no account at all.
	state    policy.State
	retired  bool
	accounts map[string]*policy.Account
	grants   []policy.Entitled
}

// world is a tenant: its twin, the planner's input and what people are like.
type world struct {
	t      *rapid.T
	twin   *Twin
	in     planner.Input
	people []*person
	shadow *shadow
	// units by connector: where members are named by login, all are in one, so
	// that no two accounts have the same login.
	units map[string][]string
}

// newWorld draws directories, links, entitlements and people.
func newWorld(t *rapid.T) *world {
	w := &world{t: t, units: map[string][]string{}}
	w.in = planner.Input{
		Plan: "p", TrustDomain: "msp.example", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, AsOf: epoch,
		PolicyVersion: "1", Rules: policy.Rules{Budgets: policy.Budgets{
			Disable: policy.Budget{Floor: 1000}, Delete: policy.Budget{Floor: 1000}, Membership: policy.Budget{Floor: 1000},
		}},
	}
	for i := range rapid.IntRange(1, 5).Draw(t, "people") {
		w.people = append(w.people, &person{
			id: fmt.Sprintf("id%d", i), cause: rapid.SampledFrom([]string{"msp", "client"}).Draw(t, "cause"),
			state: policy.StateActive, accounts: map[string]*policy.Account{},
		})
	}
	for i := range rapid.IntRange(1, 2).Draw(t, "connectors") {
		w.connector(fmt.Sprintf("dir%d", i))
	}
	for range rapid.IntRange(0, 1).Draw(t, "separations") {
		if n := len(w.in.Entitlements); n > 1 {
			pair := [2]string{w.in.Entitlements[rapid.IntRange(0, n-1).Draw(t, "duty")].ID, w.in.Entitlements[rapid.IntRange(0, n-1).Draw(t, "other duty")].ID}
			w.in.Rules.Separation = append(w.in.Rules.Separation, pair)
		}
	}
	w.twin = NewTwin(w.in.Connectors)
	w.in.Connectors = w.twin.Connectors()
	for _, p := range w.people {
		for _, c := range w.in.Connectors {
			if rapid.IntRange(0, 3).Draw(t, "has account") > 0 {
				w.drawAccount(p, c.Alias)
			}
		}
	}
	w.shadow = newShadow(w.in.Connectors)
	return w
}

// connector draws one directory with accounts, some linked, and groups.
func (w *world) connector(alias string) {
	t := w.t
	key := rapid.SampledFrom([]string{"dn:", "uid:"}).Draw(t, "member key")
	c := planner.Connector{
		Alias: alias, Agent: "agent-" + alias,
		Mode:     rapid.SampledFrom([]planner.Mode{planner.ModeEnforce, planner.ModeEnforce, planner.ModeEnforce, planner.ModeAdopt}).Draw(t, "mode"),
		CaseRule: rapid.SampledFrom([]connectorv1.CaseRule{connectorv1.CaseRule_CASE_RULE_EXACT, connectorv1.CaseRule_CASE_RULE_IGNORE}).Draw(t, "case rule"),
		Types:    []*connectorv1.ObjectType{personType(), groupType(key, rapid.Bool().Draw(t, "needs member"))},
		Snapshot: &planv1.SnapshotHeader{Connector: alias, Snapshot: "s", Complete: true},
	}
	can := w.operations()
	for _, typ := range c.Types {
		typ.Operations = can
	}
	w.units[alias] = units
	if key == "uid:" {
		w.units[alias] = units[:1]
	}
	fold := func(s string) string {
		if c.CaseRule == connectorv1.CaseRule_CASE_RULE_IGNORE {
			return connectorv1.FoldCase(s)
		}
		return s
	}
	unlinked := slices.Clone(w.people)
	for i, login := range logins {
		if rapid.IntRange(0, 2).Draw(t, "object there") == 0 {
			continue
		}
		n := wireName(accountName(login, rapid.SampledFrom(w.units[alias]).Draw(t, "unit")))
		o := &connectorv1.Object{
			Type: "person", Anchor: fmt.Sprintf("%s-%c%d", alias, 'a'+byte(7*i%8), i), Name: n, Display: n.Text(),
			Keys:       []string{"dn:" + fold(n.Text()), "uid:" + fold(login)},
			Enablement: rapid.SampledFrom([]connectorv1.Enablement{1, 1, 1, 2}).Draw(t, "enablement"),
			Attributes: []*connectorv1.Attribute{{Name: "sn", Values: [][]byte{[]byte("Sn")}}, {Name: "uid", Values: [][]byte{[]byte(login)}}},
		}
		if !c.Types[0].Allows(connectorv1.OperationKind_OPERATION_KIND_DISABLE) {
			o.Enablement = connectorv1.Enablement_ENABLEMENT_UNSPECIFIED
		}
		for _, a := range []string{"floor", "mail", "note", "phone", "title"} {
			w.giveValues(o, c.Types[0].AttributeType(a))
		}
		c.Objects = append(c.Objects, o)
		if len(unlinked) > 0 && rapid.IntRange(0, 2).Draw(t, "linked") > 0 {
			w.in.Links = append(w.in.Links, planner.Link{Connector: alias, Anchor: o.GetAnchor(), Identity: unlinked[0].id, Purpose: "normal"})
			unlinked = unlinked[1:]
		}
	}
	accounts := slices.Clone(c.Objects)
	for i := range rapid.IntRange(1, 3).Draw(t, "teams") {
		n := wireName(teamName(i))
		g := &connectorv1.Object{
			Type: "team", Anchor: fmt.Sprintf("%s-team%d", alias, i), Name: n, Display: n.Text(), Keys: []string{"dn:" + fold(n.Text())},
			Attributes: []*connectorv1.Attribute{{Name: "cn", Values: [][]byte{[]byte(n.Leaf().GetParts()[0].GetValue())}}},
		}
		for _, o := range accounts {
			if rapid.IntRange(0, 2).Draw(t, "member") == 0 {
				g.Members = append(g.Members, keyOf(o, key))
			}
		}
		slices.Sort(g.Members)
		c.Objects = append(c.Objects, g)
		if rapid.IntRange(0, 3).Draw(t, "governed") > 0 {
			w.in.Entitlements = append(w.in.Entitlements, policy.Entitlement{
				ID: fmt.Sprintf("%s/team%d", alias, i), Connector: alias, Type: "team", Name: teamName(i),
				Authority: rapid.SampledFrom([]policy.Authority{policy.Additive, policy.Additive, policy.Authoritative}).Draw(t, "group authority"),
				Cause:     rapid.SampledFrom([]string{"client", "msp"}).Draw(t, "group's cause"),
			})
		}
	}
	w.in.Connectors = append(w.in.Connectors, c)
}

// operations draws what a connector can do: most can do everything.
func (w *world) operations() []connectorv1.OperationKind {
	can := slices.Clone(allOperations)
	for _, lacks := range [][]connectorv1.OperationKind{
		{connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE},
		{connectorv1.OperationKind_OPERATION_KIND_DELETE}, {connectorv1.OperationKind_OPERATION_KIND_RENAME},
		{connectorv1.OperationKind_OPERATION_KIND_MOVE}, {connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER},
		{connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL}, {connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL},
	} {
		if rapid.IntRange(0, 9).Draw(w.t, "lacks") == 9 {
			can = slices.DeleteFunc(can, func(k connectorv1.OperationKind) bool { return slices.Contains(lacks, k) })
		}
	}
	return can
}

func (w *world) giveValues(o *connectorv1.Object, a *connectorv1.AttributeType) {
	n := rapid.IntRange(0, 2).Draw(w.t, "values of "+a.GetName())
	if !a.GetMultiValued() {
		n = min(n, 1)
	}
	var values [][]byte
	for range n {
		if v := []byte(words1(w.t, "value", a.GetName())); !connectorv1.HasValue(a.GetRule(), values, v) {
			values = append(values, v)
		}
	}
	setValues(o, a, values)
}

// drawAccount draws what policy says of a person's account.
func (w *world) drawAccount(p *person, alias string) {
	t := w.t
	a := &policy.Account{
		Connector: alias, Purpose: "normal", Type: "person", Enabled: true, Cause: p.cause, Rule: "base/" + p.cause,
		Name: accountName(rapid.SampledFrom(logins).Draw(t, "login"), rapid.SampledFrom(w.units[alias]).Draw(t, "unit")),
		Attributes: []policy.DesiredAttribute{{
			Name: "sn", Values: []string{rapid.SampledFrom([]string{"Sn", "SN", "Ny"}).Draw(t, "sn")},
			Authority: rapid.SampledFrom([]policy.Authority{policy.Enforce, policy.Initial}).Draw(t, "authority"),
		}},
	}
	if rapid.Bool().Draw(t, "credential") {
		a.Credential = &policy.Credential{Recipient: "hr"}
	}
	for _, d := range personType().GetAttributes() {
		if d.GetName() == "sn" || rapid.Bool().Draw(t, "map "+d.GetName()) {
			continue
		}
		want := policy.DesiredAttribute{
			Name:      d.GetName(),
			Authority: rapid.SampledFrom([]policy.Authority{policy.Enforce, policy.Enforce, policy.Additive, policy.Initial, policy.Observe}).Draw(t, "authority"),
		}
		n := rapid.IntRange(0, 2).Draw(t, "wanted values")
		if !d.GetMultiValued() {
			n = min(n, 1)
		}
		for range n {
			switch {
			case d.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE:
				want.Refs = append(want.Refs, rapid.SampledFrom(w.people).Draw(t, "ref").id)
			case d.GetName() == "uid":
				want.Values = append(want.Values, a.Name[0][0][1])
			default:
				want.Values = append(want.Values, words1(t, "wanted", d.GetName()))
			}
		}
		a.Attributes = append(a.Attributes, want)
		if p.cause == "client" && want.Authority == policy.Additive && rapid.Bool().Draw(t, "the MSP asks too") {
			w.alsoAsked(a, want, d)
		}
	}
	slices.SortFunc(a.Attributes, func(x, y policy.DesiredAttribute) int {
		return cmp.Or(strings.Compare(x.Name, y.Name), strings.Compare(x.Cause, y.Cause))
	})
	p.accounts[alias] = a
}

// alsoAsked lets a role of the MSP ask for more values of an attribute.
func (w *world) alsoAsked(a *policy.Account, client policy.DesiredAttribute, d *connectorv1.AttributeType) {
	more := policy.DesiredAttribute{Name: client.Name, Authority: policy.Additive, Cause: "msp", Rule: "base/extra"}
	for range rapid.IntRange(0, 2).Draw(w.t, "values of the MSP") {
		if d.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			more.Refs = append(more.Refs, rapid.SampledFrom(w.people).Draw(w.t, "ref of the MSP").id)
		} else {
			more.Values = append(more.Values, words1(w.t, "value of the MSP", d.GetName()))
		}
	}
	a.Attributes = append(a.Attributes, more)
}

// desire writes the people down as policy would.
func (w *world) desire() {
	w.in.Desired, w.in.Leavers, w.in.Suspended = nil, nil, nil
	for _, p := range w.people {
		d := policy.Desired{Subject: p.id}
		for _, c := range w.in.Connectors {
			if p.accounts[c.Alias] == nil {
				continue
			}
			a := *p.accounts[c.Alias]
			a.Enabled, a.Delete = p.state == policy.StateActive, p.retired
			d.Accounts = append(d.Accounts, a)
		}
		if p.state == policy.StateActive {
			d.Entitlements = slices.Clone(p.grants)
		}
		switch p.state {
		case policy.StateLeaver:
			w.in.Leavers = append(w.in.Leavers, p.id)
		case policy.StateSuspended:
			w.in.Suspended = append(w.in.Suspended, p.id)
		}
		w.in.Desired = append(w.in.Desired, d)
	}
}
