package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/localapi"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
)

// Recover implements cli.Program: it begins the next epoch with what the old
// journal still owes. The control plane learns of the epoch from the next session.
// It can be run again after a crash: the identity, which makes the epoch begin, is
// written last.
func (p *program) Recover(ctx context.Context, path string) (*cli.Acknowledged, error) {
	s, err := p.load(path)
	if err != nil {
		return nil, err
	}
	var ignored cli.Status
	if err := localapi.Do(ctx, statedir.At(s.State).Socket(), "status", asked{}, &ignored); !errors.Is(err, localapi.ErrNotRunning) {
		return nil, cli.Fail(cli.ExitRefused, errors.New("stop the agent first: recover sets its journal aside"))
	}
	dir, err := statedir.Open(s.State)
	if err != nil {
		return nil, coded(err)
	}
	unlock, err := dir.Lock()
	if err != nil {
		return nil, coded(err)
	}
	defer unlock()
	id, err := dir.Identity()
	if err != nil {
		return nil, coded(err)
	}
	owed, err := p.recoverEpoch(ctx, dir, &id)
	if err != nil {
		return nil, coded(fmt.Errorf("%w; if the journal cannot be read at all, join again in a new state folder", err))
	}
	p.log.Info("a new epoch has begun", "epoch", id.Epoch, "obligations", owed)
	return &cli.Acknowledged{Act: "recovered", Detail: fmt.Sprintf("epoch %d begins with the next start; the old journal is kept beside it", id.Epoch)}, nil
}

func (p *program) recoverEpoch(ctx context.Context, dir statedir.Dir, id *statedir.Identity) (owed int, err error) {
	key, err := keys.LoadPrivate(dir.AuditKey())
	if err != nil {
		return 0, err
	}
	old := journalIdentity(*id)
	id.Epoch++
	recorder := audit.Recorder{Actor: id.ID().String(), Now: p.now}
	err = journal.Recover(ctx, journal.Options{
		Path: dir.Journal(), MarksPath: dir.Marks(), Key: key, Now: p.now, Log: p.log, Identity: journalIdentity(*id),
	}, old, key, func(tx *journal.Tx, h journal.Hold) error {
		owed++
		return recorder.ObligationAccepted(tx, h)
	})
	if err != nil {
		return 0, err
	}
	return owed, dir.PutIdentity(*id)
}

func journalIdentity(id statedir.Identity) journal.Identity {
	return journal.Identity{TrustDomain: id.TrustDomain, Tenant: id.Tenant, Agent: id.Agent, Epoch: id.Epoch}
}
