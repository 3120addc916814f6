package jointoken

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

const (
	prefix      = "reeve-join-1."
	secretSize  = 32
	checkSize   = 4
	checkDomain = "reeve join token check v1\x00"
	hashDomain  = "reeve join token v1\x00"
	redacted    = "[join token]"
)

// ErrMalformed means that a text is not a join token, or was mistyped. The error
// never contains the text.
var ErrMalformed = errors.New("not a join token: expected " + prefix + " and 58 letters and digits as `reeve agent invite` wrote them")

// RFC 4648 base32 in lower case without padding: no letters that differ by case
// only, and no 0, 1, 8 or 9 to confuse with O, I, B or g.
var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token is a join token; the zero value is none. Tokens are immutable.
type Token struct {
	// A pointer, because fmt cannot call the methods of a Token inside another
	// struct's unexported field and prints what lies there instead: an address.
	secret *[secretSize]byte
}

// New takes 256 bits from rand.
func New(rand io.Reader) (Token, error) {
	t := Token{secret: new([secretSize]byte)}
	if _, err := io.ReadFull(rand, t.secret[:]); err != nil {
		return Token{}, fmt.Errorf("read randomness for a join token: %w", err)
	}
	return t, nil
}

// Parse reads the text form, with white space around it allowed since it comes
// from files. Every token has one spelling.
func Parse(text string) (Token, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), prefix)
	if !ok || len(body) != encoding.EncodedLen(secretSize+checkSize) {
		return Token{}, ErrMalformed
	}
	raw, err := encoding.DecodeString(body)
	if err != nil || len(raw) != secretSize+checkSize || encoding.EncodeToString(raw) != body {
		return Token{}, ErrMalformed
	}
	t := Token{secret: (*[secretSize]byte)(raw)}
	if [checkSize]byte(raw[secretSize:]) != t.check() {
		return Token{}, fmt.Errorf("%w (its checksum does not fit: a character was lost or changed)", ErrMalformed)
	}
	return t, nil
}

// Reveal is the text form: "reeve-join-1." and 58 characters of base32 over the
// secret and the first four bytes of SHA-256("reeve join token check v1" 00,
// secret). It is empty for the zero Token.
func (t Token) Reveal() string {
	if t.IsZero() {
		return ""
	}
	check := t.check()
	return prefix + encoding.EncodeToString(append(t.secret[:secretSize:secretSize], check[:]...))
}

// Hash is what is stored and looked up: SHA-256("reeve join token v1" 00,
// secret). A lookup by it needs no constant-time comparison, since knowing the
// hash does not lead to the token. The zero Token has the zero hash, which no
// token has.
func (t Token) Hash() [sha256.Size]byte {
	if t.IsZero() {
		return [sha256.Size]byte{}
	}
	return sha256.Sum256(append([]byte(hashDomain), t.secret[:]...))
}

// IsZero reports whether t holds no token.
func (t Token) IsZero() bool { return t.secret == nil }

func (t Token) check() [checkSize]byte {
	sum := sha256.Sum256(append([]byte(checkDomain), t.secret[:]...))
	return [checkSize]byte(sum[:checkSize])
}

// Format, String, GoString, MarshalText, MarshalJSON and LogValue show a
// placeholder, whatever the verb.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, redacted) }

func (t Token) String() string { return redacted }

func (t Token) GoString() string { return redacted }

func (t Token) MarshalText() ([]byte, error) { return []byte(redacted), nil }

func (t Token) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

func (t Token) LogValue() slog.Value { return slog.StringValue(redacted) }
