package rig

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/clock"
	"github.com/reevehq/reeve/test/sources"
)

// Tenant is the client of every rig.
const Tenant = "fabrikam"

// Options say what a rig is like. The zero value is an htpasswd file as target.
type Options struct {
	// Bin is the folder of the programs (Build).
	Bin string
	// Estate is the client's side; a new one of 12 people by default.
	Estate *Estate
	// Through is where the agent dials, given the control plane's address; by
	// default that address.
	Through func(address string) string
	// State is the agent's state folder; one in the rig's folder by default.
	State string
	// Clock is what agent and control plane go by, whose programs BuildClocked
	// made; nil is the machine's.
	Clock *clock.Clock
}

// Rig is a control plane, a client and its agent. Its methods are for one
// goroutine.
type Rig struct {
	T            testing.TB
	Dir          string
	ControlPlane *Process
	Agent        *Process
	Estate       *Estate
	// Address is where the control plane listens, Dialled where the agent dials.
	Address, Dialled string
	// Pin is root_sha256, State the agent's state folder.
	Pin, State string
	// HelpDesk opens the passwords that the agent makes.
	HelpDesk *age.X25519Identity

	bin    string
	clock  *clock.Clock
	before map[string]string
}

// New starts a control plane, joins and starts the agent, confirms the source
// and binds the policy: what remains is to plan.
func New(t testing.TB, o Options) *Rig {
	t.Helper()
	sources.Look(t, filepath.Join("..", ".."))
	// Unix sockets need short paths; t.TempDir's are not.
	dir, err := os.MkdirTemp("", "rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() && os.Getenv("REEVE_KEEP") != "" {
			t.Logf("kept: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	r := &Rig{T: t, Dir: dir, Estate: o.Estate, bin: o.Bin, clock: o.Clock, State: o.State}
	if r.Estate == nil {
		r.Estate = NewEstate(12)
	}
	if r.State == "" {
		r.State = filepath.Join(dir, "state")
	}
	if r.HelpDesk, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	r.Estate.write(t, filepath.Join(dir, "client"))
	r.before = r.Estate.Files(t)
	r.Address = freeAddress(t)
	r.Dialled = r.Address
	if o.Through != nil {
		r.Dialled = o.Through(r.Address)
	}
	r.ControlPlane = r.process("control-plane.log", "reeve-controlplane",
		"run", "--data", "noc", "--dev", "--listen", r.Address, "--advertise", r.Dialled, "--heartbeat", "5s")
	r.Agent = r.process("agent.log", "reeve-agent", "run", "--config", "agent.yaml")
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("control plane:\n%s\nagent:\n%s", tail(r.ControlPlane.Log()), tail(r.Agent.Log()))
		}
	})
	r.StartControlPlane()
	r.Do("tenant", "add", Tenant, "--owner", "it@fabrikam.example", "--zone", "Europe/Oslo")
	_, after, found := strings.Cut(r.Do("agent", "invite", Tenant, "dc1", "--token-file", "dc1.token").Stdout, "root_sha256:")
	if !found || len(strings.Fields(after)) == 0 {
		t.Fatal("the invitation does not show root_sha256")
	}
	r.Pin = strings.Fields(after)[0]
	r.Configure("agent.yaml", r.State)
	if got := r.Local("join", "--config", "agent.yaml", "--token-file", "dc1.token"); got.Code != 0 {
		t.Fatalf("join: exit code %d\n%s%s", got.Code, got.Stdout, got.Stderr)
	}
	r.Agent.Start()
	r.Observed()
	r.confirm()
	r.write("policy.yaml", r.Estate.policy())
	r.Do("policy", "apply", "policy.yaml")
	r.Do("policy", "bind", Tenant, "faults")
	return r
}

func tail(log string) string {
	if most := 10_000; len(log) > most {
		return "…" + log[len(log)-most:]
	}
	return log
}

