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

// carried are the tables that a new epoch takes over from the one before as they
// are: what was created and changed, what was used up. What is owed and the orders
// are carried too, but not as they are.
var carried = []string{"created", "anchors", "effects", "charges", "plans", "pins"}

// Recover begins a new epoch: it opens the old journal, quarantined or not, makes
// the journal of o.Identity beside it with everything that outlives an epoch
// (obligations first of all, what the agent created and changed, used plans,
// budgets, protected anchors), and puts it in the old one's
// place, which stays as "PATH.epoch-N". Open orders do not go on: the control plane
// plans them again. A membership whose add was sent and not read back counts as
// made, since nobody will look again before its end. accept is called for every
// obligation that the new epoch takes on, within the new journal's commit. oldKey
// is the old epoch's audit key. It is a local command; nothing else has the journal
// open meanwhile. It may be run again after a crash, and does nothing when the
// journal is of the new epoch already.
func Recover(ctx context.Context, o Options, oldIdentity Identity, oldKey crypto.Signer, accept func(*Tx, Hold) error) (err error) {
	if o.Identity.Epoch <= oldIdentity.Epoch {
		return fmt.Errorf("recover: epoch %d does not come after %d", o.Identity.Epoch, oldIdentity.Epoch)
	}
	o.defaults()
	oldOptions := o
	oldOptions.Identity, oldOptions.Key = oldIdentity, oldKey
	old, err := Open(ctx, oldOptions)
	if errors.Is(err, ErrIdentity) || errors.Is(err, ErrForged) {
		if done, openErr := Open(ctx, o); openErr == nil {
			return done.Close()
		}
	}
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
	if err := carry(ctx, old, fresh, accept); err != nil {
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
func carry(ctx context.Context, old *Journal, fresh Options, accept func(*Tx, Hold) error) (err error) {
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
			if err := errors.Join(carryOrders(from, to), carryHolds(from, to, accept)); err != nil {
				return err
			}
			for _, name := range []Var{VarPaused, VarFrozen, VarLeft} {
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

// carryOrders keeps the ids of orders used, all of them as ended.
func carryOrders(from, to *Tx) error {
	orders, err := from.orders()
	if err != nil {
		return err
	}
	for _, o := range orders {
		keep := to.PutOrder
		if !o.Ended {
			keep = func(o Order) error { return to.EndOrder(o, to.Now()) }
		}
		if err := keep(o); err != nil {
			return err
		}
	}
	return nil
}

func carryHolds(from, to *Tx, accept func(*Tx, Hold) error) error {
	holds, err := from.Holds()
	if err != nil {
		return err
	}
	for _, h := range holds {
		if h.State == HoldPending {
			progress, err := from.Progress(h.Order)
			if err != nil {
				return err
			}
			if p, sent := progress[h.Change]; !h.Made && (!sent || p.Settled) {
				continue // the add was never sent
			} else if h.Made && !sent {
				// It was handed another grant's end in vain.
				h.Due = to.Now()
			}
			h.State, h.Made = HoldOpen, true
		}
		if err := to.PutHold(h); err != nil {
			return err
		}
		if h.Timed() {
			if err := accept(to, h); err != nil {
				return err
			}
		}
	}
	return nil
}

func truncate(ctx context.Context, j *Journal) error {
	_, err := j.write.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)")
	return err
}
