package intake

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/pki/chain"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Each wraps the enrollment error that says what it means for the agent, so that
// whoever answers agents needs to know only those.
var (
	// ErrMalformed means a batch that is not one, or a record in it.
	ErrMalformed = fmt.Errorf("malformed batch of records: %w", enrollment.ErrInvalid)
	// ErrSignature means a chain head that the agent's enrolled audit key did not
	// sign for exactly this chain.
	ErrSignature = fmt.Errorf("chain head is not signed for this chain: %w", enrollment.ErrProof)
	// ErrEpoch means records of an epoch that is not the agent's present one.
	ErrEpoch = fmt.Errorf("records are of another epoch: %w", enrollment.ErrEpoch)
	// ErrQuarantined means records of a journal that was put back: none of them
	// count. The next epoch's do.
	ErrQuarantined = fmt.Errorf("the agent is in quarantine until `reeve-agent recover`: %w", enrollment.ErrConflict)
	// ErrFork means records that contradict what the same agent shipped before.
	// The agent is suspended.
	ErrFork = fmt.Errorf("records contradict what this agent shipped before: %w", enrollment.ErrSuspended)
)

const (
	// MaxRecords and MaxBytes bound one batch.
	MaxRecords = 10_000
	MaxBytes   = 14 << 20
	format     = 1
)

// read is a batch whose own words have been checked, but not yet its place in
// the chain.
type read struct {
	batch   *auditv1.Batch
	headers []*auditv1.Header
	// bodies are nil where the agent had erased one.
	bodies []*auditv1.Body
	head   *auditv1.ChainHead
	// encoded and leaves are what the log keeps of it.
	encoded []byte
	leaves  []auditlog.Leaf
	// by is the key whose signature was checked ahead; nil for none.
	by ed25519.PublicKey
}

// end is the chain's length after the batch.
func (r *read) end() uint64 { return r.batch.GetFirst() + uint64(len(r.batch.GetRecords())) }

// check decodes everything strictly and checks what needs no state.
func check(trustDomain, tenant, agent string, b *auditv1.Batch) (*read, error) {
	n := len(b.GetRecords())
	if n == 0 || n > MaxRecords || proto.Size(b) > MaxBytes || len(b.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("%w: %d records in %d bytes", ErrMalformed, n, proto.Size(b))
	}
	if b.GetAgent() != agent || b.GetFirst()+uint64(n) < b.GetFirst() {
		return nil, fmt.Errorf("%w: it is not of this agent", ErrMalformed)
	}
	r := &read{batch: b, head: &auditv1.ChainHead{}, headers: make([]*auditv1.Header, n), bodies: make([]*auditv1.Body, n)}
	for i, record := range b.GetRecords() {
		if err := r.record(i, tenant, record); err != nil {
			return nil, fmt.Errorf("%w: record %d: %w", ErrMalformed, b.GetFirst()+uint64(i), err)
		}
	}
	payload, err := dsse.UnverifiedPayload(b.GetHead(), dsse.ChainHead)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	if err := planv1.Decode(payload, r.head); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	h := r.head
	if h.GetFormat() != format || h.GetTrustDomain() != trustDomain || h.GetTenant() != tenant || h.GetAgent() != agent ||
		h.GetEpoch() != b.GetEpoch() || h.GetLength() != r.end() || len(h.GetHash()) != chain.Size {
		return nil, fmt.Errorf("%w: it names another chain or length", ErrSignature)
	}
	return r, r.encode()
}

// encode makes what the log keeps, here and not in the writer's transaction.
func (r *read) encode() (err error) {
	if r.encoded, err = planv1.Encode(r.batch); err != nil {
		return fmt.Errorf("encode batch: %w", err)
	}
	r.leaves, err = auditlog.BatchLeaves(r.batch)
	return err
}

func (r *read) record(i int, tenant string, record *auditv1.Record) error {
	if len(record.ProtoReflect().GetUnknown()) > 0 {
		return errors.New("unknown field")
	}
	h := &auditv1.Header{}
	if err := planv1.Decode(record.GetHeader(), h); err != nil {
		return err
	}
	// Types from 32 on are the control plane's: an agent must not be able to
	// enrol a key.
	if h.GetFormat() != format || h.GetTenant() != tenant || h.GetType() <= 0 || h.GetType() >= auditv1.Type_TYPE_TENANT_ADDED {
		return fmt.Errorf("header of format %d and type %d does not belong to an agent of this tenant", h.GetFormat(), h.GetType())
	}
	r.headers[i] = h
	if len(record.GetSalt()) == 0 && len(record.GetBody()) == 0 {
		// The verifier accepts a missing body only with a record of its erasure,
		// and that is the control plane's to make, later.
		return errors.New("body is missing")
	}
	if len(record.GetSalt()) != auditlog.SaltSize || !bytes.Equal(auditlog.BodyHash(record.GetSalt(), record.GetBody()), h.GetBodyHash()) {
		return errors.New("body is not what was hashed")
	}
	r.bodies[i] = &auditv1.Body{}
	if err := planv1.Decode(record.GetBody(), r.bodies[i]); err != nil {
		return err
	}
	return nil
}

// signed checks the head's signature by the enrolled key.
func (r *read) signed(pub ed25519.PublicKey) error {
	if _, _, err := dsse.Verify(r.batch.GetHead(), dsse.ChainHead, map[string]ed25519.PublicKey{keys.ID(pub): pub}, 1); err != nil {
		return fmt.Errorf("%w: %w", ErrSignature, err)
	}
	return nil
}

// links walks from the link before the record at chain index from to the signed
// head and reports whether it arrives.
func (r *read) links(from uint64, link [chain.Size]byte) bool {
	for at := from; at < r.end(); at++ {
		link = chain.Link(link, at, r.batch.GetRecords()[at-r.batch.GetFirst()].GetHeader())
	}
	return bytes.Equal(link[:], r.head.GetHash())
}

// tail is the batch from chain index from on, under the same signed head.
func (r *read) tail(from uint64) (*read, error) {
	skip := from - r.batch.GetFirst()
	if skip == 0 {
		return r, nil
	}
	out := *r
	out.batch = &auditv1.Batch{Agent: r.batch.GetAgent(), Epoch: r.batch.GetEpoch(), First: from, Records: r.batch.GetRecords()[skip:], Head: r.batch.GetHead()}
	out.headers, out.bodies = r.headers[skip:], r.bodies[skip:]
	return &out, out.encode()
}

// at is when the agent says that a record was made.
func at(h *auditv1.Header) time.Time { return h.GetAt().AsTime() }
