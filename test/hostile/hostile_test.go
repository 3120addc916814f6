package hostile_test

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // the control plane's database, read by itself

	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

var names = flag.Int("names", 2500, "how many hostile people; 100000 is the full measure")

// bin is the folder of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &bin, 0)) }

// shown fails the test unless a text is fit for a terminal and a log: valid UTF-8
// of lines of characters that can be seen.
func shown(t *testing.T, what, text string) {
	t.Helper()
	for n, line := range strings.Split(text, "\n") {
		if !utf8.ValidString(line) {
			t.Errorf("%s, line %d, is not UTF-8: %.300q", what, n+1, line)
			return
		}
		if at := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) && r != '\t' }); at >= 0 {
			t.Errorf("%s, line %d, holds %U: %.300q", what, n+1, []rune(line[at:])[0], line[max(0, at-100):])
			return
		}
	}
}

// TestHostileNames: whatever a source calls its people, nothing is altered, nothing
// is lost in silence and nothing of it acts where it is shown.
func TestHostileNames(t *testing.T) {
	began := time.Now()
	step := func(what string) { t.Logf("%6.1fs %s", time.Since(began).Seconds(), what) }
	r := rig.New(t, rig.Options{Bin: bin, Estate: rig.NewEstate(3)})
	step("joined")
	list := people(*names)
	writeStaff(t, r.Estate.HR(), list)
	r.Observe()
	step("observed")

	want := map[string]person{}
	broken := 0
	for _, p := range list {
		if p.readable() {
			want[p.id] = p
		} else {
			broken++
		}
	}
	if broken == 0 || len(want) == 0 {
		t.Fatalf("%d readable and %d broken lines show nothing", len(want), broken)
	}
	observed(t, r, want, broken)
	step("inventory compared")
	planned(t, r, want)
	step("plan compared")
	printed(t, r, len(want))
	step("outputs read")
	r.Agent.Stop()
	r.ControlPlane.Stop()
	for name, p := range map[string]*rig.Process{"the control plane's log": r.ControlPlane, "the agent's log": r.Agent} {
		log := p.Log()
		if len(log) == 0 {
			t.Errorf("%s is empty", name)
		}
		shown(t, name, log)
	}
	stored(t, r, want)
	step("database compared")
	served(t, r, want)
	step("REST read")
}

// exactly compares an object with its line.
func exactly(t *testing.T, where string, o *connectorv1.Object, want map[string]person) bool {
	t.Helper()
	p, known := want[o.GetAnchor()]
	if !known {
		return false
	}
	for name, value := range map[string]string{"employee_id": p.id, "login": p.login, "name": p.name} {
		if values := o.Attribute(name); len(values) != 1 || string(values[0]) != value {
			t.Errorf("%s: %s of %s is %.300q, want %.300q", where, name, p.id, values, value)
			return true
		}
	}
	return true
}

// observed compares the inventory with the list.
func observed(t *testing.T, r *rig.Rig, want map[string]person, broken int) {
	t.Helper()
	var list operatorv1.ListObjectsResponse
	r.Ask(&list, "inventory", "objects", rig.Tenant, "hr")
	found := 0
	for _, o := range list.GetObjects() {
		if exactly(t, "inventory", o.GetObject(), want) {
			found++
		}
	}
	// The rig's own people left the list while lines of it could not be read: they
	// stay, since one of those lines may be theirs.
	if objects := len(list.GetObjects()); found != len(want) || objects != len(want)+3 {
		t.Errorf("%d of %d people, %d objects", found, len(want), objects)
	}
	var connectors operatorv1.ListConnectorsResponse
	r.Ask(&connectors, "connector", "list", rig.Tenant)
	for _, c := range connectors.GetConnectors() {
		if c.GetState().GetAlias() != "hr" {
			continue
		}
		if c.GetSnapshot().GetComplete() {
			t.Errorf("a list with %d lines that are not text counts as complete", broken)
		}
	}
}

// known asks who is who: identity by anchor.
func known(t *testing.T, r *rig.Rig) map[string]string {
	t.Helper()
	var list operatorv1.ListIdentitiesResponse
	r.Ask(&list, "identity", "list", rig.Tenant)
	identities := map[string]string{}
	for _, id := range list.GetIdentities() {
		for _, source := range id.GetSources() {
			anchor, ours := strings.CutPrefix(source, "hr ")
			if _, twice := identities[anchor]; twice || !ours {
				t.Errorf("%s comes from %q", id.GetId(), source)
			}
			identities[anchor] = id.GetId()
		}
	}
	return identities
}

