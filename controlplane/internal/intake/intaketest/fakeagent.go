package intaketest

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/jointoken"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// FakeAgent holds an agent's keys and chain in memory.
type FakeAgent struct {
	T                        testing.TB
	Tenant, Name             string
	Epoch                    uint64
	Identity, Audit, Witness ed25519.PrivateKey
	// Key and CSR are of the newest request, Certificates and Counter of the
	// newest answer.
	Key          *ecdsa.PrivateKey
	CSR          []byte
	Certificates [][]byte
	Counter      uint64
	Head         chain.Head
	// At is the agent's clock.
	At time.Time

	rand io.Reader
}

// NewAgent makes an agent's keys; it has not joined.
func NewAgent(t testing.TB, name string) *FakeAgent {
	t.Helper()
	a := &FakeAgent{
		T: t, Name: name, At: Start, rand: Seed("agent " + name),
		Identity: Key(t, name+" identity"), Audit: Key(t, name+" audit"), Witness: Key(t, name+" witness"),
	}
	a.NewCSR()
	return a
}

// NewCSR makes the next request with a fresh key.
func (a *FakeAgent) NewCSR() {
	a.T.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.T.Fatal(err)
	}
	if a.CSR, err = ca.NewRequest(key); err != nil {
		a.T.Fatal(err)
	}
	a.Key = key
}

// EnrollRequest is the request for a token over the connection of exporter.
func (a *FakeAgent) EnrollRequest(token jointoken.Token, exporter []byte) *agentv1.EnrollRequest {
	a.T.Helper()
	r := &agentv1.EnrollRequest{Token: token.Reveal(), Csr: a.CSR, Version: "0.1.0", Agent: a.Name}
	binding := agentv1.EnrollmentBinding(exporter, a.CSR)
	for _, k := range []struct {
		purpose auditv1.KeyEvent_Purpose
		key     ed25519.PrivateKey
	}{
		{auditv1.KeyEvent_PURPOSE_IDENTITY, a.Identity}, {auditv1.KeyEvent_PURPOSE_AUDIT, a.Audit}, {auditv1.KeyEvent_PURPOSE_WITNESS, a.Witness},
	} {
		spki, err := x509.MarshalPKIXPublicKey(k.key.Public())
		if err != nil {
			a.T.Fatal(err)
		}
		r.Keys = append(r.Keys, &auditv1.KeyEvent_Key{Purpose: k.purpose, PublicKey: spki})
		r.Proofs = append(r.Proofs, ed25519.Sign(k.key, binding))
	}
	return r
}

// Enrolled takes the answer.
func (a *FakeAgent) Enrolled(r *agentv1.EnrollResponse) {
	a.Tenant, a.Epoch, a.Certificates, a.Counter = r.GetTenant(), r.GetEpoch(), r.GetCertificates(), r.GetCounter()
	a.Begin(a.Epoch)
}

// Begin starts the chain of an epoch.
func (a *FakeAgent) Begin(epoch uint64) {
	a.Epoch, a.Head = epoch, chain.Head{Link: chain.Genesis(TrustDomain, a.Tenant, a.Name, epoch)}
}

// Exporter stands for a connection's keying material in tests without one.
func Exporter(name string) []byte {
	sum := sha256.Sum256([]byte(name))
	return sum[:]
}

// Join invites and enrols an agent.
func (e *Estate) Join(tenantID, name string) *FakeAgent {
	e.T.Helper()
	a := e.Known(tenantID, name)
	e.JoinAs(tenantID, a)
	return a
}

// Known is an agent with the keys that Join gave it, in its first epoch, whose
// chain goes on from what is durable here.
func (e *Estate) Known(tenantID, name string) *FakeAgent {
	e.T.Helper()
	// Namesakes of two tenants have different keys.
	a := NewAgent(e.T, tenantID+"/"+name)
	a.Tenant, a.Name, a.Epoch = tenantID, name, 1
	var err error
	if a.Head, err = e.Intake.Seen(e.T.Context(), tenantID, name, 1); err != nil {
		e.T.Fatal(err)
	}
	return a
}

