package connectorv1

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"
)

func TestCanonical(t *testing.T) {
	for _, c := range []struct {
		rule MatchingRule
		a, b string
		same bool
	}{
		{MatchingRule_MATCHING_RULE_EXACT, "Anna", "anna", false},
		{MatchingRule_MATCHING_RULE_CASE_IGNORE, "  Anna   Berg ", "anna BERG", true},
		{MatchingRule_MATCHING_RULE_CASE_IGNORE, "ÅSE", "åse", true},
		{MatchingRule_MATCHING_RULE_CASE_IGNORE, "K", "k", true}, // Kelvin sign
		{MatchingRule_MATCHING_RULE_CASE_IGNORE, "ß", "ss", false},
		{MatchingRule_MATCHING_RULE_CASE_IGNORE, "\xff A", "\xff a", false},
		{MatchingRule_MATCHING_RULE_CASE_EXACT, " a  b", "a b", true},
		{MatchingRule_MATCHING_RULE_CASE_EXACT, "A", "a", false},
		{MatchingRule_MATCHING_RULE_INTEGER, "+007", "7", true},
		{MatchingRule_MATCHING_RULE_INTEGER, "-0", "0", true},
		{MatchingRule_MATCHING_RULE_INTEGER, "-7", "7", false},
		{MatchingRule_MATCHING_RULE_INTEGER, "seven", "7", false},
		{MatchingRule_MATCHING_RULE_BOOLEAN, "true", "TRUE", true},
		{MatchingRule_MATCHING_RULE_TELEPHONE, "+47 22-33 44", "+472233 44", true},
	} {
		if got := bytes.Equal(Canonical(c.rule, []byte(c.a)), Canonical(c.rule, []byte(c.b))); got != c.same {
			t.Errorf("%v: %q and %q same: %v", c.rule, c.a, c.b, got)
		}
	}
}

// TestCanonicalIsIdempotent: else equal values could differ after one more look.
func TestCanonicalIsIdempotent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule := MatchingRule(rapid.IntRange(0, 7).Draw(t, "rule"))
		value := rapid.SliceOf(rapid.Byte()).Draw(t, "value")
		if rapid.Bool().Draw(t, "text") {
			value = []byte(rapid.String().Draw(t, "string"))
		}
		once := Canonical(rule, value)
		if twice := Canonical(rule, once); !bytes.Equal(once, twice) {
			t.Fatalf("%v: %q -> %q -> %q", rule, value, once, twice)
		}
	})
}

func anyName(t *rapid.T, label string) *Name {
	n := new(Name)
	for range rapid.IntRange(1, 3).Draw(t, label) {
		c := new(Component)
		for range rapid.IntRange(1, 2).Draw(t, "parts") {
			c.Parts = append(c.Parts, &Part{Type: rapid.SampledFrom([]string{"cn", "ou"}).Draw(t, "type"), Value: rapid.StringMatching(`[a"=+,\\ \x00-\x02]{0,4}`).Draw(t, "value")})
		}
		n.Components = append(n.Components, c)
	}
	return n
}

// TestNameKeysTellNamesApart: no value can imitate the boundary between parts or
// components.
func TestNameKeysTellNamesApart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := anyName(t, "a"), anyName(t, "b")
		same := proto.Equal(sortedParts(a), sortedParts(b))
		if got := a.Key(CaseRule_CASE_RULE_EXACT) == b.Key(CaseRule_CASE_RULE_EXACT); got != same {
			t.Fatalf("%q and %q: keys equal %v, names equal %v", a.Text(), b.Text(), got, same)
		}
		if _, under := a.Under(a.Parent(), CaseRule_CASE_RULE_EXACT); !under {
			t.Fatalf("%q is not under its own parent", a.Text())
		}
		for _, r := range a.Text() {
			if r < 0x20 {
				t.Fatalf("%q shows a control character", a.Text())
			}
		}
	})
}

func sortedParts(n *Name) *Name {
	n = proto.CloneOf(n)
	for _, c := range n.Components {
		slices.SortFunc(c.Parts, func(x, y *Part) int { return strings.Compare(x.Type+"\x00"+x.Value, y.Type+"\x00"+y.Value) })
	}
	return n
}
