package planning_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// changes decodes a stored plan's changes.
func (d *desk) changes(p planning.Plan) []*planv1.Change {
	d.t.Helper()
	var list []*planv1.Change
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		chunks, err := planningstore.Store{}.Chunks(t, p.ID, "dc1")
		for _, c := range chunks {
			chunk := new(planv1.Chunk)
			if err := planv1.Decode(c.Bytes, chunk); err != nil {
				return err
			}
			list = append(list, chunk.GetChanges()...)
		}
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return list
}

func (d *desk) accounts(tenantID string) (list []identity.Account) {
	d.t.Helper()
	if err := d.db.View(context.Background(), func(t tx.Tx) (err error) {
		list, err = identitystore.Store{}.Accounts(t, tenantID)
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return list
}

// A row becomes an identity, a plan is kept as made, and the receipt of its
// create links the account that it made.
func TestFromARowToALinkedAccount(t *testing.T) {
	ctx := context.Background()
	for _, solo := range []bool{false, true} {
		d := open(t, solo)
		if _, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_UNSPECIFIED, "operator:kari"); !errors.Is(err, planning.ErrNothingObserved) {
			t.Fatalf("before the first snapshot: %v", err)
		}
		d.hr("1 login=anna", "2 login=bo", "3 login=")
		d.observe("fabrikam", "dc1", "corp", person("bo"))
		p, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_UNSPECIFIED, "operator:kari")
		if err != nil {
			t.Fatal(err)
		}
		if p.Phase != operatorv1.PlanState_PHASE_WAITING || p.People != 1 || p.Privileged || p.Operators != 1 || p.Purpose != planv1.Purpose_PURPOSE_CHANGE {
			t.Fatalf("%+v", p)
		}
		manifest := new(planv1.Manifest)
		if err := planv1.Decode(p.Manifest, manifest); err != nil {
			t.Fatal(err)
		}
		if manifest.GetSoloOperator() != solo || manifest.GetPolicyVersion() != "baseline 1" {
			t.Fatalf("manifest %+v", manifest)
		}
		var stored planning.Plan
		if err := d.db.View(ctx, func(t tx.Tx) (err error) { stored, err = planningstore.Store{}.ByDigest(t, p.Digest); return err }); err != nil {
			t.Fatal(err)
		}
		if stored.ID != p.ID || !slices.Equal(stored.Manifest, p.Manifest) || !proto.Equal(stored.Rehearsal, p.Rehearsal) || stored.MadeBy != "operator:kari" {
			t.Fatalf("stored %+v", stored)
		}
		anna := d.id("fabrikam", "anna")
		create := d.changes(p)[0]
		if create.GetOperation().GetCreate() == nil || create.GetIdentity() != anna.ID {
			t.Fatalf("first change %v", create)
		}
		receive := func(r *auditv1.Receipt) {
			t.Helper()
			r.Change, r.Connector, r.Type, r.Anchor = create.GetId(), "corp", "person", "a-anna"
			if err := d.db.Do(ctx, func(t tx.Tx) error { return d.Received(t, "fabrikam", p.ID, r) }); err != nil {
				t.Fatal(err)
			}
		}
		receive(&auditv1.Receipt{Result: auditv1.Receipt_RESULT_FAILED})
		if got := d.accounts("fabrikam"); len(got) != 1 || got[0].Anchor != "a-bo" || got[0].Created {
			t.Fatalf("before it was made: %+v", got)
		}
		receive(&auditv1.Receipt{Result: auditv1.Receipt_RESULT_APPLIED, After: &auditv1.Touched{Exists: true}})
		want := identity.Account{Connector: "corp", Anchor: "a-anna", Identity: anna.ID, Purpose: "normal", Type: "person", Created: true}
		if got := d.accounts("fabrikam"); len(got) != 2 || got[0] != want {
			t.Fatalf("after: %+v", got)
		}
		d.observe("fabrikam", "dc1", "corp", person("anna"), person("bo"))
		again, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_CHANGE, "operator:kari")
		if err != nil || again.Changes != 0 || again.Phase != operatorv1.PlanState_PHASE_ENDED {
			t.Fatalf("planned again: %+v, %v", again, err)
		}
		receive(&auditv1.Receipt{Result: auditv1.Receipt_RESULT_APPLIED, Before: &auditv1.Touched{Exists: true}, After: &auditv1.Touched{}})
		if got := d.accounts("fabrikam"); len(got) != 1 {
			t.Fatalf("after its delete: %+v", got)
		}
	}
}

