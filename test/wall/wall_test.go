package wall

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/sources"
)

// methods are all methods of all services in the contracts.
func methods() (list []protoreflect.FullName) {
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			if s := f.Services().Get(i); strings.HasPrefix(string(s.FullName()), "reeve.") {
				for j := range s.Methods().Len() {
					list = append(list, s.Methods().Get(j).FullName())
				}
			}
		}
		return true
	})
	return list
}

// TestEveryMethodHasARow: a method that nobody thought about is not served unseen.
func TestEveryMethodHasARow(t *testing.T) {
	sources.Look(t, "../..")
	found := methods()
	if len(found) < 40 {
		t.Fatalf("reflection finds %d methods", len(found))
	}
	for _, sentence := range lacks(found, matrix()) {
		t.Error(sentence)
	}
	// A contract that this test does not import would not be in the registry.
	known := map[string]bool{}
	for _, m := range found {
		known[string(m.Parent())] = true
	}
	inPackage, inService := regexp.MustCompile(`(?m)^package ([\w.]+);`), regexp.MustCompile(`(?m)^service (\w+)`)
	check(t, filepath.Walk("../../proto", func(path string, info os.FileInfo, err error) error {
		if err != nil || filepath.Ext(path) != ".proto" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range inService.FindAllStringSubmatch(string(text), -1) {
			if name := inPackage.FindStringSubmatch(string(text))[1] + "." + s[1]; !known[name] {
				t.Errorf("%s is declared in %s and test/wall does not import it: import its Go package there and add rows", name, path)
			}
		}
		return nil
	}))
	// What is registered is what is declared: nothing else may listen.
	registered := regexp.MustCompile(`(\w+)\.Register(\w+)(Server|Handler)\b`)
	check(t, filepath.Walk("../../controlplane", func(path string, info os.FileInfo, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, r := range registered.FindAllStringSubmatch(string(text), -1) {
			name := "reeve." + strings.Replace(r[1], "v1", ".v1.", 1) + r[2]
			if !known[name] {
				t.Errorf("%s registers %s, which the tenant wall does not know", path, r[0])
			}
		}
		return err
	}))
	paths, err := readPaths()
	check(t, err)
	for _, m := range found {
		if _, ok := paths[string(m)]; !ok && strings.HasPrefix(string(m), "reeve.operator.") {
			t.Errorf("%s has no path in rest.yaml, so the wall does not try it over REST", m)
		}
	}
}

// unheard are words that no answer carries, with the reason.
var unheard = map[string]string{
	"guardrails": "the control plane keeps it beside the dry run and shows it to nobody",
	"method":     "inventory keeps how a snapshot knows that it is complete and shows it to nobody",
}

// TestTenantWall: the whole matrix against the real control plane.
func TestTenantWall(t *testing.T) {
	sources.Look(t, "../..")
	var err error
	paths, err = readPaths()
	check(t, err)
	w := newWorld(t)
	rows := matrix()
	// What plants comes late, since it may be heard again; what ends things last.
	slices.SortStableFunc(rows, func(a, b row) int { return late(a) - late(b) })
	list, err := w.callers()
	check(t, err)
	before, heard := w.portrait(t, w.theirs)
	run := func(c *caller, r row) {
		if !c.reaches(r) {
			return
		}
		for _, fault := range c.judge(r) {
			t.Error(fault)
		}
	}
	for _, c := range list {
		defer c.door.close()
		if c.shut {
			if err := c.door.turnedAway(); err != nil {
				t.Errorf("%s: %v", c.role, err)
			}
		}
		for _, r := range rows {
			if !r.last {
				run(c, r)
			}
		}
	}
	for _, r := range rows {
		for _, c := range list {
			if r.last {
				run(c, r)
			}
		}
	}
	if w.ours.length(t, w) >= w.theirs.entries {
		t.Fatal("our log has outgrown theirs, so that its length was no foreign one: give theirs more records")
	}
	// Nothing of theirs has moved, down to a record.
	after, _ := w.portrait(t, w.theirs)
	for _, what := range slices.Sorted(maps.Keys(before)) {
		if before[what] != after[what] {
			t.Errorf("%s of the other tenant is not what it was:\n%s\nand now\n%s", what, before[what], after[what])
		}
	}
	// The wall has two sides; and who is at home hears everything, or the search
	// for canaries would prove nothing.
	theirs := &caller{role: "agent of theirs", home: w.theirs, foreign: []*estate{w.ours, w.msp}, nobody: w.nobody, live: true, agent: w.theirs.main}
	theirs.door = open(w.agents, w.theirs.main.svid, false)
	defer theirs.door.close()
	theirs.token, err = w.token(w.theirs.tenant, "invited")
	check(t, err)
	for _, r := range rows {
		run(theirs, r)
	}
	if len(w.theirs.found(theirs.heard, nil)) == 0 {
		t.Error("their own agent hears nothing of theirs: the search for canaries is blind")
	}
	for _, label := range slices.Sorted(maps.Keys(w.theirs.words)) {
		word := w.theirs.words[label]
		if (&canaries{marker: word}).found(slices.Concat(heard, theirs.heard), nil) == nil && unheard[label] == "" {
			t.Errorf("the canary %q is heard by nobody, at home neither: it proves nothing", label)
		}
	}
	cells := theirs.cells
	for _, c := range list {
		cells += c.cells
	}
	t.Logf("%d methods, %d roles, %d cells", len(rows), len(list)+1, cells)
}

