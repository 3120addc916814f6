package flatfile

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What is added and removed again leaves no trace, whatever the file looks like.
func TestTableAddThenRemoveIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`([a-c#+-]{0,3}(:[a-c ]{0,3}){0,3}\r?\n){0,5}[a-c:]{0,3}`).Draw(t, "text")
		before := parseTable([]byte(text), rapid.Bool().Draw(t, "nis"))
		if got := string(before.bytes()); got != text {
			t.Fatalf("read and written: %q, was %q", got, text)
		}
		after := before.add("newcomer:x")
		at := after.find("newcomer")
		if len(at) != 1 {
			t.Fatalf("added to %q: found at %v", text, at)
		}
		if got := string(after.remove(at[0]).bytes()); got != text {
			t.Fatalf("added and removed: %q, was %q", got, text)
		}
	})
}

func TestListAddThenRemoveIsIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := list{
			separator: rapid.SampledFrom([]string{",", " "}).Draw(t, "separator"),
			text:      rapid.StringMatching("[ab, \t]{0,8}").Draw(t, "text"),
		}
		added := list{text: l.add("newcomer"), separator: l.separator}
		if !slices.Contains(added.split(), "newcomer") {
			t.Fatalf("%q: newcomer is not among %q", added.text, added.split())
		}
		if got := added.remove("newcomer"); got != l.text {
			t.Fatalf("added and removed: %q, was %q", got, l.text)
		}
	})
}

func TestListRemoveTakesEveryOccurrence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		separator := rapid.SampledFrom([]string{",", " "}).Draw(t, "separator")
		text := rapid.StringMatching("[ab, \t]{0,12}").Draw(t, "text")
		before := list{text: text, separator: separator}
		after := list{text: before.remove("a"), separator: separator}
		want := slices.DeleteFunc(before.split(), func(m string) bool { return m == "a" })
		if !slices.Equal(after.split(), want) {
			t.Fatalf("%q without a: %q", text, after.text)
		}
	})
}

func TestUnlockNeverOpensAnEmptyPassword(t *testing.T) {
	for _, c := range []struct {
		hash, unlocked string
		ok             bool
	}{
		{"!*", "*", true}, {"!$6$salt$hash", "$6$salt$hash", true}, {"$6$salt$hash", "$6$salt$hash", true},
		{"!", "", false}, {"!!", "", false}, {"!!$6$x", "", false}, {"", "", true},
	} {
		if got, ok := unlockHash(c.hash); got != c.unlocked || ok != c.ok {
			t.Errorf("unlockHash(%q): want %q, %v, got %q, %v", c.hash, c.unlocked, c.ok, got, ok)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.StringMatching(`[$*a-z]{1,9}`).Draw(t, "hash")
		if got, ok := unlockHash(lockHash(hash)); !ok || got != hash {
			t.Fatalf("locked and unlocked: %q, %v, was %q", got, ok, hash)
		}
	})
}

// Vectors of the specification of the method, version 0.4, as crypt(3) and
// openssl passwd -6 compute them.
func TestSHA512CryptVectors(t *testing.T) {
	for _, c := range []struct {
		secret, salt string
		rounds       int
		want         string
	}{
		{"Hello world!", "saltstring", 5000, "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"},
		{"Hello world!", "saltstringsaltst", 10000, "$6$rounds=10000$saltstringsaltst$OW1/O6BYHV6BcXZu8QVeXbDWra3Oeqh0sbHbbMCVNSnCM/UrjmM0Dp8vOuZeHBy/YTBmSK6H9qs/y3RnOaw5v."},
		{"we have a short salt string but not a short password", "short", 77777, "$6$rounds=77777$short$WuQyW2YR.hBNpjjRhpYD/ifIw05xdfeEyQoMxIXbkvr0gge1a1x3yRULJ5CCaUeOxFmtlcGZelFl5CxtgfiAc0"},
	} {
		if got := sha512Crypt([]byte(c.secret), c.salt, c.rounds); got != c.want {
			t.Errorf("%q, %q, %d:\nwant %s\ngot  %s", c.secret, c.salt, c.rounds, c.want, got)
		}
		if !sha512Matches(c.want, []byte(c.secret)) || sha512Matches(c.want, []byte(c.secret+" ")) || sha512Matches(strings.TrimPrefix(c.want, "$6"), []byte(c.secret)) {
			t.Errorf("%q: the hash matches what it should not, or not what it should", c.secret)
		}
	}
}
