package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	"github.com/reevehq/reeve/pki/chain"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Store keeps how far each chain has come. Methods work inside one transaction.
type Store interface {
	// Head returns ok false for a chain without records.
	Head(t tx.Tx, tenant, agent string, epoch uint64) (h chain.Head, ok bool, err error)
	// Advance returns an error unless the chain had from records.
	Advance(t tx.Tx, tenant, agent string, epoch, from uint64, to chain.Head) error
}

// Plans finds what a receipt is about. For both, ok false means that the receipt
// may move nothing: it speaks for another agent, or of what was never planned.
type Plans interface {
	// Change is the planned change that an agent carried out, nil for what it did
	// by itself.
	Change(t tx.Tx, tenant, agent string, r *auditv1.Receipt) (change *planv1.Change, ok bool, err error)
	// Look is what the ledger must know of the connector's object type.
	Look(t tx.Tx, tenant, agent, connector, objectType string) (look planner.Look, ok bool, err error)
}

// Ledger is moved by receipts; package ledger is it.
type Ledger interface {
	Apply(t tx.Tx, tenant string, look planner.Look, change *planv1.Change, r *auditv1.Receipt, written time.Time) error
}

// Record is one record as it came in.
type Record struct {
	Tenant, Agent string
	Epoch         uint64
	// Index in the agent's chain, Entry in the tenant's log.
	Index, Entry uint64
	Header       *auditv1.Header
	Body         *auditv1.Body
	// Change is the planned change of a receipt; nil for other records and for
	// what the agent did by itself.
	Change *planv1.Change
	// Idle is true for a receipt that may move nothing: it speaks for another
	// agent, or of what was never planned. The log keeps it all the same.
	Idle bool
}

// Receiver acts on records: links of created accounts, progress of orders, ends
// of grants. It is called inside the transaction that makes the record durable,
// once a record and in the chain's order. What a record says is the agent's
// word: an order or change that does not exist is to be ignored, since an error
// keeps the agent from ever shipping on.
type Receiver interface {
	Received(t tx.Tx, r Record) error
}

// Config is what New needs.
type Config struct {
	DB          *tx.DB
	Store       Store
	Log         *auditlog.Log
	Enrollment  *enrollment.Service
	Ledger      Ledger
	Plans       Plans
	Receivers   []Receiver
	TrustDomain string
	Logger      *slog.Logger
}

// Service takes batches in. Run must be running for Ship to answer. It is safe
// for concurrent use.
type Service struct {
	Config
	queue *queue
	known known
	lanes tenant.Lanes
}

// New returns the service.
func New(c Config) *Service { return &Service{Config: c, queue: newQueue()} }

// take stores a batch inside the transaction and says up to where its agent's
// chain is durable. fork is set, and nothing but the suspension written, when
// the records contradict earlier ones.
func (s *Service) take(t tx.Tx, tenant, agent string, r *read) (a answer, err error) {
	who, err := s.Enrollment.Lookup(t, tenant, agent)
	if err != nil {
		return answer{}, err
	}
	if err := who.Err(); err != nil {
		return answer{}, err
	}
	if who.Quarantine != "" && r.batch.GetEpoch() == who.Epoch {
		// Its records must contradict what is known, and would suspend an agent
		// that only waits for local root.
		return answer{}, ErrQuarantined
	}
	pub, live, err := s.Enrollment.PublicKey(t, tenant, agent, r.batch.GetEpoch(), auditv1.KeyEvent_PURPOSE_AUDIT)
	if errors.Is(err, enrollment.ErrNotFound) || err == nil && !live {
		return answer{}, fmt.Errorf("%w: epoch %d, present is %d", ErrEpoch, r.batch.GetEpoch(), who.Epoch)
	}
	if err != nil {
		return answer{}, err
	}
	if !bytes.Equal(r.by, pub) {
		if err := r.signed(pub); err != nil {
			return answer{}, err
		}
		s.known.put(signer{tenant, agent, r.batch.GetEpoch()}, pub)
	}
	head, err := s.head(t, tenant, agent, r.batch.GetEpoch())
	if err != nil {
		return answer{}, err
	}
	if r.batch.GetFirst() > head.Next {
		return answer{length: head.Next, gap: true}, nil
	}
	fits, err := s.repeats(t, tenant, agent, r, head)
	if err != nil {
		return answer{}, err
	}
	if !fits {
		sentence := fmt.Sprintf("agent %s shipped records up to %d of epoch %d that contradict those it shipped before", agent, r.end()-1, r.batch.GetEpoch())
		return answer{fork: true}, s.Enrollment.Suspend(t, tenant, agent, "fork", sentence)
	}
	if r.end() > head.Next {
		rest, err := r.tail(head.Next)
		if err != nil {
			return answer{}, err
		}
		first, err := s.append(t, tenant, agent, rest, head)
		return answer{length: r.end(), placed: &placed{first: first, leaves: rest.leaves}}, err
	}
	return answer{length: head.Next}, nil
}

func (s *Service) head(t tx.Tx, tenant, agent string, epoch uint64) (chain.Head, error) {
	head, ok, err := s.Store.Head(t, tenant, agent, epoch)
	if err == nil && !ok {
		head = chain.Head{Link: chain.Genesis(s.TrustDomain, tenant, agent, epoch)}
	}
	return head, err
}

