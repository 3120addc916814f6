package flatfile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Two connector processes and the system's own useradd write at once; nobody
// loses a line, and the system's own checkers are content.
func TestConcurrentWritersLoseNothing(t *testing.T) {
	root, _ := passwdRoot(t, map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/bash\n", "shadow": "root:*:19000:0:99999:7:::\n",
		"group": "root:x:0:\nusers:x:100:\n", "gshadow": "root:*::\nusers:*::\n",
	})
	etc := filepath.Join(root, "etc")
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"passwd", "shadow", "group", "gshadow"} {
		if err := os.Rename(filepath.Join(root, name), filepath.Join(etc, name)); err != nil {
			t.Fatal(err)
		}
	}
	settings := fmt.Sprintf(`{"format":"passwd","root":%q}`, etc)
	first, second := start(t, settings), start(t, settings)
	const each = 20
	var all sync.WaitGroup
	for w, client := range []interface {
		Apply(context.Context, []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error)
	}{first, second} {
		all.Go(func() {
			for i := range each {
				results, err := client.Apply(context.Background(), []*connectorv1.Operation{createUser(fmt.Sprintf("w%d-%d", w, i))})
				if err != nil || results[0].GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
					t.Errorf("writer %d: %v %v", w, results, err)
				}
			}
		})
	}
	all.Go(func() {
		for i := range each {
			// useradd gives up at once when the lock is held, as it does on any
			// busy host; it never writes then.
			for range 200 {
				if out, err := exec.Command("useradd", "-P", root, "-M", "-N", "-g", "100", "-K", "UID_MIN=30000", fmt.Sprintf("native-%d", i)).CombinedOutput(); err == nil {
					break
				} else if !strings.Contains(string(out), "lock") {
					t.Errorf("useradd: %s", out)
					return
				}
			}
		}
	})
	all.Wait()
	passwd := cat(t, filepath.Join(etc, "passwd"))
	for i := range each {
		for _, login := range []string{fmt.Sprintf("w0-%d", i), fmt.Sprintf("w1-%d", i), fmt.Sprintf("native-%d", i)} {
			if strings.Count(passwd, "\n"+login+":") != 1 {
				t.Errorf("%s is not there once", login)
			}
		}
	}
	if out, ok := run(t, "pwck", "-qr", filepath.Join(etc, "passwd"), filepath.Join(etc, "shadow")); !ok {
		t.Errorf("pwck: %s", out)
	}
	if out, ok := run(t, "grpck", "-r", filepath.Join(etc, "group"), filepath.Join(etc, "gshadow")); !ok {
		t.Errorf("grpck: %s", out)
	}
	uids := map[string]bool{}
	for line := range strings.Lines(passwd) {
		if fields := strings.Split(line, ":"); len(fields) == 7 {
			if uids[fields[2]] {
				t.Errorf("uid %s was given twice", fields[2])
			}
			uids[fields[2]] = true
		}
	}
	left, err := filepath.Glob(filepath.Join(etc, "[a-z]*.lock"))
	if err != nil || len(left) > 0 {
		t.Errorf("locks are left: %v %v", left, err)
	}
}

func TestHtpasswdConcurrentWritersLoseNothing(t *testing.T) {
	path := put(t, filepath.Join(t.TempDir(), "users"), "anna:x\n")
	settings := fmt.Sprintf(`{"format":"htpasswd","path":%q}`, path)
	var all sync.WaitGroup
	for w := range 2 {
		client := start(t, settings)
		all.Go(func() {
			for i := range 30 {
				results, err := client.Apply(context.Background(), []*connectorv1.Operation{createUser(fmt.Sprintf("w%d-%d", w, i))})
				if err != nil || results[0].GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
					t.Errorf("writer %d: %v %v", w, results, err)
				}
			}
		})
	}
	all.Wait()
	if text := cat(t, path); strings.Count(text, ":!*\n") != 60 {
		t.Errorf("want 60 users, got\n%s", text)
	}
}

func TestStaleLockIsTakenAndLiveLockIsRespected(t *testing.T) {
	root, _ := passwdRoot(t, passwdFiles)
	client := start(t, fmt.Sprintf(`{"format":"passwd","root":%q}`, root))
	ended := exec.Command("true")
	if err := ended.Run(); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "passwd.lock"), fmt.Sprintf("%d\x00", ended.Process.Pid))
	wantDone(t, applyAll(t, client, createUser("after-a-crash")))

	// This test's own process lives.
	lock := put(t, filepath.Join(root, "shadow.lock"), fmt.Sprintf("%d\x00", os.Getpid()))
	before := cat(t, filepath.Join(root, "passwd"))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		results, err := client.Apply(ctx, []*connectorv1.Operation{createUser("waiting")})
		if err != nil || results[0].GetOutcome() != connectorv1.Outcome_OUTCOME_DONE {
			t.Errorf("after the lock was released: %v %v", results, err)
		}
	}()
	if now := cat(t, filepath.Join(root, "passwd")); now != before {
		t.Errorf("written under another's lock:\n%s", now)
	}
	if err := os.Remove(lock); err != nil {
		t.Fatal(err)
	}
	<-done
	cancel()
	if now := cat(t, filepath.Join(root, "passwd")); !strings.Contains(now, "\nwaiting:") {
		t.Errorf("not written after the lock was released:\n%s", now)
	}
}

