package siege

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"go.yaml.in/yaml/v3"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/admission/admissiontest"
	"github.com/reevehq/reeve/agent/internal/audit"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/secrets"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var (
	orders = flag.Int("orders", 1500, "how many orders the attacker signs")
	seed   = flag.Uint64("seed", 1, "of the random orders; 0 takes another one each time")
	faults = flag.Int("faults", 5, "stop after so many effects outside")
)

// perEstate is how many orders one estate with one agent.yaml gets.
const perEstate = 125

// figures are what a run comes to.
type figures struct {
	orders, effective, operations, restarts, crashes, takenBack int
	judged, harmless                                            int
	codes, kinds, refusedHarmless, outside                      map[string]int
	samples                                                     map[string][]string
}

// TestNoEffectOutsideTheGuardrails: whatever the holder of the control plane's
// keys signs, nothing happens that the client's agent.yaml does not allow, and
// what it allows is not refused.
func TestNoEffectOutsideTheGuardrails(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	t.Logf("go test ./agent/internal/siege -orders %d -seed %d", *orders, first)
	f := &figures{codes: map[string]int{}, kinds: map[string]int{}, refusedHarmless: map[string]int{}, outside: map[string]int{}, samples: map[string][]string{}}
	for at := uint64(0); f.orders < *orders; at++ {
		newCampaign(t, f, first+at).run(min(perEstate, *orders-f.orders))
		if len(f.outside) > 0 && t.Failed() && sum(f.outside) >= *faults {
			break
		}
	}
	t.Logf("%d orders, %d with an effect (%d%%), %d operations applied, %d restarts, %d crashes within an order, %d memberships taken back", f.orders, f.effective, 100*f.effective/f.orders, f.operations, f.restarts, f.crashes, f.takenBack)
	t.Logf("applied: %s", listed(f.kinds))
	t.Logf("orders by what became of them: %s", listed(f.codes))
	t.Logf("of %d orders refused by guardrails, budgets or signatures the oracle finds %d harmless: %s", f.judged, f.harmless, listed(f.refusedHarmless))
	if 100*f.effective < 30*f.orders {
		t.Errorf("only %d of %d orders had an effect: the siege proves nothing", f.effective, f.orders)
	}
	// Refusals of what would do no harm are known: budgets are charged when an order
	// is admitted, and for names that are nobody's; places are judged as they are
	// before the order; a value that is not there to be removed needs an entry too.
	strict := f.harmless
	for rule, n := range f.refusedHarmless {
		if strings.HasPrefix(rule, admission.CodeBudget) {
			strict -= n
		}
	}
	if f.judged > 200 && 100*strict > 20*f.judged {
		t.Errorf("%d of %d refused orders were harmless: %v", strict, f.judged, f.samples)
	}
	if *orders > 20000 || testing.Verbose() {
		for rule, texts := range f.samples {
			for _, text := range texts {
				t.Logf("harmless and refused by %s: %s", rule, text)
			}
		}
	}
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

func listed(m map[string]int) string {
	var out []string
	for k, n := range m {
		out = append(out, fmt.Sprintf("%s %d", k, n))
	}
	sort.Strings(out)
	return strings.Join(out, ", ")
}

// campaign is one estate with one agent.yaml, one agent and one attacker.
type campaign struct {
	t       *testing.T
	f       *figures
	seed    uint64
	r       *rand.Rand
	g       *rails
	text    string
	parsed  *guardrails.Guardrails
	dir     *fakeDirectory
	initial picture
	oracle  *oracle
	a       *attacker
	path    string
	wall    time.Time
	boot    time.Duration
	opener  *age.X25519Identity

	j     *journal.Journal
	clock *journal.Clock
	admit *admission.Admitter
	exec  *executor.Executor

	plan    map[string]*planv1.Change
	applied int
	shown   int
}

func newCampaign(t *testing.T, f *figures, seed uint64) *campaign {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	c := &campaign{t: t, f: f, seed: seed, r: r, g: newRails(r), dir: newWorld(r), wall: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	c.text = c.g.yaml(r)
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(c.text), &node); err != nil {
		t.Fatalf("%v\n%s", err, c.text)
	}
	var err error
	if c.parsed, err = guardrails.Parse("dir", node.Content[0]); err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, c.text)
	}
	if c.opener, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	folder, err := os.MkdirTemp("", "siege")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(folder) })
	c.path = filepath.Join(folder, "journal.db")
	c.oracle = newOracle(c.g, c.dir.entries)
	c.a = &attacker{r: r, g: c.g, world: c.dir, msp: &admissiontest.MSP{T: t}}
	c.dir.judge = c.judge
	c.start()
	// The agent looks up who bears a protected name; then the client renames some.
	if err := c.admit.Pin(context.Background(), "dir"); err != nil {
		t.Fatal(err)
	}
	for _, anchor := range []string{"person-ceo", "group-board"} {
		if e := c.dir.entries[anchor]; e != nil && chance(r, 40) {
			e.known, e.own = nil, ""
			e.name = e.name[1:].leaf(e.name[0][0].typ, "once-"+anchor)
			e.attributes[e.name[0][0].typ] = []string{e.name[0][0].value}
			for _, g := range c.dir.entries { // the client's tool keeps members
				for i, key := range g.members {
					if strings.HasPrefix(key, "dn:uid=ceo,ou=people") && anchor == "person-ceo" || strings.HasPrefix(key, "dn:cn=board,") && anchor == "group-board" {
						g.members[i] = "dn:" + e.name.key()
					}
				}
			}
		}
	}
	c.initial = maps.Clone(c.dir.entries)
	return c
}

