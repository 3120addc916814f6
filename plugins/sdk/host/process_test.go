//go:build linux

package host_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	"github.com/reevehq/reeve/plugins/sdk/host"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// stdout is the descriptor itself, as a C library would have it. It is kept: what
// the collector takes is closed.
var stdout = os.NewFile(1, "stdout")

// hostile is Memory with a habit, chosen by the first argument.
type hostile struct {
	connectortest.Memory
	habit string
}

func (h hostile) Describe() *connectorv1.DescribeResponse {
	d := h.Memory.Describe()
	switch h.habit {
	case "huge":
		d.ConfigSchema = strings.Repeat(" ", 2<<20)
	case "user":
		d.ConfigSchema = fmt.Sprint(os.Getuid(), os.Getgid())
	case "environment":
		d.ConfigSchema = strings.Join(os.Environ(), "\n")
	case "flood":
		for range 64 {
			if _, err := stdout.Write(bytes.Repeat([]byte("x"), 32<<10)); err != nil {
				panic(err)
			}
		}
	case "exit":
		os.Exit(3)
	case "log":
		fmt.Fprintln(os.Stderr, "careful\x1b[31m")
	}
	return d
}

func TestMain(m *testing.M) {
	habit := ""
	if len(os.Args) > 1 {
		habit = os.Args[1]
	}
	switch {
	case os.Getenv("HOST_TEST_ORPHAN") != "":
		orphan()
	case os.Getenv(sdk.CookieKey) == "":
		os.Exit(m.Run())
	case habit == "silent":
		time.Sleep(time.Hour)
	case habit == "elsewhere":
		fmt.Println("1|1|tcp|127.0.0.1:1|grpc|")
		time.Sleep(time.Hour)
	case habit == "fork":
		child := exec.Command("/bin/sleep", "3600")
		child.Stdout, child.Stderr = stdout, os.Stderr
		if err := child.Start(); err != nil {
			panic(err)
		}
		if err := os.WriteFile(os.Args[2], []byte(strconv.Itoa(child.Process.Pid)), 0o600); err != nil {
			panic(err)
		}
		fallthrough
	default:
		if err := sdk.Serve(hostile{habit: habit}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

func options(t testing.TB, args ...string) host.Options {
	t.Helper()
	dir, err := os.MkdirTemp("", "h")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return host.Options{Alias: "test", Command: append([]string{os.Args[0]}, args...), Dir: filepath.Join(dir, "run")}
}

func launch(t testing.TB, o host.Options) *host.Client {
	t.Helper()
	client, err := host.Launch(context.Background(), o)
	if err != nil {
		t.Fatalf("Launch: %v", err)
	}
	t.Cleanup(client.Kill)
	return client
}

func TestLaunchKillExited(t *testing.T) {
	o := options(t)
	client := launch(t, o)
	if d, err := client.Describe(context.Background()); err != nil || d.GetName() != "memory" {
		t.Fatalf("Describe: %v %v", d, err)
	}
	if info, err := os.Stat(o.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket directory: %v %v", info, err)
	}
	client.Kill()
	client.Kill()
	<-client.Exited()
	if _, err := client.Describe(context.Background()); err == nil {
		t.Error("a killed connector answers")
	}
	if left, err := os.ReadDir(o.Dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestExitedTellsOfACrash(t *testing.T) {
	client := launch(t, options(t, "exit"))
	if _, err := client.Describe(context.Background()); !sdk.HasCode(err, sdk.CodeUnreachable) {
		t.Errorf("a call into a crash: want %s, got %v", sdk.CodeUnreachable, err)
	}
	<-client.Exited()
}

func TestStdoutWithoutNewlineDoesNotBlock(t *testing.T) {
	client := launch(t, options(t, "flood"))
	if _, err := client.Describe(context.Background()); err != nil {
		t.Errorf("after 2 MiB on standard output: %v", err)
	}
}

func TestMessagesAreBounded(t *testing.T) {
	o := options(t, "huge")
	o.MaxMessage = 1 << 20
	if _, err := launch(t, o).Describe(context.Background()); !sdk.HasCode(err, sdk.CodeSizeLimit) {
		t.Errorf("a message of 2 MiB under a limit of 1: want %s, got %v", sdk.CodeSizeLimit, err)
	}
}

func TestEnvironmentIsNotInherited(t *testing.T) {
	t.Setenv("AGENT_SECRET", "hunter2")
	o := options(t, "environment")
	o.Env = []string{"GIVEN=yes"}
	d, err := launch(t, o).Describe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(d.GetConfigSchema(), "hunter2") || !strings.Contains(d.GetConfigSchema(), "GIVEN=yes") || !strings.Contains(d.GetConfigSchema(), "PLUGIN_CLIENT_CERT=") {
		t.Errorf("environment:\n%s", d.GetConfigSchema())
	}
}

func TestOnlyTheApprovedBinaryRuns(t *testing.T) {
	raw, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(raw)
	o := options(t)
	o.SHA256 = sum[:]
	if got := launch(t, o).SHA256(); !bytes.Equal(got, sum[:]) {
		t.Errorf("want digest %x, got %x", sum, got)
	}
	o = options(t)
	sum[0]++
	o.SHA256 = sum[:]
	if _, err := host.Launch(context.Background(), o); !sdk.HasCode(err, sdk.CodeBinaryChanged) {
		t.Errorf("another digest: want %s, got %v", sdk.CodeBinaryChanged, err)
	}
}

func TestLaunchFailures(t *testing.T) {
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\necho hello\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*host.Options){
		"no handshake": func(o *host.Options) { o.Command = []string{script} },
		"not there":    func(o *host.Options) { o.Command = []string{script + "x"} },
		"silent": func(o *host.Options) {
			o.Command = append(o.Command, "silent")
			o.StartTimeout = 200 * time.Millisecond
		},
		"socket elsewhere": func(o *host.Options) { o.Command = append(o.Command, "elsewhere") },
	} {
		o := options(t)
		change(&o)
		_, err := host.Launch(context.Background(), o)
		if !sdk.HasCode(err, sdk.CodeLaunchFailed) {
			t.Errorf("%s: want %s, got %v", name, sdk.CodeLaunchFailed, err)
		}
		if left, _ := os.ReadDir(o.Dir); len(left) > 0 {
			t.Errorf("%s: left behind: %v", name, left)
		}
	}
	relative := options(t)
	relative.Command = []string{"connector"}
	if _, err := host.Launch(context.Background(), relative); !sdk.HasCode(err, sdk.CodeConfig) {
		t.Errorf("a relative command: want %s, got %v", sdk.CodeConfig, err)
	}
	hashed := options(t)
	hashed.Command, hashed.SHA256 = []string{script}, sum(t, script)
	if _, err := host.Launch(context.Background(), hashed); !sdk.HasCode(err, sdk.CodeConfig) {
		t.Errorf("a hashed script: want %s, got %v", sdk.CodeConfig, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := host.Launch(ctx, options(t, "silent")); err == nil {
		t.Error("a launch under a cancelled context succeeds")
	}
}

func sum(t *testing.T, path string) []byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	s := sha256.Sum256(raw)
	return s[:]
}

func gone(pid int) bool {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	// A zombie that nobody reaps is gone too.
	return err != nil || bytes.Contains(raw, []byte(") Z "))
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for range 600 {
		if gone(pid) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("process %d is still there", pid)
}

func TestKillTakesGrandchildrenAlong(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	client := launch(t, options(t, "fork", file))
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	client.Kill()
	waitGone(t, pid)
}

func TestRunsAsAnotherUser(t *testing.T) {
	o := options(t, "user")
	o.User = &host.User{UID: 65534, GID: 65534}
	if err := os.Chmod(filepath.Dir(o.Dir), 0o711); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if _, err := host.Launch(context.Background(), o); !sdk.HasCode(err, sdk.CodeLaunchFailed) {
			t.Errorf("only root may: want %s, got %v", sdk.CodeLaunchFailed, err)
		}
		return
	}
	d, err := launch(t, o).Describe(context.Background())
	if err != nil || d.GetConfigSchema() != "65534 65534" {
		t.Errorf("want user and group 65534, got %q %v", d.GetConfigSchema(), err)
	}
}

// A process that is stopped cannot be asked to end.
func TestKillEndsAStoppedProcess(t *testing.T) {
	o := options(t)
	client := launch(t, o)
	pid := findByDir(t, o.Dir)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	client.Kill()
	waitGone(t, pid)
}

// orphan is a host that dies without a word while its connector runs.
func orphan() {
	client, err := host.Launch(context.Background(), host.Options{Alias: "test", Command: []string{os.Args[0]}, Dir: os.Getenv("HOST_TEST_ORPHAN")})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := client.Describe(context.Background()); err != nil {
		os.Exit(1)
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
	fmt.Println(string(children), err)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
}

func TestConnectorEndsWithItsHost(t *testing.T) {
	o := options(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "HOST_TEST_ORPHAN="+o.Dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, readErr := bufio.NewReader(out).ReadString('\n')
	_ = cmd.Wait()
	// Any thread may have forked it, so the socket's owner is asked instead
	// when this thread has no children.
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		pid = findByDir(t, o.Dir)
	}
	if readErr != nil {
		t.Fatalf("the host said %q: %v", line, readErr)
	}
	if pid != 0 {
		waitGone(t, pid)
	}
	if again := findByDir(t, o.Dir); again != 0 {
		waitGone(t, again)
	}
}

// findByDir finds the process that was given a socket directory under dir.
func findByDir(t *testing.T, dir string) int {
	t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if raw, err := os.ReadFile(e); err == nil && bytes.Contains(raw, []byte("PLUGIN_UNIX_SOCKET_DIR="+dir)) {
			pid, err := strconv.Atoi(strings.Split(e, "/")[2])
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	return 0
}

func TestLogIsCleanedAndReachesTheHost(t *testing.T) {
	var mu sync.Mutex
	var buffer bytes.Buffer
	o := options(t, "log")
	o.Logger = slog.New(slog.NewTextHandler(lockedWriter{&mu, &buffer}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := launch(t, o)
	if _, err := client.Describe(context.Background()); err != nil {
		t.Fatal(err)
	}
	client.Kill()
	mu.Lock()
	defer mu.Unlock()
	if text := buffer.String(); !strings.Contains(text, "connector=test") || strings.Contains(text, "\x1b") {
		t.Errorf("log:\n%s", text)
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
