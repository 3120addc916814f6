package intake_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

// BenchmarkShip is signed batches of 64 records from 16 agents of 16 tenants,
// verified, durable and proven.
func BenchmarkShip(b *testing.B) {
	e := intaketest.New(b)
	const agents, records = 16, 64
	batches := make([][]*auditv1.Batch, agents)
	fakes := make([]*intaketest.FakeAgent, agents)
	for i := range agents {
		tenant := fmt.Sprintf("t%d", i)
		e.AddTenant(tenant)
		fakes[i] = e.Join(tenant, "dc1")
	}
	for n := range b.N {
		batches[n%agents] = append(batches[n%agents], fakes[n%agents].Batch(records))
	}
	b.ResetTimer()
	var wait sync.WaitGroup
	for i, a := range fakes {
		wait.Go(func() {
			for _, batch := range batches[i] {
				if _, err := e.Intake.Ship(context.Background(), a.Tenant, a.Name, batch, 0); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
}
