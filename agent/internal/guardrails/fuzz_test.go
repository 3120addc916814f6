package guardrails

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// onOneLine reports whether a text can be shown as one line.
func onOneLine(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// parseText reads guardrails as they stand in a file; nil for what is refused.
func parseText(t *testing.T, text []byte) *Guardrails {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) != 1 {
		return nil
	}
	g, err := Parse("corp", doc.Content[0])
	if err == nil {
		return g
	}
	if g != nil || !errors.Is(err, ErrInvalid) {
		t.Fatalf("%v, %v", g, err)
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if !onOneLine(line) {
			t.Fatalf("the refusal cannot be shown: %q", line)
		}
	}
	return nil
}

// written is the digest's form of guardrails as a file: what the digest does not
// cover is lost on the way.
func written(t *testing.T, g *Guardrails) []byte {
	raw, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(raw, &tree); err != nil {
		t.Fatal(err)
	}
	delete(tree, "alias")
	scope, _ := tree["scope"].([]any)
	for i, r := range g.Scope {
		if r.MaxGrant != 0 {
			scope[i].(map[string]any)["max_grant"] = time.Duration(r.MaxGrant).String()
		}
	}
	out, err := yaml.Marshal(withoutEmpty(tree))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// withoutEmpty takes out what stands for nothing, which a file must not hold.
func withoutEmpty(v any) any {
	switch of := v.(type) {
	case map[string]any:
		for k, inner := range of {
			if inner == nil || k == "pattern" && inner == "" {
				delete(of, k)
				continue
			}
			of[k] = withoutEmpty(inner)
		}
	case []any:
		for i := range of {
			of[i] = withoutEmpty(of[i])
		}
	}
	return v
}

// FuzzParse: guardrails that are taken explain themselves in lines that can be
// shown, and everything that limits is in the digest: written out from there they
// are the same guardrails.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text []byte) {
		g := parseText(t, text)
		if g == nil {
			return
		}
		lines := g.Explain()
		for _, line := range lines {
			if !strings.HasPrefix(line, "corp: ") || !onOneLine(line) {
				t.Fatalf("explained as %q", line)
			}
		}
		digest := Digest(map[string]*Guardrails{"corp": g}, nil)
		file := written(t, g)
		again := parseText(t, file)
		if again == nil {
			t.Fatalf("written out they are refused:\n%s", file)
		}
		if got := Digest(map[string]*Guardrails{"corp": again}, nil); got != digest || !slices.Equal(again.Explain(), lines) {
			t.Fatalf("written out they are others:\n%s\n%q\n%q", file, lines, again.Explain())
		}
	})
}

// FuzzParseName: a name's text is the name.
func FuzzParseName(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		n, err := ParseName(text)
		if err != nil {
			if n != nil || err.Error() == "" {
				t.Fatalf("%v, %v", n, err)
			}
			return
		}
		again, err := ParseName(n.Text())
		if err != nil || !proto.Equal(n, again) {
			t.Fatalf("%q is %v, and %q is %v, %v", text, n, n.Text(), again, err)
		}
	})
}

// FuzzCheck holds any change against any guardrails: without a scope nothing is
// allowed, a protected subject is never touched, an attribute without a rule is
// never written, and every refusal can be shown.
func FuzzCheck(f *testing.F) {
	f.Fuzz(func(t *testing.T, text, change, object, member []byte) {
		g := parseText(t, text)
		var s Subject
		s.Change, s.Object, s.Member = &planv1.Change{}, &connectorv1.Object{}, &connectorv1.Object{}
		if g == nil || proto.Unmarshal(change, s.Change) != nil || proto.Unmarshal(object, s.Object) != nil || proto.Unmarshal(member, s.Member) != nil {
			return
		}
		s.AboveKnown = true
		check := func(s Subject) []Refusal {
			c := g.Checker(types, connectorv1.CaseRule_CASE_RULE_IGNORE, nil)
			got := c.Check(s, now)
			if again := c.Check(s, now); !reflect.DeepEqual(got, again) {
				t.Fatalf("asked twice: %v, %v", got, again)
			}
			charges := Charges(s)
			for _, r := range append(slices.Clone(got), c.Budget(charges, charges)...) {
				if !strings.HasPrefix(r.Rule, "corp/") || !onOneLine(r.Sentence) || !onOneLine(r.Rule) {
					t.Fatalf("refused by %q: %q", r.Rule, r.Sentence)
				}
			}
			c.NeedsSignature(s)
			return got
		}
		refused := check(s)
		op := s.Change.GetOperation()
		if len(refused) > 0 {
			return
		}
		if len(g.Scope) == 0 || op.Kind() == connectorv1.OperationKind_OPERATION_KIND_UNSPECIFIED {
			t.Fatalf("%v is allowed by no rule", s.Change)
		}
		for _, d := range op.GetUpdate().GetDeltas() {
			if !slices.ContainsFunc(g.Attributes, func(a AttributeRule) bool { return strings.EqualFold(a.Name, d.GetAttribute()) }) {
				t.Fatalf("%q is written without a rule", d.GetAttribute())
			}
		}
		if op.Kind() != connectorv1.OperationKind_OPERATION_KIND_CREATE {
			for _, p := range g.Protected {
				if p.Anchor != "" && p.Anchor == s.Object.GetAnchor() {
					t.Fatalf("protected %q is touched", p.Anchor)
				}
			}
			s.Object = nil
			if len(check(s)) == 0 {
				t.Fatal("it is allowed on an object that could not be read")
			}
		}
	})
}
