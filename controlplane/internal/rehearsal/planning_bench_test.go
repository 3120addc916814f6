package rehearsal

import (
	"flag"
	"testing"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
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

func timed(do func()) time.Duration {
	start := time.Now()
	do()
	return time.Since(start)
}

func desireAll(b *testing.B, program *policy.Program, subjects []policy.Subject) []policy.Desired {
	b.Helper()
	out := make([]policy.Desired, len(subjects))
	for i := range subjects {
		var err error
		if out[i], err = program.Desired(subjects[i], nil, epoch); err != nil {
			b.Fatal(err)
		}
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

// BenchmarkPlanning plans for a tenant of -plan.people under 20 rules, beside bare
// CEL over the same people: an onboarding, and an estate that is as policy wants.
func BenchmarkPlanning(b *testing.B) {
	program := benchProgram(b)
	fresh, subjects := benchEstate(program, *planPeople)
	cel := bareCEL(b, subjects)
	fresh.Desired = desireAll(b, program, subjects)
	settled, _ := NewTwin(fresh.Connectors).Run(fresh, mustPlan(b, fresh))
	var peer, desired, onboarding, full time.Duration
	for b.Loop() {
		peer += timed(cel)
		desired += timed(func() { desireAll(b, program, subjects) })
		onboarding += timed(func() { mustEncode(b, fresh, mustPlan(b, fresh)) })
		full += timed(func() {
			if out := mustPlan(b, settled); len(out.Agents) > 0 {
				b.Fatal("a settled estate is not settled")
			}
		})
	}
	b.ReportMetric(peer.Seconds()/float64(b.N), "CEL-s")
	b.ReportMetric(desired.Seconds()/peer.Seconds(), "desired/CEL")
	b.ReportMetric((desired+full).Seconds()/peer.Seconds(), "settled/CEL")
	b.ReportMetric((desired+onboarding).Seconds()/peer.Seconds(), "onboarding/CEL")
}
