package intake

import (
	"fmt"
	"testing"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

func waiting(tenant string, n, records int) []*shipment {
	var out []*shipment
	for i := range n {
		b := &auditv1.Batch{First: uint64(i), Records: make([]*auditv1.Record, records)}
		out = append(out, &shipment{tenant: tenant, read: &read{batch: b}})
	}
	return out
}

func (q *queue) order() (groups []string) {
	for group := q.take(); len(group) > 0; group = q.take() {
		text := ""
		for _, s := range group {
			text += fmt.Sprint(s.tenant, s.read.batch.GetFirst(), " ")
		}
		groups = append(groups, text)
	}
	return groups
}

func queueOf(all ...[]*shipment) *queue {
	q := newQueue()
	for _, list := range all {
		for _, s := range list {
			q.put(s)
		}
	}
	return q
}

// Whoever shipped first and most waits for the others' turns, and each tenant's
// own order stays.
func TestTenantsInTurn(t *testing.T) {
	q := queueOf(waiting("bulk", 4, 64), waiting("a", 1, 64), waiting("b", 2, 64))
	if got, want := fmt.Sprint(q.order()), "[bulk0 a0 b0 bulk1 b1 bulk2 bulk3 ]"; got != want {
		t.Errorf("order is %s, want %s", got, want)
	}
	if len(q.tenants) != 0 || len(q.turns) != 0 {
		t.Error("tenants that wait for nothing are remembered")
	}
}

// A large batch waits for as many turns as it is large, is never starved, and
// goes at once when nobody else is there.
func TestLargeBatchesWait(t *testing.T) {
	q := queueOf(waiting("bulk", 2, 3*turnRecords), waiting("a", 4, 1), waiting("b", 4, 1))
	if got, want := fmt.Sprint(q.order()), "[a0 b0 a1 b1 bulk0 a2 b2 a3 b3 bulk1 ]"; got != want {
		t.Errorf("order is %s, want %s", got, want)
	}
	q = queueOf(waiting("bulk", 3, groupRecords))
	if got, want := fmt.Sprint(q.order()), "[bulk0  bulk1  bulk2 ]"; got != want {
		t.Errorf("order is %s, want %s", got, want)
	}
}

// One transaction takes a bounded group, and nothing for who has gone.
func TestGroupsAreBounded(t *testing.T) {
	gone := waiting("a", 1, 1)
	gone[0].gone.Store(true)
	q := queueOf(gone, waiting("b", groupSize+1, 1))
	if first, second := q.take(), q.take(); len(first) != groupSize || len(second) != 1 || first[0].tenant != "b" {
		t.Errorf("groups of %d and %d", len(first), len(second))
	}
}