// planned makes a plan: everybody has an account of exactly their name, or there
// is a finding that says why not.
func planned(t *testing.T, r *rig.Rig, want map[string]person) {
	t.Helper()
	var made operatorv1.MakePlanResponse
	r.Ask(&made, "plan", "make", rig.Tenant)
	id := made.GetPlan().GetId()
	rig.Until(t, "the guardrails were asked", func() (bool, string) {
		p := r.Show(id)
		return p.GetDryRunDone(), p.GetBlocked()
	})
	plan := r.Show(id)
	accounts, why := map[string]string{}, map[string]string{}
	for _, c := range r.Changes(id) {
		op := c.GetChange().GetOperation()
		if create := op.GetCreate(); create != nil && op.GetObject().GetType() == "user" {
			if twice, has := accounts[c.GetChange().GetIdentity()]; has {
				t.Errorf("%s gets two accounts, %q and %q", c.GetChange().GetIdentity(), twice, create.GetName().Text())
			}
			parts := create.GetName().GetComponents()
			if len(parts) != 1 || len(parts[0].GetParts()) != 1 || parts[0].GetParts()[0].GetType() != "login" {
				t.Errorf("a name became %v", create.GetName())
				continue
			}
			accounts[c.GetChange().GetIdentity()] = parts[0].GetParts()[0].GetValue()
		}
		shown(t, "a change's sentence", c.GetSentence())
	}
	for _, f := range plan.GetFindings() {
		why[f.GetIdentity()] = f.GetSentence()
		shown(t, "a finding", f.GetSentence())
	}
	for _, refusal := range plan.GetRefusals() {
		shown(t, "a refusal", refusal.GetSentence())
	}
	identities := known(t, r)
	created, explained := 0, 0
	for anchor, p := range want {
		login, has := accounts[identities[anchor]]
		sentence := why[identities[anchor]]
		switch {
		case identities[anchor] == "":
			t.Errorf("%.300q of %s is nobody", p.login, anchor)
		case has && login == p.login:
			created++
		case has:
			t.Errorf("%.300q of %s was altered to %.300q", p.login, anchor, login)
		case sentence != "":
			explained++
		default:
			t.Errorf("%.300q of %s has neither an account nor a finding", p.login, anchor)
		}
	}
	t.Logf("%d accounts, %d findings, %d refusals", created, explained, len(plan.GetRefusals()))
	if created == 0 || explained == 0 || len(plan.GetRefusals()) == 0 {
		t.Errorf("%d accounts, %d findings and %d refusals do not show all ways", created, explained, len(plan.GetRefusals()))
	}
	for _, args := range [][]string{{"plan", "show", id}, {"plan", "show", id, "--all"}, {"plan", "show", id, "--changes", "--all"}, {"plan", "list", rig.Tenant}} {
		text(t, r, args...)
		document(t, r, args...)
	}
}

// text reads what a command prints for people.
func text(t *testing.T, r *rig.Rig, args ...string) string {
	t.Helper()
	got := r.Do(args...)
	shown(t, "reeve "+strings.Join(args, " "), got.Stdout+got.Stderr)
	return got.Stdout
}

// document reads what a command prints for scripts.
func document(t *testing.T, r *rig.Rig, args ...string) {
	t.Helper()
	args = append(args, "-o", "json")
	got := r.Do(args...)
	shown(t, "reeve "+strings.Join(args, " "), got.Stdout+got.Stderr)
	if !json.Valid([]byte(got.Stdout)) {
		t.Errorf("reeve %s prints no JSON", strings.Join(args, " "))
	}
}

// printed looks at every other command that shows names.
func printed(t *testing.T, r *rig.Rig, n int) {
	t.Helper()
	for _, args := range [][]string{
		{"inventory", "show", rig.Tenant, "--all"}, {"inventory", "objects", rig.Tenant}, {"identity", "list", rig.Tenant}, {"case", "list", rig.Tenant},
		{"connector", "list", rig.Tenant}, {"source", "show", rig.Tenant, "hr"}, {"agent", "list", rig.Tenant}, {"audit", "list", rig.Tenant},
	} {
		text(t, r, args...)
		document(t, r, args...)
	}
	for _, args := range [][]string{{"inventory", "objects", rig.Tenant, "hr"}, {"identity", "list", rig.Tenant}} {
		// A heading, everybody who can be read, and the three that were there before.
		if lines := strings.Count(text(t, r, args...), "\n"); lines != 1+n+3 {
			t.Errorf("reeve %s prints %d lines for %d people", strings.Join(args, " "), lines, n+3)
		}
	}
	got := r.Do("audit", "export", rig.Tenant, "--out", "export.bin")
	shown(t, "reeve audit export", got.Stdout+got.Stderr)
	text(t, r, "audit", "verify", "--export", "export.bin", "--root-sha256", r.Pin)
	document(t, r, "audit", "verify", "--export", "export.bin", "--root-sha256", r.Pin)
	for _, args := range [][]string{{"status", "--config", "agent.yaml"}, {"connector", "check", "--config", "agent.yaml"}, {"guardrails", "explain", "--config", "agent.yaml"}} {
		local := r.Local(args...)
		shown(t, "reeve-agent "+strings.Join(args, " "), local.Stdout+local.Stderr)
	}
}

