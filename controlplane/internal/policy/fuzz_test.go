package policy_test

import (
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// showable reports whether a text can be shown on a terminal: lines of characters
// that can be seen.
func showable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) })
}

// FuzzParse: a bundle is read the same twice, or refused with a place in its file
// and in words that can be shown.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		files := []policy.File{{Path: "small.yaml", Data: text}}
		b, err := policy.Parse(files)
		if err == nil {
			again, twice := policy.Parse(files)
			if twice != nil || !reflect.DeepEqual(b, again) {
				t.Fatalf("read twice it is another bundle: %v", twice)
			}
			err = policy.Check(b)
		}
		if err == nil {
			if _, err := policy.RunTests(b); err != nil && !showable(err.Error()) {
				t.Fatalf("the tests end with what cannot be shown: %q", err)
			}
			return
		}
		var problems policy.Problems
		if !errors.Is(err, policy.ErrBundle) || !errors.As(err, &problems) || problems[0].At.File != "small.yaml" {
			t.Fatalf("got %q", err)
		}
		if !showable(err.Error()) {
			t.Fatalf("the refusal cannot be shown: %q", err)
		}
	})
}

// FuzzExpression puts any text where a rule stands and any text where a source
// says something: it is refused, or costs no more than one evaluation may.
func FuzzExpression(f *testing.F) {
	f.Fuzz(func(t *testing.T, expression, title, login string) {
		if !utf8.ValidString(expression) || len(expression) > 2000 || len(title) > 20000 {
			return
		}
		bundle := strings.Replace(small, `value: 'identity.attr("title")'`, "value: "+strconv.Quote(expression), 1)
		b, err := policy.Parse([]policy.File{{Path: "small.yaml", Data: []byte(bundle)}})
		if err != nil {
			return
		}
		p, err := policy.Compile(b, nil)
		if err != nil {
			if !showable(err.Error()) {
				t.Fatalf("the refusal cannot be shown: %q", err)
			}
			return
		}
		const rules = 40 // more than the bundle has
		allowance := policy.NewAllowance(policy.PlanCost)
		subject := policy.Subject{ID: "i", Kind: "human", State: policy.StateActive, Attributes: map[string][]string{"login": {login}, "title": {title, title}}}
		got, err := p.Metered(allowance).Desired(subject, nil, noon)
		if spent := allowance.Spent(); spent > rules*policy.MaxCost {
			t.Fatalf("%q cost %d units", expression, spent)
		}
		if err != nil {
			if !errors.Is(err, policy.ErrEvaluation) && !errors.Is(err, policy.ErrCost) || !showable(err.Error()) {
				t.Fatalf("got %q", err)
			}
			return
		}
		again, err := p.Desired(subject, nil, noon)
		if err != nil || !reflect.DeepEqual(got, again) {
			t.Fatalf("%q gives two answers, %+v and %+v, %v", expression, got, again, err)
		}
		for _, a := range got.Accounts {
			if want := []policy.Component{{{"uid", login}}, {{"ou", "people"}}, {{"dc", "example"}}}; !reflect.DeepEqual(a.Name, want) {
				t.Fatalf("login %q became the name %q", login, a.Name)
			}
		}
	})
}

// FuzzDN: what parses prints to text that parses to the same and can be shown,
// and the contract's key tells the same names apart.
func FuzzDN(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, other string) {
		name, err := policy.ParseDN(text)
		if err != nil {
			if !showable(err.Error()) {
				t.Fatalf("the refusal cannot be shown: %q", err)
			}
			return
		}
		shown := policy.NameText(name)
		again, err := policy.ParseDN(shown)
		if err != nil || !reflect.DeepEqual(name, again) {
			t.Fatalf("%q is %q, and again %q, %v", text, name, again, err)
		}
		second, err := policy.ParseDN(other)
		if err != nil {
			return
		}
		const exact = connectorv1.CaseRule_CASE_RULE_EXACT
		if policy.NameText(second) == shown && policy.ConnectorName(name).Key(exact) != policy.ConnectorName(second).Key(exact) {
			t.Fatalf("%q and %q are shown alike, %q, and differ", name, second, shown)
		}
	})
}

// FuzzDates: what is read prints to text that reads the same.
func FuzzDates(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		if d, err := policy.ParseDuration(text); err == nil && d < 0 {
			t.Fatalf("%q is %v", text, d)
		} else if err != nil && !showable(err.Error()) {
			t.Fatalf("the refusal cannot be shown: %q", err)
		}
		date, err := policy.ParseDate(text)
		if err != nil {
			if !showable(err.Error()) {
				t.Fatalf("the refusal cannot be shown: %q", err)
			}
			return
		}
		again, err := policy.ParseDate(date.String())
		if err != nil || again.IsZero() != date.IsZero() || again.First(noon.Location()).Unix() != date.First(noon.Location()).Unix() {
			t.Fatalf("%q is %v, and again %v, %v", text, date, again, err)
		}
		if date.Last(noon.Location()).Before(date.First(noon.Location())) {
			t.Fatalf("%q ends before it begins", text)
		}
	})
}
