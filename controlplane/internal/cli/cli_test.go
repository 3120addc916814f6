package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

func TestExplain(t *testing.T) {
	f := &fakeOperator{explained: testExplained(t)}
	b := newBench(t, f)
	golden(t, "explain.txt", b.must("identity", "explain", "fabrikam", "anna"))
	f.explained.Proof.Entry = []byte("another entry")
	if code, out, errs := b.run("identity", "explain", "fabrikam", "anna"); code != ExitUnverified || out != "" || !strings.Contains(errs, "record 1") {
		t.Errorf("a proof that does not hold: exit code %d\n%s\n%s", code, out, errs)
	}
}

func TestInventory(t *testing.T) {
	var objects []*operatorv1.InventoryObject
	for i := range 23 {
		o := &operatorv1.InventoryObject{Connector: "web", Object: &connectorv1.Object{Type: "user", Anchor: fmt.Sprint(i), Display: fmt.Sprintf("login=p%02d", i)}}
		if i%2 == 0 {
			o.Identity = "0197-aa"
		}
		objects = append(objects, o)
	}
	f := &fakeOperator{inventory: testInventory(), connectors: testConnectors(), objects: objects, page: 4}
	b := newBench(t, f)
	golden(t, "inventory-show.txt", b.must("inventory", "show", "fabrikam"))
	if out := b.must("inventory", "show", "fabrikam", "--unexplained"); !strings.Contains(out, "login=per") || strings.Contains(out, "read only") {
		t.Errorf("--unexplained shows\n%s", out)
	}
	if out := b.must("inventory", "show", "fabrikam", "--orphans"); strings.Count(out, "login=p") != 11 || strings.Contains(out, "login=p02") {
		t.Errorf("--orphans shows\n%s", out)
	}
	r := new(operatorv1.ListObjectsResponse)
	if err := protojson.Unmarshal([]byte(b.must("inventory", "objects", "fabrikam", "-o", "json")), r); err != nil || !proto.Equal(r, &operatorv1.ListObjectsResponse{Objects: objects}) {
		t.Errorf("objects of all connectors: %v\n%v", err, r)
	}
}

func TestTables(t *testing.T) {
	f := &fakeOperator{connectors: testConnectors(), tenants: []*operatorv1.Tenant{
		{Id: "fabrikam", State: "active", Owner: "it@fabrikam.example", Zone: "Europe/Oslo", Policy: "baseline", PolicyVersion: "1.0", Created: ago(0)},
		{Id: "contoso-very-long", State: "offboarding", Owner: hostile, Zone: "UTC"},
	}}
	b := newBench(t, f)
	golden(t, "tenant-list.txt", b.must("tenant", "list"))
	golden(t, "connector-list.txt", b.must("connector", "list", "fabrikam"))
}

// TestJSON: standard output is the response, all pages of it, and safe to look
// at.
func TestJSON(t *testing.T) {
	f := &fakeOperator{
		plan: testPlan(), changes: settledChanges(), explained: testExplained(t), connectors: testConnectors(), inventory: testInventory(), page: 3,
	}
	for i := range 10 {
		f.tenants = append(f.tenants, &operatorv1.Tenant{Id: fmt.Sprint(i), Owner: hostile})
	}
	b := newBench(t, f)
	for _, c := range []struct {
		args string
		want proto.Message
	}{
		{"tenant list", &operatorv1.ListTenantsResponse{Tenants: f.tenants}},
		{"plan show P-7", &operatorv1.GetPlanResponse{Plan: f.plan}},
		{"plan show P-7 --changes", &operatorv1.ListChangesResponse{Changes: f.changes}},
		{"plan make fabrikam", &operatorv1.MakePlanResponse{Plan: f.plan}},
		{"identity explain fabrikam anna", f.explained},
		{"connector list fabrikam", f.connectors},
		{"inventory show fabrikam", f.inventory},
		{"source show fabrikam hr", &operatorv1.ListConnectorsResponse{Connectors: f.connectors.GetConnectors()[:1]}},
	} {
		out := b.must(append(strings.Fields(c.args), "-o", "json")...)
		r := c.want.ProtoReflect().New().Interface()
		if err := protojson.Unmarshal([]byte(out), r); err != nil || !proto.Equal(r, c.want) {
			t.Errorf("%s: %v\n got %v\nwant %v", c.args, err, r, c.want)
		}
		if strings.ContainsFunc(out, func(r rune) bool { return !plain(r) && r != '\n' }) {
			t.Errorf("%s prints characters that are not safe:\n%q", c.args, out)
		}
	}
}

