package cli

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// plain reports whether a character may reach a terminal as it is. Control
// characters, what reorders or hides its neighbours (Unicode TR 9, format and
// tag characters) and spaces that are not U+0020 may not.
func plain(r rune) bool {
	return r == ' ' || unicode.IsPrint(r) && r != unicode.ReplacementChar
}

// clean makes text from elsewhere safe for a terminal: what is not plain is
// written as its code point, broken UTF-8 as its octets. It is the only such
// function here and every printed string passes it.
func clean(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case plain(r):
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		i += size
	}
	return b.String()
}

// escapeJSON writes what is not plain inside a JSON document as \u escapes: the
// document means the same and is safe to look at. Such characters, white space
// between values aside, can only stand inside strings.
func escapeJSON(doc []byte) []byte {
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case plain(r) || r == '\n' || r == '\t' || r == '\r' || r == unicode.ReplacementChar:
			b.WriteRune(r)
		case r > 0xffff:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+(r>>10), 0xdc00+(r&0x3ff))
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}