// The id of a change says nothing to who does not have the tenant's key, and is
// the same in the next plan.
func TestChangesAreNamedUnderTheTenantsKey(t *testing.T) {
	ids := func(d *desk) (all []string) {
		d.hr("1 login=anna")
		d.observe("fabrikam", "dc1", "corp")
		for range 2 {
			p, err := d.Make(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE, "operator:kari")
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, d.changes(p)[0].GetId())
		}
		return all
	}
	d := open(t, false)
	got := ids(d)
	if got[0] != got[1] {
		t.Fatalf("the same change is %s and %s", got[0], got[1])
	}
	keys := map[string]bool{}
	for range 2 {
		for _, tenantID := range []string{"fabrikam", "msp"} {
			if err := d.db.Do(context.Background(), func(t tx.Tx) error {
				key, err := planningstore.Store{}.ChangeKey(t, tenantID, []byte("not taken for "+tenantID))
				keys[string(key)] = true
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(keys) != 2 {
		t.Fatalf("%d keys for two tenants", len(keys))
	}
}

func TestATechnicianIsAGuestUntilTheyLeaveTheMSP(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	d.rows("msp", "noc", "staff", "t1 login=kari", "t2 login=ola")
	d.hr("1 login=anna")
	d.observe("fabrikam", "dc1", "corp", person("anna"), team("admins"))
	kari := d.id("msp", "kari")
	g, err := d.grants.Add(ctx, "fabrikam", grant.Grant{Identity: "msp/" + kari.ID, Entitlement: "files/admins", Reason: "T-1042"}, 48*time.Hour, grant.Rule{}, "operator:kari")
	if err != nil {
		t.Fatal(err)
	}
	if got := d.wants(); !slices.Equal(got, []string{"add member uid=msp-kari", "create uid=msp-kari", "enable uid=msp-kari"}) {
		t.Fatalf("with the grant: %v", got)
	}
	p, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_CHANGE, "operator:kari")
	if err != nil || !p.Privileged || p.Operators != 2 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, c := range d.changes(p) {
		if c.GetIdentity() != "msp-"+kari.ID || c.GetCause() != planv1.Cause_CAUSE_MSP {
			t.Fatalf("change %v", c)
		}
		if c.GetOperation().GetAddMember() != nil && (c.GetGrant() != g.ID || !c.GetEndsAt().AsTime().Equal(g.Ends)) {
			t.Fatalf("membership without its grant's end: %v", c)
		}
	}
	create := slices.IndexFunc(d.changes(p), func(c *planv1.Change) bool { return c.GetOperation().GetCreate() != nil })
	if err := d.db.Do(ctx, func(t tx.Tx) error {
		return d.Received(t, "fabrikam", p.ID, &auditv1.Receipt{
			Change: d.changes(p)[create].GetId(), Connector: "corp", Type: "person", Anchor: "a-msp-kari",
			Result: auditv1.Receipt_RESULT_APPLIED, After: &auditv1.Touched{Exists: true},
		})
	}); err != nil {
		t.Fatal(err)
	}
	admins := team("admins")
	admins.Members = []string{"dn:msp-kari"}
	d.observe("fabrikam", "dc1", "corp", person("anna"), person("msp-kari"), admins)
	if got := d.wants(); len(got) != 0 {
		t.Fatalf("while she works there: %v", got)
	}
	d.rows("msp", "noc", "staff", "t1 login=kari end=2026-02-27", "t2 login=ola")
	in, _, err := d.Preview(ctx, "fabrikam", planv1.Purpose_PURPOSE_CHANGE)
	if err != nil || !slices.Equal(in.Leavers, []string{"msp-" + kari.ID}) {
		t.Fatalf("leavers %v, %v", in.Leavers, err)
	}
	if got := d.wants(); !slices.Contains(got, "disable uid=msp-kari") {
		t.Fatalf("after she left: %v", got)
	}
}

// A technician's account outlasts the grant disabled, and goes after the retention.
func TestATechniciansAccountGoesAfterItsRetention(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	d.rows("msp", "noc", "staff", "t1 login=kari")
	d.hr("1 login=anna")
	d.observe("fabrikam", "dc1", "corp", person("anna"), team("admins"))
	g, err := d.grants.Add(ctx, "fabrikam", grant.Grant{Identity: "msp/" + d.id("msp", "kari").ID, Entitlement: "files/admins", Reason: "T-1042"},
		48*time.Hour, grant.Rule{}, "operator:kari")
	if err != nil {
		t.Fatal(err)
	}
	p, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_CHANGE, "operator:kari")
	if err != nil {
		t.Fatal(err)
	}
	create := slices.IndexFunc(d.changes(p), func(c *planv1.Change) bool { return c.GetOperation().GetCreate() != nil })
	if err := d.db.Do(ctx, func(t tx.Tx) error {
		return d.Received(t, "fabrikam", p.ID, &auditv1.Receipt{
			Change: d.changes(p)[create].GetId(), Connector: "corp", Type: "person", Anchor: "a-msp-kari",
			Result: auditv1.Receipt_RESULT_APPLIED, After: &auditv1.Touched{Exists: true},
		})
	}); err != nil {
		t.Fatal(err)
	}
	// Ended by an act, an hour in: the retention counts from then.
	d.now = d.now.Add(time.Hour)
	if _, err := d.grants.End(ctx, "fabrikam", g.ID, "done", "operator:kari"); err != nil {
		t.Fatal(err)
	}
	d.observe("fabrikam", "dc1", "corp", person("anna"), person("msp-kari"), team("admins"))
	if got := d.wants(); !slices.Equal(got, []string{"disable uid=msp-kari"}) {
		t.Fatalf("after the grant: %v", got)
	}
	d.now = d.now.Add(retention)
	d.observe("fabrikam", "dc1", "corp", person("anna"), person("msp-kari"), team("admins"))
	if got := d.wants(); !slices.Contains(got, "delete uid=msp-kari") {
		t.Fatalf("after the retention: %v", got)
	}
}

// An identity that policy fails on keeps what it has, and nobody else suffers.
func TestWhomPolicyCannotJudgeKeepsWhatTheyHave(t *testing.T) {
	d := open(t, false)
	d.hr("1 login=anna salary=many", "2 login=bo salary=3")
	d.observe("fabrikam", "dc1", "corp", person("anna"))
	in, _, err := d.Preview(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE)
	if err != nil || len(in.Unjudged) != 1 || in.Unjudged[0].Identity != d.id("fabrikam", "anna").ID {
		t.Fatalf("%+v, %v", in.Unjudged, err)
	}
	if got := d.wants(); !slices.Equal(got, []string{"create uid=bo", "enable uid=bo"}) {
		t.Fatal(got)
	}
}

// A row that cannot be read is said to who plans, and takes nothing from anybody.
func TestRowsThatCannotBeReadAreFindings(t *testing.T) {
	d := open(t, false)
	d.hr("1 login=anna", "2 login=bo")
	d.observe("fabrikam", "dc1", "corp", person("anna"), person("bo"))
	d.hr("1 login=anna end=soon", "2 login=bo")
	p, err := d.Make(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE, "operator:kari")
	if err != nil || p.Changes != 0 {
		t.Fatalf("%+v, %v", p, err)
	}
	if !slices.ContainsFunc(p.Findings, func(f planner.Finding) bool { return f.Connector == "hr" && strings.Contains(f.Sentence, "soon") }) {
		t.Fatalf("findings: %+v", p.Findings)
	}
}

// Absence counts after enough complete snapshots and the grace, and only while
// somebody looks.
func TestAbsenceNeedsASourceThatIsWatched(t *testing.T) {
	for _, c := range []struct {
		name   string
		after  func(d *desk)
		leaves bool
	}{
		{"the grace is not over", func(d *desk) { d.now = d.now.Add(23 * time.Hour) }, false},
		{"the grace is over", func(d *desk) { d.now = d.now.Add(25 * time.Hour) }, true},
		{"nobody looked for weeks", func(d *desk) { d.now = d.now.Add(21 * 24 * time.Hour) }, false},
		{"looked again after weeks", func(d *desk) { d.now = d.now.Add(21 * 24 * time.Hour); d.hr("2 login=bo", "3 login=cy") }, true},
		{"back after weeks", func(d *desk) {
			d.now = d.now.Add(21 * 24 * time.Hour)
			d.hr("1 login=anna", "2 login=bo", "3 login=cy")
		}, false},
		{"the source became another", func(d *desk) {
			d.now = d.now.Add(25 * time.Hour)
			d.report("fabrikam", "dc1", state("hr", agentv1.ConnectorState_ROLE_SOURCE, "evil"), state("corp", agentv1.ConnectorState_ROLE_TARGET, "corp"))
		}, false},
		{"the source was taken out of agent.yaml", func(d *desk) {
			d.now = d.now.Add(25 * time.Hour)
			d.report("fabrikam", "dc1", state("corp", agentv1.ConnectorState_ROLE_TARGET, "corp"))
		}, false},
		{"the source became a target", func(d *desk) {
			d.now = d.now.Add(25 * time.Hour)
			d.report("fabrikam", "dc1", state("hr", agentv1.ConnectorState_ROLE_TARGET, "hr"), state("corp", agentv1.ConnectorState_ROLE_TARGET, "corp"))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := open(t, false)
			d.hr("1 login=anna", "2 login=bo", "3 login=cy")
			d.observe("fabrikam", "dc1", "corp", person("anna"), person("bo"), person("cy"))
			d.wants()
			for range 2 {
				d.hr("2 login=bo", "3 login=cy")
			}
			c.after(d)
			if got := d.wants(); slices.Contains(got, "disable uid=anna") != c.leaves {
				t.Fatal(got)
			}
		})
	}
}

// A directory that is source and target has two aliases; what Reeve made through
// one is nobody new through the other.
func TestAccountsReeveMadeAreNoSubjects(t *testing.T) {
	d := open(t, false)
	d.report("fabrikam", "dc1", state("hr", agentv1.ConnectorState_ROLE_SOURCE, "one"), state("corp", agentv1.ConnectorState_ROLE_TARGET, "one"))
	d.confirm("fabrikam", "hr")
	if err := d.db.Do(context.Background(), func(t tx.Tx) error {
		return identitystore.Store{}.PutAccount(t, "fabrikam", identity.Account{Connector: "corp", Anchor: "7", Identity: "id-x", Purpose: "normal", Type: "person", Created: true})
	}); err != nil {
		t.Fatal(err)
	}
	d.hr("1 login=anna", "7 login=made")
	if d.id("fabrikam", "anna").ID == "" || d.id("fabrikam", "made").ID != "" {
		t.Fatal("an account that Reeve made became a person")
	}
}

func TestATenantThatLeavesGetsNoNewAccess(t *testing.T) {
	ctx := context.Background()
	d := open(t, false)
	d.hr("1 login=anna")
	d.observe("fabrikam", "dc1", "corp")
	set := func(to tenant.State) {
		t.Helper()
		if err := d.db.Do(ctx, func(t tx.Tx) error { return d.tenants.SetState(t, "operator:kari", "fabrikam", to) }); err != nil {
			t.Fatal(err)
		}
	}
	set(tenant.Offboarding)
	for _, purpose := range []planv1.Purpose{planv1.Purpose_PURPOSE_CHANGE, planv1.Purpose_PURPOSE_URGENT} {
		if _, err := d.Make(ctx, "fabrikam", purpose, "schedule"); !errors.Is(err, tenant.ErrConflict) {
			t.Fatalf("%v: %v", purpose, err)
		}
	}
	if _, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_OFFBOARD, "operator:kari"); err != nil {
		t.Fatal(err)
	}
	set(tenant.Offboarded)
	if _, err := d.Make(ctx, "fabrikam", planv1.Purpose_PURPOSE_OFFBOARD, "operator:kari"); !errors.Is(err, tenant.ErrConflict) {
		t.Fatalf("after the end: %v", err)
	}
}

