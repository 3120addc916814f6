package intake_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	_ "modernc.org/sqlite"

	"github.com/reevehq/reeve/controlplane/internal/intake/intaketest"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/keys"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

const shipRecords = 64

var shipTenants = flag.Int("ship.tenants", 1000, "tenants whose agents ship in benchmarks")

func signed(agents []*intaketest.FakeAgent, n int) ([][]*auditv1.Batch, []*auditv1.Batch) {
	batches := make([][]*auditv1.Batch, len(agents))
	all := make([]*auditv1.Batch, n)
	for i := range n {
		at := i % len(agents)
		all[i] = agents[at].Batch(shipRecords)
		batches[at] = append(batches[at], all[i])
	}
	return batches, all
}

// BenchmarkShip is signed batches of 64 records, one agent a tenant, verified,
// durable and proven; and the same batches by the peer, a bare loop, in turn, so
// that both meet the same machine. The ratio is the peer's time by ours.
func BenchmarkShip(b *testing.B) {
	e := intaketest.New(b)
	agents := fleet(b, e, *shipTenants, 1)
	bare := bareTable(b)
	var peer, cpu time.Duration
	b.ResetTimer()
	for done := 0; done < b.N; {
		b.StopTimer()
		n := min(b.N-done, 2*len(agents))
		batches, all := signed(agents, n)
		before := processor(b)
		b.StartTimer()
		shipAll(b, e, agents, batches)
		b.StopTimer()
		cpu += processor(b) - before
		began := time.Now()
		bareLoop(b, bare, agents, all, done)
		peer += time.Since(began)
		done += n
	}
	ours := b.Elapsed()
	b.ReportMetric(float64(b.N*shipRecords)/ours.Seconds(), "records/s")
	b.ReportMetric(float64(b.N*shipRecords)/cpu.Seconds(), "records/cpu-s")
	b.ReportMetric(float64(b.N*shipRecords)/peer.Seconds(), "peer-records/s")
	b.ReportMetric(peer.Seconds()/ours.Seconds(), "ratio")
}

// processor is the time that this process has had of the processors, which tells
// more than the clock when others use them, too.
func processor(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func bareTable(b *testing.B) *sql.DB {
	db, err := sql.Open("sqlite", "file:"+filepath.Join(b.TempDir(), "bare.db")+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = db.Close() })
	if _, err := db.Exec(`CREATE TABLE batch (n INTEGER PRIMARY KEY, batch BLOB NOT NULL)`); err != nil {
		b.Fatal(err)
	}
	return db
}

// bareLoop checks each batch's signature and hashes its records, on all
// processors, and puts the batches of 64 at a time into a table as they came, with
// the settings of our database: no tenants, keys, chains, trees, proofs or progress.
func bareLoop(b *testing.B, db *sql.DB, agents []*intaketest.FakeAgent, all []*auditv1.Batch, n int) {
	var err error
	for group := range slices.Chunk(all, 64) {
		if n, err = bareGroup(db, agents, group, n); err != nil {
			b.Fatal(err)
		}
	}
}

func bareGroup(db *sql.DB, agents []*intaketest.FakeAgent, group []*auditv1.Batch, n int) (int, error) {
	encoded := make([][]byte, len(group))
	var checks errgroup.Group
	for i, batch := range group {
		checks.Go(func() (err error) {
			pub := agents[(n+i)%len(agents)].Audit.Public().(ed25519.PublicKey)
			if _, _, err = dsse.Verify(batch.GetHead(), dsse.ChainHead, map[string]ed25519.PublicKey{keys.ID(pub): pub}, 1); err != nil {
				return err
			}
			for _, r := range batch.GetRecords() {
				sha256.Sum256(r.GetHeader())
				sha256.Sum256(r.GetBody())
			}
			encoded[i], err = planv1.Encode(batch)
			return err
		})
	}
	if err := checks.Wait(); err != nil {
		return n, err
	}
	t, err := db.Begin()
	if err != nil {
		return n, err
	}
	defer t.Rollback() //nolint:errcheck // the first error is the one that matters
	insert, err := t.Prepare(`INSERT INTO batch VALUES ($1, $2)`)
	if err != nil {
		return n, err
	}
	for _, blob := range encoded {
		if _, err := insert.Exec(n, blob); err != nil {
			return n, err
		}
		n++
	}
	return n, t.Commit()
}

