package wall

import (
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/pki/ca"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

const mspTenant = "msp"

// world is a control plane with two clients and the MSP.
type world struct {
	agents, operators, socket string
	authority                 *ca.CA
	roots                     *x509.CertPool
	// desk is the local socket.
	desk              *door
	ours, theirs, msp *estate
	nobody            *estate
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	return l.Addr().String()
}

// newWorld starts the control plane and fills the tenants.
func newWorld(t *testing.T) *world {
	t.Helper()
	// Unix sockets need short paths; t.TempDir's are not.
	dir, err := os.MkdirTemp("", "wall")
	check(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{agents: freeAddress(t), operators: freeAddress(t), socket: filepath.Join(dir, "operator.sock")}
	log, err := os.Create(filepath.Join(dir, "log"))
	check(t, err)
	defer log.Close()
	cmd := exec.Command(filepath.Join(bin, "reeve-controlplane"), "run", "--dev", "--data", filepath.Join(dir, "noc"), "--socket", w.socket, "--listen", w.agents, "--operator-listen", w.operators, "--msp", mspTenant)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, dir
	check(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			<-ended
		}
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("control plane:\n%s", text[max(0, len(text)-8000):])
		}
	})
	w.desk = openSocket(w.socket)
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		_, err := w.operator("Tenant", "ListTenants", &operatorv1.ListTenantsRequest{})
		conn, dialled := net.Dial("tcp", w.operators)
		if err == nil && dialled == nil {
			conn.Close()
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the control plane does not answer: %v, %v", err, dialled)
		}
	}
	w.authority, err = ca.Load(filepath.Join(dir, "noc", "ca"), ca.Config{TrustDomain: domain})
	check(t, err)
	w.roots = w.authority.Pool()
	_, err = w.operator("Policy", "ApplyPolicy", &operatorv1.ApplyPolicyRequest{Files: []*operatorv1.PolicyFile{{Name: "wall.yaml", Content: []byte(bundle)}}})
	check(t, err)
	w.ours, w.theirs, w.msp = newEstate(""), newEstate(""), newEstate(mspTenant)
	// Their log is the longer one, so that its length is no length of ours.
	w.ours.more, w.theirs.more, w.msp.more = 3, 600, 3
	for _, e := range []*estate{w.ours, w.theirs, w.msp} {
		check(t, w.fill(e))
	}
	w.nobody, err = nobody(w.theirs)
	check(t, err)
	return w
}

// operator says something at the local socket that has to succeed.
func (w *world) operator(service, method string, r proto.Message) ([]proto.Message, error) {
	got := w.desk.call("reeve.operator.v1."+service+"Service."+method, false, []proto.Message{r})
	if got.failed != nil || got.code != codes.OK {
		return nil, fmt.Errorf("%s: %v %v %s %v", method, got.failed, got.code, got.message, got.details)
	}
	return got.messages, nil
}

// token invites an agent.
func (w *world) token(tenant, name string) (string, error) {
	got, err := w.operator("Agent", "InviteAgent", &operatorv1.InviteAgentRequest{Tenant: tenant, Agent: name})
	if err != nil {
		return "", err
	}
	return got[0].(*operatorv1.InviteAgentResponse).GetToken(), nil
}

// joined is an agent that was invited and has enrolled.
func (w *world) joined(tenant, name string) (*fakeAgent, error) {
	a, err := newFakeAgent(tenant, name)
	if err != nil {
		return nil, err
	}
	token, err := w.token(tenant, name)
	if err != nil {
		return nil, err
	}
	return a, a.join(w.agents, token, w.roots)
}
