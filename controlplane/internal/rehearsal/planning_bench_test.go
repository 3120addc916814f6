package rehearsal

import (
	"bytes"
	"flag"
	"maps"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"google.golang.org/protobuf/proto"
)

var planPeople = flag.Int("plan.people", 100_000, "identities that BenchmarkPlanning plans for")

// bareCEL evaluates 20 conditions with typed string variables for everybody, one
// after the other, and nothing round them.
func bareCEL(b *testing.B, subjects []policy.Subject) func() {
	b.Helper()
	env, err := cel.NewEnv(cel.Variable("department", cel.StringType), cel.Variable("title", cel.StringType), cel.Variable("kind", cel.StringType))
	if err != nil {
		b.Fatal(err)
	}
	programs := make([]cel.Program, 20)
	for i := range programs {
		ast, issues := env.Compile(condition(i, "department", "title", "kind"))
		if issues.Err() != nil {
			b.Fatal(issues.Err())
		}
		if programs[i], err = env.Program(ast); err != nil {
			b.Fatal(err)
		}
	}
	inputs := make([]map[string]any, len(subjects))
	for i, s := range subjects {
		inputs[i] = map[string]any{"department": s.Attributes["department"][0], "title": s.Attributes["title"][0], "kind": s.Kind}
	}
	return func() {
		for _, in := range inputs {
			for _, p := range programs {
				if _, _, err := p.Eval(in); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

func desireAll(b *testing.B, program *policy.Program, subjects []policy.Subject) []policy.Desired {
	b.Helper()
	asked := make([]policy.Asked, len(subjects))
	for i := range subjects {
		asked[i].Subject = subjects[i]
	}
	out := make([]policy.Desired, len(subjects))
	for i, answer := range program.Everybody(asked, epoch) {
		if answer.Err != nil {
			b.Fatal(answer.Err)
		}
		out[i] = answer.Desired
	}
	return out
}

func mustPlan(b *testing.B, in planner.Input) planner.Output {
	b.Helper()
	out, err := planner.Plan(in)
	if err != nil {
		b.Fatal(err)
	}
	return out
}

func mustEncode(b *testing.B, in planner.Input, out planner.Output) planner.Encoded {
	b.Helper()
	e, err := planner.Encode(in, out, func() []byte { return make([]byte, planner.SaltSize) })
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// spent is the processor time of this process so far, the collector's included: on
// a machine that others use too, ratios of it say more than those of wall time.
func spent(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cost is what something took.
type cost struct{ wall, processor time.Duration }

func (c *cost) of(b *testing.B, do func()) {
	b.Helper()
	runtime.GC()
	start, before := time.Now(), spent(b)
	do()
	c.wall += time.Since(start)
	c.processor += spent(b) - before
}

func report(b *testing.B, what string, x, peer cost) {
	b.Helper()
	b.ReportMetric(x.wall.Seconds()/peer.wall.Seconds(), what)
	b.ReportMetric(x.processor.Seconds()/peer.processor.Seconds(), what+"-cpu")
}

// BenchmarkPlanning plans for a tenant of -plan.people under 20 rules, beside bare
// CEL over the same people on one processor: an onboarding, an estate that is as
// policy wants, and that estate after one in a hundred changed. Desired states, the
// plan and its bytes are all in it. The plan after a change is beside a plan of
// the same from the beginning, and the same to the byte.
func BenchmarkPlanning(b *testing.B) {
	program := benchProgram(b)
	fresh, subjects := benchEstate(program, *planPeople)
	cel := bareCEL(b, subjects)
	fresh.Desired = desireAll(b, program, subjects)
	settled, _ := NewTwin(fresh.Connectors).Run(fresh, mustPlan(b, fresh))
	var peer, onboarding, full, again, part cost
	for b.Loop() {
		peer.of(b, cel)
		full.of(b, func() {
			in := settled
			in.Desired = desireAll(b, program, subjects)
			if out := mustPlan(b, in); len(out.Agents) > 0 {
				b.Fatal("a settled estate is not settled")
			}
		})
		onboarding.of(b, func() {
			in := fresh
			in.Desired = desireAll(b, program, subjects)
			mustEncode(b, in, mustPlan(b, in))
		})
		standing, _, err := planner.Stand(settled)
		if err != nil {
			b.Fatal(err)
		}
		next, moved, delta := benchDelta(b, settled, subjects)
		var whole, step planner.Encoded
		part.of(b, func() {
			delta.Desired = desireAll(b, program, moved)
			out, err := standing.Plan(delta)
			if err != nil {
				b.Fatal(err)
			}
			step = mustEncode(b, settled, out)
		})
		byID := map[string]int{}
		for i, s := range subjects {
			byID[s.ID] = i
		}
		later := slices.Clone(subjects)
		for _, s := range moved {
			if at, had := byID[s.ID]; had {
				later[at] = s
			} else {
				later = append(later, s)
			}
		}
		again.of(b, func() {
			next.Desired = desireAll(b, program, later)
			whole = mustEncode(b, next, mustPlan(b, next))
		})
		if !bytes.Equal(whole.Digest, step.Digest) {
			b.Fatal("the plan of what changed is another than the plan from the beginning")
		}
	}
	report(b, "settled/CEL", full, peer)
	report(b, "onboarding/CEL", onboarding, peer)
	report(b, "after-1%/full", part, full)
	report(b, "after-1%/full-of-the-same", part, again)
	b.ReportMetric(peer.wall.Seconds()/float64(b.N), "CEL-s")
}

// benchDelta changes one identity in a hundred: titles, departments, leavers,
// joiners, values and memberships changed by others, a page of the ledger.
func benchDelta(b *testing.B, in planner.Input, subjects []policy.Subject) (planner.Input, []policy.Subject, planner.Delta) {
	b.Helper()
	delta := planner.Delta{AsOf: in.AsOf}
	byIdentity := map[string]planner.Link{}
	for _, l := range in.Links {
		if l.Connector == "ad" {
			byIdentity[l.Identity] = l
		}
	}
	in.Connectors = slices.Clone(in.Connectors)
	ad := &in.Connectors[slices.IndexFunc(in.Connectors, func(c planner.Connector) bool { return c.Alias == "ad" })]
	ad.Objects = slices.Clone(ad.Objects)
	objects := map[string]int{}
	for i, o := range ad.Objects {
		objects[o.GetAnchor()] = i
	}
	moved := planner.Moved{Alias: "ad", Snapshot: ad.Snapshot}
	var people []policy.Subject
	for i := 0; i < len(subjects); i += 100 {
		s := subjects[i]
		s.Attributes = maps.Clone(s.Attributes)
		o := proto.CloneOf(ad.Objects[objects[byIdentity[s.ID].Anchor]])
		switch i / 100 % 5 {
		case 0:
			s.Attributes["title"] = []string{"Head"}
		case 1:
			s.Attributes["department"] = []string{"D1"}
		case 2:
			s.State, s.LeftAt = policy.StateLeaver, in.AsOf
			delta.Leavers = append(delta.Leavers, s.ID)
		case 3:
			s = benchSubject(len(subjects) + i)
		case 4:
			o.Attributes = slices.DeleteFunc(o.Attributes, func(a *connectorv1.Attribute) bool { return a.GetName() == "title" })
			moved.Objects = append(moved.Objects, o)
			continue
		}
		people = append(people, s)
	}
	// Others take two members out of every group.
	for _, at := range objects {
		if o := ad.Objects[at]; o.GetType() == "team" && len(o.GetMembers()) > 2 {
			o = proto.CloneOf(o)
			o.Members = o.Members[2:]
			moved.Objects = append(moved.Objects, o)
		}
	}
	for _, o := range moved.Objects {
		ad.Objects[objects[o.GetAnchor()]] = o
	}
	delta.Connectors = append(delta.Connectors, moved)
	in.Leavers = delta.Leavers
	in.Ledger = slices.Clone(in.Ledger)
	from := len(in.Ledger) / 2
	for in.Ledger[from].Anchor == in.Ledger[from-1].Anchor {
		from--
	}
	to := from
	for ; in.Ledger[to].Anchor == in.Ledger[from].Anchor && in.Ledger[to].Connector == in.Ledger[from].Connector; to++ {
		in.Ledger[to].Diverged = true
	}
	delta.Ledger = append(delta.Ledger, planner.Page{Place: planner.Place{Connector: in.Ledger[from].Connector, Anchor: in.Ledger[from].Anchor}, Entries: in.Ledger[from:to]})
	return in, people, delta
}
