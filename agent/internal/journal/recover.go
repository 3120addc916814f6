package journal

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/reevehq/reeve/pki/keys"
)

// carried are the tables that a new epoch takes over from the one before: what is
// owed, what was created and changed, what was used up.
var carried = []string{"holds", "created", "anchors", "effects", "charges", "plans", "pins"}

// Recover begins a new epoch: it opens the old journal, quarantined or not, makes
// the journal of o.Identity beside it with everything that outlives an epoch
// (obligations first of all, what the agent created and changed, used plans,
// budgets, protected anchors, the last checkpoint), and puts it in the old one's
// place, which stays as "PATH.epoch-N". Open orders are not taken over: the
// control plane plans them again. oldKey is the old epoch's audit key. It is a
// local command; nothing else has the journal open meanwhile. It may be run again
// after a crash.
func Recover(ctx context.Context, o Options, oldIdentity Identity, oldKey crypto.Signer) (err error) {
	if o.Identity.Epoch <= oldIdentity.Epoch {
		return fmt.Errorf("recover: epoch %d does not come after %d", o.Identity.Epoch, oldIdentity.Epoch)
	}
	o.defaults()
	oldOptions := o
	oldOptions.Identity, oldOptions.Key = oldIdentity, oldKey
	old, err := Open(ctx, oldOptions)
	if err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	defer func() { err = errors.Join(err, old.Close()) }()
	fresh := o
	fresh.Path = o.Path + ".recovering"
	fresh.MarksPath, fresh.ReservePath = fresh.Path+".marks", fresh.Path+".reserve"
	fresh.ReserveBytes = 1
	for _, suffix := range []string{"", "-wal", "-shm", ".marks", ".reserve"} {
		if err := os.Remove(fresh.Path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("recover: %w", err)
		}
	}
	if err := carry(ctx, old, fresh); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	kept := fmt.Sprintf("%s.epoch-%d", o.Path, oldIdentity.Epoch)
	if err := truncate(ctx, old); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := os.Link(o.Path, kept); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("recover: keep the old journal: %w", err)
	}
	if err := errors.Join(old.read.Close(), old.write.Close()); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	// Marks first: a crash in between leaves the old journal behind marks of the
	// new epoch, which is quarantine again, and never a new one without marks.
	if err := os.Rename(fresh.MarksPath, o.MarksPath); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := os.Rename(fresh.Path, o.Path); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	if err := keys.SyncDir(filepath.Dir(o.Path)); err != nil {
		return fmt.Errorf("recover: %w", err)
	}
	for _, suffix := range []string{".reserve", ".lock"} {
		if err := os.Remove(fresh.Path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("recover: %w", err)
		}
	}
	return nil
}

// carry fills the new journal, checkpointed into its one file and closed.
func carry(ctx context.Context, old *Journal, fresh Options) (err error) {
	next, err := Open(ctx, fresh)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, next.Close()) }()
	return errors.Join(old.View(ctx, func(from *Tx) error {
		return next.Commit(ctx, func(to *Tx) error {
			for _, table := range carried {
				rows, err := from.rows(table, "", -1<<63)
				if err != nil {
					return err
				}
				for _, r := range rows {
					if err := to.put(table, r.key, r.at, r.body); err != nil {
						return err
					}
				}
			}
			for _, name := range []Var{VarPaused, VarCosigned, VarFrozen, VarLeft} {
				value, err := from.Get(name)
				if err != nil {
					return err
				}
				if err := to.Set(name, value); err != nil {
					return err
				}
			}
			to.marks.RootVersion, to.marks.Time = old.RootVersion(), old.marks.Time
			return to.putMarks()
		})
	}), truncate(ctx, next))
}

func truncate(ctx context.Context, j *Journal) error {
	_, err := j.write.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}