func late(r row) int {
	switch {
	case r.last:
		return 2
	case r.plants:
		return 1
	}
	return 0
}

// length is how long the tenant's log is by now.
func (e *estate) length(t *testing.T, w *world) (n uint64) {
	t.Helper()
	got, err := w.operator("Audit", "GetCheckpoint", &operatorv1.GetCheckpointRequest{Tenant: e.tenant})
	check(t, err)
	_, err = fmt.Sscan(strings.Split(got[0].(*operatorv1.GetCheckpointResponse).GetCheckpoint(), "\n")[1], &n)
	check(t, err)
	return n
}

// portrait is all that operators see of a tenant, by what they asked for, and the
// bytes of it.
func (w *world) portrait(t *testing.T, e *estate) (seen map[string]string, heard []byte) {
	t.Helper()
	seen = map[string]string{}
	look := func(name, method string, r proto.Message) {
		a := w.desk.call("reeve.operator.v1."+method, false, []proto.Message{r})
		if a.failed != nil || a.code != codes.OK {
			t.Fatalf("%s: %v %v %s", name, a.failed, a.code, a.message)
		}
		heard = append(heard, a.received()...)
		for i, m := range a.messages {
			// A proof is of the newest checkpoint, which seals nothing new.
			without(m.ProtoReflect(), []string{"proof"})
			seen[fmt.Sprintf("%s %d", name, i)] = prototext.MarshalOptions{Multiline: true}.Format(m)
		}
	}
	at := e.tenant
	look("tenant", "TenantService.GetTenant", &operatorv1.GetTenantRequest{Tenant: at})
	look("agents", "AgentService.ListAgents", &operatorv1.ListAgentsRequest{Tenant: at})
	look("connectors", "ConnectorService.ListConnectors", &operatorv1.ListConnectorsRequest{Tenant: at})
	look("inventory", "InventoryService.GetInventory", &operatorv1.GetInventoryRequest{Tenant: at})
	for _, alias := range []string{"hr", "web", e.extra} {
		look("objects", "InventoryService.ListObjects", &operatorv1.ListObjectsRequest{Tenant: at, Connector: alias})
	}
	look("identities", "IdentityService.ListIdentities", &operatorv1.ListIdentitiesRequest{Tenant: at})
	look("explanation", "IdentityService.ExplainIdentity", &operatorv1.ExplainIdentityRequest{Tenant: at, Identity: e.identity})
	look("cases", "IdentityService.ListCases", &operatorv1.ListCasesRequest{Tenant: at})
	look("grants", "GrantService.ListGrants", &operatorv1.ListGrantsRequest{Tenant: at})
	look("schedules", "ScheduleService.ListSchedules", &operatorv1.ListSchedulesRequest{Tenant: at})
	look("records", "AuditService.ListRecords", &operatorv1.ListRecordsRequest{Tenant: at, PageSize: 1000})
	look("plans", "PlanService.ListPlans", &operatorv1.ListPlansRequest{Tenant: at})
	got, err := w.operator("Plan", "ListPlans", &operatorv1.ListPlansRequest{Tenant: at})
	check(t, err)
	for _, p := range got[0].(*operatorv1.ListPlansResponse).GetPlans() {
		look("plan "+p.GetId(), "PlanService.GetPlan", &operatorv1.GetPlanRequest{Plan: p.GetId()})
		look("changes of "+p.GetId(), "PlanService.ListChanges", &operatorv1.ListChangesRequest{Plan: p.GetId()})
	}
	return seen, heard
}
