package policy

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// latin letters that have no decomposition in Unicode, as they are commonly
// spelt without it.
var latin = map[rune]string{
	'æ': "ae", 'Æ': "AE", 'œ': "oe", 'Œ': "OE", 'ø': "o", 'Ø': "O", 'ß': "ss", 'ẞ': "SS",
	'đ': "d", 'Đ': "D", 'ð': "d", 'Ð': "D", 'þ': "th", 'Þ': "Th", 'ł': "l", 'Ł': "L",
	'ħ': "h", 'Ħ': "H", 'ı': "i", 'ŋ': "n", 'Ŋ': "N", 'ŧ': "t", 'Ŧ': "T", 'ĸ': "k",
}

// asciiLetters spells s in ASCII: marks are dropped (NFD), so å becomes a and ö
// becomes o; letters without a decomposition follow the table above (ø o, æ ae,
// ß ss); what has no Latin spelling is left out.
func asciiLetters(s string) string {
	var b strings.Builder
	for _, r := range norm.NFD.String(s) {
		switch {
		case r < 0x80:
			b.WriteRune(r)
		case unicode.Is(unicode.Mn, r):
		default:
			b.WriteString(latin[r])
		}
	}
	return b.String()
}

// slug is s in lower-case ASCII letters and digits, every run of anything else
// one hyphen, none at the ends.
func slug(s string) string {
	words := strings.FieldsFunc(strings.ToLower(asciiLetters(s)), func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9')
	})
	return strings.Join(words, "-")
}
