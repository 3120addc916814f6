package rehearsal

import (
	"fmt"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// Of the benchmark's tenant: everybody is of one department, which has a role of
// its own; every eighth leads somebody.
const departments, titles, perDepartment = 19, 30, 2

// condition of the nth of 20 roles; bare CEL evaluates the same.
func condition(i int, department, title, kind string) string {
	return fmt.Sprintf(`%s == "human" && %s == "D%d" && %s != "T%d"`, kind, department, i, title, i)
}

// twentyRoles gives staff an account with seven attributes on the directory and
// membership of one group, each department two more, and some of them an account
// on a second target.
func twentyRoles() string {
	var b strings.Builder
	b.WriteString("reeve: policy/v1\nname: bench\nversion: \"1\"\nbudgets:\n")
	for _, kind := range []string{"disable", "delete", "membership"} {
		fmt.Fprintf(&b, "  %s: {percent: 100, floor: 1000}\n", kind)
	}
	b.WriteString("entitlements:\n  - {id: ad/staff, connector: ad, type: team, name: 'name([rdn(\"cn\", \"staff\")])'}\n")
	for i := range departments * perDepartment {
		fmt.Fprintf(&b, "  - {id: ad/e%d, connector: ad, type: team, name: 'name([rdn(\"cn\", \"e%d\")])'}\n", i, i)
	}
	b.WriteString(`roles:
  - id: staff
    when: 'identity.kind == "human" && identity.attr("login") != ""'
    entitlements: [ad/staff]
    accounts:
      - connector: ad
        type: person
        name: 'name([rdn("uid", identity.attr("login")), rdn("ou", "people")])'
        attributes:
          - {name: sn, value: 'identity.attr("family_name")', authority: enforce}
          - {name: mail, value: 'identity.attr("login") + "@fabrikam.example"', authority: enforce}
          - {name: title, value: 'identity.attr("title")', authority: enforce}
          - {name: floor, value: 'identity.attr("floor")', authority: enforce}
          - {name: phone, value: 'identity.attr("phone")', authority: initial}
          - {name: note, value: 'identity.attr("department")', authority: additive}
          - {name: manager, ref: 'identity.attr("manager")', authority: enforce}
`)
	for i := range departments {
		fmt.Fprintf(&b, "  - id: r%d\n    when: '%s'\n    entitlements: [ad/e%d, ad/e%d]\n", i,
			condition(i, `identity.attr("department")`, `identity.attr("title")`, "identity.kind"), perDepartment*i, perDepartment*i+1)
		if i < 5 {
			b.WriteString("    accounts:\n      - connector: web\n        type: person\n        name: 'name([rdn(\"uid\", identity.attr(\"login\"))])'\n" +
				"        attributes:\n          - {name: sn, value: 'identity.attr(\"family_name\")', authority: enforce}\n")
		}
	}
	return b.String()
}

func benchProgram(b *testing.B) *policy.Program {
	b.Helper()
	bundle, err := policy.Parse([]policy.File{{Path: "bench.yaml", Data: []byte(twentyRoles())}})
	if err != nil {
		b.Fatal(err)
	}
	program, err := policy.Compile(bundle, nil)
	if err != nil {
		b.Fatal(err)
	}
	return program.Metered(policy.NewAllowance(1 << 62))
}

func benchSubject(i int) policy.Subject {
	return policy.Subject{ID: fmt.Sprintf("id%06d", i), Kind: "human", State: policy.StateActive, Attributes: map[string][]string{
		"login": {fmt.Sprintf("user%06d", i)}, "family_name": {fmt.Sprintf("Family %d", i%5000)}, "floor": {fmt.Sprint(i % 12)},
		"phone": {fmt.Sprintf("+47 22 %06d", i)}, "department": {fmt.Sprintf("D%d", i%departments)}, "title": {fmt.Sprintf("T%d", i%titles)},
		"manager": {fmt.Sprintf("id%06d", i/8*8)},
	}}
}

// estate is the input of a plan for so many people before anything was observed of
// them: groups stand on the targets, and nobody is in them.
func benchEstate(program *policy.Program, people int) (planner.Input, []policy.Subject) {
	in := planner.Input{
		Plan: "p", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, AsOf: epoch, ChangeKey: make([]byte, 32),
		Entitlements: program.Entitlements(), Rules: program.Rules(), PolicyVersion: "bench 1",
		PolicyDigest: program.Digest(), ParametersDigest: program.ParametersDigest(),
	}
	for _, alias := range []string{"ad", "web"} {
		c := planner.Connector{
			Alias: alias, Agent: "dc1", Mode: planner.ModeEnforce, CaseRule: connectorv1.CaseRule_CASE_RULE_IGNORE,
			Types: []*connectorv1.ObjectType{personType(), groupType("dn:", false)}, Snapshot: &planv1.SnapshotHeader{Connector: alias, Complete: true},
		}
		if alias == "ad" {
			for i, e := range in.Entitlements {
				n := wireName(e.Name)
				c.Objects = append(c.Objects, &connectorv1.Object{Type: "team", Anchor: fmt.Sprintf("team%03d", i), Name: n, Keys: []string{"dn:" + n.Text()}})
			}
		}
		in.Connectors = append(in.Connectors, c)
	}
	subjects := make([]policy.Subject, people)
	for i := range subjects {
		subjects[i] = benchSubject(i)
	}
	return in, subjects
}
