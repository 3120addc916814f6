package agentapi

import (
	"context"
	"sync"
)

// lanesPerTenant is how much bulk work of one tenant runs at once. The store's
// writer takes turns in order of asking, so this shares it among tenants.
const lanesPerTenant = 2

// lanes keeps one tenant's bulk work from standing in every other's way.
type lanes struct {
	mu   sync.Mutex
	open map[string]chan struct{}
}

// enter waits for one of the tenant's lanes; leave gives it back.
func (l *lanes) enter(ctx context.Context, tenant string) (leave func(), err error) {
	l.mu.Lock()
	lane, ok := l.open[tenant]
	if !ok {
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
