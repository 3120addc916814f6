// Package admissiontest is a fake MSP for tests of the agent: it makes plans,
// enters the acts behind them into a tenant log of its own, and signs orders, right
// or, on request, wrong. admission's and executor's tests use it.
package admissiontest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"iter"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/tlogproof"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Origin is the fake tenant log's origin.
const Origin = "msp.example/fabrikam"

// Identity is the agent that orders are for.
var Identity = journal.Identity{TrustDomain: "msp.example", Tenant: "fabrikam", Agent: "dc1", Epoch: 1}

// Key returns a fixed Ed25519 key; different seeds give different keys.
func Key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

var planKey, logKey = Key(2), Key(3)

// MSP signs orders with rising sequences.
type MSP struct {
	T        testing.TB
	Sequence uint64
	leaves   [][]byte
}

// Edits are what a test wants otherwise than right; nil leaves it right.
type Edits struct {
	Manifest func(*planv1.Manifest)
	// Chunk edits a chunk's bytes before its digest is listed, Sent after.
	Chunk, Sent func([]byte) []byte
	Acts        func([]*auditv1.Header) []*auditv1.Header
	Order       func(*planv1.Order)
	// Payload edits the order's bytes before they are signed.
	Payload func([]byte) []byte
	Type    dsse.PayloadType
	Key     ed25519.PrivateKey
}

// Trust is what an agent that trusts this MSP stands on.
func (m *MSP) Trust() (admission.Trust, error) {
	public := planKey.Public().(ed25519.PublicKey)
	v, err := tlogproof.NewVerifier(Origin, logKey.Public().(ed25519.PublicKey))
	return admission.Trust{PlanKeys: map[string]ed25519.PublicKey{keys.ID(public): public}, Checkpoints: []note.Verifier{v}}, err
}

// Order signs an order over a plan of these changes for the aliases. It may run
// from a minute before now for 72 hours.
func (m *MSP) Order(now time.Time, aliases []string, changes []*planv1.Change, e Edits) (id string, d admission.Delivery) {
	m.T.Helper()
	m.Sequence++
	id = fmt.Sprintf("order-%d", m.Sequence)
	var sent [][]byte
	var refs []*planv1.ChunkRef
	for len(changes) > 0 {
		n := min(len(changes), 200)
		raw := m.encode(&planv1.Chunk{Salt: bytes.Repeat([]byte{5}, 16), Changes: changes[:n]})
		if e.Chunk != nil {
			raw = e.Chunk(raw)
		}
		refs = append(refs, &planv1.ChunkRef{Agent: Identity.Agent, Digest: planv1.Digest(raw), Size: uint32(len(raw)), Changes: uint32(n)})
		if e.Sent != nil {
			raw = e.Sent(bytes.Clone(raw))
		}
		sent, changes = append(sent, raw), changes[n:]
	}
	manifest := &planv1.Manifest{
		Format: 1, Plan: "plan-" + id, TrustDomain: Identity.TrustDomain, Tenant: Identity.Tenant,
		Audiences: []*planv1.Audience{{Agent: Identity.Agent, Connectors: aliases}}, Chunks: refs, PolicyVersion: "7",
	}
	if e.Manifest != nil {
		e.Manifest(manifest)
	}
	rawManifest := m.encode(manifest)
	digest := planv1.Digest(rawManifest)
	acts := []*auditv1.Header{
		{Format: 1, Type: auditv1.Type_TYPE_PLAN_MADE, Tenant: Identity.Tenant, Actor: "operator:kari", PlanDigest: digest},
		{Format: 1, Type: auditv1.Type_TYPE_PLAN_APPROVED, Tenant: Identity.Tenant, Actor: "operator:ola", PlanDigest: digest},
	}
	if e.Acts != nil {
		acts = e.Acts(acts)
	}
	order := &planv1.Order{
		Format: 1, Order: id, PlanDigest: digest, TrustDomain: Identity.TrustDomain, Tenant: Identity.Tenant, Agent: Identity.Agent,
		Epoch: Identity.Epoch, Sequence: m.Sequence,
		NotBefore: timestamppb.New(now.Add(-time.Minute)), Expires: timestamppb.New(now.Add(72 * time.Hour)),
		Approvals: []*planv1.Approval{{Kind: planv1.Approval_KIND_OPERATOR, Actor: "operator:ola", PlanDigest: digest}},
		Proofs:    m.prove(acts),
	}
	if e.Order != nil {
		e.Order(order)
	}
	payload := m.encode(order)
	if e.Payload != nil {
		payload = e.Payload(payload)
	}
	key, typ := planKey, dsse.Order
	if e.Key != nil {
		key = e.Key
	}
	if e.Type != "" {
		typ = e.Type
	}
	envelope, err := dsse.Sign(typ, payload, key)
	m.check(err)
	return id, admission.Delivery{Envelope: envelope, Manifest: rawManifest, Chunks: Stream(sent)}
}

// Stream yields chunks as a connection would.
func Stream(chunks [][]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, c := range chunks {
			if !yield(c, nil) {
				return
			}
		}
	}
}

// Checkpoint signs a checkpoint of the log as it stands, or, forked, of another
// history of the same size.
func (m *MSP) Checkpoint(forked bool) string {
	m.T.Helper()
	n := int64(len(m.leaves))
	root, err := tlog.TreeHash(n, m.hashes())
	m.check(err)
	if forked {
		root[0] ^= 1
	}
	signer, err := tlogproof.NewSigner(Origin, logKey)
	m.check(err)
	signed, err := tlogproof.SignCheckpoint(tlogproof.Checkpoint{Origin: Origin, Size: n, Hash: root}, signer)
	m.check(err)
	return string(signed)
}

// Growth proves how the log grew, as admission.Options asks.
func (m *MSP) Growth(_ context.Context, from, to uint64) (tlog.TreeProof, error) {
	return tlog.ProveTree(int64(to), int64(from), m.hashes())
}

func (m *MSP) prove(acts []*auditv1.Header) []*planv1.InclusionProof {
	first := len(m.leaves)
	for i, h := range acts {
		m.leaves = append(m.leaves, m.encode(&auditv1.Entry{Index: uint64(first + i), Header: m.encode(h)}))
	}
	checkpoint := m.Checkpoint(false)
	var out []*planv1.InclusionProof
	for i := first; i < len(m.leaves); i++ {
		proof, err := tlog.ProveRecord(int64(len(m.leaves)), int64(i), m.hashes())
		m.check(err)
		p := &planv1.InclusionProof{Checkpoint: checkpoint, Index: uint64(i), Entry: m.leaves[i]}
		for _, h := range proof {
			p.Hashes = append(p.Hashes, h[:])
		}
		out = append(out, p)
	}
	return out
}

func (m *MSP) hashes() tlog.HashReaderFunc {
	var stored []tlog.Hash
	read := func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for k, x := range at {
			out[k] = stored[x]
		}
		return out, nil
	}
	for i, leaf := range m.leaves {
		h, err := tlog.StoredHashes(int64(i), leaf, tlog.HashReaderFunc(read))
		m.check(err)
		stored = append(stored, h...)
	}
	return read
}

func (m *MSP) encode(p proto.Message) []byte {
	raw, err := planv1.Encode(p)
	m.check(err)
	return raw
}

func (m *MSP) check(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}
