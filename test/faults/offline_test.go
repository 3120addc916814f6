package faults_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	"github.com/reevehq/reeve/test/rig"
)

// offlineRecords is how many records an agent gathers in its thirty days; `make
// offline` says a million.
var offlineRecords = flag.Int("offline", 8_000, "records of the agent that is offline for thirty days")

// daysOffline are promised (SECURITY.md, 9).
const daysOffline = 30

// An agent is cut off for thirty days. Every day access that was lent ends, and it
// is killed and started again; records gather. When the network is back it comes
// by itself and ships them all: nothing is lost, nothing doubled, nothing late.
func TestThirtyDaysOffline(t *testing.T) {
	t.Parallel()
	e := rig.NewEstate(daysOffline)
	e.MaxGrant = (daysOffline + 1) * 24 * time.Hour
	r, c, p := clocked(t, e)
	r.Applied(r.CarryOut())
	began := c.Now()
	for day, login := range e.People() {
		r.Do("grant", "add", rig.Tenant, "--identity", login, "--entitlement", "web/admins", "--for", fmt.Sprintf("%dh", 24*day+12), "--reason", "night shift", "--ticket", "T-1042")
	}
	r.Applied(r.CarryOut())
	shipped(t, r)
	due := dues(r.Log())
	if len(due) != daysOffline {
		t.Fatalf("%d ends are owed, want %d", len(due), daysOffline)
	}
	w := r.Watch()

	p.part()
	made, writing := 0, time.Duration(0)
	for day, login := range e.People() {
		morning := began.Add(time.Duration(day) * 24 * time.Hour)
		endsOnTime(t, r, c, login, due[day])
		r.Agent.Kill()
		share := *offlineRecords*(day+1)/daysOffline - made
		since := time.Now()
		r.FakeHistory(share, c.Now(), morning.Add(23*time.Hour))
		writing += time.Since(since)
		made += share
		c.MoveTo(morning.Add(24 * time.Hour))
		r.Agent.Start()
		r.Ready()
	}
	waiting := r.Spooled()
	size := fileSize(t, filepath.Join(r.State, "journal.db"))
	t.Logf("%d records wait in a journal of %.0f MiB, %.0f bytes a record", waiting, mib(size), float64(size)/float64(waiting))
	if waiting < *offlineRecords {
		t.Errorf("%d records wait, %d were made", waiting, *offlineRecords)
	}

	idle := r.Agent.Peak()
	home := time.Now()
	returned(t, r, c, p)
	took := time.Since(home)
	t.Logf("written in %v; back and shipped in %v, %.1f times that, %.0f records/s; the agent's peak was %.0f MiB before and %.0f MiB after, the control plane's %.0f MiB",
		writing.Round(time.Second), took.Round(time.Second), took.Seconds()/writing.Seconds(), float64(waiting)/took.Seconds(), mib(idle), mib(r.Agent.Peak()), mib(r.ControlPlane.Peak()))
	if !strings.Contains(r.Agent.Log(), "certificate had lapsed") {
		t.Error("the agent did not prove its identity key after the lapse")
	}
	w.Once()
	r.Observe()
	recorded := r.Recorded()
	list := r.OneRecordAChange()
	eachOnce(t, list, recorded)
	if n := onTime(t, list); n != daysOffline {
		t.Errorf("%d ends are on record, want %d", n, daysOffline)
	}
	for _, login := range e.People() {
		if n := w.Went(login, "admins"); n != 1 {
			t.Errorf("%s was seen to leave admins %d times", login, n)
		}
	}
	r.Provisioned(e.People())
	r.Converged()
	r.Offboard(nil)
}

// dues are when obligations are due that were accepted, the first one first.
func dues(list []rig.Entry) (out []time.Time) {
	for _, e := range list {
		if e.Header.GetType() == auditv1.Type_TYPE_OBLIGATION_ACCEPTED {
			out = append(out, e.Body.GetObligation().GetDue().AsTime())
		}
	}
	slices.SortFunc(out, time.Time.Compare)
	return out
}

// eachOnce fails the test unless the log holds the agent's first n records, at
// least, once each and in their order.
func eachOnce(t *testing.T, list []rig.Entry, n int) {
	t.Helper()
	next := uint64(0)
	for _, e := range list {
		if e.Agent == "" {
			continue
		}
		if e.Index != next {
			t.Fatalf("record %d of the agent stands where %d should", e.Index, next)
		}
		next++
	}
	if next < uint64(n) {
		t.Errorf("the log holds %d records of the agent, which has made %d", next, n)
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
