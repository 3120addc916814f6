package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/reevehq/reeve/test/slapd"
)

// patience bounds every wait. It is generous: a slow machine makes a story slow
// and not red.
const patience = 90 * time.Second

// stage is the folder that one story plays in, and the servers that run in it.
type stage struct {
	dir string
	// getenv gives the variables that programs are started with, beside PATH.
	env func() []string

	servers map[string]*server
	// directory is the slapd of the story, if it has one.
	directory *slapd.Server
}

type server struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func newStage(dir string, env func() []string) *stage {
	return &stage{dir: dir, env: env, servers: map[string]*server{}}
}

func (s *stage) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	if !strings.Contains(name, "/") {
		if path := filepath.Join(programs, name); exists(path) {
			name = path
		}
	}
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = s.dir, append(s.env(), "PATH="+programs+":"+os.Getenv("PATH"), "NO_COLOR=1", "TZ=UTC")
	return cmd
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// run runs a program to its end.
func (s *stage) run(name string, args ...string) (stdout, stderr string, code int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := s.command(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && ctx.Err() == nil {
		return out.String(), errs.String(), exit.ExitCode(), nil
	}
	return out.String(), errs.String(), 0, err
}

// ask runs a command with -o json and decodes what it says.
func (s *stage) ask(into any, name string, args ...string) error {
	stdout, stderr, code, err := s.run(name, append(args, "-o", "json")...)
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, stderr)
	}
	if err == nil {
		err = json.Unmarshal([]byte(stdout), into)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return nil
}

// start runs a server in the background, with its output in NAME.log, to which a
// restarted one adds.
func (s *stage) start(name, program string, args ...string) error {
	if _, running := s.servers[name]; running {
		return fmt.Errorf("%s runs already", name)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command(context.Background(), program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	v := &server{cmd: cmd, done: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // how it ended is in its ProcessState
		close(v.done)
	}()
	s.servers[name] = v
	return nil
}

// stop ends a server and waits for it. A server that had ended by itself is an
// error: no story leaves that unseen.
func (s *stage) stop(name string, signal syscall.Signal) error {
	v, ok := s.servers[name]
	if !ok {
		return fmt.Errorf("%s does not run", name)
	}
	delete(s.servers, name)
	select {
	case <-v.done:
		log, _ := os.ReadFile(filepath.Join(s.dir, name+".log"))
		return fmt.Errorf("%s had ended by itself: %v\n%s", name, v.cmd.ProcessState, log)
	default:
	}
	if err := v.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-v.done:
	case <-time.After(patience):
		_ = v.cmd.Process.Kill()
		<-v.done
		return fmt.Errorf("%s did not end at %v", name, signal)
	}
	if code := v.cmd.ProcessState.ExitCode(); signal == syscall.SIGTERM && code != 0 {
		return fmt.Errorf("%s ended with exit code %d when asked to", name, code)
	}
	return nil
}

// ended waits until a server has ended by itself and gives its exit code.
func (s *stage) ended(name string) (int, error) {
	v, ok := s.servers[name]
	if !ok {
		return 0, fmt.Errorf("%s does not run", name)
	}
	select {
	case <-v.done:
	case <-time.After(patience):
		return 0, fmt.Errorf("%s runs on", name)
	}
	delete(s.servers, name)
	return v.cmd.ProcessState.ExitCode(), nil
}

// close ends what still runs.
func (s *stage) close() {
	for name, v := range s.servers {
		_ = v.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-v.done:
		case <-time.After(10 * time.Second):
			_ = v.cmd.Process.Kill()
			<-v.done
		}
		delete(s.servers, name)
	}
}

// logs is what the servers wrote, for a story that failed.
func (s *stage) logs() string {
	var b strings.Builder
	found, _ := filepath.Glob(filepath.Join(s.dir, "*.log"))
	for _, path := range found {
		content, _ := os.ReadFile(path)
		if len(content) > 8000 {
			content = content[len(content)-8000:]
		}
		fmt.Fprintf(&b, "--- %s\n%s\n", filepath.Base(path), content)
	}
	return b.String()
}

