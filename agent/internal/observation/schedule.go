package observation

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

// Link lends the present connection. It waits until there is one.
type Link interface {
	Acquire(ctx context.Context) (client agentv1.AgentServiceClient, release func(), err error)
}

// Schedule observes every source regularly, and on demand.
type Schedule struct {
	Link    Link
	Base    Base
	Sources []Source
	// Every is the time from one observation of a source to the next.
	Every  time.Duration
	Now    func() time.Time
	Logger *slog.Logger
	// Pause is how long to wait after a failure, doubled up to Every; 0 is five
	// seconds.
	Pause time.Duration

	once    sync.Once
	demands map[string]chan struct{}

	mu   sync.Mutex
	last map[string]time.Time
}

func (s *Schedule) init() {
	s.once.Do(func() {
		s.demands, s.last = map[string]chan struct{}{}, map[string]time.Time{}
		for _, source := range s.Sources {
			s.demands[source.Alias()] = make(chan struct{}, 1)
		}
		if s.Pause <= 0 {
			s.Pause = 5 * time.Second
		}
	})
}

// Observe asks for an observation of that connector soon. Demands that come
// while one waits are one. It reports whether there is such a connector.
func (s *Schedule) Observe(alias string) bool {
	s.init()
	c, known := s.demands[alias]
	if known {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	return known
}

// LastObserved is when the source was last pushed; zero before the first time.
func (s *Schedule) LastObserved(alias string) time.Time {
	s.init()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[alias]
}

// Run observes until ctx ends. Two sources are read at a time, so that a slow
// one does not hold up the rest and a large one does not fill the memory twice
// over.
func (s *Schedule) Run(ctx context.Context) {
	s.init()
	slots := make(chan struct{}, 2)
	var all sync.WaitGroup
	for _, source := range s.Sources {
		all.Go(func() { s.loop(ctx, source, slots) })
	}
	all.Wait()
}

func (s *Schedule) loop(ctx context.Context, source Source, slots chan struct{}) {
	wait, pause := time.Duration(0), s.Pause
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-s.demands[source.Alias()]:
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		err := s.observe(ctx, source)
		<-slots
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			// A little early, by chance: agents that started together drift
			// apart.
			wait, pause = s.Every-rand.N(s.Every/10+1), s.Pause
		default:
			s.Logger.Warn("observation failed", "alias", source.Alias(), "error", sdk.Clean(err.Error()))
			wait = pause/2 + rand.N(pause/2+1)
			pause = min(2*pause, s.Every)
		}
	}
}

func (s *Schedule) observe(ctx context.Context, source Source) error {
	client, release, err := s.Link.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	result, err := Push(ctx, client, source, s.Base, s.Now)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.last[source.Alias()] = s.Now()
	s.mu.Unlock()
	s.Logger.Info("observed", "alias", source.Alias(), "snapshot", result.Snapshot, "objects", result.Objects,
		"sent", result.Sent, "removed", result.Removed, "complete", result.Complete)
	return nil
}
