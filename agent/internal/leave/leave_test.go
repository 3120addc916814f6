package leave_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/reevehq/reeve/agent/internal/leave"
	"github.com/reevehq/reeve/agent/internal/pluginhost"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// The test binary is the connector as well: the fake directory Memory.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := sdk.Serve(connectortest.Memory{}); err != nil {
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const (
	msp    = planv1.Cause_CAUSE_MSP
	client = planv1.Cause_CAUSE_CLIENT
)

func attributes(name string, values ...string) []*connectorv1.Attribute {
	a := &connectorv1.Attribute{Name: name}
	for _, v := range values {
		a.Values = append(a.Values, []byte(v))
	}
	return []*connectorv1.Attribute{a}
}

func name(leaf, place string) *connectorv1.Name {
	return &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("login", leaf), connectorv1.NewComponent("ou", place)}}
}

// receipts tell what Reeve did to the directory that the test begins with.
func receipts() []*auditv1.Receipt {
	r := func(op, typ, anchor string, cause planv1.Cause, before, after *auditv1.Touched) *auditv1.Receipt {
		return &auditv1.Receipt{
			Connector: "dir", Type: typ, Anchor: anchor, Cause: cause, Before: before, After: after, Result: auditv1.Receipt_RESULT_APPLIED,
			Operation: connectorv1.OperationKind(connectorv1.OperationKind_value["OPERATION_KIND_"+op]),
		}
	}
	member := func(op, group, who string, cause planv1.Cause, was, is bool) *auditv1.Receipt {
		x := r(op, "group", group, cause, &auditv1.Touched{Exists: true, Member: was}, &auditv1.Touched{Exists: true, Member: is})
		x.Member = who
		return x
	}
	update := func(anchor string, cause planv1.Cause, before, after []*connectorv1.Attribute) *auditv1.Receipt {
		return r("UPDATE", "account", anchor, cause, &auditv1.Touched{Exists: true, Attributes: before}, &auditv1.Touched{Exists: true, Attributes: after})
	}
	// The MSP's at first, then asked for by the client too.
	passedOn := member("ADD_MEMBER", "g1", "3", client, true, true)
	passedOn.Result = auditv1.Receipt_RESULT_ALREADY
	failed := member("ADD_MEMBER", "g1", "1", msp, false, false)
	failed.Result = auditv1.Receipt_RESULT_FAILED
	return []*auditv1.Receipt{
		r("CREATE", "account", "tech", msp, nil, &auditv1.Touched{Exists: true}),
		member("ADD_MEMBER", "g1", "tech", msp, false, true),
		member("ADD_MEMBER", "g1", "2", client, false, true),
		member("REMOVE_MEMBER", "g1", "1", msp, true, false),
		failed,
		member("ADD_MEMBER", "g1", "3", msp, false, true),
		passedOn,
		// Twice by the MSP: back to what was before the first.
		update("1", msp, attributes("displayName", "Anna"), attributes("displayName", "A. Hansen")),
		update("1", msp, attributes("displayName", "A. Hansen"), attributes("displayName", "Anna H.")),
		// Beside a value of others: only ours goes.
		update("1", msp, attributes("mail", "old@x"), attributes("mail", "old@x", "msp@x")),
		// Others have changed it since.
		update("2", msp, attributes("displayName", "Kari"), attributes("displayName", "K.")),
		// The client caused the last write.
		update("3", msp, attributes("displayName", "Per"), attributes("displayName", "P.")),
		update("3", client, attributes("displayName", "P."), attributes("displayName", "Per Olsen")),
		r("DISABLE", "account", "2", msp, &auditv1.Touched{Enablement: connectorv1.Enablement_ENABLEMENT_ENABLED}, &auditv1.Touched{Enablement: connectorv1.Enablement_ENABLEMENT_DISABLED}),
		r("RENAME", "account", "3", msp, &auditv1.Touched{Name: name("per", "staff")}, &auditv1.Touched{Name: name("per2", "staff")}),
		r("SET_CREDENTIAL", "account", "3", msp, nil, nil),
		update("gone", msp, attributes("displayName", "X"), attributes("displayName", "Y")),
	}
}

