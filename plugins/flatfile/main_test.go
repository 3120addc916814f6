package flatfile

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// The test binary is the connector when a host starts it.
func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		if err := sdk.Serve(Connector{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func put(t testing.TB, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func cat(t testing.TB, paths ...string) string {
	t.Helper()
	var b strings.Builder
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "== %s\n%s", filepath.Base(path), raw)
	}
	return b.String()
}

// run runs a native tool and returns whether it was content.
func run(t testing.TB, name string, args ...string) (string, bool) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is needed: install the Debian packages apache2-utils, openssl and passwd: %v", name, err)
	}
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err == nil
}

// start launches and configures a connector process.
func start(t testing.TB, settings string) *host.Client {
	t.Helper()
	client := connectortest.Launch(t, []string{os.Args[0]}, nil)
	if _, err := client.Configure(context.Background(), &connectorv1.ConfigureRequest{Alias: "files", SettingsJson: []byte(settings)}); err != nil {
		t.Fatalf("Configure %s: %v", settings, err)
	}
	return client
}

func configureError(t testing.TB, settings string) error {
	t.Helper()
	_, err := connectortest.Connect(t, Connector{}).Configure(context.Background(), &connectorv1.ConfigureRequest{Alias: "files", SettingsJson: []byte(settings)})
	return err
}

func observe(t testing.TB, client *host.Client) (map[string]*connectorv1.Object, *connectorv1.ObserveEnd) {
	t.Helper()
	objects := map[string]*connectorv1.Object{}
	end, err := client.Observe(context.Background(), func(batch []*connectorv1.Object) error {
		for _, o := range batch {
			objects[o.GetAnchor()] = o
		}
		return nil
	})
	if err != nil {
		t.Fatalf("Observe: %v", err)
	}
	return objects, end
}

func createUser(login string) *connectorv1.Operation {
	return &connectorv1.Operation{Id: "create " + login, Object: &connectorv1.ObjectRef{Type: "user"},
		Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: nameOf("login", login)}}}
}

func applyAll(t testing.TB, client *host.Client, operations ...*connectorv1.Operation) []*connectorv1.ApplyResult {
	t.Helper()
	results, err := client.Apply(context.Background(), operations)
	if err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return results
}

func wantDone(t testing.TB, results []*connectorv1.ApplyResult) {
	t.Helper()
	for _, r := range results {
		if r.GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
			t.Errorf("%s: want done, got %v", r.GetOperationId(), r)
		}
	}
}

const htpasswdFile = "# staff\nanna:$apr1$salt$wh6d5BiqWUYFyTKBTzWKy/\n\nkari:!*\nno colon here\n"
const groupsFile = "admins:\tanna  kari\nempty:\n"

func setupHtpasswd(text string) func(t testing.TB) connectortest.Directory {
	return func(t testing.TB) connectortest.Directory {
		dir := t.TempDir()
		users, groups := put(t, filepath.Join(dir, "users"), text), put(t, filepath.Join(dir, "groups"), groupsFile)
		return connectortest.Directory{
			Settings: fmt.Appendf(nil, `{"format":"htpasswd","path":%q,"groups":%q,"cost":5}`, users, groups),
			State:    func(t testing.TB) string { return cat(t, users, groups) },
			Verify: func(t testing.TB, o *connectorv1.Object, secret []byte) bool {
				_, ok := run(t, "htpasswd", "-vb", users, o.GetDisplay(), string(secret))
				return ok
			},
		}
	}
}

func looseSample(part, member string) connectortest.Sample {
	return connectortest.Sample{Member: member, Create: func(leaf string) *connectorv1.Create {
		return &connectorv1.Create{Name: nameOf(part, leaf)}
	}}
}

func TestHtpasswdConforms(t *testing.T) {
	sound := strings.Replace(htpasswdFile, "no colon here\n", "", 1)
	for name, text := range map[string]string{"file": sound, "file without a last newline": strings.TrimSuffix(sound, "\n")} {
		t.Run(name, func(t *testing.T) {
			connectortest.Run(t, connectortest.Target{
				Command: []string{os.Args[0]}, Setup: setupHtpasswd(text),
				Samples: map[string]connectortest.Sample{"user": looseSample("login", ""), "group": looseSample("group", "user")},
			})
		})
	}
}