func TestReplacedFilesKeepOwnerModeAndLink(t *testing.T) {
	dir := t.TempDir()
	real := put(t, filepath.Join(dir, "real"), "anna:x\n")
	if err := os.Chmod(real, 0o604); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "users")
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	wantDone(t, applyAll(t, start(t, fmt.Sprintf(`{"format":"htpasswd","path":%q}`, link)), createUser("kari")))
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v %v", info, err)
	}
	if info, err := os.Stat(real); err != nil || info.Mode().Perm() != 0o604 {
		t.Errorf("the mode changed: %v %v", info, err)
	}
	names, err := filepath.Glob(filepath.Join(dir, ".*"))
	if err != nil || len(names) > 0 {
		t.Errorf("left behind: %v %v", names, err)
	}
}

func TestBadLinesAreQuarantinedAndKept(t *testing.T) {
	files := map[string]string{}
	for name, text := range passwdFiles {
		files[name] = text
	}
	files["passwd"] += "broken line\nnoshadow:x:1500:100::/:/bin/sh\nanna:x:1501:100::/:/bin/sh\n"
	root, paths := passwdRoot(t, files)
	before := cat(t, paths...)
	client := start(t, fmt.Sprintf(`{"format":"passwd","root":%q}`, root))
	objects, end := observe(t, client)
	var lines []string
	for _, p := range end.GetProblems() {
		lines = append(lines, strings.TrimPrefix(p.GetObject(), "files: "+root+"/"))
	}
	if want := []string{"passwd:3", "passwd:8", "passwd:9", "passwd:10"}; end.GetComplete() || !slices.Equal(lines, want) {
		t.Errorf("want %v quarantined, got %v", want, end)
	}
	if objects["user:kari#1002"] == nil || objects["user:anna#1000"] != nil {
		t.Errorf("want kari and not the ambiguous anna, got %v", objects)
	}
	results := applyAll(t, client,
		&connectorv1.Operation{Id: "ambiguous", Object: &connectorv1.ObjectRef{Type: "user", Anchor: "user:anna#1000"}, Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}},
		&connectorv1.Operation{Id: "other uid", Object: &connectorv1.ObjectRef{Type: "user", Anchor: "user:kari#1003"}, Action: &connectorv1.Operation_Disable{Disable: &connectorv1.Disable{}}})
	if got := results[0]; got.GetOutcome() != connectorv1.Outcome_OUTCOME_REFUSED || got.GetProblem().GetCode() != sdk.CodeQuarantined {
		t.Errorf("an ambiguous name: want refused, got %v", got)
	}
	if got := results[1]; got.GetOutcome() != connectorv1.Outcome_OUTCOME_REFUSED || got.GetProblem().GetCode() != sdk.CodeNotFound {
		t.Errorf("the login under another uid is another person: want not found, got %v", got)
	}
	if now := cat(t, paths...); now != before {
		t.Errorf("refused operations changed the files:\n%s\n%s", before, now)
	}
	wantDone(t, applyAll(t, client, createUser("new")))
	now := cat(t, filepath.Join(root, "passwd"))
	for line := range strings.Lines(files["passwd"]) {
		if !strings.Contains(now, line) {
			t.Errorf("line %q is gone", line)
		}
	}
	if strings.Index(now, "\nnew:x:1001:") > strings.Index(now, "\n+@netgroup") {
		t.Errorf("a local user stands behind the entries of NIS, or has another uid than the lowest free one:\n%s", now)
	}
}

func TestDeletedLoginLeavesNoMembership(t *testing.T) {
	root, _ := passwdRoot(t, passwdFiles)
	client := start(t, fmt.Sprintf(`{"format":"passwd","root":%q}`, root))
	wantDone(t, applyAll(t, client, &connectorv1.Operation{Id: "1", Object: &connectorv1.ObjectRef{Type: "user", Anchor: "user:anna#1000"},
		Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}))
	for _, name := range []string{"passwd", "shadow", "group", "gshadow"} {
		if text := cat(t, filepath.Join(root, name)); strings.Contains(text, "anna") {
			t.Errorf("anna is still in %s:\n%s", name, text)
		}
	}
	// What another program left in shadow is not inherited.
	put(t, filepath.Join(root, "shadow"), passwdFiles["shadow"])
	wantDone(t, applyAll(t, client, createUser("anna")))
	if text := cat(t, filepath.Join(root, "shadow")); strings.Contains(text, "$6$") || strings.Count(text, "anna:") != 1 {
		t.Errorf("the old password lives on:\n%s", text)
	}
}

func TestUnwritableFolderChangesNothing(t *testing.T) {
	// Root may write anywhere, so the temporary name is taken by a folder.
	dir := t.TempDir()
	path := put(t, filepath.Join(dir, "users"), "anna:x\n")
	client := start(t, fmt.Sprintf(`{"format":"htpasswd","path":%q}`, path))
	if err := os.MkdirAll(filepath.Join(dir, ".users.reeve", "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	results := applyAll(t, client, createUser("kari"))
	if results[0].GetOutcome() != connectorv1.Outcome_OUTCOME_REFUSED || results[0].GetProblem().GetRemedy() == "" {
		t.Errorf("want refused with a remedy, got %v", results[0])
	}
	if text := cat(t, path); text != "== users\nanna:x\n" {
		t.Errorf("changed: %q", text)
	}
}
