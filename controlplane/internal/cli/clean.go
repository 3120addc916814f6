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
