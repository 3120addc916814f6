package tenant

import (
	"context"
	"sync"
)

// lanesPerTenant is how much bulk work of one tenant runs at once.
const lanesPerTenant = 2

// Lanes keep one tenant's bulk work from standing in every other's way: whoever
// hands it to the one writer, or to the processors, does so in a lane. The zero
// value is ready; it is safe for concurrent use.
type Lanes struct {
	mu   sync.Mutex
	open map[string]chan struct{}
}

// Enter waits for one of the tenant's lanes; leave gives it back.
func (l *Lanes) Enter(ctx context.Context, tenant string) (leave func(), err error) {
	l.mu.Lock()
	lane, ok := l.open[tenant]
	if !ok {
		if l.open == nil {
			l.open = map[string]chan struct{}{}
		}
		lane = make(chan struct{}, lanesPerTenant)
		l.open[tenant] = lane
	}
	l.mu.Unlock()
	select {
	case lane <- struct{}{}:
		return func() { <-lane }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
