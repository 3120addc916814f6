package planning_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/grant/grantstore"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/inventory/inventorystore"
	"github.com/reevehq/reeve/controlplane/internal/ledger"
	"github.com/reevehq/reeve/controlplane/internal/ledger/ledgerstore"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tenant/tenantstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const clientPolicy = `reeve: policy/v1
name: baseline
version: "1"
sources:
  - connector: hr
    type: row
    attributes: {login: 'row.attr("login")', salary: 'row.attr("salary")'}
    filter: 'row.attr("login") != ""'
    end: 'row.attr("end")'
    active: 'row.attr("status") != "leave"'
correlate:
  - {connector: corp, type: person, match: [{identity: login, object: "@name"}]}
entitlements:
  - {id: files/admins, connector: corp, type: team, name: 'name([rdn("cn", "admins")])', privileged: true}
roles:
  - id: staff
    when: 'identity.attr("salary") == "" || int(identity.attr("salary")) > 0'
    accounts:
      - {connector: corp, type: person, name: 'name([rdn("uid", identity.attr("login"))])'}
msp:
  retention: 30d
  accounts:
    - {connector: corp, type: person, name: 'name([rdn("uid", "msp-" + identity.attr("login"))])'}
budgets: {disable: {percent: 100, floor: 100}, delete: {percent: 100, floor: 100}, membership: {percent: 100, floor: 100}}
approval: {two_operators: {privileged: true}}
leaver: {snapshots: 2, grace: 24h, retention: 30d}
`

// retention of a technician's account in clientPolicy.
const retention = 30 * 24 * time.Hour

const mspPolicy = `reeve: policy/v1
name: msp-staff
version: "1"
sources:
  - {connector: staff, type: row, attributes: {login: 'row.attr("login")'}, end: 'row.attr("end")'}
`

// records counts acts and keeps their types by tenant.
type records struct {
	acts    map[string][]auditv1.Type
	headers []*auditv1.Header
}

func (r *records) AppendAct(_ tx.Tx, tenant string, h *auditv1.Header, _ *auditv1.Body) (uint64, error) {
	r.acts[tenant] = append(r.acts[tenant], h.GetType())
	r.headers = append(r.headers, h)
	return uint64(len(r.headers)), nil
}

type everLive struct{}

func (everLive) Live(tx.Tx, string, string) (bool, error) { return true, nil }

// desk is planning over real stores, with a client and the MSP.
type desk struct {
	*planning.Service
	t         *testing.T
	db        *tx.DB
	now       time.Time
	records   *records
	tenants   *tenant.Service
	inventory *inventory.Service
	grants    *grant.Service
	snapshots int
}

func open(t *testing.T, solo bool) *desk {
	t.Helper()
	ctx := context.Background()
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{t: t, db: db, now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC), records: &records{acts: map[string][]auditv1.Type{}}}
	clock := func() time.Time { return d.now }
	log := slog.New(slog.DiscardHandler)
	d.tenants = tenant.NewService(db, tenantstore.Store{}, d.records, clock, log)
	d.inventory = inventory.New(db, inventorystore.Store{}, d.records, everLive{}, func(string, bool) {})
	d.grants = grant.New(db, grantstore.Store{}, d.records, clock)
	policies := policystore.New(db, d.records, clock, "msp")
	d.Service = planning.New(planning.Config{
		DB: db, Store: planningstore.Store{}, Tenants: d.tenants, Inventory: inventorystore.Store{},
		Identities: identity.New(db, identitystore.Store{}, d.records, clock), IdentityStore: identitystore.Store{},
		Grants: grantstore.Store{}, Policies: policies, Ledger: ledger.New(db, ledgerstore.Store{}), Records: d.records,
		TrustDomain: "reeve.example", MSP: "msp", Solo: solo, Now: clock, Made: func(string, []string) {},
	})
	if err := d.tenants.EnsureMSP(ctx, tenant.New{ID: "msp", Name: "MSP", Owner: "noc@msp.example", Zone: "UTC"}); err != nil {
		t.Fatal(err)
	}
	if _, err := d.tenants.Add(ctx, "operator:kari", tenant.New{ID: "fabrikam", Name: "Fabrikam", Owner: "it@fabrikam.example", Zone: "Europe/Oslo"}); err != nil {
		t.Fatal(err)
	}
	for tenantID, text := range map[string]string{"fabrikam": clientPolicy, "msp": mspPolicy} {
		v, _, err := policies.Apply(ctx, []policy.File{{Path: "policy.yaml", Data: []byte(text)}}, "operator:kari")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := policies.Bind(ctx, policystore.Binding{Tenant: tenantID, Name: v.Name}, "operator:kari"); err != nil {
			t.Fatal(err)
		}
	}
	source, target := agentv1.ConnectorState_ROLE_SOURCE, agentv1.ConnectorState_ROLE_TARGET
	d.report("fabrikam", "dc1", state("hr", source, "hr"), state("corp", target, "corp"))
	d.report("msp", "noc", state("staff", source, "staff"))
	d.confirm("fabrikam", "hr")
	d.confirm("msp", "staff")
	return d
}

