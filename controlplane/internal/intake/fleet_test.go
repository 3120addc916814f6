package intake_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// fleet enrols agents of as many tenants, side by side.
func fleet(t testing.TB, e *intaketest.Estate, tenants, agents int) []*intaketest.FakeAgent {
	t.Helper()
	all := make([]*intaketest.FakeAgent, tenants*agents)
	var wait sync.WaitGroup
	lanes := make(chan struct{}, 64)
	for i := range tenants {
		lanes <- struct{}{}
		wait.Go(func() {
			defer func() { <-lanes }()
			tenant := fmt.Sprintf("client%d", i)
			e.AddTenant(tenant)
			for j := range agents {
				all[i*agents+j] = e.Join(tenant, fmt.Sprintf("dc%d", j))
			}
		})
	}
	wait.Wait()
	return all
}

// shipAll ships every agent's batches, each agent's one after the other and all
// agents at once, as their streams do.
func shipAll(t testing.TB, e *intaketest.Estate, agents []*intaketest.FakeAgent, batches [][]*auditv1.Batch) {
	var wait sync.WaitGroup
	for i, a := range agents {
		wait.Go(func() {
			for _, b := range batches[i] {
				answer, err := e.Intake.Ship(context.Background(), a.Tenant, a.Name, b, 0)
				if err != nil || len(answer.GetProofs()) != len(b.GetRecords()) {
					t.Errorf("%d proofs of %d records: %v", len(answer.GetProofs()), len(b.GetRecords()), err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// Many tenants' agents ship at once, in groups that share transactions. Every
// record of each is in its own tenant's log, once and provable from an export.
func TestManyTenantsAtOnce(t *testing.T) {
	const tenants, agents, rounds, records = 12, 4, 3, 40
	e := intaketest.New(t)
	all := fleet(t, e, tenants, agents)
	batches := make([][]*auditv1.Batch, len(all))
	for i, a := range all {
		for range rounds {
			batches[i] = append(batches[i], a.Batch(records))
		}
	}
	shipAll(t, e, all, batches)
	for i := range tenants {
		tenant := fmt.Sprintf("client%d", i)
		if report := e.Recheck(tenant, ""); report.Records != agents*rounds*records {
			t.Errorf("%d records of %s in the log, want %d", report.Records, tenant, agents*rounds*records)
		}
	}
}
