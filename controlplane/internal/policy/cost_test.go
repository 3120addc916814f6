package policy

import (
	"os"
	"strings"
	"testing"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"pgregory.net/rapid"
)

// A rule that runs unwatched because its worst case is cheap must not be able
// to cost more than that worst case, whatever it is given.
func TestWorstCostIsAnUpperBound(t *testing.T) {
	rules := []string{
		`identity.attr("a") == "x" && identity.kind != "y"`,
		`identity.attr("a").lower() + "@" + identity.attr("b").ascii().slug()`,
		`lower(identity.attr("a")) == upper(identity.attr("b"))`,
		`slug(lower(ascii(identity.attr("a")))).split("x").size() > 1`,
		`identity.attr("a").lower().upper().contains("XY")`,
		`identity.attr("a").replace("x", "yy")`,
		`identity.attr("a").split(",").join("+")`,
		`identity.attr("a").trim().substring(0)`,
		`identity.attr("a") in params.list`,
		`identity.attrs("a").exists(v, v == "x")`,
		`identity.attrs("a").map(v, v + "!").size() > 3`,
		`"%s-%s".format([identity.attr("a"), params.text])`,
		`identity.attr("a").startsWith(params.text) || identity.attr("a").contains("x")`,
		`identity.attr("a").matches("^x+$")`,
		`name([rdn("cn", "x" + identity.attr("a")), rdns([rdn("a", "1"), rdn("b", "2")])], dn("dc=x"))`,
	}
	schema := []Parameter{{Name: "list", Type: ParameterList}, {Name: "text", Type: ParameterString}}
	env, err := newEnvironments(schema)
	if err != nil {
		t.Fatal(err)
	}
	type metered struct {
		rule    string
		worst   uint64
		program cel.Program
	}
	var all []metered
	for _, rule := range rules {
		ast, issues := env.identity.Compile(rule)
		if issues.Err() != nil {
			t.Fatal(issues.Err())
		}
		estimate, err := env.identity.EstimateCost(ast, inputSizes{})
		if err != nil {
			t.Fatal(err)
		}
		program, err := env.identity.Program(ast, cel.CostTracking(nil))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, metered{rule, estimate.Max, program})
	}
	text := rapid.Custom(func(t *rapid.T) string {
		unit := rapid.SampledFrom([]string{"", "x", ",", "ß", "Ⱥ", "x,y", " ", "é", "𝔘"}).Draw(t, "unit")
		if unit == "" {
			return ""
		}
		return strings.Repeat(unit, rapid.SampledFrom([]int{1, 7, 300, maxValue / len(unit)}).Draw(t, "times"))
	})
	values := rapid.Custom(func(t *rapid.T) []string {
		list := rapid.SliceOfN(text, 0, 3).Draw(t, "values")
		if len(list) > 0 && rapid.Bool().Draw(t, "many") {
			for len(list) < maxValues {
				list = append(list, list[0])
			}
		}
		return list
	})
	rapid.Check(t, func(t *rapid.T) {
		vars := &variables{
			subject: &attributesVal{typ: identityType, values: map[string][]string{"a": values.Draw(t, "a"), "b": values.Draw(t, "b")}},
			kind:    types.String(text.Draw(t, "kind")),
			params: map[string]ref.Val{
				"params.list": types.NewStringList(types.DefaultTypeAdapter, values.Draw(t, "list")),
				"params.text": types.String(text.Draw(t, "text")),
			},
		}
		for _, m := range all {
			_, details, _ := m.program.Eval(vars) // an error costs too
			if spent := details.ActualCost(); spent == nil || *spent > m.worst {
				t.Fatalf("%s cost %d, its worst case is %d", m.rule, *spent, m.worst)
			}
		}
	})
}

// The bundles we ship are cheap enough that a plan for 100,000 people fits the
// default allowance.
func TestShippedBundlesFitThePlanCost(t *testing.T) {
	for _, name := range []string{"baseline.yaml", "with-ldap"} {
		files, err := ReadFiles(os.DirFS("../../../deploy/policy"), name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := Parse(files)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Compile(b, Values{"site": "oslo"})
		if name == "with-ldap" {
			p, err = Compile(b, Values{"site": "oslo", "people_base": "ou=people,dc=x", "groups_base": "ou=groups,dc=x"})
		}
		if err != nil {
			t.Fatal(err)
		}
		allowance := NewAllowance(PlanCost)
		s := Subject{ID: "x", Kind: "human", State: StateActive, Attributes: map[string][]string{"login": {"anna"}, "department": {"IT"}, "display_name": {strings.Repeat("x", maxValue)}}}
		if _, err := p.Metered(allowance).Desired(s, nil, s.Start); err != nil {
			t.Fatal(err)
		}
		if allowance.Spent() == 0 || allowance.Spent()*100_000 > PlanCost {
			t.Errorf("%s: one person costs %d", name, allowance.Spent())
		}
	}
}