func (c *campaign) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("seed %d: %v", c.seed, err)
	}
}

func (c *campaign) start() {
	var err error
	c.j, err = journal.Open(context.Background(), journal.Options{Path: c.path, Identity: admissiontest.Identity, Key: admissiontest.Key(1), ReserveBytes: 1, MinFree: 1})
	c.check(err)
	c.clock = journal.NewClock(c.j, journal.ClockOptions{Wall: func() time.Time { return c.wall }, Boot: func() time.Duration { return c.boot }, BootID: "boot"})
	recipients, err := secrets.ParseRecipients(map[string]string{"it": c.opener.Recipient().String()})
	c.check(err)
	recorder := audit.Recorder{Actor: "spiffe://msp.example/tenant/fabrikam/agent/dc1", Now: c.clock.Now}
	c.admit = admission.New(admission.Options{
		Journal: c.j, Clock: c.clock, Audit: recorder, LogOrigin: admissiontest.Origin, Recipients: recipients, Trust: c.a.msp.Trust,
		Connectors: map[string]admission.Connector{"dir": {Mode: agentv1.ConnectorState_MODE_ENFORCE, Role: agentv1.ConnectorState_ROLE_TARGET, Guardrails: c.parsed, Directory: c.dir}},
	})
	c.exec = executor.New(executor.Options{
		Journal: c.j, Clock: c.clock, Audit: recorder, Recipients: recipients,
		Connectors: map[string]executor.Connector{"dir": {Guardrails: c.parsed, Directory: c.dir}},
		Retry:      func(_ context.Context, n int) bool { return n < 2 },
	})
}

func (c *campaign) restart() {
	c.check(c.j.Close())
	c.f.restarts++
	c.start()
}

func (c *campaign) run(n int) {
	for i := range n {
		if i%20 == 19 {
			c.replenish()
		}
		c.passTime()
		if chance(c.r, 3) {
			c.restart()
		}
		c.order()
		c.f.orders++
		if c.t.Failed() && sum(c.f.outside) >= *faults {
			break
		}
	}
	c.check(c.j.Close())
	c.check(os.RemoveAll(filepath.Dir(c.path)))
}

// passTime moves the clocks, mostly together, the wall clock also back.
func (c *campaign) passTime() {
	if !chance(c.r, 40) {
		return
	}
	d := one(c.r, []time.Duration{time.Minute, time.Minute, time.Hour, 5 * time.Hour})
	c.wall, c.boot = c.wall.Add(d), c.boot+d
	if chance(c.r, 10) {
		c.wall = c.wall.Add(-30 * time.Minute)
	}
	_, err := c.clock.Tick(context.Background(), func(*journal.Tx, journal.ClockEvent, string) error { return nil })
	c.check(err)
	var due []journal.Hold
	c.check(c.j.View(context.Background(), func(tx *journal.Tx) (err error) {
		due, err = tx.TimedHolds()
		return err
	}))
	for _, h := range due {
		if h.Due.After(c.clock.Now()) {
			continue
		}
		c.dir.judge = func(_ *connectorv1.Operation, before, after picture) {
			c.f.takenBack++
			c.report("an obligation", c.oracle.takenBack(before, after))
		}
		c.check(c.exec.TakeBack(context.Background(), h))
		c.dir.judge = c.judge
	}
}

