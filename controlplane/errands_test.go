package controlplane

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

// What is asked for later is done once for all that was asked for meanwhile, and
// at once when somebody cannot wait.
func TestErrandsThatCanWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newErrands(slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { e.run(ctx); close(done) }()
		ran := 0
		count := func(context.Context) error { ran++; return nil }
		for range 100 {
			e.askLater(5*time.Second, "refresh", count)
			time.Sleep(10 * time.Millisecond)
		}
		if synctest.Wait(); ran != 0 {
			t.Errorf("it ran %d times before its time", ran)
		}
		e.ask("refresh", count)
		if synctest.Wait(); ran != 1 {
			t.Errorf("asked for at once it ran %d times", ran)
		}
		time.Sleep(10 * time.Second)
		if synctest.Wait(); ran != 2 {
			t.Errorf("it ran %d times", ran)
		}
		e.askLater(5*time.Second, "refresh", count)
		time.Sleep(6 * time.Second)
		if synctest.Wait(); ran != 3 {
			t.Errorf("asked for anew it ran %d times", ran)
		}
		cancel()
		<-done
	})
}