func state(alias string, role agentv1.ConnectorState_Role, fact string) *agentv1.ConnectorState {
	ops := []connectorv1.OperationKind{
		connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE,
		connectorv1.OperationKind_OPERATION_KIND_DELETE, connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER,
	}
	return &agentv1.ConnectorState{
		Alias: alias, Role: role, Mode: agentv1.ConnectorState_MODE_ENFORCE, CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE,
		Fingerprint: []*connectorv1.Fact{{Name: "suffix", Value: fact}},
		Types: []*connectorv1.ObjectType{
			{Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Operations: ops},
			{Name: "team", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", Operations: ops, MemberKey: "dn:"},
		},
	}
}

func (d *desk) report(tenantID, agent string, states ...*agentv1.ConnectorState) {
	d.t.Helper()
	if err := d.inventory.Report(context.Background(), tenantID, agent, states); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) confirm(tenantID, alias string) {
	d.t.Helper()
	list, err := d.inventory.Connectors(context.Background(), tenantID)
	if err != nil {
		d.t.Fatal(err)
	}
	for _, c := range list {
		if c.Alias == alias {
			if _, err := d.inventory.Confirm(context.Background(), tenantID, alias, c.Fingerprint, "operator:kari", d.now); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// row writes "anchor name=value ..." as a row of a source.
func row(text string) *connectorv1.Object {
	f := strings.Fields(text)
	o := &connectorv1.Object{Type: "row", Anchor: f[0]}
	for _, column := range f[1:] {
		name, value, _ := strings.Cut(column, "=")
		o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: name, Values: [][]byte{[]byte(value)}})
	}
	return o
}

func person(uid string) *connectorv1.Object {
	return &connectorv1.Object{
		Type: "person", Anchor: "a-" + uid, Keys: []string{"dn:" + uid}, Display: uid, Enablement: connectorv1.Enablement_ENABLEMENT_ENABLED,
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("uid", uid)}},
	}
}

func team(cn string) *connectorv1.Object {
	return &connectorv1.Object{
		Type: "team", Anchor: "g-" + cn, Keys: []string{"dn:cn=" + cn}, Display: cn,
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("cn", cn)}},
	}
}

// observe sends a complete snapshot, observed now.
func (d *desk) observe(tenantID, agent, alias string, objects ...*connectorv1.Object) {
	d.t.Helper()
	ctx := context.Background()
	d.snapshots++
	id := fmt.Sprint("s", d.snapshots)
	r, err := d.inventory.Begin(ctx, tenantID, agent, &agentv1.SnapshotBegin{Connector: alias, Snapshot: id})
	if err != nil {
		d.t.Fatal(err)
	}
	slices.SortFunc(objects, func(a, b *connectorv1.Object) int { return strings.Compare(a.GetAnchor(), b.GetAnchor()) })
	var set connectorv1.SetDigest
	for _, o := range objects {
		set.Add(o.GetAnchor(), o.Digest())
	}
	sum, count := set.Sum()
	if err := r.Batch(ctx, &agentv1.ObservedBatch{Objects: objects}); err != nil {
		d.t.Fatal(err)
	}
	if err := r.End(ctx, &agentv1.SnapshotEnd{Header: &planv1.SnapshotHeader{
		Connector: alias, Snapshot: id, Objects: count, SetDigest: sum, Complete: true, ObservedAt: timestamppb.New(d.now),
	}}); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) hr(rows ...string) {
	d.t.Helper()
	d.rows("fabrikam", "dc1", "hr", rows...)
	if err := d.Refresh(context.Background(), "fabrikam"); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) rows(tenantID, agent, alias string, rows ...string) {
	d.t.Helper()
	var objects []*connectorv1.Object
	for _, text := range rows {
		objects = append(objects, row(text))
	}
	d.observe(tenantID, agent, alias, objects...)
	if err := d.Refresh(context.Background(), tenantID); err != nil {
		d.t.Fatal(err)
	}
}

// id is the identity with a login.
func (d *desk) id(tenantID, login string) identity.Identity {
	d.t.Helper()
	var found identity.Identity
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		list, err := identitystore.Store{}.List(t, tenantID, "", 0)
		for _, id := range list {
			if slices.Contains(id.Attributes["login"], login) {
				found = id
			}
		}
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return found
}

// wants previews a plan and prints its changes as people read them.
func (d *desk) wants() []string {
	d.t.Helper()
	_, out, err := d.Preview(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE)
	if err != nil {
		d.t.Fatal(err)
	}
	lines := []string{}
	for _, a := range out.Agents {
		for _, c := range a.Changes {
			lines = append(lines, c.GetOperation().Kind().Word()+" "+c.GetDisplay())
		}
	}
	slices.Sort(lines)
	return lines
}
