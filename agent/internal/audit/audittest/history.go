package audittest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// perCommit is how many records become durable together, as in a batch of changes.
const perCommit = 100

// FakeHistory appends count records to the journal in an agent's state folder,
// dated evenly from one moment to another: plans tried and refused, orders paused
// and resumed. Each record is of its own.
func FakeHistory(ctx context.Context, state string, count int, from, to time.Time) (err error) {
	dir, err := statedir.Open(state)
	if err != nil {
		return err
	}
	release, err := dir.Lock()
	if err != nil {
		return err
	}
	defer release()
	id, err := dir.Identity()
	if err != nil {
		return err
	}
	key, err := keys.LoadPrivate(dir.AuditKey())
	if err != nil {
		return err
	}
	at := from
	now := func() time.Time { return at }
	j, err := journal.Open(ctx, journal.Options{
		Path: dir.Journal(), MarksPath: dir.Marks(), Key: key, Now: now,
		Identity: journal.Identity{TrustDomain: id.TrustDomain, Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	recorder := audit.Recorder{Actor: id.ID().String(), Now: now}
	first := j.Head().Next
	for done := 0; done < count; {
		if err := j.Commit(ctx, func(tx *journal.Tx) error {
			for range min(perCommit, count-done) {
				at = from.Add(time.Duration(float64(to.Sub(from)) * float64(done) / float64(count)))
				if err := act(recorder, tx, first+uint64(done)); err != nil {
					return err
				}
				done++
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func act(r audit.Recorder, tx *journal.Tx, n uint64) error {
	switch n % 4 {
	case 0:
		return r.Paused(tx, fmt.Sprintf("night work %d", n))
	case 1:
		return r.Resumed(tx, fmt.Sprintf("night work %d is over", n))
	}
	digest := sha256.Sum256(fmt.Appendf(nil, "plan %d", n))
	return r.DryRun(tx, audit.Context{PlanDigest: digest[:], PolicyVersion: "1", Ticket: fmt.Sprintf("T-%d", n)}, &auditv1.Refusal{
		Code: "GUARDRAIL", Change: fmt.Sprintf("change-%d", n), Rule: "people",
		Sentence: fmt.Sprintf("web: create login=q%d: no scope rule lets this name be created; the client's administrator can add one to agent.yaml", n),
	})
}
