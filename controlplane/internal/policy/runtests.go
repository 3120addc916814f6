package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// TestResult is how one of a bundle's tests ended.
type TestResult struct {
	Name string
	At   Position
	// Failures say what differs, safe to print; none means that it passed.
	Failures []string
}

// Passed reports whether the test found nothing.
func (r TestResult) Passed() bool { return len(r.Failures) == 0 }

// RunTests runs the bundle's tests in their order. The error is Check's.
func RunTests(b *Bundle) ([]TestResult, error) {
	if err := Check(b); err != nil {
		return nil, err
	}
	programs := map[string]*Program{} // by parameters, since compiling is the dear part
	results := make([]TestResult, 0, len(b.Tests))
	for _, t := range b.Tests {
		key := fmt.Sprintf("%q", t.Params) // fmt prints maps sorted
		program, known := programs[key]
		r := TestResult{Name: t.Name, At: t.At}
		if !known {
			var err error
			if program, err = Compile(b, t.Params); err != nil {
				r.Failures = expectError(t, err)
				results = append(results, r)
				continue
			}
			programs[key] = program
		}
		r.Failures = t.run(program)
		results = append(results, r)
	}
	return results, nil
}

func expectError(t Test, err error) []string {
	switch {
	case t.Expect.Error == "":
		return []string{"it fails: " + err.Error()}
	case !strings.Contains(err.Error(), t.Expect.Error):
		return []string{fmt.Sprintf("expected an error with %q, got: %s", printable(t.Expect.Error), err)}
	}
	return nil
}

func (t Test) run(p *Program) []string {
	subject := t.Subject
	err := error(nil)
	if t.Row != nil {
		subject, err = t.fromRow(p)
	}
	var got Desired
	if err == nil {
		got, err = p.Desired(subject, t.grants(), t.AsOf)
	}
	if err != nil {
		return expectError(t, err)
	}
	if t.Expect.Error != "" {
		return []string{fmt.Sprintf("expected an error with %q, but there is none", printable(t.Expect.Error))}
	}
	var failures []string
	for _, problem := range got.Problems {
		failures = append(failures, "left out: "+problem)
	}
	failures = append(failures, compareEntitlements(t.Expect.Entitlements, got)...)
	return append(failures, compareAccounts(t.Expect.Accounts, got)...)
}

// fromRow makes the subject through the source mapping, in UTC.
func (t Test) fromRow(p *Program) (Subject, error) {
	object := &connectorv1.Object{Type: t.Row.Type, Anchor: "test"}
	for _, name := range slices.Sorted(maps.Keys(t.Row.Attributes)) {
		if name == ObjectName {
			for _, v := range t.Row.Attributes[name] {
				object.Name = &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("name", v)}}
			}
			continue
		}
		a := &connectorv1.Attribute{Name: name}
		for _, v := range t.Row.Attributes[name] {
			a.Values = append(a.Values, []byte(v))
		}
		object.Attributes = append(object.Attributes, a)
	}
	row, err := p.Source(t.Row.Connector, t.Row.Type, object)
	if err != nil {
		return Subject{}, err
	}
	if !row.InScope {
		return Subject{}, errors.New("the row is not in the source's scope")
	}
	s := t.Subject
	s.Kind, s.Attributes, s.State = row.Kind, row.Attributes, row.StateAt(t.AsOf, time.UTC)
	// References need other identities; in a test they stand as given.
	for _, r := range row.References {
		s.Attributes[r.Name] = r.Values
	}
	if !row.Start.IsZero() {
		s.Start = row.Start.First(time.UTC)
	}
	if !row.End.IsZero() {
		s.End = row.End.Last(time.UTC)
	}
	if s.State == StateLeaver && s.LeftAt.IsZero() {
		s.LeftAt = s.End
	}
	return s, nil
}

// grants with ids where the test gives none.
func (t Test) grants() []Grant {
	grants := slices.Clone(t.Grants)
	for i := range grants {
		if grants[i].ID == "" {
			grants[i].ID = fmt.Sprintf("test-%d", i+1)
		}
	}
	return grants
}

func compareEntitlements(want []string, got Desired) []string {
	var failures, have []string
	for _, e := range got.Entitlements {
		have = append(have, e.Entitlement)
		if !slices.Contains(want, e.Entitlement) {
			failures = append(failures, fmt.Sprintf("unexpected entitlement %s, given by %s", e.Entitlement, giver(e)))
		}
	}
	for _, id := range want {
		if !slices.Contains(have, id) {
			failures = append(failures, fmt.Sprintf("missing entitlement %s", printable(id)))
		}
	}
	return failures
}

func compareAccounts(want []ExpectedAccount, got Desired) []string {
	var failures []string
	for _, a := range got.Accounts {
		if !slices.ContainsFunc(want, func(w ExpectedAccount) bool { return w.Connector == a.Connector && w.Purpose == a.Purpose }) {
			failures = append(failures, fmt.Sprintf("unexpected %s account on %s named %s, given by rule %s", a.Purpose, a.Connector, NameText(a.Name), a.Rule))
		}
	}
	for _, w := range want {
		what := fmt.Sprintf("%s account on %s", w.Purpose, w.Connector)
		i := slices.IndexFunc(got.Accounts, func(a Account) bool { return w.Connector == a.Connector && w.Purpose == a.Purpose })
		if i < 0 {
			failures = append(failures, "missing "+what)
			continue
		}
		failures = append(failures, compareAccount(what, w, got.Accounts[i])...)
	}
	return failures
}

func compareAccount(what string, want ExpectedAccount, got Account) []string {
	var failures []string
	if text := NameText(got.Name); text != want.Name {
		failures = append(failures, fmt.Sprintf("%s: name is %s, expected %s", what, text, printable(want.Name)))
	}
	if got.Enabled != want.Enabled {
		failures = append(failures, fmt.Sprintf("%s: enabled is %t, expected %t", what, got.Enabled, want.Enabled))
	}
	if got.Delete != want.Delete {
		failures = append(failures, fmt.Sprintf("%s: delete is %t, expected %t", what, got.Delete, want.Delete))
	}
	for _, name := range slices.Sorted(maps.Keys(want.Attributes)) {
		var have []string
		for _, a := range got.Attributes {
			if strings.EqualFold(a.Name, name) {
				have = slices.Concat(have, a.Values, a.Refs)
			}
		}
		expected := slices.DeleteFunc(slices.Clone(want.Attributes[name]), func(v string) bool { return v == "" })
		if !slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(expected))) {
			failures = append(failures, fmt.Sprintf("%s: attribute %s is %s, expected %s", what, printable(name), quoted(have), quoted(expected)))
		}
	}
	return failures
}

func quoted(values []string) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = `"` + printable(v) + `"`
	}
	return "[" + strings.Join(words, ", ") + "]"
}
