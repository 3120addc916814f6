package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc"

	"github.com/reevehq/reeve/pki/tlogproof"
	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// ErrUnproven means that the control plane did not prove records to be in the
// log: they stay in the spool.
var ErrUnproven = errors.New("the control plane did not prove that records are in the log")

// Spool is the agent's records that wait to be proven in the log.
type Spool interface {
	// Proven is how many records, from the first, are proven and need not be
	// sent.
	Proven() uint64
	// Spool returns a signed batch from that record on; nil when there is none.
	Spool(ctx context.Context, after uint64, max int) (*auditv1.Batch, error)
	// Purge lets go of the records below upTo, all of them proven.
	Purge(ctx context.Context, upTo uint64) error
	// Appended gets a value when there may be new records.
	Appended() <-chan struct{}
}

// Acquirer lends the present connection's client.
type Acquirer interface {
	Acquire(ctx context.Context) (agentv1.AgentServiceClient, func(), error)
}

// Shipper brings records into the tenant's log.
type Shipper struct {
	Link    Acquirer
	Spool   Spool
	Witness *Witness
	Logger  *slog.Logger
	// Pause is the longest wait before trying again; 0 is one minute.
	Pause time.Duration
	// Poll is how often the spool is looked at without being told; 0 is 30 s.
	Poll time.Duration
}

// batchRecords is about how many records travel together.
const batchRecords = 256

// shipTimeout is how long one batch may take to be durable and proven.
const shipTimeout = 2 * time.Minute

// Run ships until ctx ends.
func (s *Shipper) Run(ctx context.Context) {
	most, poll := s.Pause, s.Poll
	if most <= 0 {
		most = time.Minute
	}
	if poll <= 0 {
		poll = 30 * time.Second
	}
	pause := min(time.Second, most)
	for ctx.Err() == nil {
		err := s.drain(ctx)
		wait := poll
		if err != nil && ctx.Err() == nil {
			s.Logger.Warn("records could not be shipped", "error", sdk.Clean(err.Error()))
			wait = pause/2 + rand.N(pause/2+1)
			pause = min(2*pause, most)
		} else {
			pause = min(time.Second, most)
		}
		var appended <-chan struct{}
		if err == nil {
			appended = s.Spool.Appended()
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		case <-appended:
		}
	}
}

// drain ships until nothing waits.
func (s *Shipper) drain(ctx context.Context) error {
	batch, err := s.Spool.Spool(ctx, s.Spool.Proven(), batchRecords)
	if err != nil || batch == nil {
		return err
	}
	client, release, err := s.Link.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.ShipRecords(ctx)
	if err != nil {
		return fmt.Errorf("ship records: %w", err)
	}
	for batch != nil {
		if err := s.ship(ctx, cancel, stream, batch); err != nil {
			return err
		}
		if batch, err = s.Spool.Spool(ctx, s.Spool.Proven(), batchRecords); err != nil {
			return err
		}
	}
	return stream.CloseSend()
}

func (s *Shipper) ship(ctx context.Context, cancel context.CancelFunc, stream grpc.BidiStreamingClient[agentv1.ShipRecordsRequest, agentv1.ShipRecordsResponse], batch *auditv1.Batch) error {
	// A control plane that hangs must not hold the records for ever.
	timer := time.AfterFunc(shipTimeout, cancel)
	defer timer.Stop()
	held := s.Witness.Held()
	// An error of Send tells less than the one that Recv then returns.
	_ = stream.Send(&agentv1.ShipRecordsRequest{Batch: batch, CosignedSize: uint64(held.Size)})
	answer, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("ship records: %w", err)
	}
	end := batch.GetFirst() + uint64(len(batch.GetRecords()))
	if answer.GetEpoch() != batch.GetEpoch() || answer.GetLength() < end {
		return fmt.Errorf("%w: it holds %d of epoch %d, %d of epoch %d were sent", ErrUnproven, answer.GetLength(), answer.GetEpoch(), end, batch.GetEpoch())
	}
	if err := s.proven(ctx, held, batch, answer); err != nil {
		return err
	}
	return s.Spool.Purge(context.WithoutCancel(ctx), end)
}

// proven checks that every record of the batch is in the log, under a checkpoint
// that continues the one cosigned last.
func (s *Shipper) proven(ctx context.Context, held tlogproof.Checkpoint, batch *auditv1.Batch, answer *agentv1.ShipRecordsResponse) error {
	checkpoint, err := s.Witness.Open(ctx, answer.GetCheckpoint(), held, answer.GetConsistency())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if len(answer.GetProofs()) != len(batch.GetRecords()) {
		return fmt.Errorf("%w: %d proofs for %d records", ErrUnproven, len(answer.GetProofs()), len(batch.GetRecords()))
	}
	for i, record := range batch.GetRecords() {
		index := batch.GetFirst() + uint64(i)
		if err := included(checkpoint, answer.GetProofs()[i], batch, index, record); err != nil {
			return fmt.Errorf("%w: record %d: %w", ErrUnproven, index, err)
		}
	}
	return nil
}

func included(c tlogproof.Checkpoint, p *planv1.InclusionProof, batch *auditv1.Batch, index uint64, record *auditv1.Record) error {
	var entry auditv1.Entry
	if err := planv1.Decode(p.GetEntry(), &entry); err != nil {
		return err
	}
	if entry.GetAgent() != batch.GetAgent() || entry.GetEpoch() != batch.GetEpoch() || entry.GetIndex() != index || !bytes.Equal(entry.GetHeader(), record.GetHeader()) {
		return errors.New("the log entry is of another record")
	}
	proof, err := hashes(p.GetHashes())
	if err != nil {
		return err
	}
	return tlogproof.CheckInclusion(tlog.RecordProof(proof), c, int64(p.GetIndex()), tlogproof.LeafHash(p.GetEntry()))
}
