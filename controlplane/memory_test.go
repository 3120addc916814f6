package controlplane

import "testing"

func TestIdleSessionsCountForAFifth(t *testing.T) {
	for _, c := range []struct {
		live     uint64
		sessions int
		want     int
	}{
		{0, 0, 100},
		{0, 10_000, 100},
		{64 << 20, 0, 100},
		{2 * sessionHeap, 1, 60},
		{sessionHeap, 1, 20},
		// More than there is: what they hold was told wrong.
		{1 << 20, 10_000, 20},
	} {
		if got := gcPercent(c.live, c.sessions); got != c.want {
			t.Errorf("%d bytes with %d sessions: %d%%, want %d%%", c.live, c.sessions, got, c.want)
		}
	}
}
