package arch_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/test/sources"
)

const module = "github.com/reevehq/reeve/"

// pkg is what `go list` tells of one package. Paths of ours are relative to the
// module.
type pkg struct {
	Path    string
	Doc     string
	Name    string
	Imports []string
	Deps    []string
	GoFiles []string
}

func list(t *testing.T) []pkg {
	t.Helper()
	sources.Look(t, filepath.Join("..", ".."))
	cmd := exec.Command("go", "list", "-json=ImportPath,Name,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath, Name, Doc  string
			Imports, Deps, GoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, pkg{
			Path: strings.TrimPrefix(p.ImportPath, module), Doc: p.Doc, Name: p.Name, GoFiles: p.GoFiles,
			Imports: trim(p.Imports), Deps: trim(p.Deps),
		})
	}
	if len(all) < 20 {
		t.Fatalf("go list found only %d packages", len(all))
	}
	return all
}

func trim(paths []string) []string {
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = strings.TrimPrefix(p, module)
	}
	return out
}

// ours reports whether a path is a package of this module.
func ours(p string) bool {
	return slices.Contains([]string{"agent", "controlplane", "pki", "plugins", "proto", "test", "deploy"}, strings.Split(p, "/")[0])
}

// in reports whether p is folder or below it.
func in(p, folder string) bool { return p == folder || strings.HasPrefix(p, folder+"/") }

func inAny(p string, folders ...string) bool {
	return slices.ContainsFunc(folders, func(f string) bool { return in(p, f) })
}

// TestWalls checks the walls between the parts of the house.
func TestWalls(t *testing.T) {
	rules := []struct {
		reason string
		who    func(string) bool
		// may says what of ours a package may import.
		may func(string) bool
	}{
		{
			reason: "agent and control plane share only what is on the wire: a bug in one must not be importable by the other",
			who:    func(p string) bool { return in(p, "agent") },
			may:    func(p string) bool { return inAny(p, "agent", "pki", "proto", "plugins") },
		},
		{
			reason: "agent and control plane share only what is on the wire: a bug in one must not be importable by the other",
			who:    func(p string) bool { return in(p, "controlplane") },
			may:    func(p string) bool { return inAny(p, "controlplane", "pki", "proto") },
		},
		{
			reason: "trust must be readable without reading anything else",
			who:    func(p string) bool { return in(p, "pki") },
			may:    func(p string) bool { return in(p, "pki") },
		},
		{
			reason: "a connector author depends on one contract and nothing that moves faster",
			who:    func(p string) bool { return in(p, "proto/reeve/connector/v1") },
			may:    func(string) bool { return false },
		},
		{
			reason: "a plan is made of operations, and of nothing else of ours",
			who:    func(p string) bool { return in(p, "proto/reeve/plan/v1") },
			may:    func(p string) bool { return p == "proto/reeve/connector/v1" },
		},
		{
			reason: "a record speaks of plans and operations",
			who:    func(p string) bool { return in(p, "proto/reeve/audit/v1") },
			may:    func(p string) bool { return inAny(p, "proto/reeve/connector/v1", "proto/reeve/plan/v1") },
		},
		{
			reason: "contracts depend on contracts alone",
			who:    func(p string) bool { return in(p, "proto") },
			may:    func(p string) bool { return in(p, "proto") },
		},
		{
			reason: "the SDK is what strangers build on: it drags nothing of ours along",
			who:    func(p string) bool { return in(p, "plugins/sdk") },
			may:    func(p string) bool { return inAny(p, "plugins/sdk", "proto/reeve/connector/v1") },
		},
		{
			reason: "a connector of ours may use only what a stranger's may",
			who: func(p string) bool {
				return in(p, "plugins") && !in(p, "plugins/sdk")
			},
			may: func(p string) bool {
				return inAny(p, "plugins/sdk", "proto/reeve/connector/v1") || in(p, "plugins")
			},
		},
	}
	for _, p := range list(t) {
		for _, rule := range rules {
			if !rule.who(p.Path) {
				continue
			}
			for _, imported := range p.Imports {
				if ours(imported) && !rule.may(imported) {
					t.Errorf("%s imports %s\n\tbut %s", p.Path, imported, rule.reason)
				}
			}
		}
	}
}

// TestConnectorsStandAlone: no connector imports another, and only the agent's
// list of built-ins imports them.
func TestConnectorsStandAlone(t *testing.T) {
	for _, p := range list(t) {
		for _, imported := range p.Imports {
			if !in(imported, "plugins") || in(imported, "plugins/sdk") {
				continue
			}
			own := in(p.Path, strings.Join(strings.Split(imported, "/")[:2], "/"))
			if !own && p.Path != "agent" {
				t.Errorf("%s imports %s\n\tbut connectors are reached over their contract; only agent/connectors.go names the built-ins", p.Path, imported)
			}
		}
	}
}

// path through the control plane, as a plan takes it. Imports point backward
// along it or to a foundation.
var stages = []string{
	"enrollment", "inventory", "identity", "policy", "grant", "planner", "ledger", "rehearsal", "planning",
	"approval", "signing", "dispatch", "agentapi", "intake",
}

