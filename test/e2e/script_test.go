package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/reevehq/reeve/test/slapd"
	"github.com/reevehq/reeve/test/sources"
)

// storyPatience bounds all stories together.
const storyPatience = 4 * time.Minute

// TestStories runs testdata/script. Beside testscript's own commands there are:
//
//	exits CODE PROGRAM ARGS...     runs a program that must end with this exit code
//	start NAME PROGRAM ARGS...     runs a server, its output in NAME.log
//	halt NAME [kill]               ends it and waits; kill leaves it no time
//	ended NAME CODE                waits until it has ended by itself
//	until REGEXP PROGRAM ARGS...   runs a program again and again until its output matches
//	address NAME...                puts a free address into each variable
//	capture NAME REGEXP            puts the first group, found in stdout, into a variable
//	fill FILE...                   replaces each @NAME@ in the files by the variable's value
//	estate                         the small client: its files, and agent.yaml.in
//	controlplane [ARGS...]         starts one in reeve-data; sets ADDRESS and PIN
//	join TENANT AGENT CONFIG N     invites, joins and runs an agent, and waits for N snapshots
//	confirm TENANT ALIAS           confirms a source
//	observe TENANT [ALIAS...]      waits for fresh snapshots
//	plan NAME TENANT [ARGS...]     makes a plan that the guardrails were asked about; its id into NAME
//	hostile FILE                   adds names to a staff list that try to be something else
//	clean FILE...                  the files hold nothing that cannot be seen
//	slapd [tls] [limit]            starts a slapd with testdata/estate's directory
//	directory stop|start           ends it, starts it again
//
// A story that fails shows the ends of its servers' logs.
func TestStories(t *testing.T) {
	sources.Look(t, "../..")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: setup, Cmds: commands,
		// A program that hangs fails its story, with the goroutines it hangs in.
		Deadline: time.Now().Add(storyPatience),
	})
}

func setup(env *testscript.Env) error {
	env.Setenv("PATH", programs+":"+env.Getenv("PATH"))
	env.Setenv("NO_COLOR", "1")
	env.Setenv("TZ", "UTC")
	repository, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	env.Setenv("REPOSITORY", repository)
	s := newStage(env.WorkDir, func() []string { return env.Vars })
	env.Values["stage"] = s
	t, _ := env.T().(interface{ Failed() bool })
	env.Defer(func() {
		s.close()
		if t != nil && t.Failed() {
			env.T().Log(s.logs())
		}
	})
	return nil
}

func staged(ts *testscript.TestScript) *stage { return ts.Value("stage").(*stage) }

