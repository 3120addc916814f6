package wall

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

const bundle = `reeve: policy/v1
name: wall
version: "1"
parameters:
  - {name: site, type: string, required: true, classification: public, description: where}
sources:
  - connector: hr
    type: person
    kind: human
    attributes: {login: 'row.attr("login")', mail: 'row.attr("mail")', display_name: 'row.attr("display_name")'}
correlate:
  - {connector: web, type: user, match: [{identity: mail, object: mail}]}
entitlements:
  - {id: web/staff, connector: web, type: team, name: 'name([rdn("cn", "staff")])'}
  - {id: web/admins, connector: web, type: team, name: 'name([rdn("cn", "admins")])', privileged: true}
roles:
  - id: staff
    when: 'identity.kind == "human"'
    cause: msp
    accounts:
      - connector: web
        type: user
        name: 'name([rdn("uid", identity.attr("login"))])'
        attributes: [{name: description, value: 'params.site + " " + identity.attr("display_name")'}]
    entitlements: [web/staff]
budgets: {disable: {percent: 100, floor: 100}, delete: {percent: 100, floor: 100}, membership: {percent: 100, floor: 100}}
`

// estate is everything of one tenant that a request can name. That of nobody has
// names of the same shape and was never told to anyone.
type estate struct {
	*canaries
	tenant string
	// extra is a connector alias, second an agent, that no other tenant has; the
	// main agent and two connectors are namesakes of every tenant's.
	extra, second, revoked string
	extraSnapshot          string
	fingerprint            string
	order, plan            string
	digest                 []byte
	change                 string
	// receipt is one of the order's.
	receipt                        *auditv1.Receipt
	identity, login                string
	openCase, candidate            string
	grant, schedule, spareSchedule string
	// entries is how long the tenant's log is.
	entries uint64
	// more is how many more records its main agent ships.
	more int
	note string

	main, sibling, ended *fakeAgent

	// planted are names of others that the tenant's own callers put among its
	// things.
	planted []string
}

const mainAgent = "dc1"

// names are what requests of this estate name, by what they stand for: two
// answers are compared with these made equal.
func (e *estate) names() map[string]string {
	names := map[string]string{
		e.tenant: "tenant", e.extra: "extra", e.second: "second", e.extraSnapshot: "snapshot", e.order: "order", e.plan: "plan",
		hex.EncodeToString(e.digest): "digest", e.change: "change", e.identity: "identity", e.login: "login", e.openCase: "case",
		e.candidate: "candidate", e.spareSchedule: "spare schedule", e.spareOf(true): "spare", e.spareOf(false): "spare", e.grant: "grant", e.schedule: "schedule", e.fingerprint: "fingerprint", e.revoked: "revoked",
	}
	delete(names, "")
	return names
}

// spare is a connector alias of the tenant's for others to take as theirs: what
// is taken must not be looked for in vain any more. Each agent has one to take.
func (e *estate) spare(taker *fakeAgent) string { return e.spareOf(taker.name == mainAgent) }

func (e *estate) spareOf(main bool) string { return e.word(fmt.Sprintf("spare alias %t", main)) }

// newEstate has the names that the tenant's own people and programs choose.
func newEstate(tenant string) *estate {
	e := &estate{canaries: newCanaries()}
	e.tenant = tenant
	if tenant == "" {
		e.tenant = e.word("tenant")
	}
	e.extra, e.second, e.revoked, e.extraSnapshot = e.word("alias"), e.word("second agent"), e.word("revoked agent"), e.word("snapshot")
	e.login, e.candidate = e.word("login"), e.word("candidate anchor")
	e.schedule, e.spareSchedule = e.word("schedule"), e.word("spare schedule")
	return e
}

// nobody is an estate of the shape of like that exists nowhere.
func nobody(like *estate) (*estate, error) {
	e := newEstate("")
	e.order, e.plan, e.identity, e.openCase, e.grant = altered(like.order), altered(like.plan), altered(like.identity), altered(like.openCase), altered(like.grant)
	e.change, e.fingerprint = altered(like.change), altered(like.fingerprint)
	e.digest = slices.Clone(like.digest)
	for i := range e.digest {
		e.digest[i] ^= 0x5a
	}
	e.entries = like.entries + 1_000_000
	origin, _, _ := strings.Cut(like.note, "\n")
	e.note = strings.Replace(like.note, origin, strings.ReplaceAll(origin, like.tenant, e.tenant), 1)
	var err error
	for _, a := range []struct {
		at   **fakeAgent
		name string
	}{{&e.main, mainAgent}, {&e.sibling, e.second}, {&e.ended, e.revoked}} {
		if *a.at, err = newFakeAgent(e.tenant, a.name); err != nil {
			return nil, err
		}
	}
	e.receipt = &auditv1.Receipt{Order: e.order, Change: e.change, Connector: "web", Type: "user", Operation: like.receipt.GetOperation()}
	r, err := record(e.tenant, auditv1.Type_TYPE_RECEIPT, &auditv1.Body{Body: &auditv1.Body_Receipt{Receipt: e.receipt}})
	if err == nil {
		_, err = e.main.batch(true, r)
	}
	return e, err
}