// stored opens the control plane's database, which is stopped.
func stored(t *testing.T, r *rig.Rig, want map[string]person) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(r.Dir, "noc", "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Query(`SELECT body FROM object WHERE connector = 'hr' AND valid_to IS NULL`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	found := 0
	for rows.Next() {
		var body []byte
		if err := rows.Scan(&body); err != nil {
			t.Fatal(err)
		}
		var o connectorv1.Object
		if err := proto.Unmarshal(body, &o); err != nil {
			t.Fatal(err)
		}
		if exactly(t, "database", &o, want) {
			found++
		}
	}
	if err := rows.Err(); err != nil || found != len(want) {
		t.Errorf("the database holds %d of %d people, %v", found, len(want), err)
	}
	var tables int
	if err := db.QueryRow(`SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name IN ('object', 'identity', 'tenant')`).Scan(&tables); err != nil || tables != 3 {
		t.Errorf("of three tables there are %d, %v", tables, err)
	}
}

// operator is an operator's certificate, as its files hold it.
type operator struct {
	cert  *tls.Certificate
	roots *x509.CertPool
}

func (o operator) Current() (*tls.Certificate, error) { return o.cert, nil }
func (o operator) Roots() *x509.CertPool              { return o.roots }
func (o operator) Updated() <-chan struct{}           { return nil }
func (o operator) Close() error                       { return nil }

// served starts the control plane again with its REST door and reads the lists
// through it.
func served(t *testing.T, r *rig.Rig, want map[string]person) {
	t.Helper()
	address := free(t)
	program := filepath.Join(bin, "reeve-controlplane")
	issue := exec.Command(program, "operator-certificate", "--data", "noc", "--name", "kari", "--out", "kari")
	issue.Dir = r.Dir
	if out, err := issue.CombinedOutput(); err != nil {
		t.Fatalf("operator-certificate: %v\n%s", err, out)
	}
	log, err := os.Create(filepath.Join(r.Dir, "rest.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	run := exec.Command(program, "run", "--data", "noc", "--dev", "--listen", free(t), "--operator-listen", address)
	run.Dir, run.Stdout, run.Stderr = r.Dir, log, log
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = run.Process.Signal(syscall.SIGTERM)
		_ = run.Wait()
	}()
	cert, err := tls.LoadX509KeyPair(filepath.Join(r.Dir, "kari", "kari.pem"), filepath.Join(r.Dir, "kari", "kari.key"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if raw, err := os.ReadFile(filepath.Join(r.Dir, "kari", "ca.pem")); err != nil || !roots.AppendCertsFromPEM(raw) {
		t.Fatalf("CA roots: %v", err)
	}
	config := mtls.ClientConfig(operator{&cert, roots}, spiffe.ControlPlaneID{TrustDomain: "reeve.local"}, time.Now)
	config.NextProtos = []string{"http/1.1"}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer client.CloseIdleConnections()
	get := func(path string) string {
		var body []byte
		rig.Until(t, "REST answers "+path, func() (bool, string) {
			resp, err := client.Get("https://" + address + path)
			if err != nil {
				return false, err.Error()
			}
			defer resp.Body.Close()
			body, err = io.ReadAll(resp.Body)
			return err == nil && resp.StatusCode == http.StatusOK, fmt.Sprintf("%s %v %.300q", resp.Status, err, body)
		})
		shown(t, "GET "+path, string(body))
		return string(body)
	}
	for _, path := range []string{"inventory", "identities", "cases", "connectors", "plans"} {
		get("/v1/tenants/" + rig.Tenant + "/" + path)
	}
	found, page := 0, ""
	for more := true; more; {
		var answer operatorv1.ListObjectsResponse
		body := get("/v1/tenants/" + rig.Tenant + "/objects?connector=hr&page_size=1000&page_token=" + page)
		if err := protojson.Unmarshal([]byte(body), &answer); err != nil {
			t.Fatal(err)
		}
		for _, o := range answer.GetObjects() {
			if exactly(t, "REST", o.GetObject(), want) {
				found++
			}
		}
		page = answer.GetNextPageToken()
		more = page != ""
	}
	if found != len(want) {
		t.Errorf("REST serves %d of %d people", found, len(want))
	}
}

func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
