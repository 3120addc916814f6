package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/localapi"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// carried is what the next epoch must know of the last: what is owed, what
// leaving goes back to, and whether local root had stopped orders.
type carried struct {
	Epoch   uint64         `json:"epoch"`
	Holds   []journal.Hold `json:"holds"`
	Effects [][]byte       `json:"effects"`
	Paused  string         `json:"paused"`
	Left    string         `json:"left"`
}

// Recover implements cli.Program: it sets the journal aside and opens the next
// epoch with what the old one still owes. The control plane learns of the epoch
// from the next session.
//
// Every step can be done again: what is owed is on disk before the journal is
// moved, and the identity, which makes the epoch begin, is written last.
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
	id, err := dir.Identity()
	if err == nil {
		err = p.recoverEpoch(ctx, s, dir, &id, unlock)
	} else {
		unlock()
	}
	if err != nil {
		return nil, coded(err)
	}
	return &cli.Acknowledged{Act: "recovered", Detail: fmt.Sprintf("epoch %d begins with the next start; the old journal is kept beside it", id.Epoch)}, nil
}

func (p *program) recoverEpoch(ctx context.Context, s *setup, dir statedir.Dir, id *statedir.Identity, unlock func()) error {
	next := id.Epoch + 1
	kept, err := readCarried(dir)
	if err != nil {
		unlock()
		return err
	}
	if kept == nil || kept.Epoch != next {
		// open claims the folder by itself.
		unlock()
		c, err := p.open(ctx, s)
		if err != nil {
			return fmt.Errorf("%w; if the journal cannot be read at all, join again in a new state folder", err)
		}
		kept, err = c.toCarry(ctx, next)
		c.close()
		if err != nil {
			return err
		}
		raw, err := json.Marshal(kept)
		if err != nil {
			return err
		}
		if err := keys.WriteFile(dir.Carried(), raw, 0o600); err != nil {
			return err
		}
		if unlock, err = dir.Lock(); err != nil {
			return err
		}
	}
	defer unlock()
	for _, suffix := range []string{"", "-wal", "-shm"} {
		aside := fmt.Sprintf("%s.epoch-%d%s", dir.Journal(), id.Epoch, suffix)
		if err := os.Rename(dir.Journal()+suffix, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the journal aside: %w", err)
		}
	}
	if err := keys.SyncDir(dir.Path()); err != nil {
		return err
	}
	id.Epoch = next
	return dir.PutIdentity(*id)
}

func readCarried(dir statedir.Dir) (*carried, error) {
	raw, err := os.ReadFile(dir.Carried())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var c carried
	if err := json.Unmarshal(raw, &c); err != nil {
		return nil, fmt.Errorf("%s: %w", dir.Carried(), err)
	}
	return &c, nil
}

func (c *core) toCarry(ctx context.Context, epoch uint64) (*carried, error) {
	out := &carried{Epoch: epoch}
	err := c.journal.View(ctx, func(tx *journal.Tx) error {
		var err error
		if out.Holds, err = tx.Holds(); err != nil {
			return err
		}
		if out.Effects, err = c.effects(tx); err != nil {
			return err
		}
		if out.Paused, err = tx.Get(journal.VarPaused); err != nil {
			return err
		}
		out.Left, err = tx.Get(journal.VarLeft)
		return err
	})
	return out, err
}

// effects are the kept receipts of earlier epochs, which have a file of their
// own because the journal numbers its records anew, and of this one.
func (c *core) effects(tx *journal.Tx) ([][]byte, error) {
	var out [][]byte
	raw, err := os.ReadFile(c.dir.Effects())
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("effects of earlier epochs: %w", err)
	}
	own, err := tx.Effects()
	return append(out, own...), err
}

// carryOver brings into a new epoch's journal what the last one left to it.
func (c *core) carryOver(ctx context.Context) error {
	kept, err := readCarried(c.dir)
	if err != nil || kept == nil || kept.Epoch != c.id.Epoch {
		return err
	}
	raw, err := json.Marshal(kept.Effects)
	if err != nil {
		return err
	}
	if err := keys.WriteFile(c.dir.Effects(), raw, 0o600); err != nil {
		return err
	}
	err = c.journal.Commit(ctx, func(tx *journal.Tx) error {
		for _, raw := range kept.Effects {
			var r auditv1.Receipt
			if err := proto.Unmarshal(raw, &r); err != nil {
				return err
			}
			if r.GetOperation() == connectorv1.OperationKind_OPERATION_KIND_CREATE && r.GetAnchor() != "" {
				if err := tx.PutCreated(journal.Created{Connector: r.GetConnector(), Type: r.GetType(), Anchor: r.GetAnchor(), Change: r.GetChange()}); err != nil {
					return err
				}
			}
		}
		for _, h := range kept.Holds {
			if err := tx.PutHold(h); err != nil {
				return err
			}
			if h.Timed() {
				if err := c.audit.ObligationAccepted(tx, h); err != nil {
					return err
				}
			}
		}
		if err := tx.Set(journal.VarPaused, kept.Paused); err != nil {
			return err
		}
		return tx.Set(journal.VarLeft, kept.Left)
	})
	if err != nil {
		return fmt.Errorf("carry over into epoch %d: %w", c.id.Epoch, err)
	}
	if err := os.Remove(c.dir.Carried()); err != nil {
		return err
	}
	c.p.log.Info("a new epoch has begun", "epoch", c.id.Epoch, "obligations", len(kept.Holds))
	return nil
}