func freeAddress(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// environment is what a program of the rig finds beside the test's own.
func (r *Rig) environment() []string {
	out := []string{"NO_COLOR=1"}
	if r.clock != nil {
		out = append(out, r.clock.Variable())
	}
	return out
}

func (r *Rig) process(log, program string, args ...string) *Process {
	return newProcess(r.T, r.Dir, filepath.Join(r.Dir, log), r.environment(), r.program(program), args...)
}

func (r *Rig) program(name string) string { return filepath.Join(r.bin, name) }

func (r *Rig) write(name, content string) {
	r.T.Helper()
	if err := os.WriteFile(filepath.Join(r.Dir, name), []byte(content), 0o600); err != nil {
		r.T.Fatal(err)
	}
}

// Configure writes an agent.yaml for a state folder.
func (r *Rig) Configure(name, state string) {
	r.T.Helper()
	r.write(name, fmt.Sprintf(`control_plane: %s
trust_domain: reeve.local
root_sha256: %s
state: %s
heartbeat: 5s
observe_every: 1h
recipients: {helpdesk: %s}
`, r.Dialled, r.Pin, state, r.HelpDesk.Recipient())+r.Estate.connectors())
}

// Another is a further agent process on a configuration of its own.
func (r *Rig) Another(config string) *Process {
	return r.process(config+".log", "reeve-agent", "run", "--config", config)
}

// StartControlPlane starts it and waits until it answers. While it was away its
// port may have been lent to somebody's outgoing connection: then it ends, and is
// started again, as by a supervisor.
func (r *Rig) StartControlPlane() {
	r.T.Helper()
	r.ControlPlane.Start()
	Until(r.T, "the control plane answers", func() (bool, string) {
		if r.ControlPlane.Ended() && strings.HasSuffix(strings.TrimSpace(r.ControlPlane.Log()), "address already in use; is another control plane running?") {
			r.ControlPlane.Forget()
			r.ControlPlane.Start()
		}
		got := r.Try("tenant", "list")
		return got.Code == 0, got.Stderr + tail(r.ControlPlane.Log())
	})
}

// Try types a command of the operator's.
func (r *Rig) Try(args ...string) Result {
	r.T.Helper()
	got, err := run(r.Dir, []string{"REEVE_SERVER=unix://" + filepath.Join(r.Dir, "noc", "operator.sock"), "NO_COLOR=1"}, r.program("reeve"), args...)
	if err != nil {
		r.T.Fatal(err)
	}
	return got
}

// Do types a command that must succeed.
func (r *Rig) Do(args ...string) Result {
	r.T.Helper()
	got := r.Try(args...)
	if got.Code != 0 {
		r.T.Fatalf("reeve %s: exit code %d\n%s%s", strings.Join(args, " "), got.Code, got.Stdout, got.Stderr)
	}
	return got
}

// Local types a command of the client's administrator.
func (r *Rig) Local(args ...string) Result {
	r.T.Helper()
	got, err := run(r.Dir, r.environment(), r.program("reeve-agent"), args...)
	if err != nil {
		r.T.Fatal(err)
	}
	return got
}

// ask types a command with -o json and reads the response.
func (r *Rig) ask(into proto.Message, args ...string) Result {
	r.T.Helper()
	got := r.Try(append(args, "-o", "json")...)
	if got.Code == 0 {
		if err := protojson.Unmarshal([]byte(got.Stdout), into); err != nil {
			r.T.Fatalf("reeve %s: %v", strings.Join(args, " "), err)
		}
	}
	return got
}

// Ask is ask for a command that must succeed.
func (r *Rig) Ask(into proto.Message, args ...string) {
	r.T.Helper()
	if got := r.ask(into, args...); got.Code != 0 {
		r.T.Fatalf("reeve %s: exit code %d\n%s%s", strings.Join(args, " "), got.Code, got.Stdout, got.Stderr)
	}
}

// AgentState is what the control plane says of the agent.
func (r *Rig) AgentState() *operatorv1.Agent {
	r.T.Helper()
	var list operatorv1.ListAgentsResponse
	r.Ask(&list, "agent", "list", Tenant)
	if len(list.GetAgents()) != 1 {
		r.T.Fatalf("there are %d agents", len(list.GetAgents()))
	}
	return list.GetAgents()[0]
}

// FakeHistory gives the agent, which does not run, many records of a time that
// has passed (package audittest).
func (r *Rig) FakeHistory(count int, from, until time.Time) {
	r.T.Helper()
	got, err := run(r.Dir, nil, r.program("fakehistory"), r.State, strconv.Itoa(count), from.Format(time.RFC3339Nano), until.Format(time.RFC3339Nano))
	if err != nil || got.Code != 0 {
		r.T.Fatalf("fakehistory: %v, exit code %d\n%s", err, got.Code, got.Stderr)
	}
}

// Connected waits until the agent has a session.
func (r *Rig) Connected() {
	r.T.Helper()
	Until(r.T, "the agent is connected", func() (bool, string) {
		a := r.AgentState()
		return a.GetConnected(), a.GetState() + "\n" + tail(r.Agent.Log())
	})
}

func (r *Rig) snapshots() map[string]string {
	r.T.Helper()
	var list operatorv1.ListConnectorsResponse
	r.Ask(&list, "connector", "list", Tenant)
	out := map[string]string{}
	for _, c := range list.GetConnectors() {
		if c.GetFingerprintSha256() != "" {
			out[c.GetState().GetAlias()] = c.GetSnapshot().GetSnapshot()
		}
	}
	return out
}

// Observed waits until every connector has a snapshot.
func (r *Rig) Observed() {
	r.T.Helper()
	Until(r.T, "every connector was observed", func() (bool, string) {
		seen := 0
		all := r.snapshots()
		for _, id := range all {
			if id != "" {
				seen++
			}
		}
		return seen == r.Estate.aliases(), fmt.Sprint(all) + tail(r.Agent.Log())
	})
}

// Observe waits until every connector was read from now on. What comes first may
// have been begun before; it is read once more after that.
func (r *Rig) Observe() {
	r.T.Helper()
	r.observeOnce()
	r.observeOnce()
}

// observeOnce asks again and again: what was asked of a session that is cut is
// nobody's to remember.
func (r *Rig) observeOnce() {
	r.T.Helper()
	old := r.snapshots()
	n := 0
	Until(r.T, "every connector was observed again", func() (bool, string) {
		if n%40 == 0 {
			r.Try("observe", Tenant)
		}
		n++
		now := r.snapshots()
		for alias, id := range now {
			if id == old[alias] {
				return false, alias + " not yet\n" + tail(r.Agent.Log())
			}
		}
		return true, ""
	})
}

func (r *Rig) confirm() {
	r.T.Helper()
	var list operatorv1.ListConnectorsResponse
	r.Ask(&list, "connector", "list", Tenant)
	for _, c := range list.GetConnectors() {
		if c.GetState().GetAlias() == "hr" {
			r.Do("source", "confirm", Tenant, "hr", "--fingerprint", c.GetFingerprintSha256())
		}
	}
}
