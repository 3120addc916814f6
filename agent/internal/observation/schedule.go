package observation

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/reevehq/reeve/plugins/sdk"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
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
	// Every is the time from one whole read of a source to the next, also of one
	// that tells its changes: the safety net under all that it may not tell.
	Every time.Duration
	// FollowEvery is the time from one read of changes to the next, of a source
	// that tells them; one that can be watched is also read at once when something
	// changed. 0 is one minute.
	FollowEvery time.Duration
	Now         func() time.Time
	Logger      *slog.Logger
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
		if s.FollowEvery <= 0 {
			s.FollowEvery = time.Minute
		}
	})
}

// Observe asks for a whole read of that connector soon. Demands that come
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

// turn is when a source is read next.
type turn struct {
	// whole is when it is read whole; follow when its changes are, never if zero.
	whole, follow time.Time
	pause         time.Duration
	// took is how long the last read of changes took.
	took time.Duration
}

func (s *Schedule) loop(ctx context.Context, source Source, slots chan struct{}) {
	f, _ := source.(Following)
	changed := make(chan struct{}, 1)
	if f != nil {
		var watching sync.WaitGroup
		defer watching.Wait()
		watching.Go(func() { s.watch(ctx, f, changed) })
	}
	// What was held when the agent ended may be followed on; if not, it is read
	// whole.
	next := turn{pause: s.Pause, whole: time.Now()}
	if f != nil {
		next.follow = next.whole
	}
	for {
		whole := false
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Until(next.whole)):
			whole = next.follow.IsZero() || next.follow.After(next.whole)
		case <-timer(next.follow):
		case <-s.demands[source.Alias()]:
			whole = true
		case <-changed:
			if next.follow.IsZero() {
				continue
			}
			settle(ctx, max(settleTime, next.took))
		}
		select {
		case <-ctx.Done():
			return
		case slots <- struct{}{}:
		}
		next = s.read(ctx, source, whole, next)
		<-slots
	}
}

// timer is time.After for a time that may be zero: then it never comes.
func timer(at time.Time) <-chan time.Time {
	if at.IsZero() {
		return nil
	}
	return time.After(time.Until(at))
}

// settleTime is what changes that come together may take to come: they are one
// read and one snapshot. While changes go on coming a source rests for as long as
// the last read of them took.
const settleTime = 10 * time.Millisecond

func settle(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// read reads the source whole, or its changes where it can tell them, and says
// when it is read next.
func (s *Schedule) read(ctx context.Context, source Source, whole bool, next turn) turn {
	begun := time.Now()
	err := error(ErrWhole)
	if f, ok := source.(Following); ok && !whole {
		if err = s.observe(ctx, source, func(client agentv1.AgentServiceClient) (*Result, error) { return Follow(ctx, client, f, s.Base, s.Now) }); err == nil {
			if next.whole.Before(begun) {
				// The first read, with what an earlier process left.
				next.whole = begun.Add(s.Every / 2)
			}
			return turn{whole: next.whole, follow: time.Now().Add(s.FollowEvery), pause: s.Pause, took: time.Since(begun)}
		}
	}
	if errors.Is(err, ErrWhole) {
		if f, ok := source.(Following); ok && !whole && f.Can(connectorv1.Capability_CAPABILITY_INCREMENTAL) {
			s.Logger.Info("changes do not do", "alias", source.Alias(), "why", sdk.Clean(err.Error()))
		}
		err = s.observe(ctx, source, func(client agentv1.AgentServiceClient) (*Result, error) {
			return Push(ctx, client, source, s.Base, s.Now)
		})
		if err == nil {
			// A little early, by chance: agents that started together drift apart.
			next := turn{whole: time.Now().Add(s.Every - rand.N(s.Every/10+1)), pause: s.Pause}
			if f, ok := source.(Following); ok && f.Can(connectorv1.Capability_CAPABILITY_INCREMENTAL) {
				// At once: what changed during the read is told now.
				next.follow = time.Now()
			}
			return next
		}
	}
	if ctx.Err() == nil {
		s.Logger.Warn("observation failed", "alias", source.Alias(), "error", sdk.Clean(err.Error()))
	}
	again := time.Now().Add(next.pause/2 + rand.N(next.pause/2+1))
	if whole || next.follow.IsZero() {
		return turn{whole: again, pause: min(2*next.pause, s.Every)}
	}
	return turn{whole: next.whole, follow: again, pause: min(2*next.pause, s.Every)}
}

// watch signals changed whenever something changed, until ctx ends. A watch that
// broke off may have missed something: it signals when it is ready again.
func (s *Schedule) watch(ctx context.Context, source Following, changed chan<- struct{}) {
	for pause := s.Pause; ; pause = min(2*pause, s.Every) {
		// What the connector can do shows when it is up.
		if err := source.Ready(ctx); err == nil && source.Can(connectorv1.Capability_CAPABILITY_WATCH) {
			ready := false
			err := source.Watch(ctx, nil, func() {
				if !ready {
					s.Logger.Info("watching for changes", "alias", source.Alias())
				}
				ready, pause = true, s.Pause
				select {
				case changed <- struct{}{}:
				default:
				}
			})
			if ctx.Err() == nil && err != nil {
				s.Logger.Warn("watch broke off", "alias", source.Alias(), "error", sdk.Clean(err.Error()))
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		}
	}
}

func (s *Schedule) observe(ctx context.Context, source Source, push func(agentv1.AgentServiceClient) (*Result, error)) error {
	client, release, err := s.Link.Acquire(ctx)
	if err != nil {
		return err
	}
	defer release()
	result, err := push(client)
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