// need refuses a command without its arguments, and "!" where it has no meaning.
func need(ts *testscript.TestScript, neg bool, args []string, least int) {
	if neg || len(args) < least {
		ts.Fatalf("this command takes %d arguments or more, and no !", least)
	}
}

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"exits": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		err := ts.Exec(args[1], args[2:]...)
		got := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			got = exit.ExitCode()
		} else {
			ts.Check(err)
		}
		if strconv.Itoa(got) != args[0] {
			ts.Fatalf("exit code %d, want %s", got, args[0])
		}
	},
	"start": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		ts.Check(staged(ts).start(args[0], args[1], args[2:]...))
	},
	"halt": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		signal := syscall.SIGTERM
		if len(args) > 1 && args[1] == "kill" {
			signal = syscall.SIGKILL
		}
		ts.Check(staged(ts).stop(args[0], signal))
	},
	"ended": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		code, err := staged(ts).ended(args[0])
		ts.Check(err)
		if strconv.Itoa(code) != args[1] {
			ts.Fatalf("%s ended with exit code %d, want %s", args[0], code, args[1])
		}
	},
	"until": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		want, err := regexp.Compile("(?m)" + args[0])
		ts.Check(err)
		ts.Check(until("output matches "+args[0], func() (bool, error) {
			stdout, stderr, code, err := staged(ts).run(args[1], args[2:]...)
			if err != nil {
				return false, err
			}
			return want.MatchString(stdout), fmt.Errorf("exit code %d\n%s%s", code, stdout, stderr)
		}))
	},
	"address": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		for _, name := range args {
			address, err := freeAddress()
			ts.Check(err)
			ts.Setenv(name, address)
		}
	},
	"capture": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		want, err := regexp.Compile("(?m)" + args[1])
		ts.Check(err)
		found := want.FindStringSubmatch(ts.ReadFile("stdout"))
		if len(found) < 2 {
			ts.Fatalf("no match for %s", args[1])
		}
		ts.Setenv(args[0], found[1])
	},
	"fill": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		for _, name := range args {
			ts.Check(os.WriteFile(ts.MkAbs(name), []byte(filled(ts.ReadFile(name), ts.Getenv)), 0o600))
		}
	},
	"estate": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 0)
		ts.Check(writeEstate(ts.Getenv("WORK")))
	},
	"controlplane": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 0)
		if ts.Getenv("ADDRESS") == "" {
			address, err := freeAddress()
			ts.Check(err)
			ts.Setenv("ADDRESS", address)
		}
		pin, err := staged(ts).controlPlane(ts.Getenv("ADDRESS"), args...)
		ts.Check(err)
		ts.Setenv("PIN", pin)
	},
	"join": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 4)
		want, err := strconv.Atoi(args[3])
		ts.Check(err)
		ts.Check(staged(ts).join(args[0], args[1], args[2], want))
	},
	"confirm": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		ts.Check(staged(ts).confirm(args[0], args[1]))
	},
	"observe": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		ts.Check(staged(ts).observe(args[0], args[1:]...))
	},
	"plan": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 2)
		p, err := staged(ts).plan(args[1], args[2:]...)
		ts.Check(err)
		ts.Setenv(args[0], p.Plan.ID)
		ts.Setenv(args[0]+"_DIGEST", p.Plan.Digest)
	},
	"slapd": startSlapd,
	"directory": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		switch d := staged(ts).directory; args[0] {
		case "stop":
			d.Stop()
		case "start":
			ts.Check(d.Restart())
		default:
			ts.Fatalf("directory knows no %s", args[0])
		}
	},
	"hostile": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		ts.Check(writeHostile(ts.MkAbs(args[0])))
	},
	"clean": func(ts *testscript.TestScript, neg bool, args []string) {
		need(ts, neg, args, 1)
		for _, name := range args {
			content := ts.ReadFile(name)
			for i, r := range content {
				if r == '\n' || r == '\t' || unicode.IsPrint(r) {
					continue
				}
				ts.Fatalf("%s holds %q: …%q…", name, r, content[max(0, i-80):min(len(content), i+40)])
			}
		}
	},
}

var placeholder = regexp.MustCompile(`@[A-Z0-9_]+@`)

func filled(text string, getenv func(string) string) string {
	return placeholder.ReplaceAllStringFunc(text, func(name string) string {
		if value := getenv(strings.Trim(name, "@")); value != "" {
			return value
		}
		return name
	})
}

// writeEstate copies the small client into dir.
func writeEstate(dir string) error {
	from := filepath.Join("testdata", "estate")
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, rel)
		if entry.IsDir() {
			return os.MkdirAll(to, 0o755)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, content, 0o644)
	})
}

// controlPlane starts one in reeve-data and returns its pin. It asks agents for
// the shortest heartbeat there is: stories wait for what comes with one.
func (s *stage) controlPlane(address string, args ...string) (pin string, err error) {
	if err := s.start("control-plane", "reeve-controlplane", append([]string{"run", "--data", "reeve-data", "--listen", address, "--heartbeat", "5s"}, args...)...); err != nil {
		return "", err
	}
	v := s.servers["control-plane"]
	err = until("the control plane is up", func() (bool, error) {
		log, err := os.ReadFile(filepath.Join(s.dir, "control-plane.log"))
		if err != nil {
			return false, err
		}
		select {
		case <-v.done:
			return true, nil
		default:
		}
		found := regexp.MustCompile(`root_sha256=([0-9a-f]{64})`).FindAllSubmatch(log, -1)
		if found == nil {
			return false, nil
		}
		pin = string(found[0][1])
		stdout, stderr, code, err := s.run("reeve", "tenant", "list")
		return err == nil && code == 0, fmt.Errorf("exit code %d: %s%s", code, stdout, stderr)
	})
	if err == nil && pin == "" {
		err = fmt.Errorf("the control plane ended: %s", s.logs())
	}
	return pin, err
}

