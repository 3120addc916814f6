package faults_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/reevehq/reeve/test/rig"
)

// traced are the system calls at which a process may be killed: all by which it
// changes a file or speaks to another process, and those by which it learns what
// it acts on.
var traced = strings.Split("write,pwrite64,writev,fsync,fdatasync,openat,close,rename,renameat,renameat2,unlink,unlinkat,ftruncate,fallocate,"+
	"linkat,mkdirat,fchmod,fchmodat,fchown,fcntl,flock,read,pread64,sendto,sendmsg,recvfrom,recvmsg,connect,accept4,socket,newfstatat,statfs", ",")

// point is where strace meets a process: at the nth call of that name in one of
// its threads (strace counts each thread for itself).
type point struct {
	call string
	n    int
}

func (p point) String() string { return fmt.Sprintf("%s %d", p.call, p.n) }

// kill is the injection that ends the process at the point.
func (p point) kill() string { return fmt.Sprintf("%s:signal=SIGKILL:when=%d", p.call, p.n) }

// tracer is a running strace.
type tracer struct {
	cmd  *exec.Cmd
	log  string
	pid  int
	done chan struct{}
}

func strace(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Fatalf("strace is missing: run test/setup.sh, or install the package strace: %v", err)
	}
	return path
}

func traceArgs(log, inject string, more ...string) []string {
	args := append([]string{"-f", "-y", "-s", "0", "-o", log}, more...)
	if inject == "" {
		return append(args, "-e", "trace="+strings.Join(traced, ","))
	}
	calls, _, _ := strings.Cut(inject, ":")
	return append(args, "-e", "trace="+calls, "-e", "inject="+inject)
}

// attach has strace follow a running process with an injection, or none to only
// count, and returns when it has all its threads.
func attach(t *testing.T, log, inject string, pid int) *tracer {
	t.Helper()
	cmd := exec.Command(strace(t), traceArgs(log, inject, "-p", strconv.Itoa(pid))...)
	// An interrupt at the terminal would have it detach.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	tr := &tracer{cmd: cmd, log: log, pid: pid, done: make(chan struct{})}
	attached := make(chan string, 1)
	go func() {
		defer close(tr.done)
		lines, all, found := bufio.NewScanner(said), "", false
		for !found && lines.Scan() {
			all += lines.Text() + "\n"
			found = strings.Contains(lines.Text(), " attached")
		}
		if found {
			all = ""
		}
		attached <- all
		_, _ = io.Copy(io.Discard, said)
		_ = cmd.Wait()
	}()
	select {
	case why := <-attached:
		if why != "" {
			<-tr.done
			t.Fatalf("strace could not attach to %d: %s; this story needs ptrace (root, or CAP_SYS_PTRACE)", pid, why)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Fatalf("strace did not attach to %d within a minute", pid)
	}
	return tr
}

// died reports whether the process has died, and waits then until strace knows.
func (tr *tracer) died() bool {
	if rig.Alive(tr.pid) {
		return false
	}
	tr.over(10 * time.Second)
	return true
}

// detach ends the tracing of a process that still runs, so that it goes on, and
// reports whether it has died meanwhile.
func (tr *tracer) detach() (died bool) {
	_ = tr.cmd.Process.Signal(syscall.SIGTERM)
	tr.over(3 * time.Second)
	return !rig.Alive(tr.pid)
}

// over waits until strace has ended. Where it was told to detach from a process
// that was just dying it waits for its first thread before it has looked at the
// others, which is for ever.
func (tr *tracer) over(most time.Duration) {
	select {
	case <-tr.done:
	case <-time.After(most):
		_ = tr.cmd.Process.Kill()
		<-tr.done
	}
}

// call is one line of strace's.
type call struct {
	thread, name string
	// what it was made on: a kind of file or connection.
	on string
	// killed: the process ended in it.
	killed bool
}

var (
	callLine = regexp.MustCompile(`^(\d+) +([a-z0-9_]+)\((.*)`)
	fdPath   = regexp.MustCompile(`^-?(?:AT_FDCWD|\d+)<([^>]*)>`)
	anyPath  = regexp.MustCompile(`"((?:[^"\\]|\\.)*)"`)
)

// calls reads strace's log: the calls in the order in which they were begun.
func calls(path string) ([]call, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []call
	last := map[string]int{} // by thread, its call that is not over
	for line := range strings.Lines(string(raw)) {
		line = strings.TrimSuffix(line, "\n")
		thread, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		switch m := callLine.FindStringSubmatch(line); {
		case m != nil:
			last[thread] = len(list)
			list = append(list, call{thread: thread, name: m[2], on: target(m[3])})
		case strings.HasPrefix(rest, "+++ killed by SIGKILL"):
			if i, begun := last[thread]; begun {
				list[i].killed = true
			}
		}
	}
	return list, nil
}

// target names what a call is made on, without what differs from run to run.
func target(args string) string {
	var path string
	if m := fdPath.FindStringSubmatch(args); m != nil && !strings.HasPrefix(args, "AT_FDCWD") {
		path = m[1]
	} else if m := anyPath.FindStringSubmatch(args); m != nil {
		path = m[1]
	}
	base := filepath.Base(path)
	switch {
	case path == "":
		return "nothing"
	case strings.HasPrefix(path, "socket:"), strings.HasPrefix(path, "TCP"), strings.HasPrefix(path, "UNIX"), strings.HasPrefix(path, "UDP"), strings.HasPrefix(path, "NETLINK"):
		return "a connection"
	case strings.HasPrefix(path, "pipe:"):
		return "a pipe"
	case strings.HasPrefix(path, "anon_inode:"):
		return "an event"
	case strings.Contains(path, "/client/"):
		return "the target's files"
	case strings.HasPrefix(base, "journal.db"), strings.HasPrefix(base, "reeve.db"):
		return base
	case strings.Contains(path, "/state/"):
		return "the state folder"
	case strings.Contains(path, "/noc/"):
		return "the data folder"
	default:
		return "another file"
	}
}

// most is how often the busiest thread made each call, in an undisturbed run.
func most(list []call) map[string]int {
	counts, out := map[[2]string]int{}, map[string]int{}
	for _, c := range list {
		k := [2]string{c.thread, c.name}
		counts[k]++
		out[c.name] = max(out[c.name], counts[k])
	}
	return out
}

// met is the call at which the injection ended a process: the first that was the
// nth of its thread.
func met(list []call, p point) (call, bool) {
	counts := map[string]int{}
	for _, c := range list {
		if c.name != p.call {
			continue
		}
		if counts[c.thread]++; counts[c.thread] == p.n {
			return c, true
		}
	}
	return call{}, false
}

// end kills processes for certain.
func end(pids []int) {
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}
