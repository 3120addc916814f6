package agent

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/observation"
	"github.com/reevehq/reeve/agent/internal/session"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

var (
	_ session.Spool    = (*spool)(nil)
	_ observation.Base = base{}
)

// keptRecords is how many proven records stay in the journal for people to look
// at, and purgeStep how many more gather before they are let go together.
const (
	keptRecords = 2000
	purgeStep   = 500
)

// spool is the journal as the shipper sees it. Records that are proven stay for
// a while for `reeve-agent records`; after a restart they may be shipped once
// more, which the log takes for what it is.
type spool struct {
	j        *journal.Journal
	appended chan struct{}

	mu     sync.Mutex
	proven uint64
}

func newSpool(j *journal.Journal) *spool {
	return &spool{j: j, appended: make(chan struct{}, 1), proven: j.Purged().Next}
}

// Proven implements session.Spool.
func (s *spool) Proven() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proven
}

// Spool implements session.Spool.
func (s *spool) Spool(ctx context.Context, after uint64, max int) (*auditv1.Batch, error) {
	return s.j.Spool(ctx, after, max)
}

// Purge implements session.Spool.
func (s *spool) Purge(ctx context.Context, upTo uint64) error {
	s.mu.Lock()
	s.proven = max(s.proven, upTo)
	s.mu.Unlock()
	if upTo < s.j.Purged().Next+keptRecords+purgeStep {
		return nil
	}
	return s.j.Purge(ctx, upTo-keptRecords)
}

// Appended implements session.Spool.
func (s *spool) Appended() <-chan struct{} { return s.appended }

// watch wakes the shipper after commits. Looking at the head costs a lock and no
// disk; commits need no hook for it.
func (s *spool) watch(ctx context.Context) {
	t := time.NewTicker(200 * time.Millisecond)
	defer t.Stop()
	var seen uint64
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := s.j.Head().Next; now != seen {
			seen = now
			select {
			case s.appended <- struct{}{}:
			default:
			}
		}
	}
}

// waiting counts records that are not proven yet.
func (s *spool) waiting() uint64 {
	proven := s.Proven()
	return max(s.j.Head().Next, proven) - proven
}

// base is what the control plane holds of the directories, in the journal.
type base struct{ j *journal.Journal }

// State implements observation.Base.
func (b base) State(ctx context.Context, connector string) (state observation.State, err error) {
	err = b.j.View(ctx, func(tx *journal.Tx) error {
		o, err := tx.Observation(connector)
		state = observation.State(o)
		return err
	})
	return state, err
}

// Observed implements observation.Base.
func (b base) Observed(ctx context.Context, connector string, hold func(anchor string, digest [32]byte)) (state observation.State, err error) {
	err = b.j.View(ctx, func(tx *journal.Tx) error {
		o, err := tx.Observation(connector)
		if err != nil || o.Snapshot == "" {
			return err
		}
		told := uint64(0)
		for anchor, digest := range tx.ObservedAll(connector) {
			hold(anchor, digest)
			told++
		}
		// An iterator cannot tell that it broke off: count.
		n, err := tx.Count(connector)
		if err == nil && n == told {
			state = observation.State(o)
		}
		return err
	})
	return state, err
}

// Digests implements observation.Base.
func (b base) Digests(ctx context.Context, connector string, anchors iter.Seq[string], hold func(anchor string, digest [32]byte)) error {
	return b.j.View(ctx, func(tx *journal.Tx) error {
		for anchor := range anchors {
			digest, found, err := tx.Observed(connector, anchor)
			if err != nil {
				return err
			}
			if found {
				hold(anchor, digest)
			}
		}
		return nil
	})
}

// SetObserved implements observation.Base.
func (b base) SetObserved(ctx context.Context, connector string, to observation.State, changed iter.Seq2[string, [32]byte], removed []string, full bool) error {
	return b.j.Commit(ctx, func(tx *journal.Tx) error {
		if full {
			if err := tx.DropObserved(connector, ""); err != nil {
				return err
			}
		}
		if err := tx.PutObservedAll(connector, changed); err != nil {
			return err
		}
		for _, anchor := range removed {
			if err := tx.DropObserved(connector, anchor); err != nil {
				return err
			}
		}
		return tx.SetObservation(connector, journal.Observation(to))
	})
}
