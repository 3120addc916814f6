package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/fakecontrolplane"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid/fakeworkloadapi"
	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// The test binary is a connector too, the fake directory Memory, and in stories
// it is reeve-agent itself.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve-memory":
		if err := sdk.Serve(connectortest.Memory{}); err != nil {
			os.Exit(1)
		}
	case len(os.Args) > 2 && os.Args[1] == "connector" && os.Args[2] == "serve":
		os.Exit(Run(os.Args[1:]))
	default:
		testscript.Main(noLeaks{m}, map[string]func(){"reeve-agent": func() { os.Exit(Run(os.Args[1:])) }})
	}
}

// site is a client's host with a fake directory and a fake control plane.
type site struct {
	t      *testing.T
	cp     *fakecontrolplane.ControlPlane
	config string
	state  string
	memory string
}

func newSite(t *testing.T, more string) *site {
	t.Helper()
	// Sockets have short paths.
	dir, err := os.MkdirTemp("", "ra")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &site{t: t, cp: fakecontrolplane.Start(t), config: filepath.Join(dir, "agent.yaml"), state: filepath.Join(dir, "state"), memory: filepath.Join(dir, "memory.json")}
	self, err := os.Executable()
	check(t, err)
	f, err := os.Open(self)
	check(t, err)
	h := sha256.New()
	_, err = io.Copy(h, f)
	check(t, err)
	f.Close()
	check(t, connectortest.MemoryState{Next: 4, Objects: []connectortest.MemoryObject{
		{Type: "account", Anchor: "1", Leaf: "anna", Place: "staff", Attributes: map[string][]string{"mail": {"anna@fabrikam.example"}}},
		{Type: "account", Anchor: "2", Leaf: "kari", Place: "msp"},
		{Type: "group", Anchor: "3", Leaf: "files", Place: "staff", Members: []string{"1"}},
	}}.Write(s.memory))
	check(t, os.WriteFile(s.config, fmt.Appendf(nil, `control_plane: %s
trust_domain: msp.example
root_sha256: %s
state: %s
heartbeat: 5s
observe_every: 10s
%s
connectors:
  - alias: dir
    command: [%s, serve-memory]
    sha256: %s
    isolation: none
    role: target
    mode: adopt
    settings: {state: %s}
    release: [mail]
    guardrails:
      scope:
        - {rule: staff, types: [account], base: "ou=staff", operations: [update, create]}
      attributes:
        - {name: mail}
`, s.cp.Address, s.cp.Pin, s.state, more, self, hex.EncodeToString(h.Sum(nil)), s.memory), 0o600))
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cli runs a command in this process and returns its exit code and output.
func (s *site) cli(stdin string, args ...string) (int, string, string) {
	var out, errs bytes.Buffer
	p := &program{clock: machine(), getenv: func(string) string { return "" }, log: slog.New(slog.DiscardHandler)}
	code := cli.Main(s.t.Context(), p, append(args, "--config", s.config), cli.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs, Getenv: func(string) string { return "" }})
	return code, out.String(), errs.String()
}

func (s *site) join() {
	s.t.Helper()
	if code, out, errs := s.cli(s.cp.Invite("dc1", time.Hour).Reveal()+"\n", "join", "--token-file", "-"); code != 0 {
		s.t.Fatalf("join: %d %s %s", code, out, errs)
	}
}

// run starts the agent and returns how to stop it.
func (s *site) run() (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	log := slog.New(slog.DiscardHandler)
	if testing.Verbose() {
		log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	p := &program{clock: machine(), getenv: func(string) string { return "" }, log: log}
	go func() { done <- p.Run(ctx, s.config) }()
	var once bool
	stop = func() {
		if once {
			return
		}
		once = true
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("the agent ended with %v", err)
		}
	}
	s.t.Cleanup(stop)
	return stop
}

func (s *site) await(what string, holds func() bool) {
	s.t.Helper()
	for range 3000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	s.t.Fatalf("waited in vain for %s", what)
}

func answer[T any](s *site, args ...string) T {
	s.t.Helper()
	var v T
	code, out, errs := s.cli("", append(args, "-o", "json")...)
	if code != 0 && code != cli.ExitAttention {
		s.t.Fatalf("%v: exit %d, %s", args, code, errs)
	}
	check(s.t, json.Unmarshal([]byte(out), &v))
	return v
}