// altered is an id of the same shape: its last eight letters go on by one, within
// what hex and base32 have in common.
func altered(id string) string {
	b := []byte(id)
	for i := max(0, len(b)-8); i < len(b); i++ {
		switch {
		case b[i] >= 'a' && b[i] <= 'f':
			b[i] = 'a' + (b[i]-'a'+1)%6
		case b[i] >= '2' && b[i] <= '7':
			b[i] = '2' + (b[i]-'2'+1)%6
		}
	}
	return string(b)
}

func act(verb, object, reason string, details ...*auditv1.Act_Detail) *auditv1.Body {
	return &auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: verb, Object: object, Reason: reason, Details: details}}}
}

func (e *estate) problem(label string) *connectorv1.Problem {
	return &connectorv1.Problem{
		Code: "NOTE", Object: e.word(label + " object"), Tried: e.word(label + " tried"), Said: e.word(label + " said"),
		Remedy: e.word(label + " remedy"), Severity: connectorv1.Severity_SEVERITY_NOTE,
	}
}

func (e *estate) state(alias string, role agentv1.ConnectorState_Role) *agentv1.ConnectorState {
	ops := []connectorv1.OperationKind{
		connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE, connectorv1.OperationKind_OPERATION_KIND_ENABLE,
		connectorv1.OperationKind_OPERATION_KIND_DISABLE, connectorv1.OperationKind_OPERATION_KIND_DELETE,
		connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER,
	}
	attributes := []*connectorv1.AttributeType{{Name: "description"}, {Name: "mail"}}
	return &agentv1.ConnectorState{
		Alias: alias, Connector: e.word("connector program"), Role: role, Mode: agentv1.ConnectorState_MODE_ENFORCE,
		CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE, Reachable: true,
		Fingerprint: []*connectorv1.Fact{{Name: "suffix", Value: e.word("fact of " + alias[:2])}},
		Problems:    []*connectorv1.Problem{e.problem("state")},
		Types: []*connectorv1.ObjectType{
			{Name: "user", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Operations: ops, Attributes: attributes},
			{Name: "team", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", Operations: ops, MemberKey: "dn:"},
		},
	}
}

func object(typ, anchor, naming, name string, attributes ...string) *connectorv1.Object {
	o := &connectorv1.Object{
		Type: typ, Anchor: anchor, Display: name, Keys: []string{"dn:" + naming + "=" + name},
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(naming, name)}},
	}
	for i := 0; i+1 < len(attributes); i += 2 {
		o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: attributes[i], Values: [][]byte{[]byte(attributes[i+1])}})
	}
	return o
}

func (e *estate) person(n int) *connectorv1.Object {
	is := func(what string) string { return e.word(fmt.Sprintf("%s of person %d", what, n)) }
	login := e.login
	if n > 0 {
		login = is("login")
	}
	return object("person", is("anchor"), "employee", is("employee number"), "display_name", is("name"), "login", login, "mail", is("mail")+"@client.example")
}

func (e *estate) user(label, mail string) *connectorv1.Object {
	o := object("user", e.word(label), "uid", e.word(label+" name"), "mail", mail, "description", e.word(label+" description"))
	o.Enablement = connectorv1.Enablement_ENABLEMENT_ENABLED
	return o
}

