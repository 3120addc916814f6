package journal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestFullDiskTakesNoNewWorkAndKeepsTheRest(t *testing.T) {
	o := options(t)
	free := uint64(1 << 40)
	o.MinFree, o.Free = 1<<20, func(string) (uint64, error) { return free, nil }
	j := open(t, o)
	if info, err := os.Stat(o.Path + ".reserve"); err != nil || info.Size() != o.ReserveBytes {
		t.Fatalf("no reserve: %v", err)
	}
	free = 1000
	err := j.Commit(context.Background(), func(tx *Tx) error { return tx.NewWork() })
	if !errors.Is(err, ErrDiskFull) || errors.Is(err, ErrStopped) {
		t.Fatalf("got %v, want ErrDiskFull", err)
	}
	if _, err := os.Stat(o.Path + ".reserve"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the reserve was not released: %v", err)
	}
	commit(t, j, record("an obligation still goes in"))
	free = 1 << 40
	commit(t, j, func(tx *Tx) error { return tx.NewWork() })
	if _, err := os.Stat(o.Path + ".reserve"); err != nil {
		t.Fatalf("the reserve was not taken back: %v", err)
	}
}

func TestHoldsOfOneMembershipStandTogether(t *testing.T) {
	j := open(t, options(t))
	at := func(s int64) time.Time { return time.Unix(s, 0).UTC() }
	commit(t, j, func(tx *Tx) error {
		return errors.Join(
			tx.PutHold(Hold{ID: "a", Connector: "c", Group: "g", Member: "m", Due: at(50)}),
			tx.PutHold(Hold{ID: "b", Connector: "c", Group: "g", Member: "m"}),
			tx.PutHold(Hold{ID: "c", Connector: "c", Group: "g", Member: "m", Due: at(20)}),
			tx.PutHold(Hold{ID: "d", Connector: "c", Group: "g", Member: "m2", Due: at(10)}),
			tx.PutHold(Hold{ID: "e", Connector: "c2", Group: "g", Member: "m"}),
			tx.PutHold(Hold{ID: "f", Connector: "c", Group: `g","m`, Member: "m"}))
	})
	if err := j.View(context.Background(), func(tx *Tx) error {
		of, err := tx.HoldsOf(Hold{Connector: "c", Group: "g", Member: "m"})
		timed, terr := tx.TimedHolds()
		got := ""
		for _, h := range append(of, timed...) {
			got += h.ID
		}
		if got != "cab"+"dca" {
			return fmt.Errorf("got %q", got)
		}
		return errors.Join(err, terr)
	}); err != nil {
		t.Fatal(err)
	}
}

// Rows put, changed and deleted at random always verify, and the journal answers
// as a map does.
func TestRowsAgreeWithAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp("", "journal")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		o := Options{Path: filepath.Join(dir, "j.db"), Identity: testIdentity, Key: testKey, ReserveBytes: 1, MinFree: 1}
		j, err := Open(context.Background(), o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = j.Close() }()
		model := map[string]bool{}
		for range rapid.IntRange(1, 6).Draw(rt, "commits") {
			fail := rapid.Bool().Draw(rt, "fail")
			next := map[string]bool{}
			for k, v := range model {
				next[k] = v
			}
			err := j.Commit(context.Background(), func(tx *Tx) error {
				for range rapid.IntRange(0, 6).Draw(rt, "steps") {
					id := rapid.SampledFrom([]string{"a", "b", "c", "d\x00", `"`}).Draw(rt, "id")
					if rapid.Bool().Draw(rt, "put") {
						made := rapid.Bool().Draw(rt, "made")
						next[id] = made
						if err := tx.PutHold(Hold{ID: id, Made: made}); err != nil {
							return err
						}
					} else {
						delete(next, id)
						if err := tx.DropHold(Hold{ID: id}); err != nil {
							return err
						}
					}
				}
				if fail {
					return errors.New("fail")
				}
				return record("x")(tx)
			})
			if (err != nil) != fail {
				rt.Fatal(err)
			}
			if !fail {
				model = next
			}
			if err := j.Verify(context.Background()); err != nil {
				rt.Fatal(err)
			}
		}
		if err := j.View(context.Background(), func(tx *Tx) error {
			holds, err := tx.Holds()
			if len(holds) != len(model) {
				rt.Fatalf("%d holds, want %d", len(holds), len(model))
			}
			for _, h := range holds {
				if made, ok := model[h.ID]; !ok || made != h.Made {
					rt.Fatalf("hold %q: made %v", h.ID, h.Made)
				}
			}
			return err
		}); err != nil {
			rt.Fatal(err)
		}
	})
}
