package roundtrip

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
	"github.com/reevehq/reeve/test/sources"
)

// bin is the folder of the programs under test.
var bin string

func TestMain(m *testing.M) { os.Exit(rig.Main(m, &bin, 0)) }

// tenant is the client of every story.
const tenant = "fabrikam"

// house is one control plane, one agent and one directory.
type house struct {
	t      *testing.T
	dir    string
	env    []string
	dirsrv *slapd.Server
	addr   string
	pin    string
	helper *age.X25519Identity
	estate *estate
}

// newHouse starts a control plane with the tenant in it and joins the agent,
// which does not run yet.
func newHouse(t *testing.T, e *estate, server *slapd.Server, policy string, parameters ...string) *house {
	t.Helper()
	sources.Look(t, filepath.Join("..", ".."))
	dir, err := os.MkdirTemp("", "rt")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("left for a look: %s", dir)
			return
		}
		_ = os.RemoveAll(dir)
	})
	h := &house{t: t, dir: dir, dirsrv: server, estate: e,
		env: append(os.Environ(), "REEVE_SERVER=unix://"+filepath.Join(dir, "noc", "operator.sock"), "NO_COLOR=1")}
	if h.helper, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.addr = l.Addr().String()
	l.Close()
	h.start("reeve-controlplane", "run", "--data", "noc", "--dev", "--listen", h.addr)
	h.until("the control plane answers", func() error {
		_, err := h.try("reeve", "tenant", "list", "-o", "json")
		return err
	})
	h.run("reeve", "tenant", "add", tenant, "--owner", "it@fabrikam.example", "--zone", "Europe/Oslo")
	invited := h.run("reeve", "agent", "invite", tenant, "dc1", "--token-file", "dc1.token")
	_, after, ok := strings.Cut(invited, "root_sha256:")
	if !ok {
		t.Fatalf("the invitation shows no fingerprint:\n%s", invited)
	}
	h.pin = strings.Fields(after)[0]
	h.write("agent.yaml", h.estate.agentConfig(h))
	h.run("reeve-agent", "join", "--config", "agent.yaml", "--token-file", "dc1.token")
	files, err := policy, error(nil)
	if !filepath.IsAbs(policy) {
		files, err = filepath.Abs(filepath.Join("testdata", policy))
	}
	if err != nil {
		t.Fatal(err)
	}
	h.run("reeve", "policy", "apply", files)
	h.run("reeve", append([]string{"policy", "bind", tenant, filepath.Base(policy)}, parameters...)...)
	return h
}

func (h *house) write(name, content string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path+".part", []byte(content), 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		h.t.Fatal(err)
	}
}

// start runs a program until the test ends.
func (h *house) start(name string, args ...string) {
	h.t.Helper()
	log, err := os.Create(filepath.Join(h.dir, name+".log"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, name), args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = h.dir, h.env, log, log
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
}

// try runs a command and returns what it printed.
func (h *house) try(name string, args ...string) (string, error) {
	path := name
	if strings.HasPrefix(name, "reeve") {
		path = filepath.Join(bin, name)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir, cmd.Env = h.dir, h.env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := stderr.String() + stdout.String()
		if len(said) > 4000 {
			said = said[:4000] + "…"
		}
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, said)
	}
	return stdout.String(), nil
}

func (h *house) run(name string, args ...string) string {
	h.t.Helper()
	out, err := h.try(name, args...)
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// ask runs a command with -o json and decodes its answer.
func (h *house) ask(into any, args ...string) error {
	out, err := h.try("reeve", append(args, "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// until waits for what another process does.
func (h *house) until(what string, done func() error) {
	h.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for {
		err := done()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("waited in vain until %s: %v", what, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

type connectorList struct {
	Connectors []struct {
		State             struct{ Alias string }
		FingerprintSha256 string
		Snapshot          *struct {
			Snapshot string
			Complete bool
		}
	}
}

// snapshots returns the current snapshot of each connector.
func (h *house) snapshots() (map[string]string, error) {
	var list connectorList
	if err := h.ask(&list, "connector", "list", tenant); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, c := range list.Connectors {
		if c.Snapshot != nil && c.FingerprintSha256 != "" {
			if !c.Snapshot.Complete {
				return nil, fmt.Errorf("the snapshot of %s is incomplete", c.State.Alias)
			}
			out[c.State.Alias] = c.Snapshot.Snapshot
		}
	}
	return out, nil
}

// connect runs the agent and waits until both connectors were observed.
func (h *house) connect() {
	h.t.Helper()
	h.start("reeve-agent", "run", "--config", "agent.yaml")
	h.until("the agent has observed both", func() error {
		seen, err := h.snapshots()
		if err == nil && len(seen) != 2 {
			err = fmt.Errorf("observed: %v", seen)
		}
		return err
	})
	var list connectorList
	if err := h.ask(&list, "connector", "list", tenant); err != nil {
		h.t.Fatal(err)
	}
	for _, c := range list.Connectors {
		if c.State.Alias == "hr" {
			h.run("reeve", "source", "confirm", tenant, "hr", "--fingerprint", c.FingerprintSha256)
		}
	}
}

// observe has everything read again.
func (h *house) observe() {
	h.t.Helper()
	old, err := h.snapshots()
	if err != nil {
		h.t.Fatal(err)
	}
	h.run("reeve", "observe", tenant)
	h.until("everything was observed again", func() error {
		now, err := h.snapshots()
		for alias, id := range now {
			if old[alias] == id {
				err = errors.Join(err, fmt.Errorf("%s not yet", alias))
			}
		}
		return err
	})
}

// verify exports the log and checks it without the control plane.
func (h *house) verify() {
	h.t.Helper()
	h.run("reeve", "audit", "export", tenant, "--out", "log")
	args := []string{"audit", "verify", "--export", "log", "--root-sha256", h.pin, "--server", "unix:///nowhere"}
	if latest := filepath.Join("agent-state", "checkpoints", "latest"); exists(filepath.Join(h.dir, latest)) {
		args = append(args, "--checkpoint", latest)
	} else {
		h.t.Error("the agent saved no checkpoint")
	}
	h.run("reeve", args...)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// dump is slapcat.
func (h *house) dump() []entry {
	h.t.Helper()
	raw, err := h.dirsrv.Dump()
	if err != nil {
		h.t.Fatal(err)
	}
	entries, err := parseLDIF(raw)
	if err != nil {
		h.t.Fatal(err)
	}
	return entries
}

// search is what somebody else sees with ldapsearch: everything but operational
// attributes.
func search(t *testing.T, server *slapd.Server) tree {
	t.Helper()
	cmd := exec.Command("ldapsearch", "-x", "-LLL", "-o", "ldif-wrap=no", "-H", server.URL, "-D", server.RootDN, "-w", server.RootPassword, "-b", server.Suffix)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ldapsearch: %v: %s", err, stderr.String())
	}
	entries, err := parseLDIF(out)
	if err != nil {
		t.Fatal(err)
	}
	return treeOf(entries, nil)
}

// edit is what somebody else does with ldapmodify.
func edit(t *testing.T, server *slapd.Server, ldif string) {
	t.Helper()
	cmd := exec.Command("ldapmodify", "-x", "-H", server.URL, "-D", server.RootDN, "-w", server.RootPassword)
	cmd.Stdin = strings.NewReader(ldif)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ldapmodify: %v: %s", err, tail(string(out), 2000))
	}
}
