package faults_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	"github.com/reevehq/reeve/test/rig"
)

// relay stands inside TLS, between the real agent and the real control plane, with
// the keys of both: what no network can do, it can say everything twice, and late.
type relay struct {
	server *grpc.Server
	plane  *grpc.ClientConn
	// again counts what was said once more.
	again atomic.Int64
}

// newRelay listens where the agent may be led to. It has the agent's present
// certificate, so it is for a story shorter than that.
func newRelay(t *testing.T, r *rig.Rig) (*relay, string) {
	t.Helper()
	issuer, err := ca.Load(filepath.Join(r.Dir, "noc", "ca"), ca.Config{TrustDomain: trustDomain})
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := issuer.IssueServer(csr, spiffe.ControlPlaneID{TrustDomain: trustDomain}, ca.DefaultTTL)
	if err != nil {
		t.Fatal(err)
	}
	y := &relay{}
	// Both sides' certificates are looked at by those whom they are for.
	y.plane, err = grpc.NewClient("passthrough:///"+r.Address, grpc.WithDefaultCallOptions(grpc.ForceCodec(verbatim{})),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{agentCertificate(t, r)}})))
	if err != nil {
		t.Fatal(err)
	}
	y.server = grpc.NewServer(grpc.ForceServerCodec(verbatim{}), grpc.UnknownServiceHandler(y.handle),
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{{Certificate: chain.DER(), PrivateKey: key}}})))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = y.server.Serve(l)
	}()
	t.Cleanup(func() {
		y.server.Stop()
		<-done
		_ = y.plane.Close()
	})
	return y, l.Addr().String()
}

// trustDomain of a rig.
const trustDomain = "reeve.local"

// agentCertificate is what the agent's state folder holds.
func agentCertificate(t *testing.T, r *rig.Rig) tls.Certificate {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(r.State, "svid"))
	if err != nil {
		t.Fatal(err)
	}
	var stored struct {
		Key          string
		Certificates [][]byte
	}
	if err := json.Unmarshal(raw, &stored); err != nil {
		t.Fatal(err)
	}
	key, err := keys.ParseTLSPrivate([]byte(stored.Key))
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: stored.Certificates, PrivateKey: key}
}

// verbatim is a codec for messages that nobody looks into.
type verbatim struct{}

func (verbatim) Name() string { return "proto" }

func (verbatim) Marshal(v any) ([]byte, error) {
	raw, ok := v.(*[]byte)
	if !ok {
		return nil, errors.New("not a verbatim message")
	}
	return *raw, nil
}

func (verbatim) Unmarshal(data []byte, v any) error {
	raw, ok := v.(*[]byte)
	if !ok {
		return errors.New("not a verbatim message")
	}
	*raw = append([]byte(nil), data...)
	return nil
}

func (y *relay) handle(_ any, agent grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(agent)
	switch method {
	case agentv1.AgentService_Session_FullMethodName:
		return y.converse(agent, method, true)
	case agentv1.AgentService_PushObservations_FullMethodName:
		return y.converse(agent, method, false)
	case agentv1.AgentService_ShipRecords_FullMethodName:
		return y.ship(agent, method)
	}
	return y.ask(agent, method)
}

func (y *relay) call(ctx context.Context, method string) (grpc.ClientStream, error) {
	return y.plane.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
}

// ask asks twice what has one question, and lets the agent have the second answer.
func (y *relay) ask(agent grpc.ServerStream, method string) error {
	var question []byte
	if err := agent.RecvMsg(&question); err != nil {
		return err
	}
	for second := range 2 {
		plane, err := y.call(agent.Context(), method)
		if err != nil {
			return err
		}
		if err := errors.Join(plane.SendMsg(&question), plane.CloseSend()); err != nil {
			return err
		}
		for {
			var answer []byte
			err := plane.RecvMsg(&answer)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
			if second == 1 {
				if err := agent.SendMsg(&answer); err != nil {
					return err
				}
			}
		}
	}
	y.again.Add(1)
	return nil
}

