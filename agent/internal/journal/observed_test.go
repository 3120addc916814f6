package journal

import (
	"fmt"
	"maps"
	"testing"
)

// TestPutObservedAll: as many puts one by one, over several statements, with
// some there before, and other connectors left alone.
func TestPutObservedAll(t *testing.T) {
	for _, n := range []int{0, 1, observedAtOnce - 1, observedAtOnce, 2*observedAtOnce + 1} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			j := open(t, options(t))
			want := map[string][32]byte{}
			for i := range n {
				want[fmt.Sprintf("anchor %d'", i)] = [32]byte{byte(i), byte(i >> 8), 1}
			}
			err := j.Commit(t.Context(), func(tx *Tx) error {
				for _, connector := range []string{"corp", "other"} {
					if err := tx.PutObserved(connector, "anchor 0'", [32]byte{9}); err != nil {
						return err
					}
				}
				return tx.PutObservedAll("corp", maps.All(want))
			})
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				want["anchor 0'"] = [32]byte{9}
			}
			err = j.View(t.Context(), func(tx *Tx) error {
				if got := maps.Collect(tx.ObservedAll("corp")); !maps.Equal(got, want) {
					t.Errorf("%d digests, want %d", len(got), len(want))
				}
				if got := maps.Collect(tx.ObservedAll("other")); len(got) != 1 || got["anchor 0'"] != [32]byte{9} {
					t.Errorf("the other connector has %v", got)
				}
				if err := tx.PutObservedAll("corp", maps.All(map[string][32]byte{"a": {}})); err == nil {
					t.Error("written in a View")
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
