package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/cel"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

const benchSubjects = 10_000

// twentyRules is a bundle of 20 roles that each look at two attributes.
func twentyRules() string {
	var b strings.Builder
	b.WriteString("reeve: policy/v1\nname: bench\nversion: \"1\"\nentitlements:\n")
	for i := range 20 {
		fmt.Fprintf(&b, "  - {id: app/e%d, connector: web, type: group, name: 'name([rdn(\"group\", \"e%d\")])'}\n", i, i)
	}
	b.WriteString("roles:\n  - {id: staff, when: 'identity.kind == \"human\"', accounts: [{connector: web, type: user, name: 'name([rdn(\"login\", identity.attr(\"login\"))])'}]}\n")
	for i := range 19 {
		fmt.Fprintf(&b, "  - {id: r%d, when: '%s', entitlements: [app/e%d]}\n", i, benchRule(i, "identity.attr(\"department\")", "identity.attr(\"title\")", "identity.kind"), i)
	}
	return b.String()
}

func benchRule(i int, department, title, kind string) string {
	return fmt.Sprintf(`%s == "human" && %s == "D%d" && %s != "T%d"`, kind, department, i, title, i)
}

func benchSubject(i int) policy.Subject {
	return policy.Subject{ID: fmt.Sprint(i), Kind: "human", State: policy.StateActive, Attributes: map[string][]string{
		"login": {fmt.Sprintf("user%d", i)}, "department": {fmt.Sprintf("D%d", i%25)}, "title": {fmt.Sprintf("T%d", i%30)},
	}}
}

// BenchmarkDesired evaluates everything for each of 10,000 subjects.
func BenchmarkDesired(b *testing.B) {
	bundle, err := policy.Parse([]policy.File{{Path: "bench.yaml", Data: []byte(twentyRules())}})
	if err != nil {
		b.Fatal(err)
	}
	program, err := policy.Compile(bundle, nil)
	if err != nil {
		b.Fatal(err)
	}
	program = program.Metered(policy.NewAllowance(1 << 62))
	subjects := make([]policy.Subject, benchSubjects)
	for i := range subjects {
		subjects[i] = benchSubject(i)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range subjects {
			if _, err := program.Desired(subjects[i], nil, time.Time{}); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*benchSubjects)/b.Elapsed().Seconds(), "identities/s")
}

// BenchmarkBareCEL evaluates the same 20 conditions with typed string variables
// and nothing round them.
func BenchmarkBareCEL(b *testing.B) {
	env, err := cel.NewEnv(cel.Variable("department", cel.StringType), cel.Variable("title", cel.StringType), cel.Variable("kind", cel.StringType))
	if err != nil {
		b.Fatal(err)
	}
	programs := make([]cel.Program, 20)
	for i := range programs {
		ast, issues := env.Compile(benchRule(i, "department", "title", "kind"))
		if issues.Err() != nil {
			b.Fatal(issues.Err())
		}
		if programs[i], err = env.Program(ast); err != nil {
			b.Fatal(err)
		}
	}
	inputs := make([]map[string]any, benchSubjects)
	for i := range inputs {
		s := benchSubject(i)
		inputs[i] = map[string]any{"department": s.Attributes["department"][0], "title": s.Attributes["title"][0], "kind": s.Kind}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range inputs {
			for _, p := range programs {
				if _, _, err := p.Eval(inputs[i]); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportMetric(float64(b.N*benchSubjects)/b.Elapsed().Seconds(), "identities/s")
}