func (c *campaign) report(what string, outside []string) {
	if len(outside) == 0 {
		return
	}
	if c.shown++; c.shown == 1 {
		c.t.Logf("seed %d: agent.yaml has\n%s", c.seed, c.text)
	}
	// The first says enough: the others mostly follow from it.
	c.f.outside[outside[0]]++
	c.t.Errorf("seed %d: %s: %s", c.seed, what, outside[0])
}

func (c *campaign) judge(op *connectorv1.Operation, before, after picture) {
	c.applied++
	c.f.operations++
	c.f.kinds[op.Kind().Word()]++
	c.report(fmt.Sprintf("%v", op), c.oracle.judge(before, after, fmt.Sprintf("order %d, %s ", c.f.orders, op.GetId()), ends(c.plan[op.GetId()])))
}

func ends(change *planv1.Change) *time.Time {
	if change.GetEndsAt() == nil {
		return nil
	}
	at := change.GetEndsAt().AsTime()
	return &at
}

// order lets the attacker sign one order and the agent do with it what it does.
func (c *campaign) order() {
	now := c.clock.Now()
	c.a.now = now
	lawful := chance(c.r, 60)
	c.a.trial = nil
	if lawful {
		c.a.trial = c.trial()
	}
	changes := c.a.plan(lawful)
	edits := admissiontest.Edits{}
	if !lawful {
		edits = c.a.edits(changes)
	}
	c.plan = map[string]*planv1.Change{}
	for _, change := range changes {
		c.plan[change.GetId()] = change
	}
	id, delivery := c.a.msp.Order(now, []string{"dir"}, changes, edits)
	c.oracle.begin(now)
	c.applied = 0
	_, err := c.admit.Admit(context.Background(), delivery)
	var refused *admission.Refused
	if errors.As(err, &refused) {
		c.f.codes[refused.Code()]++
		c.refused(refused, changes)
		return
	}
	c.check(err)
	if chance(c.r, 5) {
		_, err := c.admit.Admit(context.Background(), delivery) // a second delivery
		c.check(err)
	}
	c.carryOut(id)
	switch {
	case c.applied > 0:
		c.f.effective++
		c.f.codes["applied"]++
	default:
		c.f.codes["admitted without effect"]++
	}
}

// carryOut runs an order, now and then over a crash after some of its effects.
func (c *campaign) carryOut(id string) {
	ctx := context.Background()
	if chance(c.r, 5) {
		crash, cut := context.WithCancel(ctx)
		c.dir.cutAfter, c.dir.cut = 1+c.r.IntN(3), cut
		err := c.exec.Run(crash, id)
		cut()
		c.dir.cutAfter = 0
		if err == nil {
			return
		}
		if !errors.Is(err, context.Canceled) {
			c.check(err)
		}
		c.f.crashes++
		c.restart()
		c.check(c.exec.Resume(ctx))
		return
	}
	c.check(c.exec.Run(ctx, id))
}

// replenish is the client at work: who went comes back, what is new goes.
func (c *campaign) replenish() {
	for anchor := range c.dir.entries {
		if c.initial[anchor] == nil && chance(c.r, 70) {
			delete(c.dir.entries, anchor)
		}
	}
	for anchor, e := range c.initial {
		if has := c.dir.find(&connectorv1.ObjectRef{Type: e.typ, Name: e.name.wire()}); has == nil || has.anchor == anchor {
			c.dir.entries[anchor] = e
		}
	}
}

// refused asks the other way round: would the order have done any harm? It is
// carried out on a copy of the directory.
func (c *campaign) refused(why *admission.Refused, changes []*planv1.Change) {
	code := why.Code()
	if code != admission.CodeGuardrail && code != admission.CodeBudget && code != admission.CodeApproval {
		return
	}
	c.f.judged++
	trial := c.trial()
	for _, change := range changes {
		if !trial.harmless(change) {
			return
		}
	}
	c.f.harmless++
	r := why.Refusals[0]
	rule := r.GetCode() + " " + r.GetRule()
	if c.f.refusedHarmless[rule]++; len(c.f.samples[rule]) < 4 {
		c.f.samples[rule] = append(c.f.samples[rule], fmt.Sprintf("seed %d: %s; %v", c.seed, r.GetSentence(), c.plan[r.GetChange()].GetOperation()))
	}
}