// fill gives a tenant all that there can be of one.
func (w *world) fill(e *estate) error {
	say := w.operator
	if e.tenant != mspTenant {
		if _, err := say("Tenant", "AddTenant", &operatorv1.AddTenantRequest{Id: e.tenant, Owner: e.word("owner") + "@client.example", Zone: "Europe/Oslo"}); err != nil {
			return err
		}
	}
	var err error
	for _, a := range []struct {
		at   **fakeAgent
		name string
	}{{&e.main, mainAgent}, {&e.sibling, e.second}, {&e.ended, e.revoked}} {
		if *a.at, err = w.joined(e.tenant, a.name); err != nil {
			return err
		}
	}
	if _, err := say("Agent", "RevokeAgent", &operatorv1.RevokeAgentRequest{Tenant: e.tenant, Agent: e.revoked, Reason: e.word("revoke reason")}); err != nil {
		return err
	}
	e.main.states = []*agentv1.ConnectorState{
		e.state("hr", agentv1.ConnectorState_ROLE_SOURCE), e.state("web", agentv1.ConnectorState_ROLE_TARGET), e.state(e.extra, agentv1.ConnectorState_ROLE_TARGET),
		e.state(e.spareOf(true), agentv1.ConnectorState_ROLE_TARGET), e.state(e.spareOf(false), agentv1.ConnectorState_ROLE_TARGET),
	}
	e.main.alias, e.sibling.alias = e.extra, e.word("alias of the second")
	e.sibling.states = []*agentv1.ConnectorState{e.state(e.sibling.alias, agentv1.ConnectorState_ROLE_TARGET)}
	for _, a := range []*fakeAgent{e.main, e.sibling} {
		if _, err := a.must("Session", a.hello()); err != nil {
			return err
		}
	}
	people := []*connectorv1.Object{e.person(0), e.person(1), e.person(2)}
	mail := func(n int) string { return string(people[n].Attribute("mail")[0]) }
	team := object("team", e.word("team anchor"), "cn", "staff")
	team.Members = []string{"dn:uid=" + e.word("stranger in team")}
	admins := object("team", e.word("admins anchor"), "cn", "admins")
	users := []*connectorv1.Object{
		e.user("candidate anchor", mail(0)), e.user("other candidate", mail(0)), e.user("third candidate", mail(1)), e.user("fourth candidate", mail(1)),
		e.user("orphan", "nobody@client.example"), team, admins,
	}
	for _, push := range [][]proto.Message{
		snapshot("hr", e.word("snapshot of hr"), "hr", e.word("method"), []*connectorv1.Problem{e.problem("snapshot")}, people...),
		snapshot("web", e.word("snapshot of web"), "web", e.word("method"), nil, users...),
		snapshot(e.extra, e.extraSnapshot, e.extra, e.word("method"), nil, e.user("extra orphan", "x@client.example")),
	} {
		if _, err := e.main.must("PushObservations", push...); err != nil {
			return err
		}
	}
	got, err := say("Connector", "ListConnectors", &operatorv1.ListConnectorsRequest{Tenant: e.tenant})
	if err != nil {
		return err
	}
	for _, c := range got[0].(*operatorv1.ListConnectorsResponse).GetConnectors() {
		switch c.GetState().GetAlias() {
		case e.extra:
			e.fingerprint = c.GetFingerprintSha256()
		case "hr":
			if _, err := say("Connector", "ConfirmSource", &operatorv1.ConfirmSourceRequest{Tenant: e.tenant, Connector: "hr", FingerprintSha256: c.GetFingerprintSha256()}); err != nil {
				return err
			}
		}
	}
	if _, err := say("Policy", "BindPolicy", &operatorv1.BindPolicyRequest{Tenant: e.tenant, Policy: "wall", Parameters: []*operatorv1.Parameter{{Name: "site", Value: e.word("parameter")}}}); err != nil {
		return err
	}
	if err := w.people(e); err != nil {
		return err
	}
	if err := w.plans(e, people); err != nil {
		return err
	}
	checkpoint, err := say("Audit", "GetCheckpoint", &operatorv1.GetCheckpointRequest{Tenant: e.tenant})
	if err != nil {
		return err
	}
	e.note = checkpoint[0].(*operatorv1.GetCheckpointResponse).GetCheckpoint()
	if _, err := fmt.Sscan(strings.Split(e.note, "\n")[1], &e.entries); err != nil {
		return fmt.Errorf("checkpoint %q: %w", e.note, err)
	}
	e.secrets = []string{e.order, e.plan, e.identity, e.openCase, e.grant, string(e.digest), e.fingerprint}
	return nil
}

// people gives the tenant grants, cases and a schedule.
func (w *world) people(e *estate) error {
	say := w.operator
	got, err := say("Identity", "ListIdentities", &operatorv1.ListIdentitiesRequest{Tenant: e.tenant})
	if err != nil {
		return err
	}
	list := got[0].(*operatorv1.ListIdentitiesResponse).GetIdentities()
	if len(list) != 3 {
		return fmt.Errorf("%s has %d identities, not 3", e.tenant, len(list))
	}
	var ends string
	for _, ticket := range []string{"ticket", "ticket of the ended"} {
		got, err := say("Grant", "AddGrant", &operatorv1.AddGrantRequest{
			Tenant: e.tenant, Identity: e.login, Entitlement: "web/admins", ValidFor: durationpb.New(24 * time.Hour), Reason: e.word("grant reason"), Ticket: e.word(ticket),
		})
		if err != nil {
			return err
		}
		g := got[0].(*operatorv1.AddGrantResponse).GetGrant()
		if e.grant == "" {
			e.grant, e.identity = g.GetId(), g.GetIdentity()
		}
		ends = g.GetId()
	}
	if _, err := say("Grant", "EndGrant", &operatorv1.EndGrantRequest{Tenant: e.tenant, Grant: ends, Reason: e.word("end reason")}); err != nil {
		return err
	}
	if got, err = say("Identity", "ListCases", &operatorv1.ListCasesRequest{Tenant: e.tenant}); err != nil {
		return err
	}
	cases := got[0].(*operatorv1.ListCasesResponse).GetCases()
	if len(cases) != 2 {
		return fmt.Errorf("%s has %d cases, not 2", e.tenant, len(cases))
	}
	for _, c := range cases {
		if c.GetSubject() == e.identity {
			e.openCase = c.GetId()
		} else if _, err := say("Identity", "DecideCase", &operatorv1.DecideCaseRequest{Tenant: e.tenant, Case: c.GetId(), Candidate: "none", Reason: e.word("case reason")}); err != nil {
			return err
		}
	}
	for _, name := range []string{e.schedule, e.spareSchedule} {
		if _, err := say("Schedule", "AddSchedule", &operatorv1.AddScheduleRequest{Schedule: &operatorv1.Schedule{Tenant: e.tenant, Name: name, Cron: "0 0 1 1 *", Work: "observe"}}); err != nil {
			return err
		}
	}
	return nil
}
