package flatfile

import (
	"crypto/sha512"
	"crypto/subtle"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/bcrypt"

	"github.com/reevehq/reeve/plugins/sdk"
)

// noPassword is a hash that no password has.
const noPassword = "*"

// locked reports a hash under usermod -L's mark.
func locked(hash string) bool { return strings.HasPrefix(hash, "!") }

// lockHash and unlockHash are each other's inverse. Unlocking what would leave
// an empty field is refused: it would let everybody in.
func lockHash(hash string) string {
	if locked(hash) {
		return hash
	}
	return "!" + hash
}

func unlockHash(hash string) (string, bool) {
	bare := strings.TrimLeft(hash, "!")
	if len(hash)-len(bare) > 1 || bare == "" && hash != "" {
		return "", false
	}
	return bare, true
}

// withHash keeps the lock and changes what is under it.
func withHash(old, hash string) string {
	if locked(old) {
		return "!" + hash
	}
	return hash
}

// checkSecret refuses what a login program could not be given.
func checkSecret(object string, secret []byte, limit int) *sdk.Problem {
	said := ""
	switch {
	case len(secret) > limit:
		said = fmt.Sprintf("longer than %d bytes", limit)
	case !utf8.Valid(secret):
		said = "not UTF-8"
	case strings.IndexFunc(string(secret), unicode.IsControl) >= 0:
		said = "holds a control character"
	default:
		return nil
	}
	return sdk.NewProblem(sdk.CodeInvalidValue, object, "set credential", "use a shorter secret of printable characters").WithSaid(said)
}

func bcryptHash(secret []byte, cost int) (string, error) {
	hash, err := bcrypt.GenerateFromPassword(secret, cost)
	// Apache knows the prefixes 2a and 2y; its own tool writes 2y.
	return strings.Replace(string(hash), "$2a$", "$2y$", 1), err
}

func bcryptMatches(hash string, secret []byte) bool {
	return strings.HasPrefix(hash, "$2") && bcrypt.CompareHashAndPassword([]byte(hash), secret) == nil
}

// cryptAlphabet is crypt(3)'s base 64.
const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

const defaultRounds = 5000

func newSalt(random io.Reader) (string, error) {
	raw := make([]byte, 16)
	if _, err := io.ReadFull(random, raw); err != nil {
		return "", err
	}
	for i, b := range raw {
		raw[i] = cryptAlphabet[b&63]
	}
	return string(raw), nil
}

func sha512Matches(hash string, secret []byte) bool {
	parts := strings.Split(hash, "$")
	if len(parts) < 4 || parts[0] != "" || parts[1] != "6" {
		return false
	}
	rounds := defaultRounds
	if text, given := strings.CutPrefix(parts[2], "rounds="); given && len(parts) == 5 {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1000 || n > 999_999_999 {
			return false
		}
		rounds, parts = n, parts[1:]
	}
	return subtle.ConstantTimeCompare([]byte(sha512Crypt(secret, parts[2], rounds)), []byte(hash)) == 1
}

// sha512Crypt is crypt(3)'s method 6, after Ulrich Drepper's "Unix crypt using
// SHA-256 and SHA-512", version 0.4. The salt is at most 16 characters long.
func sha512Crypt(secret []byte, salt string, rounds int) string {
	inner := sha512.New()
	inner.Write(secret)
	inner.Write([]byte(salt))
	inner.Write(secret)
	b := inner.Sum(nil)

	h := sha512.New()
	h.Write(secret)
	h.Write([]byte(salt))
	h.Write(repeatTo(b, len(secret)))
	for n := len(secret); n > 0; n >>= 1 {
		if n&1 == 1 {
			h.Write(b)
		} else {
			h.Write(secret)
		}
	}
	a := h.Sum(nil)

	h.Reset()
	for range secret {
		h.Write(secret)
	}
	p := repeatTo(h.Sum(nil), len(secret))
	h.Reset()
	for range 16 + int(a[0]) {
		h.Write([]byte(salt))
	}
	s := repeatTo(h.Sum(nil), len(salt))

	c := a
	for i := range rounds {
		h.Reset()
		first, last := c, p
		if i&1 == 1 {
			first, last = p, c
		}
		h.Write(first)
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		h.Write(last)
		c = h.Sum(c[:0:0])
	}

	var out strings.Builder
	out.WriteString("$6$")
	if rounds != defaultRounds {
		fmt.Fprintf(&out, "rounds=%d$", rounds)
	}
	out.WriteString(salt + "$")
	put := func(word uint, characters int) {
		for ; characters > 0; characters-- {
			out.WriteByte(cryptAlphabet[word&63])
			word >>= 6
		}
	}
	x, y, z := 0, 21, 42
	for range 21 {
		put(uint(c[x])<<16|uint(c[y])<<8|uint(c[z]), 4)
		x, y, z = y+1, z+1, x+1
	}
	put(uint(c[63]), 2)
	return out.String()
}

func repeatTo(block []byte, n int) []byte {
	out := make([]byte, 0, n+len(block))
	for len(out) < n {
		out = append(out, block...)
	}
	return out[:n]
}