// TestExitCodes: what the server says becomes a sentence and a number.
func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		status  codes.Code
		problem *connectorv1.Problem
		code    int
		want    []string
	}{
		{codes.NotFound, &connectorv1.Problem{Code: "NOT_FOUND", Said: "tenant not found", Remedy: "list them"}, ExitNotFound, []string{"plan make: not found (NOT_FOUND)", "fabrikam", "tenant not found", "list them"}},
		{codes.FailedPrecondition, &connectorv1.Problem{Code: "BLOCKED", Object: "P-7", Tried: "approve it", Said: "it changes nothing"}, ExitRefused, []string{"approve it: refused (BLOCKED)", "P-7", "reeve plan show"}},
		{codes.PermissionDenied, &connectorv1.Problem{Code: "MAKER", Said: "who made a plan may not approve it"}, ExitRefused, []string{"MAKER"}},
		{codes.InvalidArgument, &connectorv1.Problem{Code: "INVALID", Said: "the time zone is unknown"}, ExitUsage, []string{"the time zone is unknown"}},
		{codes.InvalidArgument, &connectorv1.Problem{Code: "POLICY", Said: "a.yaml:1:2: unknown key\na.yaml:3:4: unknown role"}, ExitUnverified, []string{"unknown key\n          a.yaml:3:4"}},
		{codes.AlreadyExists, &connectorv1.Problem{Code: "EXISTS", Said: "there is one"}, ExitConflict, []string{"conflict"}},
		{codes.Internal, &connectorv1.Problem{Code: "INTERNAL", Said: hostile}, ExitFailed, []string{`anna\u{1b}[2J\u{202e}gpj`}},
		{codes.Unauthenticated, nil, ExitRefused, []string{"UNAUTHENTICATED", "--cert"}},
		{codes.Unavailable, nil, ExitUnreachable, []string{"UNREACHABLE", "operator.sock"}},
	} {
		err := status.Error(c.status, "as it is")
		if c.problem != nil {
			err = refusal(t, c.status, c.problem)
		}
		b := newBench(t, &fakeOperator{fail: err})
		code, out, errs := b.run("plan", "make", "fabrikam")
		if code != c.code || out != "" {
			t.Errorf("%v %v: exit code %d, want %d; %s", c.status, c.problem, code, c.code, out)
		}
		for _, w := range c.want {
			if !strings.Contains(errs, w) {
				t.Errorf("%v: %q is not in\n%s", c.status, w, errs)
			}
		}
		code, out, errs = b.run("plan", "make", "fabrikam", "-o", "json")
		var doc struct {
			Problem  json.RawMessage
			Kind     string
			ExitCode int
		}
		if err := json.Unmarshal([]byte(errs), &doc); err != nil || doc.ExitCode != c.code || doc.Kind != exitWord(c.code) || code != c.code || out != "" {
			t.Errorf("%v as JSON: %v, exit code %d\n%s\n%s", c.status, err, code, out, errs)
			continue
		}
		p := new(connectorv1.Problem)
		if err := protojson.Unmarshal(doc.Problem, p); err != nil || c.problem != nil && (p.GetSaid() != c.problem.GetSaid() || p.GetCode() != c.problem.GetCode()) {
			t.Errorf("%v as JSON: %v\n%s", c.status, err, doc.Problem)
		}
	}
}

// TestOlderServer: a method that the control plane does not have.
func TestOlderServer(t *testing.T) {
	if code, _, errs := newBench(t, &fakeOperator{}).run("schedule", "list", "fabrikam"); code != ExitFailed || !strings.Contains(errs, "UNIMPLEMENTED") || !strings.Contains(errs, "upgrade") {
		t.Errorf("exit code %d\n%s", code, errs)
	}
}