// A source that changed all its keys is set aside with a record, and nothing
// follows from it.
func TestReKeyedSourceIsSetAside(t *testing.T) {
	d := open(t, false)
	d.hr("1 login=anna", "2 login=bo", "3 login=cy")
	before := len(d.records.acts["fabrikam"])
	d.hr("A login=anna", "B login=bo", "C login=cy")
	if acts := d.records.acts["fabrikam"][before:]; !slices.Contains(acts, auditv1.Type_TYPE_SUSPENDED) {
		t.Fatalf("on record: %v", acts)
	}
	in, _, err := d.Preview(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE)
	if err != nil || len(in.Desired) != 3 {
		t.Fatalf("%d people, %v", len(in.Desired), err)
	}
}

// After somebody accepted the new keys people are who they were; who cannot be
// found again is absent, and nobody is taken for another.
func TestReKeyedSourceIsBoundAgain(t *testing.T) {
	d := open(t, false)
	d.hr("1 login=anna", "2 login=bo", "3 login=cy", "4 login=di")
	before := map[string]string{}
	for _, login := range []string{"anna", "bo", "cy", "di"} {
		before[login] = d.id("fabrikam", login).ID
	}
	d.hr("A login=Anna", "B login=bo", "C login=cy", "C2 login=cy", "E login=eva")
	if d.id("fabrikam", "eva").ID != "" {
		t.Fatal("something followed from it before it was accepted")
	}
	d.confirm("fabrikam", "hr")
	for range 2 {
		if err := d.Refresh(context.Background(), "fabrikam"); err != nil {
			t.Fatal(err)
		}
	}
	var links []identity.Link
	var all []identity.Identity
	if err := d.db.View(context.Background(), func(t tx.Tx) (err error) {
		if links, err = (identitystore.Store{}).Links(t, "fabrikam"); err != nil {
			return err
		}
		all, err = identitystore.Store{}.List(t, "fabrikam", "", 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for _, l := range links {
		at[l.Anchor] = l.Identity
	}
	if at["A"] != before["anna"] || at["B"] != before["bo"] || at["3"] != before["cy"] || at["4"] != before["di"] || at["1"] != "" {
		t.Fatalf("bound %v, were %v", at, before)
	}
	// Two rows with cy's login are two new people to look at, and eva is new.
	if len(all) != 7 {
		t.Fatalf("%d identities", len(all))
	}
	for _, id := range all {
		if gone := id.ID == before["cy"] || id.ID == before["di"]; (id.Missing > 0) != gone {
			t.Fatalf("%v is missing %d times", id.Attributes, id.Missing)
		}
	}
}

// Mass leaving beside rows that are about nobody is no new key.
func TestRowsAboutNobodyAreNotNewKeys(t *testing.T) {
	d := open(t, false)
	nobody := []string{"x1 login=", "x2 login=", "x3 login=", "x4 login="}
	d.hr(append([]string{"1 login=anna", "2 login=bo", "3 login=cy"}, nobody...)...)
	d.hr(append([]string{"1 login=anna"}, nobody...)...)
	if got := d.id("fabrikam", "bo").Missing; got != 1 {
		t.Fatalf("missing %d", got)
	}
}
