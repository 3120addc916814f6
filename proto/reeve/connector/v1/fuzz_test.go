package connectorv1

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// FuzzCanonical: a canonical form is its own, equal values have equal forms, and
// what is not text is only equal to itself.
func FuzzCanonical(f *testing.F) {
	f.Fuzz(func(t *testing.T, number uint8, a, b []byte) {
		rule := MatchingRule(number % 8)
		before := bytes.Clone(a)
		formA, formB := Canonical(rule, a), Canonical(rule, b)
		if !bytes.Equal(Canonical(rule, formA), formA) {
			t.Fatalf("%v: %q -> %q -> %q", rule, a, formA, Canonical(rule, formA))
		}
		if !bytes.Equal(a, before) {
			t.Fatalf("%v changed what it was given: %q -> %q", rule, before, a)
		}
		if utf8.Valid(a) != utf8.Valid(formA) || !utf8.Valid(a) && !bytes.Equal(a, formA) {
			t.Fatalf("%v folds %q, which is not text, to %q", rule, a, formA)
		}
		same := bytes.Equal(formA, formB)
		if HasValue(rule, [][]byte{a}, b) != same || SameValues(rule, [][]byte{a}, [][]byte{b}) != same {
			t.Fatalf("%v: %q and %q: same form %v, and HasValue or SameValues says otherwise", rule, a, b, same)
		}
		if !SameValues(rule, [][]byte{a, b}, [][]byte{b, a}) {
			t.Fatalf("%v: the order of %q and %q counts", rule, a, b)
		}
		switch rule {
		case MatchingRule_MATCHING_RULE_EXACT, MatchingRule_MATCHING_RULE_UNSPECIFIED:
			if same != bytes.Equal(a, b) {
				t.Fatalf("%v takes %q for %q", rule, a, b)
			}
		case MatchingRule_MATCHING_RULE_CASE_IGNORE:
			if utf8.Valid(a) && utf8.Valid(b) && strings.EqualFold(FoldSpace(string(a)), FoldSpace(string(b))) != same {
				t.Fatalf("%q and %q: same form %v, %q and %q", a, b, same, formA, formB)
			}
		}
	})
}

// nameOf reads a name out of octets: each line a component, "|" between its
// parts, "=" after the type.
func nameOf(raw []byte) *Name {
	n := &Name{}
	for _, line := range bytes.Split(raw, []byte("\n")) {
		c := &Component{}
		for _, part := range bytes.Split(line, []byte("|")) {
			typ, value, _ := bytes.Cut(part, []byte("="))
			c.Parts = append(c.Parts, &Part{Type: strings.ToValidUTF8(string(typ), "\uFFFD"), Value: strings.ToValidUTF8(string(value), "\uFFFD")})
		}
		n.Components = append(n.Components, c)
	}
	return n
}

// sameByHand compares names without a key: component by component, parts in any
// order.
func sameByHand(a, b *Name, rule CaseRule) bool {
	return slices.EqualFunc(a.GetComponents(), b.GetComponents(), func(x, y *Component) bool {
		left := slices.Clone(y.GetParts())
		for _, p := range x.GetParts() {
			at := slices.IndexFunc(left, func(q *Part) bool {
				return strings.EqualFold(p.GetType(), q.GetType()) && FoldValue(p.GetValue(), rule) == FoldValue(q.GetValue(), rule)
			})
			if at < 0 {
				return false
			}
			left = slices.Delete(left, at, at+1)
		}
		return len(left) == 0
	})
}

// FuzzNameKey: two names have one key exactly when they are the same name, and
// their text can be shown.
func FuzzNameKey(f *testing.F) {
	f.Fuzz(func(t *testing.T, rawA, rawB []byte) {
		a, b := nameOf(rawA), nameOf(rawB)
		for _, rule := range []CaseRule{CaseRule_CASE_RULE_EXACT, CaseRule_CASE_RULE_IGNORE} {
			if keys, hand := a.Key(rule) == b.Key(rule), sameByHand(a, b, rule); keys != hand {
				t.Fatalf("%v: %v and %v: same %v, same key %v (%q, %q)", rule, a, b, hand, keys, a.Key(rule), b.Key(rule))
			}
			for depth := range a.GetComponents() {
				base := &Name{Components: a.GetComponents()[depth:]}
				if got, ok := a.Under(base, rule); !ok || got != depth {
					t.Fatalf("%v: %v lies %d below %v: %d, %v", rule, a, depth, base, got, ok)
				}
			}
			if _, ok := a.Parent().Under(a, rule); ok {
				t.Fatalf("%v: the parent of %v lies below it", rule, a)
			}
		}
		if a.Key(CaseRule_CASE_RULE_EXACT) == b.Key(CaseRule_CASE_RULE_EXACT) && a.Key(CaseRule_CASE_RULE_IGNORE) != b.Key(CaseRule_CASE_RULE_IGNORE) {
			t.Fatalf("%v and %v are exactly the same and not the same without case", a, b)
		}
		text := a.Text()
		if !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) || isBidi(r) }) {
			t.Fatalf("%v is shown as %q", a, text)
		}
	})
}

// FuzzDigest: the order in which a directory lists does not count, and an object
// that travels keeps its digest.
func FuzzDigest(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		var o, back Object
		if proto.Unmarshal(raw, &o) != nil {
			return
		}
		digest := o.Digest()
		turned := proto.CloneOf(&o)
		slices.Reverse(turned.Keys)
		slices.Reverse(turned.Members)
		for _, a := range turned.Attributes {
			slices.Reverse(a.Values)
		}
		if turned.Digest() != digest {
			t.Fatalf("the order counts: %v", &o)
		}
		encoded, err := proto.Marshal(&o)
		if err != nil {
			t.Fatal(err)
		}
		if err := proto.Unmarshal(encoded, &back); err != nil || back.Digest() != digest {
			t.Fatalf("%v does not keep its digest: %v", &o, err)
		}
	})
}
