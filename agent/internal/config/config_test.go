package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/agent/internal/config"
)

const good = `control_plane: cp.msp.example:8443
trust_domain: msp.example
root_sha256: AB00000000000000000000000000000000000000000000000000000000000000
state: /var/lib/reeve-agent
connectors:
  - alias: hr
    connector: flatfile
    role: source
    settings:
      path: /srv/hr.csv
      since: 2026-01-02
      port: 0x10
      ratio: 1.5
      strict: yes
      list: [a, "1", 1, null, true]
    secrets: {key: "file:/etc/reeve-agent/key"}
    release: [mail]
`

func TestGoodFile(t *testing.T) {
	f, err := config.Parse("agent.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if time.Duration(f.Heartbeat) != 30*time.Second || time.Duration(f.ObserveEvery) != 15*time.Minute || f.SVIDSource != config.SVIDBuiltin {
		t.Errorf("defaults: %v %v %s", time.Duration(f.Heartbeat), time.Duration(f.ObserveEvery), f.SVIDSource)
	}
	c, ok := f.Connector("hr")
	if !ok || c.Mode != config.ModeObserve || c.Line != 6 {
		t.Errorf("connector %+v", c)
	}
	if !strings.HasPrefix(f.RootSHA256, "ab00") {
		t.Error("the pin is compared in lower case")
	}
	const want = `{"path":"/srv/hr.csv","since":"2026-01-02","port":16,"ratio":1.5,"strict":"yes","list":["a","1",1,null,true]}`
	if got := string(c.Settings.JSON); got != want {
		t.Errorf("settings %s\nwant     %s", got, want)
	}
}

func TestFaultsNameLineAndRemedy(t *testing.T) {
	for name, c := range map[string]struct{ old, with, says string }{
		"unknown key":         {"state: /var/lib/reeve-agent", "state: /x\nstaet: /y", `agent.yaml:5: key "staet" is not known`},
		"given twice":         {"state: /var/lib/reeve-agent", "state: /x\nstate: /y", `agent.yaml:5: `},
		"twice in settings":   {"path: /srv/hr.csv", "path: /a\n      path: /b", `agent.yaml:11: `},
		"relative state":      {"state: /var/lib", "state: lib", "agent.yaml:4: state must be the absolute path"},
		"no port":             {"cp.msp.example:8443", "cp.msp.example", "agent.yaml:1: control_plane must be host:port"},
		"short pin":           {"AB00", "AB", "agent.yaml:3: root_sha256 must be the 64"},
		"role":                {"role: source", "role: both", "agent.yaml:8: connectors[0].role must be source or target"},
		"no role":             {"    role: source\n", "", "agent.yaml:6: connectors[0].role must be"},
		"a secret itself":     {`"file:/etc/reeve-agent/key"`, "hunter2", "agent.yaml:16: connectors[0].secrets.key must be a reference"},
		"enforce on a source": {"role: source", "role: source\n    mode: enforce", "connectors[0].mode enforce is for targets"},
		"bare number":         {"state:", "heartbeat: 30\nstate:", `agent.yaml:4: "30" is not a length of time`},
		"too often":           {"state:", "heartbeat: 1s\nstate:", "agent.yaml:4: heartbeat must be between 5s and 10m"},
		"workload api":        {"state:", "svid_source: workload-api\nstate:", "workload_api must be the Workload API's address"},
		"recipient":           {"state:", "recipients: {desk: age1nope}\nstate:", "agent.yaml:4: recipients.desk must be one age public key"},
		"approver":            {"state:", "approvers: [{name: it, key: nope}]\nstate:", "approvers[0].key must be one SSH public key"},
		"anchor":              {"settings:", "settings: &x", "agent.yaml:9: anchors and aliases are not allowed"},
		"command and name":    {"connector: flatfile", "connector: flatfile\n    command: [/bin/x]", "connectors[0].command and connector cannot both"},
		"no hash":             {"connector: flatfile", "command: [/bin/x]", "connectors[0].sha256 must be the SHA-256"},
		"second document":     {"trust_domain", "---\ntrust_domain", "more than one document"},
		"settings list":       {"    settings:\n      path: /srv/hr.csv\n      since: 2026-01-02\n      port: 0x10\n      ratio: 1.5\n      strict: yes\n      list: [a, \"1\", 1, null, true]\n", "    settings: [a]\n", "settings must be a mapping"},
		"text for a list":     {"release: [mail]", "release: mail", "agent.yaml:17: "},
	} {
		t.Run(name, func(t *testing.T) {
			changed := strings.Replace(good, c.old, c.with, 1)
			if changed == good {
				t.Fatal("the test changes nothing")
			}
			_, err := config.Parse("agent.yaml", []byte(changed))
			if !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v\nwant one that says %q", err, c.says)
			}
			if err != nil && strings.Contains(err.Error(), "config.") {
				t.Errorf("the error speaks of Go: %v", err)
			}
		})
	}
}

func TestFileThatEveryoneCanWriteIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(good), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); !errors.Is(err, config.ErrInvalid) || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("error %v", err)
	}
}

// TestNoTextPanics: whatever a file holds, it is read or refused.
func TestNoTextPanics(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		at := rapid.IntRange(0, len(good)).Draw(rt, "at")
		noise := rapid.StringOfN(rapid.RuneFrom([]rune("a:-[]{}&*!|>'\"\n #%0")), 1, 8, -1).Draw(rt, "noise")
		_, err := config.Parse("agent.yaml", []byte(good[:at]+noise+good[at:]))
		if err != nil && !errors.Is(err, config.ErrInvalid) {
			rt.Fatalf("an error of another kind: %v", err)
		}
	})
}