// repeats compares the part of the batch that is known already with what is
// stored, and the rest with the signed head.
func (s *Service) repeats(t tx.Tx, tenant, agent string, r *read, head chain.Head) (bool, error) {
	for next := r.batch.GetFirst(); next < min(r.end(), head.Next); {
		stored, err := s.Log.BatchesOf(t, tenant, agent, r.batch.GetEpoch(), next, 8)
		if err != nil {
			return false, err
		}
		if len(stored) == 0 {
			return false, fmt.Errorf("%w: record %d of agent %s is not there", auditlog.ErrCorrupt, next, agent)
		}
		for _, old := range stored {
			var b auditv1.Batch
			if err := proto.Unmarshal(old.Batch, &b); err != nil {
				return false, fmt.Errorf("%w: %w", auditlog.ErrCorrupt, err)
			}
			for ; next < old.Chain+old.Count && next < r.end(); next++ {
				if !bytes.Equal(b.GetRecords()[next-old.Chain].GetHeader(), r.batch.GetRecords()[next-r.batch.GetFirst()].GetHeader()) {
					return false, nil
				}
			}
		}
	}
	// A known part that is the same needs no walk: its links are those of head.
	return r.end() < head.Next || r.links(max(head.Next, r.batch.GetFirst()), head.Link), nil
}

func (s *Service) append(t tx.Tx, tenant, agent string, r *read, head chain.Head) (first uint64, err error) {
	if first, err = s.Log.AppendBatch(t, tenant, r.batch, r.encoded, r.leaves); err != nil {
		return 0, err
	}
	to := chain.Head{Next: r.end(), Link: [chain.Size]byte(r.head.GetHash())}
	if err := s.Store.Advance(t, tenant, agent, r.batch.GetEpoch(), head.Next, to); err != nil {
		return 0, err
	}
	for i, h := range r.headers {
		record := Record{
			Tenant: tenant, Agent: agent, Epoch: r.batch.GetEpoch(), Index: r.batch.GetFirst() + uint64(i), Entry: first + uint64(i),
			Header: h, Body: r.bodies[i],
		}
		if err := s.tell(t, record); err != nil {
			return 0, fmt.Errorf("record %d of agent %s: %w", record.Index, agent, err)
		}
	}
	return first, nil
}

func (s *Service) tell(t tx.Tx, r Record) error {
	if receipt := r.Body.GetReceipt(); receipt != nil {
		change, planned, err := s.Plans.Change(t, r.Tenant, r.Agent, receipt)
		if err != nil {
			return err
		}
		look, own, err := s.Plans.Look(t, r.Tenant, r.Agent, receipt.GetConnector(), receipt.GetType())
		if err != nil {
			return err
		}
		if r.Idle = !planned || !own; r.Idle {
			s.Logger.Warn("receipt moves nothing", "tenant", r.Tenant, "agent", r.Agent, "record", r.Index)
		} else {
			r.Change = change
			if err := s.Ledger.Apply(t, r.Tenant, look, change, receipt, at(r.Header)); err != nil {
				return err
			}
		}
	}
	for _, to := range s.Receivers {
		if err := to.Received(t, r); err != nil {
			return err
		}
	}
	return nil
}

// prove fills the acknowledgement of one batch: proofs of its records under the
// newest checkpoint, and that this continues what the agent cosigned.
func (s *Service) prove(ctx context.Context, tenant, agent string, b *auditv1.Batch, length, cosigned uint64) (*agentv1.ShipRecordsResponse, error) {
	out := &agentv1.ShipRecordsResponse{Epoch: b.GetEpoch(), Length: length}
	end := b.GetFirst() + uint64(len(b.GetRecords()))
	err := s.DB.View(ctx, func(t tx.Tx) error {
		sealed, err := s.Log.Sealed(t, tenant)
		if err != nil {
			return err
		}
		out.Checkpoint = sealed.Note
		if out.Consistency, err = s.Log.Consistency(t, tenant, cosigned, sealed.Size); err != nil {
			return fmt.Errorf("from the cosigned size %d: %w", cosigned, err)
		}
		for next := b.GetFirst(); next < end; {
			stored, err := s.Log.BatchesOf(t, tenant, agent, b.GetEpoch(), next, 8)
			if err != nil {
				return err
			}
			if len(stored) == 0 {
				return fmt.Errorf("%w: record %d of agent %s is not there", auditlog.ErrCorrupt, next, agent)
			}
			for _, old := range stored {
				upTo := min(end, old.Chain+old.Count)
				if next >= upTo {
					break
				}
				proofs, err := s.Log.Inclusions(t, tenant, sealed, old.First+next-old.Chain, upTo-next)
				if err != nil {
					return err
				}
				for _, p := range proofs {
					// It stands once, beside them.
					p.Checkpoint = ""
				}
				out.Proofs = append(out.Proofs, proofs...)
				next = upTo
			}
		}
		return nil
	})
	return out, err
}

// Seen is how much of an agent's chain is durable here, with the last link. A
// chain without records answers its genesis.
func (s *Service) Seen(ctx context.Context, tenant, agent string, epoch uint64) (head chain.Head, err error) {
	err = s.DB.View(ctx, func(t tx.Tx) error { head, err = s.head(t, tenant, agent, epoch); return err })
	return head, err
}
