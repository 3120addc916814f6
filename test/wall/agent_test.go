package wall

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"crypto/ecdsa"
	"crypto/elliptic"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/pki/ca"
	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// agentOf begins the names of the agents' methods.
const agentOf = "reeve.agent.v1.AgentService."

// fakeAgent speaks for an agent as the contract has it, with keys of its own: it
// says what the test wants said, which a real one never would.
type fakeAgent struct {
	tenant, name string
	keys         map[auditv1.KeyEvent_Purpose]ed25519.PrivateKey
	counter      uint64
	head         chain.Head
	svid         *holder
	states       []*agentv1.ConnectorState
	// alias is a connector of the agent's that is no namesake of any.
	alias string
	// first is the first batch that it shipped.
	first *auditv1.Batch
	door  *door
}

func newFakeAgent(tenant, name string) (*fakeAgent, error) {
	a := &fakeAgent{tenant: tenant, name: name, counter: 1, keys: map[auditv1.KeyEvent_Purpose]ed25519.PrivateKey{}}
	a.head = chain.Head{Link: chain.Genesis(domain, tenant, name, 1)}
	for _, purpose := range purposes {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		a.keys[purpose] = key
	}
	return a, nil
}

var purposes = []auditv1.KeyEvent_Purpose{auditv1.KeyEvent_PURPOSE_IDENTITY, auditv1.KeyEvent_PURPOSE_AUDIT, auditv1.KeyEvent_PURPOSE_WITNESS}

// enrolment is the request for a token over the connection of exporter. shown are
// the keys that it shows, proven by the agent's own.
func (a *fakeAgent) enrolment(token string, csr, exporter []byte, shown *fakeAgent) (*agentv1.EnrollRequest, error) {
	r := &agentv1.EnrollRequest{Token: token, Csr: csr, Version: "0.0.0-" + a.name, Agent: a.name}
	for _, purpose := range purposes {
		spki, err := x509.MarshalPKIXPublicKey(shown.keys[purpose].Public())
		if err != nil {
			return nil, err
		}
		r.Keys = append(r.Keys, &auditv1.KeyEvent_Key{Purpose: purpose, PublicKey: spki})
		r.Proofs = append(r.Proofs, ed25519.Sign(a.keys[purpose], agentv1.EnrollmentBinding(exporter, csr)))
	}
	return r, nil
}

// renewal proves the identity key for a new certificate.
func (a *fakeAgent) renewal(csr, exporter, challenge []byte) []byte {
	return ed25519.Sign(a.keys[auditv1.KeyEvent_PURPOSE_IDENTITY], agentv1.RenewalBinding(exporter, challenge, csr, a.counter))
}

// join enrols the agent at the agents' door and opens one of its own.
func (a *fakeAgent) join(address, token string, roots *x509.CertPool) error {
	stranger := open(address, &holder{roots: roots}, false)
	defer stranger.close()
	exporter, err := stranger.exporter()
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	csr, err := ca.NewRequest(key)
	if err != nil {
		return err
	}
	r, err := a.enrolment(token, csr, exporter, a)
	if err != nil {
		return err
	}
	got := stranger.call("reeve.agent.v1.EnrollmentService.Enroll", false, []proto.Message{r})
	if got.failed != nil || got.code != codes.OK {
		return fmt.Errorf("enrol %s of %s: %v %v %s", a.name, a.tenant, got.failed, got.code, got.message)
	}
	e := got.messages[0].(*agentv1.EnrollResponse)
	a.counter = e.GetCounter()
	leaf, err := x509.ParseCertificate(e.GetCertificates()[0])
	if err != nil {
		return err
	}
	a.svid = &holder{&tls.Certificate{Certificate: e.GetCertificates(), PrivateKey: key, Leaf: leaf}, roots}
	a.door = open(address, a.svid, false)
	return nil
}

// must calls a method that has to succeed.
func (a *fakeAgent) must(method string, messages ...proto.Message) ([]proto.Message, error) {
	got := a.door.call(agentOf+method, false, messages)
	if got.failed != nil || got.code != codes.OK {
		return nil, fmt.Errorf("%s of %s: %s: %v %v %s", a.name, a.tenant, method, got.failed, got.code, got.message)
	}
	return got.messages, nil
}