// JoinAs enrols an agent with the keys that it has.
func (e *Estate) JoinAs(tenantID string, a *FakeAgent) {
	e.T.Helper()
	token, _, err := e.Enrollment.Invite(e.T.Context(), "operator:kari", tenantID, a.Name, 0)
	if err != nil {
		e.T.Fatal(err)
	}
	r, err := e.Enrollment.Enroll(e.T.Context(), a.EnrollRequest(token, Exporter("join")), Exporter("join"))
	if err != nil {
		e.T.Fatal(err)
	}
	a.Enrolled(r)
}

// Record makes a record as the journal does, with a salt and a header.
func (a *FakeAgent) Record(typ auditv1.Type, body *auditv1.Body) *auditv1.Record {
	a.T.Helper()
	encoded, err := planv1.Encode(body)
	if err != nil {
		a.T.Fatal(err)
	}
	salt := make([]byte, 16)
	if _, err := io.ReadFull(a.rand, salt); err != nil {
		a.T.Fatal(err)
	}
	a.At = a.At.Add(time.Second)
	sum := sha256.Sum256(append(append([]byte{}, salt...), encoded...))
	header, err := planv1.Encode(&auditv1.Header{
		Format: 1, Type: typ, At: timestamppb.New(a.At), Tenant: a.Tenant, Actor: "spiffe://" + TrustDomain + "/tenant/" + a.Tenant + "/agent/" + a.Name, BodyHash: sum[:],
	})
	if err != nil {
		a.T.Fatal(err)
	}
	return &auditv1.Record{Header: header, Salt: salt, Body: encoded}
}

// Started is some body of a record.
func Started(n int) *auditv1.Body {
	return &auditv1.Body{Body: &auditv1.Body_Act{Act: &auditv1.Act{Verb: "start", Object: fmt.Sprint(n)}}}
}

// Batch commits n records to the chain and signs its head.
func (a *FakeAgent) Batch(n int) *auditv1.Batch {
	a.T.Helper()
	var records []*auditv1.Record
	for i := range n {
		records = append(records, a.Record(auditv1.Type_TYPE_AGENT_STARTED, Started(int(a.Head.Next)+i)))
	}
	return a.Commit(records...)
}

// Commit puts records on the chain and signs its head.
func (a *FakeAgent) Commit(records ...*auditv1.Record) *auditv1.Batch {
	a.T.Helper()
	b := &auditv1.Batch{Agent: a.Name, Epoch: a.Epoch, First: a.Head.Next, Records: records}
	for _, r := range records {
		a.Head = chain.Head{Next: a.Head.Next + 1, Link: chain.Link(a.Head.Link, a.Head.Next, r.GetHeader())}
	}
	b.Head = a.Sign(a.Audit, a.ChainHead())
	return b
}

// ChainHead is the unsigned head of the chain as it is.
func (a *FakeAgent) ChainHead() *auditv1.ChainHead {
	return &auditv1.ChainHead{
		Format: 1, TrustDomain: TrustDomain, Tenant: a.Tenant, Agent: a.Name, Epoch: a.Epoch,
		Length: a.Head.Next, Hash: a.Head.Link[:], At: timestamppb.New(a.At),
	}
}

// Sign makes a chain head's envelope.
func (a *FakeAgent) Sign(key ed25519.PrivateKey, h *auditv1.ChainHead) []byte {
	a.T.Helper()
	payload, err := planv1.Encode(h)
	if err != nil {
		a.T.Fatal(err)
	}
	env, err := dsse.Sign(dsse.ChainHead, payload, key)
	if err != nil {
		a.T.Fatal(err)
	}
	return env
}

// Ship sends a batch that must be taken whole.
func (e *Estate) Ship(a *FakeAgent, b *auditv1.Batch) *agentv1.ShipRecordsResponse {
	e.T.Helper()
	answer, err := e.Intake.Ship(e.T.Context(), a.Tenant, a.Name, b, 0)
	if err != nil {
		e.T.Fatal(err)
	}
	if want := b.GetFirst() + uint64(len(b.GetRecords())); answer.GetLength() < want {
		e.T.Fatalf("%d records are durable, want %d", answer.GetLength(), want)
	}
	return answer
}
