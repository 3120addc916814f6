package fakecontrolplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/root"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Names that the fake uses.
const (
	TrustDomain = "msp.example"
	Tenant      = "fabrikam"
	Origin      = TrustDomain + "/tenant/" + Tenant
)

// ControlPlane is a running fake. Its exported fields are set before use or read
// under Lock.
type ControlPlane struct {
	agentv1.UnimplementedEnrollmentServiceServer
	agentv1.UnimplementedAgentServiceServer

	tb      testing.TB
	Address string
	// Pin is the fingerprint of the first root document.
	Pin     string
	CA      *ca.CA
	PlanKey ed25519.PrivateKey
	source  svid.Source
	rootKey ed25519.PrivateKey
	logKey  ed25519.PrivateKey
	signer  note.Signer
	doc     root.Document

	sync.Mutex
	server    *grpc.Server
	served    sync.WaitGroup
	envelopes [][]byte
	tokens    map[[32]byte]*invitation
	agents    map[string]*Agent
	log       *log
	sessions  []*Session
	// SVIDLife is the lifetime of the SVIDs it issues; an hour unless set.
	SVIDLife time.Duration
	// LoseAnswers counts, by method, answers that are lost after the work was
	// done: the call fails as unavailable.
	LoseAnswers map[string]int
	// CutShipping counts streams that are cut after a batch was made durable.
	CutShipping int
	// CutPushing counts streams that are cut after a batch was stored.
	CutPushing int
	// Orders by id and dry runs by digest, as they are streamed.
	Orders  map[string]*Order
	Fetched []string
	Reports []*agentv1.ReportProgressRequest
	// Snapshots by connector.
	Snapshots map[string]*Snapshot
	Cosigned  []*agentv1.Cosignature
	Beats     []*agentv1.Heartbeat
}

// Agent is what the fake knows of an agent that joined.
type Agent struct {
	ID       spiffe.AgentID
	Keys     map[int32]ed25519.PublicKey
	Counter  uint64
	LastCSR  []byte
	LastSVID [][]byte
	Enrolled int
	Renewed  int
	Reproved int
}

// Order is what FetchOrder streams.
type Order struct {
	Envelope, Manifest []byte
	Chunks             [][]byte
}

// Start runs a fake on a loopback port until the test ends.
func Start(tb testing.TB) *ControlPlane {
	tb.Helper()
	authority, err := ca.New(ca.Config{TrustDomain: TrustDomain})
	must(tb, err)
	c := &ControlPlane{
		tb: tb, CA: authority, tokens: map[[32]byte]*invitation{}, agents: map[string]*Agent{}, SVIDLife: time.Hour,
		LoseAnswers: map[string]int{}, Orders: map[string]*Order{}, Snapshots: map[string]*Snapshot{},
	}
	c.rootKey, c.PlanKey, c.logKey = newKey(tb), newKey(tb), newKey(tb)
	c.signer, err = tlogproof.NewSigner(Origin, c.logKey)
	must(tb, err)
	c.log = newLog(c.signer)
	c.doc = c.document(1, []ed25519.PublicKey{c.PlanKey.Public().(ed25519.PublicKey)})
	env, err := root.Sign(c.doc, c.rootKey)
	must(tb, err)
	c.envelopes = [][]byte{env}
	c.Pin, err = root.Pin(env)
	must(tb, err)
	c.source = c.serverSource()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	c.Address = l.Addr().String()
	c.serve(l)
	tb.Cleanup(c.Stop)
	return c
}

func (c *ControlPlane) document(version uint64, planKeys []ed25519.PublicKey) root.Document {
	own, err := root.NewKey(c.rootKey.Public().(ed25519.PublicKey))
	must(c.tb, err)
	checkpoint, err := root.NewCheckpointKey(Origin, c.logKey.Public().(ed25519.PublicKey))
	must(c.tb, err)
	d := root.Document{
		Format: root.Format, Version: version, TrustDomain: TrustDomain,
		Expires:  time.Now().Add(90 * 24 * time.Hour).UTC().Truncate(time.Second),
		RootKeys: []root.Key{own}, Threshold: 1, CARoots: c.CA.BundlePEM(), CheckpointKeys: []root.CheckpointKey{checkpoint},
	}
	for _, k := range planKeys {
		plan, err := root.NewKey(k)
		must(c.tb, err)
		d.PlanKeys = append(d.PlanKeys, plan)
	}
	return d
}