func TestAgentRunsObservesShipsAndAnswersLocalRoot(t *testing.T) {
	s := newSite(t, "")
	if code, _, errs := s.cli("", "status"); code != cli.ExitRefused || !strings.Contains(errs, "reeve-agent join") {
		t.Errorf("status before the join: %d %s", code, errs)
	}
	s.join()
	stop := s.run()
	session := s.cp.Newest()
	if h := session.Hello; h.GetEpoch() != 1 || len(h.GetConnectors()) != 1 || h.GetConnectors()[0].GetAlias() != "dir" || h.GetGuardrailsDigest() == "" {
		t.Errorf("hello %v", h)
	}
	s.await("a snapshot", func() (ok bool) {
		s.cp.Do(func() { ok = s.cp.Snapshots["dir"] != nil && s.cp.Snapshots["dir"].Pushed > 0 })
		return ok
	})
	s.cp.Do(func() {
		if held := s.cp.Snapshots["dir"]; len(held.Objects) != 3 || !held.End.GetHeader().GetComplete() || len(held.Objects["1"].Attribute("mail")) != 1 || held.Objects["1"].Attribute("login") != nil {
			t.Errorf("snapshot %v", held.Objects)
		}
	})
	s.await("the record of the start", func() bool { held, _ := s.cp.Records(1); return held == 1 })

	// An order that nobody signed: refused with one record, however often it
	// comes and whatever is cut meanwhile.
	s.cp.Do(func() {
		s.cp.CutShipping = 2
		s.cp.Orders["forged"] = &fakecontrolplane.Order{Envelope: []byte(`{"payloadType":"x","payload":"","signatures":[]}`), Manifest: []byte("x")}
	})
	for range 2 {
		session.Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Fetch{Fetch: &agentv1.Fetch{Order: "forged"}}})
	}
	s.await("the refusal in the log", func() bool { held, _ := s.cp.Records(1); return held >= 2 })
	if a := answer[cli.Acknowledged](s, "pause", "--reason", "lunch"); a.Act != "paused" {
		t.Errorf("pause: %+v", a)
	}
	if st := answer[cli.Status](s, "status"); !st.Running || !st.Connected || !st.Paused || st.Connectors[0].LastObserved.IsZero() || !st.Connectors[0].Reachable {
		t.Errorf("status %+v", st)
	}
	s.cp.Restart()
	s.await("a second session", func() bool { return len(s.cp.Sessions()) >= 2 })
	if h := s.cp.Newest().Hello; !h.GetPaused() || h.GetChainLength() != 3 {
		t.Errorf("hello after the restart: paused %v, %d records", h.GetPaused(), h.GetChainLength())
	}
	if a := answer[cli.Acknowledged](s, "resume"); a.Act != "resumed" {
		t.Errorf("resume: %+v", a)
	}
	s.await("all records", func() bool { held, _ := s.cp.Records(1); return held == 4 })
	if held, twice := s.cp.Records(1); twice != 0 {
		t.Errorf("%d of %d records are twice in the log", twice, held)
	}
	if a := answer[cli.Acknowledged](s, "clock", "accept"); a.Act != "accepted" {
		t.Errorf("clock accept: %+v", a)
	}
	stop()

	// The same without a running agent, from the journal.
	code, out, errs := s.cli("", "records", "-o", "json")
	if code != 0 {
		t.Fatalf("records: %s", errs)
	}
	var types []string
	for line := range strings.Lines(out) {
		var r cli.RecordLine
		check(t, json.Unmarshal([]byte(line), &r))
		types = append(types, r.Type)
	}
	if got := strings.Join(types, " "); got != "AGENT_STARTED ORDER_REFUSED PAUSED RESUMED CLOCK" {
		t.Errorf("records: %s", got)
	}
	if st := answer[cli.Status](s, "status"); st.Running || st.Paused || st.Records != 5 {
		t.Errorf("status %+v", st)
	}
}

// A local command that looks at the journal at that moment, as monitoring does,
// does not keep the agent from starting.
func TestAgentStartsWhileACommandLooks(t *testing.T) {
	s := newSite(t, "")
	s.join()
	release, err := statedir.At(s.state).Lock()
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(200*time.Millisecond, release)
	s.run()
	s.await("the record of the start", func() bool { held, _ := s.cp.Records(1); return held == 1 })
}

