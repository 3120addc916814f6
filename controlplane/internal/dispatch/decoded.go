package dispatch

import (
	"sync"

	"github.com/reevehq/reeve/controlplane/internal/planning"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// keptPlans is how many decoded plans are kept: those whose receipts come in now.
const keptPlans = 8

// decodedPlans keeps the changes of plans, by agent, by id, so that a receipt does not
// decode a whole plan again. A plan never changes, so nothing grows stale.
type decodedPlans struct {
	mu    sync.Mutex
	plans map[part]map[string]*planv1.Change
	order []part
}

// part is a plan's part for one agent.
type part struct{ plan, agent string }

func (d *decodedPlans) of(plan, agent string, chunks func() ([]planning.Chunk, error)) (map[string]*planv1.Change, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	key := part{plan, agent}
	if changes := d.plans[key]; changes != nil {
		return changes, nil
	}
	list, err := chunks()
	if err != nil {
		return nil, err
	}
	changes := map[string]*planv1.Change{}
	for _, c := range list {
		chunk := new(planv1.Chunk)
		if err := planv1.Decode(c.Bytes, chunk); err != nil {
			return nil, err
		}
		for _, change := range chunk.GetChanges() {
			changes[change.GetId()] = change
		}
	}
	if d.plans == nil {
		d.plans = map[part]map[string]*planv1.Change{}
	}
	if len(d.order) == keptPlans {
		delete(d.plans, d.order[0])
		d.order = d.order[1:]
	}
	d.plans[key] = changes
	d.order = append(d.order, key)
	return changes, nil
}
