package guardrails

import (
	"errors"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func parse(t testing.TB, text string) *Guardrails {
	t.Helper()
	g, err := tryParse(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func tryParse(text string) (*Guardrails, error) {
	var node yaml.Node
	if err := yaml.Unmarshal([]byte(text), &node); err != nil {
		return nil, err
	}
	return Parse("corp", node.Content[0])
}

func TestFaultsNameKeyLineAndRemedy(t *testing.T) {
	for text, want := range map[string][]string{
		"scop: []": {"line 1", "guardrails.scop ", "use one of: attributes"},
		"scope:\n  - rule: a\n    types: [x]\n    base: ''\n    dept: 1":                   {"line 5", "scope[0].dept", "depth"},
		"scope:\n  - {rule: a, types: [x], base: 'ou'}":                                    {"line 2", "not a name"},
		"scope:\n  - {rule: a, types: [x]}":                                                {"line 2", "base", "under which name"},
		"scope:\n  - {rule: a, types: [x], base: '', operations: [drop]}":                  {"line 2", `"drop"`, "add_member"},
		"scope:\n  - {rule: a, types: [x], base: ''}\n  - {rule: a, types: [x], base: ''}": {"line 3", "given twice"},
		"scope:\n  - {rule: a, types: [x], base: '', max_grant: 8}":                        {"line 2", "8h"},
		"scope:\n  - {rule: a, types: [x], base: '', max_grant: 0s}":                       {"line 2", "max_grant", "more than 0"},
		"scope:\n  - rule: a\n    types: [x]\n    base: ''\n    max_grant:":                {"line 5", "max_grant", "no value"},
		"scope:\n  - {rule: a, types: [x], base: '', depth: , match: }":                    {"depth", "match", "no value"},
		"attributes:\n  - {name: mail, suffix: }":                                          {"suffix", "no value"},
		"attributes:\n  - {name: mail, one_of: []}":                                        {"one_of", "lists nothing"},
		"attributes:\n  - {name: mail, max_length: 0}":                                     {"max_length", "more than 0"},
		"attributes:\n  - {name: mail, pattern: 'a)|(.*'}":                                 {"line 2", "regular expression"},
		"protected: [{name: ''}]":                                                          {"protected[0].name", "nothing"},
		"attributes:\n  - {name: mail, pattern: '('}":                                      {"line 2", "regular expression"},
		"attributes:\n  - {name: memberOf}":                                                {"line 2", "dangerous"},
		"credentials: all":                                                                 {"line 1", "created or any"},
		"protected:\n  - {}":                                                               {"line 2", "name or an anchor"},
		"budgets:\n  plan: {explode: 1}":                                                   {"line 2", "losing_access"},
		"budgets:\n  day: {delete: -1}":                                                    {"line 2", "negative"},
		"client_signature: {rules: [nosuch]}":                                              {"line 1", "nosuch"},
		"credentials: any\ncredentials: created":                                           {"line 2", "given twice"},
		"scope: &a []\nattributes: *a":                                                     {"anchor or alias"},
		"case: both":                                                                       {"exact or ignore"},
		"scope: {}":                                                                        {"must be a list"},
		"attributes:\n  - {name: x, max_length: y}":                                        {"line 2"},
	} {
		_, err := tryParse(text)
		if err == nil {
			t.Errorf("%q was taken", text)
			continue
		}
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v does not wrap ErrInvalid", text, err)
		}
		for _, w := range want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%q: %q does not say %q", text, err, w)
			}
		}
	}
}

