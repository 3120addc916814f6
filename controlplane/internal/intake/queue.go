package intake

import (
	"sync"
	"sync/atomic"
)

const (
	// groupSize and groupRecords bound what shares one transaction.
	groupSize    = 64
	groupRecords = 8192
	// turnRecords is what a tenant may bring in for each turn it waits: a batch that
	// is larger waits for so many turns, unless nobody else is there.
	turnRecords = 512
)

// shipment is a batch on its way through the group.
type shipment struct {
	tenant, agent string
	read          *read
	// cosigned is the size of the log that the agent cosigned last.
	cosigned uint64
	done     chan answer
	// gone is set when the agent no longer waits.
	gone atomic.Bool
}

func (s *shipment) records() int { return len(s.read.batch.GetRecords()) }

// queue holds what was shipped and not yet taken: each tenant's in order, and the
// tenants in turn, so that one that ships without end costs the others one turn.
type queue struct {
	mu      sync.Mutex
	tenants map[string]*line
	turns   []*line
	// wake has room for one.
	wake chan struct{}
}

type line struct {
	tenant string
	ships  []*shipment
	// credit is for how many records the tenant has waited.
	credit int
}

func newQueue() *queue {
	return &queue{tenants: map[string]*line{}, wake: make(chan struct{}, 1)}
}

func (q *queue) put(s *shipment) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l := q.tenants[s.tenant]
	if l == nil {
		l = &line{tenant: s.tenant}
		q.tenants[s.tenant] = l
		q.turns = append(q.turns, l)
	}
	l.ships = append(l.ships, s)
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take is the next group, nil when nothing waits.
func (q *queue) take() []*shipment {
	q.mu.Lock()
	defer q.mu.Unlock()
	var group []*shipment
	for records := 0; len(q.turns) > 0 && len(group) < groupSize && records < groupRecords; {
		l := q.turns[0]
		q.turns = q.turns[1:]
		if s := l.next(len(q.turns) == 0); s != nil && !s.gone.Load() {
			group, records = append(group, s), records+s.records()
		}
		if len(l.ships) > 0 {
			q.turns = append(q.turns, l)
		} else {
			delete(q.tenants, l.tenant)
		}
	}
	return group
}

// next is the line's first batch if its turn has come, which it has when alone.
func (l *line) next(alone bool) *shipment {
	s := l.ships[0]
	l.credit += turnRecords
	if !alone && l.credit < s.records() {
		return nil
	}
	l.credit = max(0, l.credit-max(s.records(), turnRecords))
	l.ships = l.ships[1:]
	return s
}
