package slapd

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ErrNotInstalled is wrapped by New's error when a binary of OpenLDAP is
// missing; the error's text says which packages to install.
var ErrNotInstalled = errors.New("OpenLDAP's server is not installed")

// Options say what the server is like. The zero value is an empty
// dc=example,dc=com that anyone may read. OpenLDAP's own default lets everyone
// but the root DN see 500 entries a search, pages included: give larger ones an
// olcLimits line in Database, as their administrators must.
type Options struct {
	// Suffix of the only database, "dc=example,dc=com" by default. Its entry is
	// made unless LDIF has it.
	Suffix string
	// LDIF is the data, loaded with slapadd before the server starts.
	LDIF string
	// ACL are olcAccess rules of the database in order, such as
	// `to * by * read`. None leaves OpenLDAP's default: everyone reads.
	ACL []string
	// Overlays by name in order: memberof, refint, ppolicy, syncprov, auditlog
	// (see Server.AuditLog), or any other that needs no settings.
	Overlays []string
	// SessionLog is how many changes the overlay syncprov remembers
	// (olcSpSessionlog), so that it can name what was deleted.
	SessionLog int
	// Database are further attribute lines of the database in cn=config, such
	// as `olcLimits: dn.exact="…" size.soft=10`.
	Database []string
	// Schema are further schema files in cn=config's LDIF form, loaded after
	// core, cosine, nis and inetorgperson.
	Schema []string
	// Durable has every write synced to disk before it is answered, as
	// OpenLDAP does by default; tests without it save the time.
	Durable bool
	// TLS adds an ldaps listener and StartTLS with a certificate of a new CA
	// for 127.0.0.1 and localhost.
	TLS bool
}

// Server is one slapd. Its methods are for one goroutine.
type Server struct {
	// URL is ldap://127.0.0.1:PORT; it stays the same over Restart.
	URL string
	// TLSURL is ldaps://127.0.0.1:PORT, empty without TLS.
	TLSURL string
	// SocketURL is the ldapi:// URL of its Unix socket.
	SocketURL string
	// CAFile is the PEM file of the CA that signed its certificate, empty
	// without TLS.
	CAFile string
	Suffix string
	// RootDN and RootPassword may do everything in the database.
	RootDN, RootPassword string

	dir  string
	cmd  *exec.Cmd
	done chan struct{}
}

const remedy = "run: apt-get install -y --no-install-recommends slapd slapd-contrib ldap-utils"

// Start runs a server until the test ends. What goes wrong is fatal to the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "slapd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := New(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Kill() })
	return s
}

// New builds a server in dir, an existing empty folder whose path is short
// enough for a Unix socket, and starts it. The caller stops it and removes dir.
func New(dir string, o Options) (*Server, error) {
	if o.Suffix == "" {
		o.Suffix = "dc=example,dc=com"
	}
	s := &Server{Suffix: o.Suffix, RootDN: "cn=root," + o.Suffix, RootPassword: rand.Text(), dir: dir}
	for _, name := range []string{"config", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	if o.TLS {
		if err := s.makeCertificates(); err != nil {
			return nil, err
		}
	}
	if err := s.load("0", s.config(o)); err != nil {
		return nil, err
	}
	if err := s.load("1", s.data(o)); err != nil {
		return nil, err
	}
	// Another process may take a free port before slapd does: choose again.
	for attempt := 0; ; attempt++ {
		if err := s.choosePorts(o.TLS); err != nil {
			return nil, err
		}
		err := s.Restart()
		if err == nil || attempt == 4 {
			return s, err
		}
	}
}

func (s *Server) choosePorts(tls bool) error {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	s.URL = "ldap://127.0.0.1:" + strconv.Itoa(ports[0])
	if tls {
		s.TLSURL = "ldaps://127.0.0.1:" + strconv.Itoa(ports[1])
	}
	s.SocketURL = "ldapi://" + url.QueryEscape(filepath.Join(s.dir, "ldapi"))
	return nil
}

// Restart stops the server if it runs and starts it on the same data and ports.
func (s *Server) Restart() error {
	s.Stop()
	binary, err := find("slapd")
	if err != nil {
		return err
	}
	listen := strings.TrimSpace(s.URL + "/ " + s.SocketURL)
	if s.TLSURL != "" {
		listen += " " + s.TLSURL + "/"
	}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	// With -d it stays in the foreground, 0 keeps it quiet.
	cmd := exec.Command(binary, "-F", filepath.Join(s.dir, "config"), "-h", listen, "-d", "0")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", binary, err)
	}
	done := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(done)
	}()
	s.cmd, s.done = cmd, done
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case <-done:
			s.cmd = nil
			said, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return fmt.Errorf("slapd ended at once: %s", said)
		case <-time.After(20 * time.Millisecond):
		}
		if c, err := net.Dial("tcp", u.Host); err == nil {
			return c.Close()
		}
	}
	s.Kill()
	return fmt.Errorf("slapd does not listen on %s", s.URL)
}

