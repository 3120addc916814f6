package controlplane

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// sessionHeap is what an idle session holds on the heap, in bytes, as profiles
	// show it: two thirds of it TLS and HTTP/2.
	sessionHeap = 24 << 10
	// memoryInterval is how often the collector's pace is set anew.
	memoryInterval = 10 * time.Second
)

// pace sets how far the heap may grow between collections, until ctx ends. By
// itself Go lets it double, so that each idle session, which makes no garbage,
// would keep its size twice over: ten thousand of them half a gigabyte. They count
// for a fifth here, everything else in full. The price is that a control plane with
// so many sessions, and little else, collects up to five times as often as it would. GOGC in the
// environment has the last word.
func pace(ctx context.Context, sessions func() int) {
	if _, set := os.LookupEnv("GOGC"); set {
		return
	}
	tick := time.NewTicker(memoryInterval)
	defer tick.Stop()
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	for now := 100; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		metrics.Read(live)
		// Setting it stops the world for a moment, so small changes are left.
		if next := gcPercent(live[0].Value.Uint64(), sessions()); next < now-5 || next > now+5 {
			debug.SetGCPercent(next)
			now = next
		}
	}
}

// gcPercent is the growth that is allowed to a live heap in bytes.
func gcPercent(live uint64, sessions int) int {
	idle := min(uint64(sessions)*sessionHeap, live)
	if live == 0 {
		return 100
	}
	return int((100*(live-idle) + 20*idle) / live)
}