// BenchmarkBulkTenant is how long the agents of many tenants, which each ship a
// batch now and then, wait for its acknowledgement while one tenant with 64 agents
// ships without end, beside how long they wait without it. Both are measured in
// turn, over and over, in one run.
func BenchmarkBulkTenant(b *testing.B) {
	const bulkAgents, bulkBatches, each = 64, 160, 6 * time.Second
	e := intaketest.New(b)
	agents := fleet(b, e, *shipTenants-1, 1)
	e.AddTenant("bulk")
	var bulk []*intaketest.FakeAgent
	for i := range bulkAgents {
		bulk = append(bulk, e.Join("bulk", fmt.Sprintf("dc%d", i)))
	}
	batches := make([][]*auditv1.Batch, bulkAgents)
	var alone, beside []time.Duration
	shipped := 0
	b.ResetTimer()
	for range b.N {
		alone = append(alone, calmly(b, e, agents, each)...)
		// Made before, since agents sign on machines of their own.
		for i, a := range bulk {
			for len(batches[i]) < bulkBatches {
				batches[i] = append(batches[i], a.Batch(shipRecords))
			}
		}
		end := make(chan struct{})
		done := make(chan int)
		go func() { done <- endlessly(b, e, bulk, batches, end) }()
		beside = append(beside, calmly(b, e, agents, each)...)
		close(end)
		shipped += <-done
	}
	p99 := func(list []time.Duration) time.Duration {
		slices.Sort(list)
		return list[len(list)*99/100]
	}
	b.ReportMetric(float64(p99(alone).Milliseconds()), "p99-alone-ms")
	b.ReportMetric(float64(p99(beside).Milliseconds()), "p99-beside-ms")
	b.ReportMetric(float64(p99(beside))/float64(p99(alone)), "ratio")
	b.ReportMetric(float64(shipped*shipRecords)/(float64(b.N)*each.Seconds()), "bulk-records/s")
}

// calmly ships one batch of each agent, spread evenly over the time, and returns
// how long each took from its making to its acknowledgement.
func calmly(b *testing.B, e *intaketest.Estate, agents []*intaketest.FakeAgent, over time.Duration) []time.Duration {
	batches, _ := signed(agents, len(agents))
	waits := make([]time.Duration, len(agents))
	began := time.Now()
	var wait sync.WaitGroup
	for i, a := range agents {
		wait.Go(func() {
			due := began.Add(over * time.Duration(i) / time.Duration(len(agents)))
			time.Sleep(time.Until(due))
			if _, err := e.Intake.Ship(context.Background(), a.Tenant, a.Name, batches[i][0], 0); err != nil {
				b.Error(err)
			}
			waits[i] = time.Since(due)
		})
	}
	wait.Wait()
	return waits
}

func endlessly(b *testing.B, e *intaketest.Estate, bulk []*intaketest.FakeAgent, batches [][]*auditv1.Batch, end <-chan struct{}) int {
	var shipped atomic.Int64
	var wait sync.WaitGroup
	for i, a := range bulk {
		wait.Go(func() {
			for len(batches[i]) > 0 {
				select {
				case <-end:
					return
				default:
				}
				if _, err := e.Intake.Ship(context.Background(), a.Tenant, a.Name, batches[i][0], 0); err != nil {
					b.Error(err)
					return
				}
				batches[i] = batches[i][1:]
				shipped.Add(1)
			}
			b.Errorf("agent %s of the bulk tenant has no more batches", a.Name)
		})
	}
	wait.Wait()
	return int(shipped.Load())
}
