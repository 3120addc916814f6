package faults_test

import (
	"flag"
	"sync"
	"testing"
	"time"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/clock"
	"github.com/reevehq/reeve/test/rig"
)

// cuts is how many connections the walk cuts; `make faults` says more.
var cuts = flag.Int("cuts", 48, "connections that are cut, at ever more bytes of a plan's conversation")

// hurry has time pass quickly until the story is over or stop is called, so that
// nobody who waits before dialling again is waited for.
func hurry(t *testing.T, c *clock.Clock) (stop func()) {
	done := make(chan struct{})
	var gone sync.WaitGroup
	gone.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				c.Move(3 * time.Second)
			}
		}
	})
	stop = sync.OnceFunc(func() { close(done); gone.Wait() })
	t.Cleanup(stop)
	return stop
}

// handshake is about how many bytes pass down a connection until its session is
// open; up it is fewer.
const handshake = 5000

// A plan's conversation, from its trial to the last record's proof, is cut after
// every so many bytes in either direction, and the connections that follow while
// they are made, by a reset or a half-close, on lines that delay: each plan comes
// to its end once.
func TestEveryPartOfAConversationIsCut(t *testing.T) {
	t.Parallel()
	const each = 4
	rounds := *cuts / each
	e := rig.NewEstate(rounds + 1)
	e.MaxGrant = 30 * 24 * time.Hour
	r, c, p := clocked(t, e)
	r.Applied(r.CarryOut())
	shipped(t, r)
	w := r.Watch()
	grant := func(login string) *operatorv1.Plan {
		r.Do("grant", "add", rig.Tenant, "--identity", login, "--entitlement", "web/admins", "--for", "700h", "--reason", "night shift", "--ticket", "T-1042")
		plan := r.Plan()
		r.Approve(plan)
		plan = r.Ended(plan.GetId())
		// What was observed before the last round's effect may come after it: then it
		// is planned once more, and found to be so.
		if s := plan.GetState(); s.GetApplied() == 0 || s.GetApplied()+s.GetAlready() != s.GetTotal() {
			t.Fatalf("plan %s ended as %v", plan.GetId(), s)
		}
		if !admin(t, r, login) {
			t.Fatalf("%s is not in admins", login)
		}
		return plan
	}
	before := [2]int64{p.passed[up].Load(), p.passed[down].Load()}
	grant(e.People()[rounds])
	shipped(t, r)
	var whole [2]int64
	for d := range whole {
		whole[d] = p.passed[d].Load() - before[d]
	}
	p.slow(delay{time.Millisecond, 2 * time.Millisecond}, delay{time.Millisecond, 2 * time.Millisecond})
	stop := hurry(t, c)
	broke := 0
	for n, login := range e.People()[:rounds] {
		far := int64(n/2+1) * 2
		d := direction(n % 2)
		faults := []fault{{direction: d, after: 1 + whole[d]*far/int64(rounds+2), half: n%3 == 0}}
		for i := 1; i < each; i++ {
			faults = append(faults, fault{direction: direction(i % 2), after: 1 + handshake*int64(n*each+i)/int64(*cuts), half: i == each-1})
		}
		p.breakNext(faults...)
		grant(login)
		broke += len(faults) - p.pending()
		p.forgive()
	}
	if t.Logf("%d connections broke, over %d bytes up and %d down", broke, whole[up], whole[down]); broke < rounds {
		t.Errorf("only %d connections broke in %d rounds", broke, rounds)
	}
	stop()
	p.slow(delay{}, delay{})
	shipped(t, r)
	w.Once()
	r.Provisioned(e.People())
	r.Passwords(r.OneRecordAChange(), e.People())
	r.Offboard(nil)
}
