package faults_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

// suffix of rig.NewDirectory.
const suffix = "dc=fabrikam,dc=example"

// A real directory is killed, hangs and comes back while an order runs on it,
// and the agent is killed in between.
func TestDirectoryAndAgentAreKilledMidOrder(t *testing.T) {
	t.Parallel()
	server, directory := rig.NewDirectory(t)
	before := lasting(t, server)
	e := rig.NewEstate(120)
	e.Cost = 7
	e.Directory = directory
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	p := r.Plan()
	r.Approve(p)
	// How often something broke in the middle of the order.
	met := 0
	for n := range 12 {
		pause(150 * time.Millisecond)
		if r.Show(p.GetId()).GetState().GetPhase() == operatorv1.PlanState_PHASE_RUNNING {
			met++
		}
		switch n % 4 {
		case 0:
			server.Kill()
			pause(200 * time.Millisecond)
			if err := server.Restart(); err != nil {
				t.Fatal(err)
			}
		case 1:
			r.Agent.Kill()
			r.Agent.Start()
		case 2:
			if err := server.Pause(); err != nil {
				t.Fatal(err)
			}
			r.Agent.KillAlone()
			r.Agent.Start()
			pause(200 * time.Millisecond)
			if err := server.Resume(); err != nil {
				t.Fatal(err)
			}
		default:
			r.Agent.KillAlone()
			r.Agent.Start()
		}
	}
	r.Applied(r.Ended(p.GetId()))
	if t.Logf("%d faults in the middle of the order", met); met == 0 {
		t.Error("the order was never met in the middle: make it longer")
	}
	list := r.OneRecordAChange()
	r.Provisioned(e.People())
	r.Passwords(list, e.People())
	directoryHolds(t, server, r, list, e.People())
	r.Converged()
	r.Offboard(nil)
	if after := lasting(t, server); after != before {
		t.Errorf("the directory is not as it was:\n%s\nbefore:\n%s", after, before)
	}
}

// directoryHolds looks with a client of its own: everybody is there once, in
// staff once, and can bind with the password in the record.
func directoryHolds(t *testing.T, server *slapd.Server, r *rig.Rig, list []rig.Entry, people []string) {
	t.Helper()
	c, err := ldap.DialURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Bind(server.RootDN, server.RootPassword); err != nil {
		t.Fatal(err)
	}
	found, err := c.Search(ldap.NewSearchRequest(suffix, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(|(objectClass=inetOrgPerson)(cn=staff))", []string{"uid", "cn", "sn", "member", "entryUUID"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	sealed := map[string][]byte{}
	for _, e := range list {
		receipt := e.Body.GetReceipt()
		if receipt.GetConnector() == "corp" && receipt.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL && receipt.GetResult() == auditv1.Receipt_RESULT_APPLIED {
			sealed[receipt.GetAnchor()] = receipt.GetSealed()
		}
	}
	var members, want []string
	there := map[string]*ldap.Entry{}
	for _, entry := range found.Entries {
		if entry.GetAttributeValue("uid") == "" {
			members = entry.GetAttributeValues("member")
			continue
		}
		there[entry.GetAttributeValue("uid")] = entry
	}
	for i, login := range append([]string{"clerk"}, people...) {
		entry := there[login]
		if entry == nil {
			t.Errorf("%s is not in the directory", login)
			continue
		}
		want = append(want, entry.DN)
		if login == "clerk" {
			continue
		}
		if cn := entry.GetAttributeValues("cn"); !slices.Equal(cn, []string{fmt.Sprintf("Person %d", i-1)}) {
			t.Errorf("%s has cn %q", login, cn)
		}
		password, err := r.Open(sealed[entry.GetAttributeValue("entryUUID")])
		if err != nil {
			t.Errorf("password of %s: %v", login, err)
			continue
		}
		own, err := ldap.DialURL(server.URL)
		if err != nil {
			t.Fatal(err)
		}
		if err := own.Bind(entry.DN, string(password)); err != nil {
			t.Errorf("%s cannot bind with the password in the record: %v", login, err)
		}
		own.Close()
	}
	slices.Sort(members)
	slices.Sort(want)
	if !slices.Equal(members, want) || len(there) != len(people)+1 {
		t.Errorf("%d people, members %q, want %q", len(there), members, want)
	}
}

// lasting is what slapcat prints, but for what the server keeps for itself.
func lasting(t *testing.T, server *slapd.Server) string {
	t.Helper()
	raw, err := server.Dump()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(raw)) {
		switch name, _, _ := strings.Cut(line, ":"); name {
		case "structuralObjectClass", "entryUUID", "creatorsName", "createTimestamp", "entryCSN", "modifiersName", "modifyTimestamp", "contextCSN":
		default:
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}