// ship sends every batch, then the one before it once more, then it again; the
// agent has the last answer.
func (y *relay) ship(agent grpc.ServerStream, method string) error {
	plane, err := y.call(agent.Context(), method)
	if err != nil {
		return err
	}
	var before []byte
	for {
		var batch, answer []byte
		err := agent.RecvMsg(&batch)
		if errors.Is(err, io.EOF) {
			return plane.CloseSend()
		}
		if err != nil {
			return err
		}
		for _, say := range [][]byte{batch, before, batch} {
			if say == nil {
				continue
			}
			if err := errors.Join(plane.SendMsg(&say), plane.RecvMsg(&answer)); err != nil {
				return err
			}
			y.again.Add(1)
		}
		y.again.Add(-1)
		if err := agent.SendMsg(&answer); err != nil {
			return err
		}
		before = batch
	}
}

// converse passes both sides of a stream on, every message twice; with once, the
// first of the agent's, which is its hello, comes once.
func (y *relay) converse(agent grpc.ServerStream, method string, once bool) error {
	ctx, cancel := context.WithCancel(agent.Context())
	defer cancel()
	plane, err := y.call(ctx, method)
	if err != nil {
		return err
	}
	go func() {
		for first := true; ; first = false {
			var said []byte
			if err := agent.RecvMsg(&said); err != nil {
				_ = plane.CloseSend()
				return
			}
			_ = plane.SendMsg(&said)
			if !first || !once {
				y.again.Add(1)
				_ = plane.SendMsg(&said)
			}
		}
	}()
	for {
		var said []byte
		err := plane.RecvMsg(&said)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		y.again.Add(1)
		if err := errors.Join(agent.SendMsg(&said), agent.SendMsg(&said)); err != nil {
			return err
		}
	}
}

// Inside TLS everything is said twice: directives, orders and their reports,
// observations, records, the ones before after the ones that follow. Each change
// is made once and stands on record once.
func TestDoubledInsideTLS(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	e := rig.NewEstate(10)
	r := rig.New(t, rig.Options{Bin: bin, Estate: e, Through: through})
	y, address := newRelay(t, r)
	w := r.Watch()
	p.lead(address)
	p.cutAll()
	r.Agent.Stop()
	r.Agent.Start()
	r.Applied(r.CarryOut())
	for range 3 {
		e.Hire(t, 3)
		r.Observe()
		r.Applied(r.CarryOut())
		// Told of everything anew.
		p.cutAll()
		r.Agent.Kill()
		r.Agent.Start()
		r.Connected()
	}
	lend(t, r, e.People()[1], "10s")
	ends(t, r, e.People()[1])
	shipped(t, r)
	r.Provisioned(e.People())
	if t.Logf("%d messages came twice", y.again.Load()); y.again.Load() < 100 {
		t.Errorf("only %d messages came twice", y.again.Load())
	}
	p.lead(r.Address)
	p.cutAll()
	w.Once()
	if got := settled(r.OneRecordAChange()); len(got) != 1 || got["removed"] != 1 {
		t.Errorf("the log tells of ends %v", got)
	}
	r.Passwords(r.OneRecordAChange(), e.People())
	r.Converged()
	r.Offboard(nil)
}

// What belongs to one connection says nothing on another: an enrolment that
// somebody in the middle hands on proves no key, and uses no token up.
func TestProofsAreOfOneConnection(t *testing.T) {
	t.Parallel()
	p, through := newProxy(t)
	r := rig.New(t, rig.Options{Bin: bin, Estate: rig.NewEstate(2), Through: through})
	_, address := newRelay(t, r)
	p.lead(address)
	p.cutAll()
	r.Do("agent", "invite", rig.Tenant, "dc2", "--token-file", "dc2.token")
	r.Configure("second.yaml", filepath.Join(r.Dir, "second"))
	if got := r.Local("join", "--config", "second.yaml", "--token-file", "dc2.token"); got.Code == 0 {
		t.Error("a join through somebody in the middle succeeded")
	}
	p.lead(r.Address)
	p.cutAll()
	// The token was not used up by that.
	if got := r.Local("join", "--config", "second.yaml", "--token-file", "dc2.token"); got.Code != 0 {
		t.Errorf("the join itself: exit code %d, %s", got.Code, got.Stderr)
	}
}
