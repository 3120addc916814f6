package operatorv1

import (
	"fmt"
	"strings"
	"unicode"
)

// VisibleJSON writes control, bidirectional and other characters that cannot be
// seen as \u escapes (RFC 8259 7): the document means the same, and does nothing
// to a terminal or a log that shows it. Such characters, white space between
// values aside, can only stand inside strings. It may return doc itself.
func VisibleJSON(doc []byte) []byte {
	text := string(doc)
	if !strings.ContainsFunc(text, func(r rune) bool { return !visible(r) }) {
		return doc
	}
	var b strings.Builder
	for _, r := range text {
		switch {
		case visible(r):
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

func visible(r rune) bool {
	return unicode.IsPrint(r) || r == '\n' || r == '\t' || r == '\r'
}