func TestRecoverOpensANewEpoch(t *testing.T) {
	s := newSite(t, "")
	s.join()
	stop := s.run()
	s.cp.Newest().Send(&agentv1.SessionResponse{Message: &agentv1.SessionResponse_Quarantine{Quarantine: &agentv1.Quarantine{Reason: "behind"}}})
	s.await("quarantine", func() bool { return answer[cli.Status](s, "status").Quarantined != "" })
	if code, _, errs := s.cli("", "recover"); code != cli.ExitRefused || !strings.Contains(errs, "stop the agent") {
		t.Errorf("recover while it runs: %d %s", code, errs)
	}
	stop()
	if a := answer[cli.Acknowledged](s, "pause"); a.Act != "paused" {
		t.Errorf("pause: %+v", a)
	}
	if a := answer[cli.Acknowledged](s, "recover"); a.Act != "recovered" {
		t.Errorf("recover: %+v", a)
	}
	st := answer[cli.Status](s, "status")
	if st.Epoch != 2 || st.Quarantined != "" || !st.Paused || st.Records != 0 {
		t.Errorf("after recover: %+v", st)
	}
	if old, _ := filepath.Glob(filepath.Join(s.state, "journal.db.epoch-1*")); len(old) == 0 {
		t.Error("the old journal is gone")
	}
	before := len(s.cp.Sessions())
	s.run()
	s.await("a session of the new epoch", func() bool { return len(s.cp.Sessions()) > before })
	if got := s.cp.Newest().Hello.GetEpoch(); got != 2 {
		t.Errorf("epoch %d", got)
	}
}

func TestWorkloadAPIRotationMovesTheSession(t *testing.T) {
	dir, err := os.MkdirTemp("", "wl")
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	s := newSite(t, "svid_source: workload-api\nworkload_api: unix://"+socket)
	api, err := fakeworkloadapi.Start(fakeworkloadapi.Config{
		Socket: socket, CA: s.cp.CA, ID: spiffe.AgentID{TrustDomain: fakecontrolplane.TrustDomain, Tenant: fakecontrolplane.Tenant, Agent: "dc1"},
	})
	check(t, err)
	t.Cleanup(api.Close)
	s.join()
	s.run()
	s.cp.Newest()
	for n := 2; n <= 3; n++ {
		api.Rotate()
		s.await("a session under the new certificate", func() bool { return len(s.cp.Sessions()) >= n })
	}
	s.await("old sessions to end", func() bool {
		open := 0
		for _, x := range s.cp.Sessions() {
			if x.Open() {
				open++
			}
		}
		return open == 1
	})
	if s.cp.Agent("dc1").Renewed != 0 {
		t.Error("the built-in issuer was asked")
	}
}

func TestExampleIsValid(t *testing.T) {
	p := &program{clock: machine(), getenv: func(string) string { return "" }, log: slog.New(slog.DiscardHandler)}
	v, err := p.Validate(t.Context(), "../deploy/agent.example.yaml")
	check(t, err)
	if len(v.Connectors) != 2 || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "credential:corp-bind") {
		t.Errorf("%+v", v)
	}
}

func TestConnectorCheckTellsWhatCouldAndMayBeDone(t *testing.T) {
	s := newSite(t, "")
	c := answer[cli.Checked](s, "connector", "check")
	if len(c.Connectors) != 1 {
		t.Fatalf("%+v", c)
	}
	got := c.Connectors[0]
	if !got.Reachable || got.Alias != "dir" || len(got.Fingerprint) == 0 {
		t.Errorf("%+v", got)
	}
	for _, typ := range got.Types {
		want := ""
		if typ.Type == "account" {
			// The guardrails list create, the mode adopt does not go so far.
			want = "update"
		}
		if may := strings.Join(typ.May, " "); may != want || len(typ.Can) == 0 {
			t.Errorf("%s may %q, want %q", typ.Type, may, want)
		}
	}
	check(t, os.WriteFile(s.memory, []byte("no JSON"), 0o600))
	if code, _, _ := s.cli("", "connector", "check"); code != cli.ExitUnreachable {
		t.Errorf("a directory that is broken: exit %d", code)
	}
	if code, _, _ := s.cli("", "connector", "check", "other"); code != cli.ExitUsage {
		t.Errorf("an alias that is not there: exit %d", code)
	}
}
