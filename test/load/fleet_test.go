package load

import (
	"bufio"
	"context"
	"crypto/x509"
	"database/sql"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	_ "modernc.org/sqlite"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/spiffe"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

var (
	agents = flag.Int("agents", 100, "simulated agents")
	settle = flag.Duration("settle", 3*time.Second, "how long sessions are idle before memory is read: Go collects by itself after two minutes")
)

// plane is a control plane that is measured from outside.
type plane struct {
	t       *testing.T
	dir     string
	address string
	cmd     *exec.Cmd
	desk    *grpc.ClientConn
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	// Unix sockets need short paths.
	dir, err := os.MkdirTemp("", "load")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	p := &plane{t: t, dir: dir, address: l.Addr().String()}
	check(t, l.Close())
	t.Cleanup(p.stop)
	p.start()
	return p
}

func (p *plane) start() {
	p.t.Helper()
	log, err := os.OpenFile(filepath.Join(p.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(p.t, err)
	defer log.Close()
	socket := filepath.Join(p.dir, "operator.sock")
	p.cmd = exec.Command(filepath.Join(bin, "reeve-controlplane"), "run", "--dev", "--data", filepath.Join(p.dir, "noc"), "--socket", socket, "--listen", p.address)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir = log, log, p.dir
	check(p.t, p.cmd.Start())
	p.desk, err = grpc.NewClient("unix:"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(p.t, err)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err = operatorv1.NewTenantServiceClient(p.desk).ListTenants(context.Background(), &operatorv1.ListTenantsRequest{}); err == nil {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the control plane does not answer: %v", err)
		}
	}
}

func (p *plane) stop() {
	if p.cmd == nil {
		return
	}
	_ = p.desk.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	_ = p.cmd.Wait()
	p.cmd = nil
}

// resident is the process's resident memory in KiB, from the kernel.
func (p *plane) resident() int {
	p.t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	check(p.t, err)
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var kib int
		if n, _ := fmt.Sscanf(lines.Text(), "VmRSS: %d kB", &kib); n == 1 {
			return kib
		}
	}
	p.t.Fatal("no VmRSS")
	return 0
}

// each does something for all agents, a few side by side.
func each(list []*simAgent, do func(*simAgent) error) (time.Duration, error) {
	var g errgroup.Group
	g.SetLimit(16)
	began := time.Now()
	for _, a := range list {
		g.Go(func() error { return do(a) })
	}
	err := g.Wait()
	return time.Since(began), err
}

// TestFleet enrols a fleet, renews its certificates and opens its sessions.
func TestFleet(t *testing.T) {
	p := newPlane(t)
	authority, err := ca.Load(filepath.Join(p.dir, "noc", "ca"), ca.Config{TrustDomain: domain})
	check(t, err)
	fleet := p.invited(authority.Pool(), *agents)
	ctx := t.Context()
	enrol, err := each(fleet, func(a *simAgent) error { return a.enroll(ctx, p.address, p.token(a)) })
	check(t, err)
	renew, err := each(fleet, func(a *simAgent) error { return a.renew(ctx, p.address) })
	check(t, err)
	greet, err := each(fleet, func(a *simAgent) error { return a.greet(p.address) })
	check(t, err)
	plain := signAndStore(t, authority, len(fleet))
	per := func(d time.Duration) float64 { return float64(len(fleet)) / d.Seconds() }
	t.Logf("%d agents: %.0f invitations and enrolments/s, %.0f renewals/s, each over a TLS connection of its own, of which %.0f/s are made alone; plain loop of sign and store: %.0f/s; ratios %.2f and %.2f",
		len(fleet), per(enrol), per(renew), per(greet), per(plain), plain.Seconds()/enrol.Seconds(), plain.Seconds()/renew.Seconds())

	// A new process, so that what the sessions cost is not hidden in what the
	// enrolments left.
	p.stop()
	p.start()
	time.Sleep(2 * time.Second)
	idle := p.resident()
	took, err := each(fleet, func(a *simAgent) error { return a.open(context.Background(), p.address) })
	check(t, err)
	for end := time.Now().Add(*settle); time.Now().Before(end); time.Sleep(min(15*time.Second, max(0, time.Until(end)))) {
		_, err := each(fleet, (*simAgent).beat)
		check(t, err)
	}
	t.Logf("%d idle sessions: %.1f KiB each (%d MiB before, %d MiB after), opened at %.0f/s",
		len(fleet), float64(p.resident()-idle)/float64(len(fleet)), idle/1024, p.resident()/1024, per(took))
	if connected := p.connected(fleet); connected != len(fleet) {
		t.Errorf("%d of %d agents are connected", connected, len(fleet))
	}
	for _, a := range fleet {
		_ = a.conn.Close()
	}
}

// invited makes tenants of at most 100 agents each, and the agents' keys.
func (p *plane) invited(roots *x509.CertPool, n int) []*simAgent {
	p.t.Helper()
	var out []*simAgent
	for i := range n {
		tenant := fmt.Sprintf("client%d", i/100)
		if i%100 == 0 {
			_, err := operatorv1.NewTenantServiceClient(p.desk).AddTenant(context.Background(), &operatorv1.AddTenantRequest{Id: tenant, Owner: "it@" + tenant + ".example", Zone: "UTC"})
			check(p.t, err)
		}
		a, err := newSimAgent(tenant, fmt.Sprintf("dc%d", i%100), roots)
		check(p.t, err)
		out = append(out, a)
	}
	return out
}

func (p *plane) token(a *simAgent) string {
	r, err := operatorv1.NewAgentServiceClient(p.desk).InviteAgent(context.Background(), &operatorv1.InviteAgentRequest{Tenant: a.tenant, Agent: a.name})
	if err != nil {
		p.t.Error(err)
	}
	return r.GetToken()
}

func (p *plane) connected(fleet []*simAgent) int {
	p.t.Helper()
	seen, n := map[string]bool{}, 0
	for _, a := range fleet {
		if seen[a.tenant] {
			continue
		}
		seen[a.tenant] = true
		for token := ""; ; {
			r, err := operatorv1.NewAgentServiceClient(p.desk).ListAgents(context.Background(), &operatorv1.ListAgentsRequest{Tenant: a.tenant, PageToken: token})
			check(p.t, err)
			for _, x := range r.GetAgents() {
				if x.GetConnected() {
					n++
				}
			}
			if token = r.GetNextPageToken(); token == "" {
				break
			}
		}
	}
	return n
}

// signAndStore is the peer: certificates signed and stored durably, one
// transaction each, and nothing checked, recorded or sent.
func signAndStore(t *testing.T, authority *ca.CA, n int) time.Duration {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+filepath.Join(t.TempDir(), "plain.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	check(t, err)
	defer db.Close()
	_, err = db.Exec("CREATE TABLE certificate (agent TEXT PRIMARY KEY, der BLOB NOT NULL)")
	check(t, err)
	_, csr, err := request()
	check(t, err)
	began := time.Now()
	for i := range n {
		name := fmt.Sprintf("dc%d", i)
		chain, err := authority.IssueAgent(csr, spiffe.AgentID{TrustDomain: domain, Tenant: "client0", Agent: name}, 0)
		check(t, err)
		_, err = db.Exec("INSERT INTO certificate VALUES ($1, $2)", name, chain.DER()[0])
		check(t, err)
	}
	return time.Since(began)
}
