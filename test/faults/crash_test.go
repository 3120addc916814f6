package faults_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/go-ldap/ldap/v3"
	"google.golang.org/protobuf/encoding/protojson"

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

var (
	killsWanted = flag.Int("kills", 500, "how many processes TestCrash kills at least")
	figuresFile = flag.String("figures", "", "file into which TestCrash writes its figures")
	seedWanted  = flag.Uint64("seed", 0, "seed of the order in which TestCrash kills; 0 draws one")
)

// What is killed, as the figures name it.
const (
	agentAlone       = "agent alone"
	agentAndAll      = "agent with its connectors"
	connector        = "connector"
	agentStarting    = "agent while it recovers"
	controlPlane     = "control plane"
	controlStarting  = "control plane while it recovers"
	agentAnywhen     = "agent alone, at random"
	agentAllAnywhen  = "agent with its connectors, at random"
	connectorAnywhen = "connector, at random"
	controlAnywhen   = "control plane, at random"
)

// quietOf is the undisturbed measure that a recovery is compared with.
func quietOf(victim string) string {
	switch {
	case strings.HasPrefix(victim, "control"):
		return "control plane"
	case strings.HasPrefix(victim, "connector"):
		return "nothing restarted"
	default:
		return "agent"
	}
}

// The agent, its connectors and the control plane are killed at the system calls
// of one small plan after the other, while they carry it out and while they
// recover from the kill before, and at random moments. Then they are started
// again as a supervisor would, with nothing else done; the plan must end by
// itself. Beside them this test keeps its own account of what was asked for and
// what happened to the targets.
func TestCrash(t *testing.T) {
	t.Parallel()
	strace(t)
	seed := *seedWanted
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-seed %d", seed)
	f := newFigures()
	t.Run("estates", func(t *testing.T) {
		for i, on := range []string{"flat files", "slapd"} {
			t.Run(on, func(t *testing.T) {
				t.Parallel()
				random := rand.New(rand.NewPCG(seed, uint64(i)))
				walks := map[string]*walk{}
				for n := 0; f.total() < *killsWanted && !t.Failed(); n++ {
					t.Run(fmt.Sprintf("estate %d", n), func(t *testing.T) { crashEstate(t, f, random, walks, on == "slapd") })
				}
			})
		}
	})
	t.Log("\n" + f.markdown())
	if err := f.save(*figuresFile); err != nil {
		t.Error(err)
	}
	if n := f.total(); n < *killsWanted && !t.Failed() {
		t.Errorf("only %d kills", n)
	}
}

// perEstate is how many rounds one estate serves before it is offboarded: every
// export is read whole.
const perEstate = 100

// crash is one estate on which processes are killed.
type crash struct {
	t      *testing.T
	f      *figures
	r      *rig.Rig
	e      *rig.Estate
	server *slapd.Server
	ldap   *ldap.Conn
	random *rand.Rand
	walks  map[string]*walk
	log    string
	// asked are all changes of all plans, with the plan: the test's own account.
	asked map[string]string
	round int
}

// walk goes over all points of a victim's plan in random order, again and again.
type walk struct {
	all, left []point
}

func (w *walk) next(random *rand.Rand) point {
	if len(w.left) == 0 {
		w.left = slices.Clone(w.all)
		random.Shuffle(len(w.left), func(i, j int) { w.left[i], w.left[j] = w.left[j], w.left[i] })
	}
	p := w.left[0]
	w.left = w.left[1:]
	return p
}