func (a *fakeAgent) hello(more ...*agentv1.ConnectorState) *agentv1.SessionRequest {
	return &agentv1.SessionRequest{Message: &agentv1.SessionRequest_Hello{Hello: &agentv1.Hello{
		Version: "0.0.0-" + a.name, Epoch: 1, Connectors: slices.Concat(a.states, more), ChainLength: a.head.Next, ChainHash: a.head.Link[:],
	}}}
}

// snapshot are the messages of a complete snapshot. header names another
// connector when the test wants that.
func snapshot(alias, id, header, method string, problems []*connectorv1.Problem, objects ...*connectorv1.Object) []proto.Message {
	slices.SortFunc(objects, func(a, b *connectorv1.Object) int { return strings.Compare(a.GetAnchor(), b.GetAnchor()) })
	var set connectorv1.SetDigest
	for _, o := range objects {
		set.Add(o.GetAnchor(), o.Digest())
	}
	sum, count := set.Sum()
	return []proto.Message{
		&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Begin{Begin: &agentv1.SnapshotBegin{Connector: alias, Snapshot: id}}},
		&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_Batch{Batch: &agentv1.ObservedBatch{Objects: objects}}},
		&agentv1.PushObservationsRequest{Message: &agentv1.PushObservationsRequest_End{End: &agentv1.SnapshotEnd{
			Header: &planv1.SnapshotHeader{
				Connector: header, Snapshot: id, Objects: count, SetDigest: sum, Complete: true, ObservedAt: timestamppb.Now(),
			},
			Method: method, Problems: problems,
		}}},
	}
}

// record is one on the chain of the tenant that it names, by whoever makes it.
func record(tenant string, typ auditv1.Type, body *auditv1.Body) (*auditv1.Record, error) {
	encoded, err := planv1.Encode(body)
	if err != nil {
		return nil, err
	}
	salt := make([]byte, 16)
	rand.Read(salt) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	sum := sha256.Sum256(slices.Concat(salt, encoded))
	header, err := planv1.Encode(&auditv1.Header{
		Format: 1, Type: typ, At: timestamppb.Now(), Tenant: tenant, Actor: "local-root", BodyHash: sum[:],
	})
	return &auditv1.Record{Header: header, Salt: salt, Body: encoded}, err
}

// batch puts records on the agent's chain, signed. The chain goes on only with
// commit: what is to be refused must not be missing later.
func (a *fakeAgent) batch(commit bool, records ...*auditv1.Record) (*auditv1.Batch, error) {
	b := &auditv1.Batch{Agent: a.name, Epoch: 1, First: a.head.Next, Records: records}
	head := a.head
	for _, r := range records {
		head = chain.Head{Next: head.Next + 1, Link: chain.Link(head.Link, head.Next, r.GetHeader())}
	}
	payload, err := planv1.Encode(&auditv1.ChainHead{
		Format: 1, TrustDomain: domain, Tenant: a.tenant, Agent: a.name, Epoch: 1, Length: head.Next, Hash: head.Link[:], At: timestamppb.Now(),
	})
	if err != nil {
		return nil, err
	}
	if b.Head, err = dsse.Sign(dsse.ChainHead, payload, a.keys[auditv1.KeyEvent_PURPOSE_AUDIT]); err != nil {
		return nil, err
	}
	if commit {
		a.head = head
	}
	if a.first == nil {
		a.first = b
	}
	return b, nil
}

// ship commits bodies as records and ships them.
func (a *fakeAgent) ship(typ auditv1.Type, bodies ...*auditv1.Body) error {
	var records []*auditv1.Record
	for _, body := range bodies {
		r, err := record(a.tenant, typ, body)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	b, err := a.batch(true, records...)
	if err != nil {
		return err
	}
	_, err = a.must("ShipRecords", &agentv1.ShipRecordsRequest{Batch: b})
	return err
}
