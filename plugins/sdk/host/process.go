package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/reevehq/reeve/plugins/sdk"
)

type execCmd = exec.Cmd

// process is go-plugin's Runner for a connector: it executes the hashed handle,
// holds the lifeline on standard input and waits by itself, so that a
// grandchild that keeps a pipe open cannot hide the end of the process.
type process struct {
	options    Options
	executable *executable
	cmd        *exec.Cmd
	socketDir  string

	stdout, stderr *os.File
	lifeline       *os.File
	childEnds      []*os.File

	exited  chan struct{}
	waitErr error

	mu      sync.Mutex
	started bool
	reaped  bool
	doomed  bool
}

// errDoomed is the start of a process that was to be killed before.
var errDoomed = errors.New("the start was given up")

func (p *process) configure(env []string, socketDir string) error {
	p.socketDir = socketDir
	if u := p.options.User; u != nil {
		if err := os.Chown(socketDir, int(u.UID), int(u.GID)); err != nil {
			return fmt.Errorf("give the socket directory to uid %d: %w", u.UID, err)
		}
	}
	cmd := &exec.Cmd{Path: p.executable.path, Args: p.options.Command, Dir: p.options.WorkDir}
	cmd.Env = append(append(cmd.Env, p.options.Env...), env...)
	cmd.Env = append(cmd.Env, sdk.LifelineKey+"=stdin")
	setAttributes(cmd, p.options.User)

	var pipes [3][2]*os.File
	for i := range pipes {
		r, w, err := os.Pipe()
		if err != nil {
			p.closePipes()
			return err
		}
		pipes[i] = [2]*os.File{r, w}
		p.childEnds = append(p.childEnds, r, w)
	}
	cmd.Stdin, p.lifeline = pipes[0][0], pipes[0][1]
	p.stdout, cmd.Stdout = pipes[1][0], pipes[1][1]
	p.stderr, cmd.Stderr = pipes[2][0], pipes[2][1]
	p.childEnds = []*os.File{pipes[0][0], pipes[1][1], pipes[2][1]}
	p.cmd = cmd
	return nil
}

// Start implements runner.Runner.
func (p *process) Start(context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	err := errDoomed
	if !p.doomed {
		err = p.cmd.Start()
	}
	p.closePipes()
	if err != nil {
		_ = p.lifeline.Close()
		_ = p.stdout.Close()
		_ = p.stderr.Close()
		p.reaped = true
		close(p.exited)
		return err
	}
	p.started = true
	go func() {
		defer close(p.exited)
		awaitExit(p.cmd.Process.Pid)
		p.mu.Lock()
		// Not reaped yet, so the number still is this process's group.
		killGroup(p.cmd.Process.Pid)
		p.reaped = true
		p.mu.Unlock()
		p.waitErr = p.cmd.Wait()
		_ = p.lifeline.Close()
	}()
	return nil
}

func (p *process) closePipes() {
	for _, f := range p.childEnds {
		_ = f.Close()
	}
	p.childEnds = nil
}

// kill ends the process and everything in its group. It may be called at any
// time and more than once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.doomed = true
	if p.started && !p.reaped {
		killGroup(p.cmd.Process.Pid)
		_ = p.cmd.Process.Kill()
	}
}

func (p *process) removeSocketDir() {
	if p.socketDir != "" {
		_ = os.RemoveAll(p.socketDir)
	}
}

// Wait implements runner.AttachedRunner.
func (p *process) Wait(context.Context) error {
	<-p.exited
	return p.waitErr
}

// Kill implements runner.AttachedRunner.
func (p *process) Kill(context.Context) error {
	p.kill()
	return nil
}

// Stdout implements runner.Runner.
func (p *process) Stdout() io.ReadCloser { return &firstLine{file: p.stdout} }

// Stderr implements runner.Runner.
func (p *process) Stderr() io.ReadCloser { return p.stderr }

// Name implements runner.Runner.
func (p *process) Name() string { return filepath.Base(p.options.Command[0]) }

// ID implements runner.AttachedRunner.
func (p *process) ID() string {
	if p.cmd == nil || p.cmd.Process == nil {
		return ""
	}
	return strconv.Itoa(p.cmd.Process.Pid)
}

// Diagnose implements runner.Runner.
func (p *process) Diagnose(context.Context) string {
	return "the first line on standard output must be the handshake"
}

// PluginToHost implements runner.AddrTranslator. A connector may not send its
// host anywhere but to the directory it was given.
func (p *process) PluginToHost(network, address string) (string, string, error) {
	if err := checkAddress(network, address, p.socketDir); err != nil {
		return "", "", err
	}
	return network, address, nil
}

// HostToPlugin implements runner.AddrTranslator.
func (p *process) HostToPlugin(network, address string) (string, string, error) {
	return network, address, nil
}

// maxHandshake bounds the handshake line in bytes.
const maxHandshake = 16 << 10

// firstLine passes on the handshake line and swallows everything after it: a
// reader that stops at an overlong line would leave the pipe full and the
// connector stuck in a print.
type firstLine struct {
	file *os.File
	sent int
	done bool
}

func (l *firstLine) Read(b []byte) (int, error) {
	if l.done {
		return l.drain()
	}
	n, err := l.file.Read(b)
	for i, c := range b[:n] {
		if c == '\n' {
			l.done = true
			return i + 1, nil
		}
	}
	if l.sent += n; l.sent > maxHandshake && n > 0 {
		l.done = true
		b[n-1] = '\n'
	}
	return n, err
}

func (l *firstLine) drain() (int, error) {
	_, err := io.Copy(io.Discard, l.file)
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

func (l *firstLine) Close() error { return l.file.Close() }
