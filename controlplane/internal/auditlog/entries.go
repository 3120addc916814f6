package auditlog

import (
	"fmt"
	"strconv"

	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// page is how many parts are read at once.
const page = 256

// each walks entries from..to-1 in order.
func (l *Log) each(t tx.Tx, tenant string, from, to uint64, f func(index uint64, leaf Leaf) error) error {
	for from < to {
		parts, err := l.store.Parts(t, tenant, from, page)
		if err != nil {
			return err
		}
		if len(parts) == 0 {
			return fmt.Errorf("%w: entry %d of %s is not there", ErrCorrupt, from, tenant)
		}
		for _, p := range parts {
			if p.First > from || p.First+p.Count <= from {
				return fmt.Errorf("%w: entry %d of %s is not there", ErrCorrupt, from, tenant)
			}
			leaves, err := p.Leaves()
			if err != nil {
				return err
			}
			for ; from < p.First+p.Count; from++ {
				if from == to {
					return nil
				}
				if err := f(from, leaves[from-p.First]); err != nil {
					return err
				}
			}
			if from == to {
				return nil
			}
		}
	}
	return nil
}

// Entry is a log entry with what is at hand of its record.
type Entry struct {
	Index uint64
	// Agent is empty for the control plane's own records.
	Agent  string
	Epoch  uint64
	Header *auditv1.Header
	// Body is nil once erased.
	Body *auditv1.Body
}

// Entries returns up to limit entries beginning with from, in order; limit is
// clamped to 1..1000. Past the end it returns none.
func (l *Log) Entries(t tx.Tx, tenant string, from uint64, limit int) ([]Entry, error) {
	size, err := l.Size(t, tenant)
	if err != nil || from >= size {
		return nil, err
	}
	to := min(size, from+uint64(min(max(limit, 1), 1000)))
	bodies, err := l.store.Bodies(t, tenant, from, to)
	if err != nil {
		return nil, err
	}
	if err := l.batchBodies(t, tenant, from, to, bodies); err != nil {
		return nil, err
	}
	var out []Entry
	err = l.each(t, tenant, from, to, func(index uint64, leaf Leaf) error {
		var e auditv1.Entry
		var h auditv1.Header
		if err := proto.Unmarshal(leaf, &e); err != nil {
			return fmt.Errorf("%w: entry %d of %s: %w", ErrCorrupt, index, tenant, err)
		}
		if err := proto.Unmarshal(e.GetHeader(), &h); err != nil {
			return fmt.Errorf("%w: header of entry %d of %s: %w", ErrCorrupt, index, tenant, err)
		}
		entry := Entry{Index: index, Agent: e.GetAgent(), Epoch: e.GetEpoch(), Header: &h}
		if b := bodies[index]; b.Body != nil || b.Salt != nil {
			entry.Body = &auditv1.Body{}
			if err := proto.Unmarshal(b.Body, entry.Body); err != nil {
				return fmt.Errorf("%w: body of entry %d of %s: %w", ErrCorrupt, index, tenant, err)
			}
		}
		out = append(out, entry)
		return nil
	})
	return out, err
}

// Entry returns one entry, or ErrNotFound.
func (l *Log) Entry(t tx.Tx, tenant string, index uint64) (Entry, error) {
	list, err := l.Entries(t, tenant, index, 1)
	if err != nil {
		return Entry{}, err
	}
	if len(list) == 0 {
		return Entry{}, ErrNotFound
	}
	return list[0], nil
}

// batchBodies adds the bodies that stand in agents' batches.
func (l *Log) batchBodies(t tx.Tx, tenant string, from, to uint64, into map[uint64]SaltedBody) error {
	for next := from; next < to; {
		batches, err := l.store.Batches(t, tenant, next, 16)
		if err != nil {
			return err
		}
		if len(batches) == 0 {
			return nil
		}
		for _, stored := range batches {
			if stored.First >= to {
				return nil
			}
			var b auditv1.Batch
			if err := proto.Unmarshal(stored.Batch, &b); err != nil {
				return fmt.Errorf("%w: batch at entry %d of %s: %w", ErrCorrupt, stored.First, tenant, err)
			}
			for i, r := range b.GetRecords() {
				if len(r.GetSalt()) > 0 {
					into[stored.First+uint64(i)] = SaltedBody{Salt: r.GetSalt(), Body: r.GetBody()}
				}
			}
			next = stored.First + stored.Count
		}
	}
	return nil
}

// Erase takes salt and body of the given entries away for good and appends the
// record of it; the headers stay and the log verifies as before. What is erased
// already counts as done. It returns ErrKept for key events and erasures, which
// verification needs, and ErrNotFound for entries that are not there. Backups
// keep what they hold until they expire.
func (l *Log) Erase(t tx.Tx, tenant, actor, reason string, entries ...uint64) (index uint64, err error) {
	if len(entries) == 0 {
		return 0, ErrNotFound
	}
	act := &auditv1.Act{Verb: "erase", Reason: reason}
	for _, at := range entries {
		e, err := l.Entry(t, tenant, at)
		if err != nil {
			return 0, err
		}
		switch e.Header.GetType() {
		case auditv1.Type_TYPE_AGENT_ENROLLED, auditv1.Type_TYPE_AGENT_KEYS_ENDED, auditv1.Type_TYPE_ERASED:
			return 0, fmt.Errorf("%w: entry %d of %s", ErrKept, at, tenant)
		}
		if e.Agent == "" {
			err = l.store.EraseBody(t, tenant, at)
		} else {
			err = l.eraseInBatch(t, tenant, at)
		}
		if err != nil {
			return 0, fmt.Errorf("erase entry %d of %s: %w", at, tenant, err)
		}
		act.Details = append(act.Details, &auditv1.Act_Detail{Name: "entry", Value: strconv.FormatUint(at, 10)})
	}
	return l.AppendAct(t, tenant, &auditv1.Header{Type: auditv1.Type_TYPE_ERASED, Actor: actor}, &auditv1.Body{Body: &auditv1.Body_Act{Act: act}})
}

func (l *Log) eraseInBatch(t tx.Tx, tenant string, at uint64) error {
	batches, err := l.store.Batches(t, tenant, at, 1)
	if err != nil {
		return err
	}
	if len(batches) == 0 || batches[0].First > at {
		return fmt.Errorf("%w: its batch is not there", ErrCorrupt)
	}
	var b auditv1.Batch
	if err := planv1.Decode(batches[0].Batch, &b); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	r := b.GetRecords()[at-batches[0].First]
	r.Salt, r.Body = nil, nil
	// Headers and the signed head are bytes inside the batch and stay verbatim.
	encoded, err := planv1.Encode(&b)
	if err != nil {
		return err
	}
	return l.store.ReplaceBatch(t, tenant, batches[0].First, encoded)
}

// Recheck reads the tenant's whole log and returns ErrCorrupt unless entries,
// tiles, size and newest checkpoint agree. It reads everything: for tests,
// restores and the operator's peace of mind.
func (l *Log) Recheck(t tx.Tx, tenant string) error {
	head, err := l.store.Head(t, tenant)
	if err != nil {
		return err
	}
	var hashes []tlog.Hash
	stored := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			out[i] = hashes[x]
		}
		return out, nil
	})
	sealed := tlog.Hash{}
	note := func(n uint64) (err error) {
		if n == head.Checkpoint.Size {
			sealed, err = tlog.TreeHash(int64(n), stored)
		}
		return err
	}
	if err := note(0); err != nil {
		return err
	}
	err = l.each(t, tenant, 0, head.Size, func(index uint64, leaf Leaf) error {
		more, err := tlog.StoredHashes(int64(index), leaf, stored)
		if err != nil {
			return err
		}
		hashes = append(hashes, more...)
		return note(index + 1)
	})
	if err != nil {
		return err
	}
	want, err := tlog.TreeHash(int64(head.Size), stored)
	if err != nil {
		return err
	}
	tree := newTiles(t, l.store, tenant, head.Size)
	got, err := tree.root(head.Size)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: tiles of %s do not follow from its entries", ErrCorrupt, tenant)
	}
	if head.Checkpoint.Note == "" {
		return nil
	}
	if c, err := checkpointText(head.Checkpoint.Note); err != nil || uint64(c.Size) != head.Checkpoint.Size || c.Hash != sealed || c.Origin != l.Origin(tenant) {
		return fmt.Errorf("%w: checkpoint of %s at %d does not follow from its entries", ErrCorrupt, tenant, head.Checkpoint.Size)
	}
	return nil
}