var foundations = []string{"tx", "tenant", "auditlog"}

func stageOf(p string) (name string, index int) {
	rest, ok := strings.CutPrefix(p, "controlplane/internal/")
	if !ok {
		return "", -1
	}
	name = strings.Split(rest, "/")[0]
	return name, slices.Index(stages, name)
}

// fixtures reports whether a package serves tests alone; TestFixturesStayInTests
// sees to it.
func fixtures(p string) bool {
	return in(p, "test") || strings.HasSuffix(p, "test") || strings.Contains(path.Base(p), "fake")
}

// TestFixturesStayInTests: nothing that ships imports what is only for tests.
func TestFixturesStayInTests(t *testing.T) {
	for _, p := range list(t) {
		if fixtures(p.Path) {
			continue
		}
		for _, imported := range p.Imports {
			if ours(imported) && fixtures(imported) {
				t.Errorf("%s imports %s\n\tbut fixtures and fakes are for tests", p.Path, imported)
			}
		}
	}
}

// TestPlansWalkForward: a stage hands to the next and knows only earlier ones.
func TestPlansWalkForward(t *testing.T) {
	for _, p := range list(t) {
		name, at := stageOf(p.Path)
		// A package of fixtures wires what its tests need.
		if name == "" || fixtures(p.Path) {
			continue
		}
		for _, imported := range p.Imports {
			other, index := stageOf(imported)
			switch {
			case other == "" || other == name || slices.Contains(foundations, other) && !slices.Contains(foundations, name):
			case slices.Contains(foundations, name) && slices.Index(foundations, other) >= 0 && slices.Index(foundations, other) < slices.Index(foundations, name):
			case at >= 0 && index >= 0 && index < at:
			case name == "operatorapi" && other != "cli":
				// It serves every context to people and is served by none.
			case name == "sqlstore" && other == "tx":
			case name == "cli" && slices.Contains([]string{"policy", "planner", "rehearsal"}, other) && !strings.HasSuffix(imported, "store"):
			case name == "cli" && imported == "controlplane/internal/auditlog/verify":
			default:
				t.Errorf("%s imports %s\n\tbut a stage may import earlier stages and foundations only", p.Path, imported)
			}
			if strings.HasSuffix(path.Base(imported), "store") && imported != "controlplane/internal/policy/policystore" && name != "operatorapi" && path.Base(imported) != other {
				t.Errorf("%s imports %s\n\tbut contexts work on interfaces; SQL is chosen by the wiring", p.Path, imported)
			}
		}
	}
}

// TestPurity: what decides must be provable, so it has no SQL, no server and no
// clock of its own.
func TestPurity(t *testing.T) {
	pure := []string{"policy", "planner", "rehearsal"}
	for _, p := range list(t) {
		name, _ := stageOf(p.Path)
		if !slices.Contains(pure, name) || strings.HasSuffix(p.Path, "store") {
			continue
		}
		// The stubs of connector/v1 bring grpc, and with it net/http, along: what
		// must not be there is a way to the database.
		for _, dep := range p.Deps {
			if dep == "database/sql" || dep == "controlplane/internal/tx" {
				t.Errorf("%s depends on %s\n\tbut it must run offline, in the CLI and in property tests", p.Path, dep)
			}
		}
		cmd := exec.Command("grep", "-nE", `time\.Now\(|rand\.Read|math/rand`, "--include=*.go", "--exclude=*_test.go", "-r", ".")
		cmd.Dir = "../../" + p.Path
		if out, _ := cmd.Output(); len(out) > 0 {
			t.Errorf("%s reads a clock or a random source\n%s", p.Path, out)
		}
	}
}

// TestSDKClosure: what a connector author takes on.
func TestSDKClosure(t *testing.T) {
	allowed := []string{
		"github.com/reevehq/reeve", "google.golang.org/grpc", "google.golang.org/protobuf", "google.golang.org/genproto/googleapis/rpc",
		"github.com/hashicorp/go-plugin", "github.com/hashicorp/go-hclog", "github.com/hashicorp/yamux",
		// What those four bring along.
		"github.com/fatih/color", "github.com/mattn", "github.com/oklog/run", "github.com/golang/protobuf", "golang.org/x", "vendor/golang.org/x",
	}
	for _, p := range list(t) {
		if p.Path != "plugins/sdk" {
			continue
		}
		for _, dep := range p.Deps {
			if !strings.Contains(strings.Split(dep, "/")[0], ".") || ours(dep) {
				continue
			}
			if !slices.ContainsFunc(allowed, func(a string) bool { return strings.HasPrefix(dep, a) }) {
				t.Errorf("plugins/sdk depends on %s\n\tbut its closure is grpc, protobuf, go-plugin and hclog", dep)
			}
		}
	}
}

// TestEveryRoomHasASign: every package says what it owns; a main only calls Run.
func TestEveryRoomHasASign(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) == 0 {
			continue
		}
		if p.Doc == "" {
			t.Errorf("%s has no package comment", p.Path)
		}
		if p.Name == "main" && len(p.GoFiles) > 1 {
			t.Errorf("%s is a main of %d files; it calls Run and is done", p.Path, len(p.GoFiles))
		}
	}
}
