package jointoken

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// FuzzParse: a token has one spelling, and whatever is refused, or printed, does
// not tell the text.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || !token.IsZero() || token.Reveal() != "" || token.Hash() != [32]byte{} {
				t.Fatalf("Parse(%q) = %v, %v", text, token, err)
			}
			if body := strings.TrimPrefix(strings.TrimSpace(text), prefix); len(body) > 12 && strings.Contains(err.Error(), body) {
				t.Fatalf("the error tells the token: %v", err)
			}
			return
		}
		spelt := token.Reveal()
		if spelt != strings.TrimSpace(text) {
			t.Fatalf("%q spells itself %q", text, spelt)
		}
		again, err := Parse(spelt)
		if err != nil || again.Hash() != token.Hash() {
			t.Fatalf("%q does not read back: %v", spelt, err)
		}
		secret := strings.TrimPrefix(spelt, prefix)
		for _, shown := range []string{fmt.Sprint(token), fmt.Sprintf("%+v %#v %x %s %q", token, token, token, token, token)} {
			if strings.Contains(shown, secret) {
				t.Fatalf("printing a token tells it: %q", shown)
			}
		}
	})
}