// join invites, joins and runs an agent. The log of the agent is AGENT.log.
func (s *stage) join(tenant, agent, config string, snapshots int) error {
	for _, line := range [][]string{
		{"reeve", "agent", "invite", tenant, agent, "--token-file", agent + ".token"},
		{"reeve-agent", "join", "--config", config, "--token-file", agent + ".token", "--name", agent},
	} {
		if _, stderr, code, err := s.run(line[0], line[1:]...); err != nil || code != 0 {
			return fmt.Errorf("%s: exit code %d: %v: %s", strings.Join(line, " "), code, err, stderr)
		}
	}
	if err := s.start(agent, "reeve-agent", "run", "--config", config); err != nil {
		return err
	}
	return s.settled(tenant, snapshots)
}

// startSlapd sets LDAP, LDAP_CA, LDAP_ROOT and LDAP_PASSWORD.
func startSlapd(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, neg, args, 0)
	o := slapd.Options{LDIF: ts.ReadFile("directory.ldif"), ACL: []string{
		"to attrs=userPassword by anonymous auth by * none", "to * by * read",
	}}
	for _, arg := range args {
		switch arg {
		case "tls":
			o.TLS = true
		case "limit":
			o.Database = append(o.Database, "olcSizeLimit: size.soft=3 size.hard=3 size.prtotal=3")
		default:
			ts.Fatalf("slapd knows no %s", arg)
		}
	}
	dir, err := os.MkdirTemp("", "slapd")
	ts.Check(err)
	s, err := slapd.New(dir, o)
	if err == nil {
		ts.Defer(func() { s.Kill() })
	}
	ts.Defer(func() { _ = os.RemoveAll(dir) })
	ts.Check(err)
	staged(ts).directory = s
	ts.Setenv("LDAP", s.URL)
	ts.Setenv("LDAPS", s.TLSURL)
	ts.Setenv("LDAP_CA", s.CAFile)
	ts.Setenv("LDAP_ROOT", s.RootDN)
	ts.Check(os.WriteFile(ts.MkAbs("root.password"), []byte(s.RootPassword), 0o600))
}

// hostileNames are values of a staff list that try to be something else: in a
// terminal, a log, a passwd or CSV line, an LDAP filter or a name.
var hostileNames = []string{
	"clear\x1b[2Jscreen", "bell\x07", "\u202Egnp.exe", "zero\u200Bwidth", "nul\x00byte",
	"root:x:0:0:root:/root:/bin/bash", "a:b", "comma,comma", "new\nline:x:0:0::/:/bin/sh", "return\rhome",
	"*)(uid=*))(|(uid=*", "cn=admin,dc=example,dc=com", "=HYPERLINK(\"http://evil.example\")", "'; DROP TABLE tenants; --", "../../etc/shadow", "$(id)", "`id`", "%s%n",
}

// writeHostile adds to the staff list, each name once as a login and once as a
// given name, and one value of 100 kB.
func writeHostile(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var b strings.Builder
	b.Write(content)
	quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
	line := func(id int, given, login string) {
		fmt.Fprintf(&b, "%d,%s,Hostile,h%d@fabrikam.example,%s,Sales,Staff,1001,2019-08-01,,active\n", id, quote(given), id, quote(login))
	}
	for i, name := range hostileNames {
		line(2000+i, "Plain", name)
		line(3000+i, name, fmt.Sprintf("h%d", i))
	}
	line(4000, strings.Repeat("long ", 20_000), "hlong")
	line(4001, "Plain", strings.Repeat("long", 25_000))
	return os.WriteFile(path, []byte(b.String()), 0o644)
}
