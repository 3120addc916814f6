package policy_test

import (
	"fmt"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// Everybody says of each what Desired says of one alone, errors and costs included,
// though it keeps verdicts by what conditions read.
func TestEverybodyIsDesiredOfEach(t *testing.T) {
	conditions := []string{
		`identity.kind == "human"`, `identity.state == "active"`, `identity.id == "2"`, `!identity.msp`,
		`identity.attr("a") == "x" && identity.attr("b") != ""`, `identity.attrs("b").size() > 1`, `identity.attr("b") == "y"`,
		`["a", "b"].exists(n, identity.attr(n) == "x")`, `int(identity.attr("a")) > 1`, `identity.attrs("a").exists(v, v == "y")`,
	}
	rapid.Check(t, func(t *rapid.T) {
		text := "reeve: policy/v1\nname: p\nversion: \"1\"\nentitlements:\n"
		roles := "roles:\n  - {id: all, when: 'true', accounts: [{connector: web, type: user, name: 'name([rdn(\"login\", identity.id)])'}]}\n"
		for i := range rapid.IntRange(1, 4).Draw(t, "roles") {
			text += fmt.Sprintf("  - {id: app/e%d, connector: web, type: group, name: 'name([rdn(\"group\", \"e%d\")])'}\n", i, i)
			roles += fmt.Sprintf("  - id: r%d\n    when: '%s'\n    entitlements: [app/e%d]\n", i, rapid.SampledFrom(conditions).Draw(t, "when"), i)
		}
		bundle, err := policy.Parse([]policy.File{{Path: "p.yaml", Data: []byte(text + roles)}})
		if err != nil {
			t.Fatal(err)
		}
		program, err := policy.Compile(bundle, nil)
		if err != nil {
			t.Fatal(err)
		}
		values := []string{"x", "y", "1", "2", "x1", ""}
		asked := make([]policy.Asked, rapid.IntRange(0, 40).Draw(t, "people"))
		for i := range asked {
			s := policy.Subject{
				ID: fmt.Sprint(i), Kind: rapid.SampledFrom([]string{"human", "service"}).Draw(t, "kind"), Attributes: map[string][]string{},
				State: rapid.SampledFrom([]policy.State{policy.StateActive, policy.StateSuspended, policy.StateLeaver}).Draw(t, "state"),
			}
			for _, name := range []string{"a", "b"} {
				s.Attributes[name] = rapid.SliceOfN(rapid.SampledFrom(values), 0, 2).Draw(t, name)
			}
			asked[i].Subject = s
		}
		together, alone := policy.NewAllowance(1<<60), policy.NewAllowance(1<<60)
		answers := program.Metered(together).Everybody(asked, time.Time{})
		for i, a := range asked {
			d, err := program.Metered(alone).Desired(a.Subject, a.Grants, time.Time{})
			if !reflect.DeepEqual(d, answers[i].Desired) || fmt.Sprint(err) != fmt.Sprint(answers[i].Err) {
				t.Fatalf("subject %+v: alone %+v, %v; together %+v, %v", a.Subject, d, err, answers[i].Desired, answers[i].Err)
			}
		}
		if together.Spent() != alone.Spent() {
			t.Fatalf("together they cost %d, alone %d", together.Spent(), alone.Spent())
		}
	})
}