// NewRoot publishes the next root document, with one more plan key.
func (c *ControlPlane) NewRoot() {
	c.Lock()
	defer c.Unlock()
	extra := newKey(c.tb)
	c.doc = c.document(c.doc.Version+1, []ed25519.PublicKey{c.PlanKey.Public().(ed25519.PublicKey), extra.Public().(ed25519.PublicKey)})
	env, err := root.Sign(c.doc, c.rootKey)
	must(c.tb, err)
	c.envelopes = append(c.envelopes, env)
}

// Restart stops the fake, cutting every connection, and serves again on the same
// address with everything it knew.
func (c *ControlPlane) Restart() {
	c.Stop()
	var l net.Listener
	var err error
	for range 100 {
		if l, err = net.Listen("tcp", c.Address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	must(c.tb, err)
	c.serve(l)
}

// Stop cuts every connection and stops listening.
func (c *ControlPlane) Stop() {
	c.Lock()
	server := c.server
	c.server = nil
	c.Unlock()
	if server != nil {
		server.Stop()
	}
	c.served.Wait()
}

func (c *ControlPlane) serve(l net.Listener) {
	config := mtls.ServerConfigOptionalClient(c.source, func(spiffe.ID, *x509.Certificate) error { return nil }, time.Now)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.MaxRecvMsgSize(16<<20),
		grpc.UnaryInterceptor(c.loseAnswer))
	agentv1.RegisterEnrollmentServiceServer(server, c)
	agentv1.RegisterAgentServiceServer(server, c)
	c.Lock()
	c.server = server
	c.Unlock()
	c.served.Go(func() { _ = server.Serve(l) })
}

// serverSource is a certificate of the control plane that outlives the test.
func (c *ControlPlane) serverSource() svid.Source {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(c.tb, err)
	csr, err := ca.NewRequest(key)
	must(c.tb, err)
	chain, err := c.CA.IssueServer(csr, spiffe.ControlPlaneID{TrustDomain: TrustDomain}, time.Hour)
	must(c.tb, err)
	return &fixed{cert: &tls.Certificate{Certificate: chain.DER(), PrivateKey: key, Leaf: chain[0]}, roots: c.CA.Pool(), never: make(chan struct{})}
}

// UseSource serves with another source from the next Restart on.
func (c *ControlPlane) UseSource(s svid.Source) { c.source = s }

type fixed struct {
	cert  *tls.Certificate
	roots *x509.CertPool
	never chan struct{}
}

func (f *fixed) Current() (*tls.Certificate, error) { return f.cert, nil }
func (f *fixed) Roots() *x509.CertPool              { return f.roots }
func (f *fixed) Updated() <-chan struct{}           { return f.never }
func (f *fixed) Close() error                       { return nil }

// Invite makes a join token for an agent.
func (c *ControlPlane) Invite(agent string, life time.Duration) jointoken.Token {
	t, err := jointoken.New(rand.Reader)
	must(c.tb, err)
	c.Lock()
	defer c.Unlock()
	c.tokens[t.Hash()] = &invitation{agent: agent, expires: time.Now().Add(life)}
	return t
}

// Agent is what is known of the agent; nil before it joined.
func (c *ControlPlane) Agent(name string) *Agent {
	c.Lock()
	defer c.Unlock()
	return c.agents[name]
}

// Do runs f under the lock, to look at what the fake was sent.
func (c *ControlPlane) Do(f func()) {
	c.Lock()
	defer c.Unlock()
	f()
}

func newKey(tb testing.TB) ed25519.PrivateKey {
	k, err := keys.Generate(rand.Reader)
	must(tb, err)
	return k
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(fmt.Errorf("fake control plane: %w", err))
	}
}

// caller is the agent that a request comes from.
func (c *ControlPlane) caller(ctx context.Context) (*Agent, error) {
	id, _, err := mtls.Peer(ctx)
	if err != nil {
		return nil, err
	}
	agent, ok := id.(spiffe.AgentID)
	if !ok {
		return nil, fmt.Errorf("%v is no agent", id)
	}
	c.Lock()
	defer c.Unlock()
	known := c.agents[agent.Agent]
	if known == nil {
		return nil, fmt.Errorf("%v is not known", id)
	}
	return known, nil
}