var passwdFiles = map[string]string{
	"passwd": "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n" +
		"anna:x:1000:100:Anna Example,,,:/home/anna:/bin/bash\n\n# by hand\nkari:x:1002:100::/home/kari:/bin/sh\n+@netgroup::::::\n",
	"shadow":  "root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nanna:$6$s$x:19000:0:99999:7:::\nkari:!*:19000:0:99999:7:::\n",
	"group":   "root:x:0:\nusers:x:100:\nadmins:x:1000:anna,kari\n",
	"gshadow": "root:*::\nusers:*::\nadmins:!::anna,kari\n",
}

func passwdRoot(t testing.TB, files map[string]string) (root string, paths []string) {
	root = t.TempDir()
	for name, text := range files {
		put(t, filepath.Join(root, name), text)
	}
	for _, name := range []string{"passwd", "shadow", "group", "gshadow"} {
		if _, ok := files[name]; ok {
			paths = append(paths, filepath.Join(root, name))
		}
	}
	return root, paths
}

func setupPasswd(files map[string]string) func(t testing.TB) connectortest.Directory {
	return func(t testing.TB) connectortest.Directory {
		root, paths := passwdRoot(t, files)
		return connectortest.Directory{
			Settings: fmt.Appendf(nil, `{"format":"passwd","root":%q}`, root),
			State:    func(t testing.TB) string { return cat(t, paths...) },
			Verify: func(t testing.TB, o *connectorv1.Object, secret []byte) bool {
				return logsIn(t, filepath.Join(root, "shadow"), o.GetDisplay(), secret)
			},
		}
	}
}

// logsIn asks openssl for the hash, as login(1) asks crypt(3).
func logsIn(t testing.TB, shadow, login string, secret []byte) bool {
	t.Helper()
	for line := range bytes.Lines([]byte(cat(t, shadow))) {
		fields := strings.Split(string(line), ":")
		if fields[0] != login || len(fields) < 2 {
			continue
		}
		parts := strings.Split(fields[1], "$")
		if len(parts) != 4 || parts[0] != "" || parts[1] != "6" {
			return false
		}
		out, ok := run(t, "openssl", "passwd", "-6", "-salt", parts[2], string(secret))
		return ok && strings.TrimSpace(out) == fields[1]
	}
	return false
}

func passwdSamples() map[string]connectortest.Sample {
	return map[string]connectortest.Sample{
		"user": {
			Create: func(leaf string) *connectorv1.Create {
				return &connectorv1.Create{Name: nameOf("login", leaf), Attributes: []*connectorv1.Attribute{attribute("gecos", "Kit Person")}}
			},
			Values: map[string][]string{"gecos": {"One", "Two, Three"}, "home": {"/srv/one", "/srv/two"}, "shell": {"/bin/sh", "/bin/bash"}, "gid": {"1000", "0100"}},
		},
		"group": looseSample("group", "user"),
	}
}

func TestPasswdConforms(t *testing.T) {
	without := map[string]string{"passwd": passwdFiles["passwd"], "shadow": passwdFiles["shadow"], "group": passwdFiles["group"]}
	for name, files := range map[string]map[string]string{"with gshadow": passwdFiles, "without gshadow": without} {
		t.Run(name, func(t *testing.T) {
			connectortest.Run(t, connectortest.Target{Command: []string{os.Args[0]}, Setup: setupPasswd(files), Samples: passwdSamples()})
		})
	}
}

const staffFile = "\xef\xbb\xbfid,name,mail\r\n1,Anna,anna@fabrikam.example\r\n2,\"Olsen, Kari\",\r\n"

func TestCSVConforms(t *testing.T) {
	connectortest.Run(t, connectortest.Target{Command: []string{os.Args[0]}, Setup: func(t testing.TB) connectortest.Directory {
		path := put(t, filepath.Join(t.TempDir(), "staff.csv"), staffFile)
		return connectortest.Directory{
			Settings: fmt.Appendf(nil, `{"format":"csv","path":%q,"key":"id"}`, path),
			State:    func(t testing.TB) string { return cat(t, path) },
		}
	}})
}