func TestUndoGoesBackWhereItIsStillOurs(t *testing.T) {
	self, err := os.Executable()
	check(t, err)
	state := filepath.Join(t.TempDir(), "memory.json")
	check(t, connectortest.MemoryState{Next: 9, Objects: []connectortest.MemoryObject{
		{Type: "account", Anchor: "1", Leaf: "anna", Place: "staff", Attributes: map[string][]string{"displayName": {"Anna H."}, "mail": {"old@x", "msp@x", "hers@x"}}},
		{Type: "account", Anchor: "2", Leaf: "kari", Place: "staff", Disabled: true, Attributes: map[string][]string{"displayName": {"Kari Nordmann"}}},
		{Type: "account", Anchor: "3", Leaf: "per2", Place: "staff", Attributes: map[string][]string{"displayName": {"Per Olsen"}}},
		{Type: "account", Anchor: "tech", Leaf: "tech", Place: "msp"},
		{Type: "group", Anchor: "g1", Leaf: "files", Place: "staff", Members: []string{"2", "3", "tech"}},
	}}.Write(state))
	h, err := pluginhost.New([]pluginhost.Spec{{Alias: "dir", Connector: "memory", Command: []string{self, "serve"}, Settings: []byte(`{"state":"` + state + `"}`)}},
		pluginhost.Options{Dir: strings.Repeat("/", 99), FirstPause: 10 * time.Millisecond})
	check(t, err)
	defer h.Close()
	i, err := h.Instance("dir")
	check(t, err)
	check(t, i.Ready(t.Context()))

	var recorded []*auditv1.Receipt
	o := leave.Options{
		Receipts: receipts(),
		Directory: func(alias string) (leave.Directory, error) {
			if alias != "dir" {
				return nil, errors.New("no such connector")
			}
			return i, nil
		},
		Record: func(_ context.Context, r *auditv1.Receipt) error { recorded = append(recorded, r); return nil },
		DryRun: true,
	}
	raw, err := os.ReadFile(state)
	check(t, err)
	dry, err := leave.Undo(t.Context(), o)
	check(t, err)
	if now, _ := os.ReadFile(state); string(now) != string(raw) || len(recorded) > 0 {
		t.Fatal("the dry run changed something")
	}

	o.DryRun = false
	result, err := leave.Undo(t.Context(), o)
	check(t, err)
	if !slices.Equal(dry.Undone, result.Undone) || len(result.Failed) > 0 {
		t.Errorf("foretold %q, did %q, failed %q", dry.Undone, result.Undone, result.Failed)
	}
	now, err := connectortest.ReadMemoryState(state)
	check(t, err)
	got := map[string]connectortest.MemoryObject{}
	for _, x := range now.Objects {
		got[x.Anchor] = x
	}
	if _, there := got["tech"]; there {
		t.Error("the technician's account is still there")
	}
	slices.Sort(got["g1"].Members)
	for what, pair := range map[string][2]string{
		"members":           {strings.Join(got["g1"].Members, " "), "1 2 3"},
		"first value":       {strings.Join(got["1"].Attributes["displayName"], " "), "Anna"},
		"beside others":     {strings.Join(got["1"].Attributes["mail"], " "), "old@x hers@x"},
		"diverged":          {strings.Join(got["2"].Attributes["displayName"], " "), "Kari Nordmann"},
		"the client's":      {strings.Join(got["3"].Attributes["displayName"], " "), "Per Olsen"},
		"name":              {got["3"].Leaf, "per"},
		"diverged is told":  {find(result.Residue, "diverged"), "dir: 2: displayName diverged: others have changed it since"},
		"credential told":   {find(result.Residue, "password"), "dir: login=per2,ou=staff: its password was changed and the old one is not known"},
		"gone is told":      {find(result.Residue, "gone"), "dir: gone: the client has deleted it; it is not made again"},
		"client's is told":  {find(result.Kept, "displayName"), "dir: login=per2,ou=staff: a value of displayName that the client caused"},
		"membership's told": {find(result.Kept, "membership"), "dir: g1: a membership that the client caused"},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
		}
	}
	if got["2"].Disabled {
		t.Error("the account is still disabled")
	}
	if len(recorded) != len(result.Undone) {
		t.Errorf("%d records of %d steps", len(recorded), len(result.Undone))
	}

	again, err := leave.Undo(t.Context(), o)
	check(t, err)
	if len(again.Undone) != 0 || len(again.Failed) != 0 {
		t.Errorf("the second time it undid %q and failed at %q", again.Undone, again.Failed)
	}
}

func find(lines []string, part string) string {
	for _, l := range lines {
		if strings.Contains(l, part) {
			return l
		}
	}
	return ""
}
