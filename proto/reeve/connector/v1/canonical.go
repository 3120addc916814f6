package connectorv1

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Canonical returns the form in which two values of an attribute are compared
// under rule. Values that are not valid UTF-8 compare by octet whatever the
// rule, so that a binary value is never folded into another. The result shares
// no memory with value unless it is equal to it.
func Canonical(rule MatchingRule, value []byte) []byte {
	if !utf8.Valid(value) {
		return value
	}
	switch rule {
	case MatchingRule_MATCHING_RULE_CASE_IGNORE:
		return folded(value, FoldSpace(FoldCase(string(value))))
	case MatchingRule_MATCHING_RULE_CASE_EXACT:
		return folded(value, FoldSpace(string(value)))
	case MatchingRule_MATCHING_RULE_INTEGER:
		return canonicalInteger(value)
	case MatchingRule_MATCHING_RULE_BOOLEAN:
		return bytes.ToUpper(value)
	case MatchingRule_MATCHING_RULE_TELEPHONE:
		return []byte(strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) || r == '-' {
				return -1
			}
			return r
		}, FoldCase(string(value))))
	default:
		return value
	}
}

// folded is the value itself where folding did not change it, as mostly.
func folded(value []byte, form string) []byte {
	if form == string(value) {
		return value
	}
	return []byte(form)
}

// FoldCase maps characters that differ only in case to one character. It is
// simple folding, rune by rune: "ß" and "ss" stay different, as they do in the
// directories we compare with.
func FoldCase(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r >= utf8.RuneSelf || 'A' <= r && r <= 'Z' }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if r < utf8.RuneSelf {
			if 'A' <= r && r <= 'Z' {
				return r + ('a' - 'A')
			}
			return r
		}
		// The smallest rune of the orbit stands for all of it; then lower
		// case, so that the result reads naturally.
		least := r
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			least = min(least, f)
		}
		if lower := unicode.ToLower(least); strings.EqualFold(string(lower), string(r)) {
			return lower
		}
		// "İ" is alone in its orbit and must not become "i".
		return least
	}, s)
}

// FoldSpace removes outer spaces and makes every inner run of spaces one space
// (RFC 4518 2.6.1).
func FoldSpace(s string) string {
	if plainSpaces(s) {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// plainSpaces reports that a text is ASCII whose only spaces are single ones
// between other characters.
func plainSpaces(s string) bool {
	before := byte(' ')
	for i := range len(s) {
		c := s[i]
		if c >= utf8.RuneSelf || c < ' ' || c == ' ' && before == ' ' {
			return false
		}
		before = c
	}
	return s == "" || before != ' '
}

func canonicalInteger(value []byte) []byte {
	digits := bytes.TrimSpace(value)
	negative := bytes.HasPrefix(digits, []byte("-"))
	digits = bytes.TrimLeft(digits, "+-")
	for _, d := range digits {
		if d < '0' || d > '9' {
			return value
		}
	}
	if len(digits) == 0 {
		return value
	}
	digits = bytes.TrimLeft(digits, "0")
	if len(digits) == 0 {
		return []byte("0")
	}
	if negative {
		return append([]byte("-"), digits...)
	}
	return bytes.Clone(digits)
}

// SameValues reports whether a and b hold the same values under rule, in any
// order.
func SameValues(rule MatchingRule, a, b [][]byte) bool {
	if len(a) != len(b) {
		return false
	}
	if slices.EqualFunc(a, b, bytes.Equal) {
		return true
	}
	return slices.EqualFunc(canonicalSorted(rule, a), canonicalSorted(rule, b), bytes.Equal)
}

// HasValue reports whether values holds value under rule.
func HasValue(rule MatchingRule, values [][]byte, value []byte) bool {
	if len(values) == 0 {
		return false
	}
	want := Canonical(rule, value)
	return slices.ContainsFunc(values, func(v []byte) bool { return bytes.Equal(Canonical(rule, v), want) })
}

func canonicalSorted(rule MatchingRule, values [][]byte) [][]byte {
	out := make([][]byte, len(values))
	for i, v := range values {
		out[i] = Canonical(rule, v)
	}
	slices.SortFunc(out, bytes.Compare)
	return out
}