// Stop ends the server as an administrator would and waits for it.
func (s *Server) Stop() { s.signal(syscall.SIGTERM) }

// Kill ends the server with SIGKILL and waits for it.
func (s *Server) Kill() { s.signal(syscall.SIGKILL) }

// Pause freezes the server: connections stay open and nothing answers. It
// returns when every thread stands still.
func (s *Server) Pause() error {
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	tasks := fmt.Sprintf("/proc/%d/task", s.cmd.Process.Pid)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		threads, err := os.ReadDir(tasks)
		if err != nil {
			return err
		}
		running := slices.ContainsFunc(threads, func(t os.DirEntry) bool {
			// The state is what follows the name in brackets (proc_pid_stat(5)).
			stat, err := os.ReadFile(filepath.Join(tasks, t.Name(), "stat"))
			return err == nil && !bytes.Contains(stat, []byte(") T "))
		})
		if !running {
			return nil
		}
	}
	return errors.New("slapd does not stop on SIGSTOP")
}

// Resume lets a paused server go on.
func (s *Server) Resume() error { return s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Signal(sig)
	if sig != syscall.SIGKILL {
		// A paused process takes SIGTERM only when it goes on.
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
	}
	<-s.done
	s.cmd = nil
}

// AuditLog is the file into which the overlay auditlog, if there is one, writes
// every change that was made, as LDIF (slapo-auditlog(5)).
func (s *Server) AuditLog() string { return filepath.Join(s.dir, "audit.ldif") }

// Dump returns the database as slapcat prints it, operational attributes
// included. The server may be running.
func (s *Server) Dump() ([]byte, error) {
	return s.tool("slapcat", nil, "-n", "1", "-o", "ldif-wrap=no")
}

// Restore replaces the data by what Dump returned, as from a backup, and starts
// the server on it.
func (s *Server) Restore(dump []byte) error {
	s.Stop()
	data := filepath.Join(s.dir, "data")
	if err := errors.Join(os.RemoveAll(data), os.Mkdir(data, 0o700)); err != nil {
		return err
	}
	if err := s.load("1", string(dump)); err != nil {
		return err
	}
	return s.Restart()
}

// load fills a database. Debian's slapadd 2.5 now and then ends of SIGABRT with
// glibc's "double free or corruption" (seen once in some hundred loads): it is run
// again on an empty directory, a few times.
func (s *Server) load(database, ldif string) error {
	dir := filepath.Join(s.dir, map[string]string{"0": "config", "1": "data"}[database])
	for attempt := 1; ; attempt++ {
		err := s.slapadd(database, ldif)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() >= 0 || attempt == 3 {
			return err
		}
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			return err
		}
	}
}

func (s *Server) slapadd(database, ldif string) error {
	args := []string{"-n", database}
	if database != "0" {
		// -w writes contextCSN now; syncprov would add it at the first stop.
		args = append(args, "-q", "-w")
	}
	_, err := s.tool("slapadd", []byte(ldif), args...)
	return err
}

func (s *Server) tool(name string, stdin []byte, args ...string) ([]byte, error) {
	binary, err := find(name)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(binary, append([]string{"-F", filepath.Join(s.dir, "config")}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return stdout.Bytes(), nil
}

// find looks on PATH and where Debian puts it, which is on root's PATH only.
func find(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path := "/usr/sbin/" + name; exists(path) {
		return path, nil
	}
	return "", fmt.Errorf("%w: no %s on PATH or in /usr/sbin; %s", ErrNotInstalled, name, remedy)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
