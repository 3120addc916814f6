package rig

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// PID is the process's number, 0 when it does not run. Of a process that was
// started with StartUnder it is the tracer's.
func (p *Process) PID() int {
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// StartUnder starts the process as the last arguments of another command, such
// as strace. End it with KillTree: the tracer's death alone lets it go on.
func (p *Process) StartUnder(command string, args ...string) {
	p.t.Helper()
	path, own := p.path, p.args
	defer func() { p.path, p.args = path, own }()
	found, err := exec.LookPath(command)
	if err != nil {
		p.t.Fatalf("%s is missing: run test/setup.sh, or install the package %s: %v", command, command, err)
	}
	p.path, p.args = found, append(append(append([]string(nil), args...), path), own...)
	p.Start()
}

// KillTree ends the process and all that it has started, and what these have
// started, with SIGKILL, and waits for it.
func (p *Process) KillTree() {
	if p.cmd == nil {
		return
	}
	all := Descendants(p.cmd.Process.Pid)
	for _, pid := range all {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	p.KillAlone()
	// They hold their ports and locks until they are gone.
	Until(p.t, "what was killed is gone", func() (bool, string) {
		for _, pid := range all {
			if Alive(pid) {
				return false, strconv.Itoa(pid)
			}
		}
		return true, ""
	})
}

// Alive reports whether a process still runs; a dead one whose parent has not
// looked yet does not (proc(5)).
func Alive(pid int) bool {
	raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return false
	}
	text := string(raw)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// Descendants are the processes that a process has started, and those that
// these have started.
func Descendants(pid int) (list []int) {
	for _, child := range children(pid) {
		list = append(list, child)
		list = append(list, Descendants(child)...)
	}
	return list
}

// Connectors are the processes in which a running agent keeps the connectors of
// one kind, such as flatfile.
func (p *Process) Connectors(kind string) (list []int) {
	for _, pid := range Descendants(p.PID()) {
		raw, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err == nil && strings.Contains(string(raw), "\x00serve\x00"+kind+"\x00") {
			list = append(list, pid)
		}
	}
	return list
}