// TestInvite: the token goes to a file of its reader alone and nowhere else.
func TestInvite(t *testing.T) {
	const token = "the-secret-token"
	b := newBench(t, &fakeOperator{invitation: &operatorv1.InviteAgentResponse{
		Token: token, RootSha256: "ab12", ControlPlane: "reeve.example:8443", TrustDomain: "reeve.example", Expires: ago(0),
	}})
	t.Chdir(t.TempDir())
	code, out, errs := b.run("agent", "invite", "fabrikam", "dc1", "--for", "30m")
	if code != ExitDone {
		t.Fatalf("exit code %d\n%s", code, errs)
	}
	golden(t, "invite.txt", out)
	info, err := os.Stat("fabrikam-dc1.token")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("token file: %v %v", info, err)
	}
	if text, _ := os.ReadFile("fabrikam-dc1.token"); string(text) != token+"\n" {
		t.Errorf("token file holds %q", text)
	}
	_, jsonOut, jsonErr := b.run("-o", "json", "agent", "invite", "fabrikam", "dc2")
	if strings.Contains(out+errs+jsonOut+jsonErr, token) {
		t.Errorf("the token was printed")
	}
	if asked := got[*operatorv1.InviteAgentRequest](b.fake); len(asked) != 2 || asked[0].GetValidFor().GetSeconds() != 1800 {
		t.Errorf("asked %v", asked)
	}

	// What is no token is nobody's to overwrite, and no token is made for it.
	if err := os.WriteFile("notes.txt", []byte("my notes"), 0o644); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]int{"notes.txt": ExitConflict, filepath.Join("missing", "x.token"): ExitFailed} {
		if code, _, errs := b.run("agent", "invite", "fabrikam", "dc1", "--token-file", file); code != want || !strings.Contains(errs, "--token-file") {
			t.Errorf("%s: exit code %d, want %d\n%s", file, code, want, errs)
		}
	}
	if asked := got[*operatorv1.InviteAgentRequest](b.fake); len(asked) != 2 {
		t.Errorf("a token was made that nobody can keep")
	}
}

func TestSourceConfirm(t *testing.T) {
	f := &fakeOperator{connectors: testConnectors()}
	b := newBench(t, f)
	code, out, _ := b.run("source", "confirm", "fabrikam", "hr")
	if code != ExitUsage {
		t.Errorf("off a terminal: exit code %d", code)
	}
	golden(t, "source.txt", out)
	b.terminal, b.input = true, "n\n"
	if code, _, _ := b.run("source", "confirm", "fabrikam", "hr"); code != ExitRefused {
		t.Errorf("no: exit code %d", code)
	}
	if sent := got[*operatorv1.ConfirmSourceRequest](f); len(sent) != 0 {
		t.Fatalf("confirmed all the same: %v", sent)
	}
	b.input = "yes\n"
	b.must("source", "confirm", "fabrikam", "hr")
	b.terminal = false
	b.must("source", "confirm", "fabrikam", "hr", "--fingerprint", "AB:12")
	for i, sent := range got[*operatorv1.ConfirmSourceRequest](f) {
		if sent.GetFingerprintSha256() != "ab12" || sent.GetConnector() != "hr" {
			t.Errorf("confirmation %d is %v", i, sent)
		}
	}
	if code, _, errs := b.run("source", "show", "fabrikam", "erp"); code != ExitNotFound || !strings.Contains(errs, "fabrikam erp") {
		t.Errorf("unknown alias: exit code %d\n%s", code, errs)
	}
}

func TestExport(t *testing.T) {
	f := &fakeOperator{export: [][]byte{[]byte("one "), []byte("two")}}
	b := newBench(t, f)
	dir := t.TempDir()
	out := filepath.Join(dir, "log")
	b.must("audit", "export", "fabrikam", "--out", out)
	f.breakExport, f.export = true, [][]byte{[]byte("cut")}
	if code, _, errs := b.run("audit", "export", "fabrikam", "--out", out); code != ExitUnreachable {
		t.Errorf("an export that breaks off: exit code %d\n%s", code, errs)
	}
	if text, err := os.ReadFile(out); string(text) != "one two" {
		t.Errorf("the file holds %q, %v", text, err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("files are left over: %v", left)
	}
}

// TestPolicyApply: only names go out, not where the bundle lies.
func TestPolicyApply(t *testing.T) {
	f := &fakeOperator{}
	newBench(t, f).must("policy", "apply", "testdata/policy/good")
	sent := got[*operatorv1.ApplyPolicyRequest](f)
	if len(sent) != 1 || len(sent[0].GetFiles()) != 1 || sent[0].GetFiles()[0].GetName() != "bundle.yaml" || len(sent[0].GetFiles()[0].GetContent()) == 0 {
		t.Errorf("sent %v", sent)
	}
}

// TestClean: whatever comes in, what goes out cannot steer a terminal, and
// harmless text is left alone.
func TestClean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
		safe := clean(raw)
		if strings.ContainsFunc(safe, func(r rune) bool { return !plain(r) }) || clean(safe) != safe {
			t.Fatalf("%q became %q", raw, safe)
		}
		doc, err := json.Marshal(raw)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		if err := json.Unmarshal(doc, &before); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(operatorv1.VisibleJSON(doc), &after); err != nil || before != after {
			t.Fatalf("%s became %s: %v", doc, operatorv1.VisibleJSON(doc), err)
		}
	})
	for _, harmless := range []string{"", "Åse Ødegård", "名前", "a — b “c”", `\u{1b}`} {
		if got := clean(harmless); got != harmless {
			t.Errorf("%q became %q", harmless, got)
		}
	}
	for raw, want := range map[string]string{"\x1b[0m": `\u{1b}[0m`, "a\u202eb": `a\u{202e}b`, "\u009b": `\u{9b}`, "\xff": `\xff`, "a\tb\n": `a\u{9}b\u{a}`, "\u200b": `\u{200b}`} {
		if got := clean(raw); got != want {
			t.Errorf("%q became %q, want %q", raw, got, want)
		}
	}
}