func TestExampleOfTheDocumentation(t *testing.T) {
	g := parse(t, example)
	if len(g.Scope) != 2 || len(g.Attributes) != 2 || g.Credentials != "created" {
		t.Fatalf("%+v", g)
	}
	words := strings.Join(g.Explain(), "\n")
	for _, want := range []string{
		"corp: rule people: person right below ou=people,dc=fabrikam,dc=example whose uid looks like \"*\": create, update",
		"at most 8h0m0s ahead", "mail may be written on person, ending with \"@fabrikam.example\", up to 100 characters",
		"uid=ceo,ou=people,dc=fabrikam,dc=example is never touched", "losing access of at most 10 people", "delete needs the signature of it-lead",
		"every change under rule file-shares needs",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("explanation does not say %q:\n%s", want, words)
		}
	}
}

const example = `
scope:
  - rule: people
    types: [person]
    base: "ou=people,dc=fabrikam,dc=example"
    depth: 1
    match: {part: uid, glob: "*"}
    operations: [create, update, rename, move, enable, disable, delete, set_credential]
  - rule: file-shares
    types: [group]
    base: ["ou=shares", "ou=groups", "dc=fabrikam", "dc=example"]
    operations: [add_member, remove_member]
    require_end: true
    max_grant: 8h
attributes:
  - {name: mail, types: [person], suffix: "@fabrikam.example", max_length: 100}
  - {name: description}
protected:
  - name: "uid=ceo,ou=people,dc=fabrikam,dc=example"
  - anchor: root-anchor
budgets:
  plan: {create: 50, losing_access: 10}
  day: {losing_access: 20}
client_signature:
  operations: [delete]
  rules: [file-shares]
  dangerous: true
  approvers: [it-lead]
`

func TestDigestChangesWithMeaningOnly(t *testing.T) {
	digest := func(text string) string {
		return Digest(map[string]*Guardrails{"corp": parse(t, text)}, []Approver{{Name: "a", Key: "k"}})
	}
	base := digest(example)
	if digest("# a comment\n"+example) != base {
		t.Error("a comment changed the digest")
	}
	for _, edit := range [][2]string{{"depth: 1", "depth: 2"}, {"8h", "9h"}, {"losing_access: 20", "losing_access: 21"}, {"[it-lead]", "[it-lead, x]"}, {"root-anchor", "other"}, {"uid=ceo", "uid=cfo"}, {"@fabrikam", "@contoso"}} {
		if digest(strings.Replace(example, edit[0], edit[1], 1)) == base {
			t.Errorf("%s did not change the digest", edit[1])
		}
	}
	if Digest(map[string]*Guardrails{"corp": parse(t, example)}, []Approver{{Name: "a", Key: "k2"}}) == base {
		t.Error("an approver's key did not change the digest")
	}
}

// What Text writes, ParseName reads back as the same name.
func TestParseNameReadsTextBack(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := &connectorv1.Name{}
		for range rapid.IntRange(0, 4).Draw(rt, "components") {
			c := &connectorv1.Component{}
			for range rapid.IntRange(1, 2).Draw(rt, "parts") {
				c.Parts = append(c.Parts, &connectorv1.Part{
					Type:  rapid.SampledFrom([]string{"cn", "ou", "uid"}).Draw(rt, "type"),
					Value: rapid.StringMatching(`[ a-zæ,+\\#=";<>\n\x{202e}0-9]{1,6}`).Draw(rt, "value"),
				})
			}
			n.Components = append(n.Components, c)
		}
		got, err := ParseName(n.Text())
		if err != nil {
			rt.Fatalf("%q: %v", n.Text(), err)
		}
		const exact = connectorv1.CaseRule_CASE_RULE_EXACT
		if got.Key(exact) != n.Key(exact) {
			rt.Fatalf("%q was read as %q", n.Text(), got.Text())
		}
	})
}

func TestParseNameRefuses(t *testing.T) {
	for _, text := range []string{"ou", "=x", "ou=", "ou=a,", "ou=a,,dc=b", "ou=#0401", `ou=a\`, `ou=a\q`, "ou=a;dc=b", `ou="a"`, "ou=a+", `ou=\ff`} {
		if n, err := ParseName(text); err == nil {
			t.Errorf("%q was read as %q", text, n.Text())
		}
	}
}