func crashEstate(t *testing.T, f *figures, random *rand.Rand, walks map[string]*walk, directory bool) {
	e := rig.NewEstate(6)
	e.Status, e.Unix = true, !directory
	c := &crash{t: t, f: f, e: e, random: random, walks: walks, asked: map[string]string{}}
	before := ""
	if directory {
		c.server, e.Directory = rig.NewDirectory(t, "auditlog")
		before = lasting(t, c.server)
		var err error
		if c.ldap, err = ldap.DialURL(c.server.URL); err != nil {
			t.Fatal(err)
		}
		defer c.ldap.Close()
		if err := c.ldap.Bind(c.server.RootDN, c.server.RootPassword); err != nil {
			t.Fatal(err)
		}
	}
	c.r = rig.New(t, rig.Options{Bin: bin, Estate: e})
	c.log = filepath.Join(c.r.Dir, "strace.log")
	f.with(func() { f.estates++ })
	p := c.plan()
	c.r.Approve(p)
	c.finish(p)
	if len(walks) == 0 {
		c.count()
	}
	c.calm()
	for victims := c.victims(); c.round < perEstate && f.total() < *killsWanted && !t.Failed(); c.round++ {
		if c.round%25 == 24 {
			c.audit()
		}
		c.kill(victims[c.round%len(victims)])
	}
	if t.Failed() {
		return
	}
	if len(c.walks) > 0 {
		f.with(func() {
			for v, w := range c.walks {
				f.possible[v] = max(f.possible[v], len(w.all))
			}
		})
	}
	c.audit()
	c.r.Converged()
	c.r.Offboard(nil)
	if directory {
		if after := lasting(t, c.server); after != before {
			t.Errorf("the directory is not as it was:\n%s\nbefore:\n%s", after, before)
		}
	}
}

// victims is the order in which the rounds kill, over and over.
func (c *crash) victims() []string {
	return []string{
		agentAlone, controlPlane, agentAndAll, connector, agentAlone, agentAnywhen, controlPlane, agentAndAll, agentAllAnywhen, connector,
		agentAlone, controlAnywhen, agentAndAll, connectorAnywhen, controlPlane,
	}
}

// change edits the staff list: forward in one round and back in the next, and
// now and then somebody new. It returns whom the plan will be about.
func (c *crash) change() (touched, made []string) {
	people := c.e.People()
	n := c.round / 2 % 3
	one, other, named := people[n], people[n+1], people[n+2]
	off := c.round%2 == 0
	c.e.Suspend(c.t, one, off)
	c.e.Suspend(c.t, other, off)
	name := ""
	if off {
		name = fmt.Sprintf("Renamed %d", c.round)
	}
	c.e.Rename(c.t, named, name)
	if c.round%6 == 3 {
		made = c.e.Hire(c.t, 1)
	}
	return append([]string{one, other, named}, made...), made
}

// plan observes and plans, and notes what is asked for.
func (c *crash) plan() *operatorv1.Plan {
	c.t.Helper()
	c.r.Observe()
	p := c.r.Plan()
	if p.GetState().GetTotal() == 0 {
		c.t.Fatal("the plan is empty")
	}
	for _, change := range c.r.Changes(p.GetId()) {
		id := rig.StoryOf(p, change.GetChange().GetId())
		if other, twice := c.asked[id]; twice {
			c.t.Errorf("change %s is in plans %s and %s", id, other, p.GetId())
		}
		c.asked[id] = p.GetId()
	}
	c.f.with(func() { c.f.plans++; c.f.changes += int(p.GetState().GetTotal()) })
	return p
}

// finish waits for the plan's end and holds everything against what was asked.
func (c *crash) finish(p *operatorv1.Plan) {
	c.t.Helper()
	c.r.Applied(c.r.Ended(p.GetId()))
	asItShould(c.t, c.r, c.server, c.ldap)
}

// phase is where a plan stands, if the control plane answers.
func (c *crash) phase(p *operatorv1.Plan) operatorv1.PlanState_Phase {
	got := c.r.Try("plan", "show", p.GetId(), "-o", "json")
	var shown operatorv1.GetPlanResponse
	if got.Code != 0 || protojson.Unmarshal([]byte(got.Stdout), &shown) != nil {
		return operatorv1.PlanState_PHASE_UNSPECIFIED
	}
	return shown.GetPlan().GetState().GetPhase()
}

// connectors are the processes through which a plan works: the directory's, or
// those of all files.
func (c *crash) connectors() []int {
	c.t.Helper()
	kind := "flatfile"
	if c.server != nil {
		kind = "ldap"
	}
	var list []int
	rig.Until(c.t, "the connectors run", func() (bool, string) {
		list = c.r.Agent.Connectors(kind)
		return len(list) == map[string]int{"flatfile": 3, "ldap": 1}[kind], fmt.Sprint(list) + c.r.Agent.Log()
	})
	return list
}