// TestEveryCommand is documented, checks its arguments and answers --help.
func TestEveryCommand(t *testing.T) {
	leaves := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || c.Args == nil && c.Runnable() {
			t.Errorf("%s has no short description or does not check its arguments", c.CommandPath())
		}
		if !c.HasSubCommands() && c.Runnable() {
			leaves++
			var out, errs stream
			args := append(strings.Fields(c.CommandPath())[1:], "--help")
			if code := Run(t.Context(), args, testEnv(strings.NewReader(""), &out, &errs, false)); code != ExitDone || !strings.Contains(out.String(), c.Use) {
				t.Errorf("%v: exit code %d\n%s", args, code, errs.String())
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk((&app{env: testEnv(nil, nil, nil, false)}).root())
	if leaves < 35 {
		t.Errorf("only %d commands", leaves)
	}
}

func TestColour(t *testing.T) {
	a := &app{env: testEnv(nil, nil, nil, true)}
	if !a.printer(nil).color {
		t.Error("no colour on a terminal")
	}
	for _, name := range []string{"NO_COLOR", "TERM"} {
		a.env.Getenv = func(asked string) string { return map[string]string{name: "dumb"}[asked] }
		if a.printer(nil).color {
			t.Errorf("colour in spite of %s", name)
		}
	}
}

func TestOffboard(t *testing.T) {
	f := &fakeOperator{
		plan: &operatorv1.Plan{
			Id: "P-9", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_OFFBOARD, Digest: testDigest, DryRunDone: true,
			MadeBy: "operator:kari", Made: ago(0), State: &operatorv1.PlanState{Phase: operatorv1.PlanState_PHASE_WAITING, Total: 3},
		},
		residue: []*operatorv1.Finding{
			{Kind: "residue", Sentence: "The password of login=anna was changed."},
			{Kind: "handed_over", Sentence: "login=anna stays with the client."},
		},
	}
	b := newBench(t, f)
	golden(t, "offboard.txt", b.must("tenant", "offboard", "fabrikam", "--reason", "contract has ended"))
	golden(t, "offboard-finish.txt", b.must("tenant", "offboard", "fabrikam", "--finish"))
	if sent := got[*operatorv1.OffboardTenantRequest](f); len(sent) != 2 || sent[0].GetReason() != "contract has ended" || sent[0].GetFinish() || !sent[1].GetFinish() {
		t.Errorf("sent %v", sent)
	}
}

// TestInterrupted: an interrupt ends a question that nobody answers.
func TestInterrupted(t *testing.T) {
	f := &fakeOperator{connectors: testConnectors()}
	b := newBench(t, f)
	in, typed := io.Pipe()
	defer typed.Close()
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs stream
	env := testEnv(in, &out, &errs, true)
	env.IsTerminal = func(any) bool {
		// It is asked for the last time just before the question is.
		if len(got[*operatorv1.ListConnectorsRequest](f)) > 0 {
			cancel()
		}
		return true
	}
	if code := Run(ctx, []string{"--server", "unix://" + b.socket, "source", "confirm", "fabrikam", "hr"}, env); code != ExitInterrupted {
		t.Errorf("exit code %d\n%s", code, errs.String())
	}
	if sent := got[*operatorv1.ConfirmSourceRequest](f); len(sent) > 0 {
		t.Errorf("confirmed all the same: %v", sent)
	}
}

// TestCompletion: a shell completes tenants that the server knows.
func TestCompletion(t *testing.T) {
	b := newBench(t, &fakeOperator{tenants: []*operatorv1.Tenant{{Id: "fabrikam"}, {Id: "contoso"}}})
	code, out, _ := b.run("__complete", "plan", "make", "")
	if code != ExitDone || !strings.HasPrefix(out, "fabrikam\ncontoso\n") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}
