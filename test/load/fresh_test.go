package load

import (
	"flag"
	"testing"
	"time"

	"github.com/reevehq/reeve/test/rig"
)

var people = flag.Int("people", 60, "people of a fresh client")

// TestFreshClient onboards a client of whom nothing is known yet: from the tenant's
// name to everybody able to sign in at two targets, an htpasswd file and an LDAP
// directory.
func TestFreshClient(t *testing.T) {
	_, directory := rig.NewDirectory(t)
	e := rig.NewEstate(*people)
	e.Directory = directory
	began := time.Now()
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	joined := time.Since(began)
	p := r.Plan()
	planned := time.Since(began)
	r.Approve(p)
	r.Applied(r.Ended(p.GetId()))
	ended := time.Since(began)
	r.Provisioned(e.People())
	t.Logf("%d people, %d changes: joined, observed and bound after %.1f s, planned after %.1f s, carried out after %.1f s: %.0f changes/s",
		*people, p.GetState().GetTotal(), joined.Seconds(), planned.Seconds(), ended.Seconds(), float64(p.GetState().GetTotal())/(ended-planned).Seconds())
}
