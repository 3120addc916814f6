package rig

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Main compiles the three programs once into a folder, whose absolute path it puts
// into bin, runs the tests of a package in test/ and returns their exit code. At
// most atOnce stories run side by side, 0 as many as there are processors: most of
// a story is waiting.
func Main(m *testing.M, bin *string, atOnce int) int {
	dir, err := os.MkdirTemp("", "reeve-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*bin = dir
	if err := build(dir, "./controlplane/cmd/reeve", "./controlplane/cmd/reeve-controlplane", "./agent/cmd/reeve-agent"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	flag.Parse()
	if f := flag.Lookup("test.parallel"); atOnce > 0 && f.Value.String() == f.DefValue {
		if err := f.Value.Set(strconv.Itoa(atOnce)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return m.Run()
}

// BuildClocked compiles agent and control plane on a clock that the test moves
// (package clock), and fakehistory, which fills an agent's journal.
func BuildClocked(dir string) error {
	return build(dir, "./controlplane/cmd/reeve", "./test/clock/cmd/reeve-controlplane", "./test/clock/cmd/reeve-agent", "./agent/internal/audit/audittest/cmd/fakehistory")
}

// build compiles programs of the module, for a test that runs in a folder of test/.
func build(dir string, programs ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-o", dir}, programs...)...)
	cmd.Dir, cmd.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Process is one server that a story starts, ends and kills as it likes. Its
// methods are for one goroutine.
type Process struct {
	t    testing.TB
	path string
	args []string
	dir  string
	env  []string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
	read int
}

func newProcess(t testing.TB, dir, log string, env []string, path string, args ...string) *Process {
	p := &Process{t: t, path: path, args: args, dir: dir, env: append(os.Environ(), env...), log: log}
	t.Cleanup(p.Kill)
	return p
}

// Start starts it; its log goes on in the same file.
func (p *Process) Start() {
	p.t.Helper()
	if p.cmd != nil {
		p.t.Fatalf("%s runs already", filepath.Base(p.path))
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		p.t.Fatal(err)
	}
	defer log.Close()
	fmt.Fprintf(log, "--- started %s\n", time.Now().UTC().Format(time.RFC3339Nano))
	cmd := exec.Command(p.path, p.args...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = p.dir, p.env, log, log
	// Out of the test's group: an interrupt at the terminal is not its to get.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	p.cmd, p.done = cmd, done
}

// Kill ends the process and its children, such as connectors, with SIGKILL, as
// the end of the machine would, and waits for it.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	// Stopped first, so that it starts no others meanwhile.
	_ = p.cmd.Process.Signal(syscall.SIGSTOP)
	for _, child := range children(p.cmd.Process.Pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	p.KillAlone()
}

// children are the processes that a process has started (proc(5)).
func children(pid int) (list []int) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil
	}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended meanwhile
		}
		// "PID (NAME) STATE PARENT …", and a name may hold anything.
		text := string(raw)
		fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || fields[1] != strconv.Itoa(pid) {
			continue
		}
		if child, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			list = append(list, child)
		}
	}
	return list
}

// KillAlone ends the process with SIGKILL and leaves its children to notice.
func (p *Process) KillAlone() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	p.cmd = nil
}

// Stop ends it as an administrator would.
func (p *Process) Stop() {
	p.t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
		p.cmd = nil
	case <-time.After(time.Minute):
		p.Kill()
		p.t.Fatalf("%s did not end when told to", filepath.Base(p.path))
	}
}

// Ended reports whether the process has ended by itself.
func (p *Process) Ended() bool {
	if p.cmd == nil {
		return true
	}
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Forget takes note that the process has ended by itself, so that it may be
// started again.
func (p *Process) Forget() {
	if p.Ended() {
		p.cmd = nil
	}
}

// Peak is the most memory that the running process has held, in bytes (VmHWM of
// proc(5)).
func (p *Process) Peak() int64 {
	p.t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		p.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "VmHWM:")
	kib, err := strconv.ParseInt(strings.Fields(after)[0], 10, 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return kib << 10
}

// Log is everything it has written so far, or since ForgetLog.
func (p *Process) Log() string {
	raw, err := os.ReadFile(p.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Fatal(err)
	}
	return string(raw[min(p.read, len(raw)):])
}

// ForgetLog has Log begin here.
func (p *Process) ForgetLog() { p.read += len(p.Log()) }

// Result is how a command ended.
type Result struct {
	Code           int
	Stdout, Stderr string
}

func run(dir string, env []string, path string, args ...string) (Result, error) {
	cmd := exec.Command(path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, append(os.Environ(), env...), &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	r := Result{Stdout: stdout.String(), Stderr: stderr.String()}
	if errors.As(err, &exit) {
		r.Code, err = exit.ExitCode(), nil
	}
	return r, err
}

// Until waits for what other processes do. It fails the test after a time that
// no healthy machine needs.
func Until(t testing.TB, what string, done func() (bool, string)) {
	t.Helper()
	var last string
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		ok, why := done()
		if ok {
			return
		}
		last = why
	}
	t.Fatalf("waited in vain until %s: %s", what, strings.TrimSpace(last))
}

// KillChildren ends what the process has started with SIGKILL, and not itself.
func (p *Process) KillChildren() {
	if p.cmd == nil {
		return
	}
	for _, child := range children(p.cmd.Process.Pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
}