// until waits for what another process does.
func until(what string, done func() (bool, error)) error {
	for deadline := time.Now().Add(patience); ; {
		ok, err := done()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain until %s (%v)", what, err)
		}
		time.Sleep(150 * time.Millisecond)
	}
}

// freeAddress is an address that nobody listens on yet.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// connectors is `reeve connector list` as far as stories look at it.
type connectors struct {
	Connectors []struct {
		State struct {
			Alias, Mode string
			Reachable   bool
		}
		FingerprintSha256 string
		Confirmed         bool
		Snapshot          *struct {
			Snapshot string
			Complete bool
		}
	}
}

// observe waits for a fresh snapshot of each alias, of all connectors without one.
func (s *stage) observe(tenant string, aliases ...string) error {
	if len(aliases) == 0 {
		var list connectors
		if err := s.ask(&list, "reeve", "connector", "list", tenant); err != nil {
			return err
		}
		for _, c := range list.Connectors {
			aliases = append(aliases, c.State.Alias)
		}
	}
	before, err := s.snapshots(tenant)
	if err != nil {
		return err
	}
	for _, alias := range aliases {
		var asked struct{ Asked []string }
		if err := s.ask(&asked, "reeve", "observe", tenant, alias); err != nil {
			return err
		}
		if len(asked.Asked) != 1 {
			return fmt.Errorf("nobody was asked to observe %s of %s", alias, tenant)
		}
	}
	return until("every connector was observed again", func() (bool, error) {
		now, err := s.snapshots(tenant)
		if err != nil {
			return false, err
		}
		for _, alias := range aliases {
			if now[alias] == "" || now[alias] == before[alias] {
				return false, fmt.Errorf("%s is not", alias)
			}
		}
		return true, nil
	})
}

func (s *stage) snapshots(tenant string) (map[string]string, error) {
	var list connectors
	err := s.ask(&list, "reeve", "connector", "list", tenant)
	out := map[string]string{}
	for _, c := range list.Connectors {
		if c.Snapshot != nil {
			out[c.State.Alias] = c.Snapshot.Snapshot
		}
	}
	return out, err
}

// settled waits until every connector of a tenant is known with its fingerprint
// and has a snapshot.
func (s *stage) settled(tenant string, want int) error {
	return until(fmt.Sprintf("%d connectors of %s were observed", want, tenant), func() (bool, error) {
		var list connectors
		if err := s.ask(&list, "reeve", "connector", "list", tenant); err != nil {
			return false, err
		}
		seen := 0
		for _, c := range list.Connectors {
			if c.Snapshot != nil && c.FingerprintSha256 != "" {
				seen++
			}
		}
		return seen == want, fmt.Errorf("%d are", seen)
	})
}

// confirm confirms a source with the fingerprint that the control plane shows.
func (s *stage) confirm(tenant, alias string) error {
	var list connectors
	if err := s.ask(&list, "reeve", "connector", "list", tenant); err != nil {
		return err
	}
	for _, c := range list.Connectors {
		if c.State.Alias == alias {
			var done json.RawMessage
			return s.ask(&done, "reeve", "source", "confirm", tenant, alias, "--fingerprint", c.FingerprintSha256)
		}
	}
	return fmt.Errorf("%s has no connector %s", tenant, alias)
}

// shown is `reeve plan show -o json` as far as stories look at it.
type shown struct {
	Plan struct {
		ID         string `json:"id"`
		Digest     string
		Blocked    string
		DryRunDone bool
		State      struct {
			Phase   string
			Total   int
			Applied int
		}
	}
}

// plan makes a plan and waits until the guardrails were asked about it.
func (s *stage) plan(tenant string, args ...string) (shown, error) {
	var p shown
	if err := s.ask(&p, "reeve", append([]string{"plan", "make", tenant}, args...)...); err != nil {
		return p, err
	}
	id := p.Plan.ID
	return p, until("the guardrails were asked about "+id, func() (bool, error) {
		err := s.ask(&p, "reeve", "plan", "show", id)
		return err == nil && (p.Plan.DryRunDone || p.Plan.State.Total == 0), err
	})
}
