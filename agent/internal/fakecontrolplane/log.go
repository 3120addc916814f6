package fakecontrolplane

import (
	"bytes"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/pki/tlogproof"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// log is the tenant's Merkle log, in memory.
type log struct {
	signer  note.Signer
	entries [][]byte
	hashes  []tlog.Hash
	// place is where each of an epoch's records is.
	place map[uint64][]int
}

func newLog(signer note.Signer) *log { return &log{signer: signer, place: map[uint64][]int{}} }

func (l *log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		out[i] = l.hashes[x]
	}
	return out, nil
}

func (l *log) append(entry []byte) error {
	added, err := tlog.StoredHashes(int64(len(l.entries)), entry, l)
	if err != nil {
		return err
	}
	l.entries = append(l.entries, entry)
	l.hashes = append(l.hashes, added...)
	return nil
}

func (l *log) checkpoint() (string, error) {
	c := tlogproof.Checkpoint{Origin: Origin, Size: int64(len(l.entries))}
	var err error
	if c.Hash, err = tlog.TreeHash(c.Size, l); err != nil {
		return "", err
	}
	signed, err := tlogproof.SignCheckpoint(c, l.signer)
	return string(signed), err
}

func (l *log) consistency(from uint64) ([][]byte, error) {
	if from == 0 || from >= uint64(len(l.entries)) {
		return nil, nil
	}
	proof, err := tlog.ProveTree(int64(len(l.entries)), int64(from), l)
	return raw(proof), err
}

// growth proves that the first to entries continue the first from.
func (l *log) growth(from, to uint64) ([][]byte, error) {
	if from == 0 || from >= to || to > uint64(len(l.entries)) {
		return nil, nil
	}
	proof, err := tlog.ProveTree(int64(to), int64(from), l)
	return raw(proof), err
}

func raw[P ~[]tlog.Hash](proof P) [][]byte {
	out := make([][]byte, len(proof))
	for i := range proof {
		out[i] = proof[i][:]
	}
	return out
}

// Append puts an act of the control plane into the log.
func (c *ControlPlane) Append(header []byte) {
	entry, err := planv1.Encode(&auditv1.Entry{Header: header})
	must(c.tb, err)
	c.Lock()
	defer c.Unlock()
	must(c.tb, c.log.append(entry))
}

// Records counts the agent's records in the log, and those that are there more
// than once.
func (c *ControlPlane) Records(epoch uint64) (held, twice int) {
	c.Lock()
	defer c.Unlock()
	seen := map[string]int{}
	for _, e := range c.log.entries {
		var entry auditv1.Entry
		must(c.tb, planv1.Decode(e, &entry))
		if entry.GetAgent() == "" || entry.GetEpoch() != epoch {
			continue
		}
		held++
		key := fmt.Sprint(entry.GetAgent(), entry.GetIndex())
		if seen[key]++; seen[key] > 1 {
			twice++
		}
	}
	return held, twice
}

// Fork replaces the log by one with the same number of other entries.
func (c *ControlPlane) Fork() {
	c.Lock()
	defer c.Unlock()
	forged := newLog(c.signer)
	for i := range c.log.entries {
		entry, err := planv1.Encode(&auditv1.Entry{Agent: "forged", Epoch: 9, Index: uint64(i)})
		must(c.tb, err)
		must(c.tb, forged.append(entry))
	}
	forged.place = c.log.place
	c.log = forged
}

// Checkpoint is the newest checkpoint with the proof from size.
func (c *ControlPlane) Checkpoint(from uint64) *agentv1.Checkpoint {
	c.Lock()
	defer c.Unlock()
	signed, err := c.log.checkpoint()
	must(c.tb, err)
	proof, err := c.log.consistency(from)
	must(c.tb, err)
	return &agentv1.Checkpoint{Note: signed, FromSize: from, Consistency: proof}
}

// ShipRecords implements agentv1.AgentServiceServer.
func (c *ControlPlane) ShipRecords(stream grpc.BidiStreamingServer[agentv1.ShipRecordsRequest, agentv1.ShipRecordsResponse]) error {
	agent, err := c.caller(stream.Context())
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	for {
		r, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		answer, err := c.take(agent, r)
		if err != nil {
			return err
		}
		if answer == nil {
			return status.Error(codes.Unavailable, "cut after the records were stored")
		}
		if err := stream.Send(answer); err != nil {
			return err
		}
	}
}

func (c *ControlPlane) take(agent *Agent, r *agentv1.ShipRecordsRequest) (*agentv1.ShipRecordsResponse, error) {
	c.Lock()
	defer c.Unlock()
	b := r.GetBatch()
	place := c.log.place[b.GetEpoch()]
	if b.GetFirst() > uint64(len(place)) {
		return nil, status.Error(codes.FailedPrecondition, "records are missing before this batch")
	}
	for i, record := range b.GetRecords() {
		index := b.GetFirst() + uint64(i)
		entry, err := planv1.Encode(&auditv1.Entry{Agent: agent.ID.Agent, Epoch: b.GetEpoch(), Index: index, Header: record.GetHeader()})
		if err != nil {
			return nil, err
		}
		if index < uint64(len(place)) {
			if !bytes.Equal(c.log.entries[place[index]], entry) {
				return nil, status.Error(codes.DataLoss, "a record came again with another content")
			}
			continue
		}
		place = append(place, len(c.log.entries))
		if err := c.log.append(entry); err != nil {
			return nil, err
		}
	}
	c.log.place[b.GetEpoch()] = place
	if c.CutShipping > 0 {
		c.CutShipping--
		return nil, nil
	}
	signed, err := c.log.checkpoint()
	if err != nil {
		return nil, err
	}
	answer := &agentv1.ShipRecordsResponse{Epoch: b.GetEpoch(), Length: uint64(len(place)), Checkpoint: signed}
	if answer.Consistency, err = c.log.consistency(r.GetCosignedSize()); err != nil {
		return nil, err
	}
	for i := range b.GetRecords() {
		at := place[b.GetFirst()+uint64(i)]
		proof, err := tlog.ProveRecord(int64(len(c.log.entries)), int64(at), c.log)
		if err != nil {
			return nil, err
		}
		answer.Proofs = append(answer.Proofs, &planv1.InclusionProof{Index: uint64(at), Entry: c.log.entries[at], Hashes: raw(proof)})
	}
	return answer, nil
}
