package jointoken

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/pki/internal/golden"
)

func fixed(t *testing.T, n byte) Token {
	t.Helper()
	tok, err := New(bytes.NewReader(bytes.Repeat([]byte{n}, secretSize)))
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func TestGolden(t *testing.T) {
	var b bytes.Buffer
	for _, n := range []byte{0, 1, 0xa5, 0xff} {
		tok := fixed(t, n)
		fmt.Fprintf(&b, "%s %x\n", tok.Reveal(), tok.Hash())
	}
	golden.Check(t, "tokens.txt", b.Bytes())
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOfN(rapid.Byte(), secretSize, secretSize).Draw(t, "secret")
		tok, err := New(bytes.NewReader(secret))
		if err != nil {
			t.Fatal(err)
		}
		back, err := Parse("\n " + tok.Reveal() + "\r\n")
		if err != nil || back.Reveal() != tok.Reveal() || back.Hash() != tok.Hash() {
			t.Fatalf("came back different: %v", err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	good := fixed(t, 9).Reveal()
	for name, text := range map[string]string{
		"empty": "", "prefix only": prefix, "cut": good[:len(good)-1], "longer": good + "a", "upper case": strings.ToUpper(good),
		"other version": strings.Replace(good, "join-1", "join-2", 1), "space inside": good[:30] + " " + good[31:], "no prefix": good[len(prefix):],
	} {
		if _, err := Parse(text); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v, want ErrMalformed", name, err)
		}
	}
	for i := len(prefix); i < len(good); i++ {
		for _, c := range "abcdefghijklmnopqrstuvwxyz234567" {
			if byte(c) == good[i] {
				continue
			}
			text := good[:i] + string(c) + good[i+1:]
			_, err := Parse(text)
			if !errors.Is(err, ErrMalformed) {
				t.Fatalf("character %d changed to %c: %v", i, c, err)
			}
			if strings.Contains(err.Error(), text[len(prefix):]) {
				t.Fatalf("the error shows the token: %v", err)
			}
		}
	}
	if _, err := New(bytes.NewReader(make([]byte, secretSize-1))); err == nil {
		t.Error("a token from too little randomness")
	}
	if s := (Token{}).Reveal(); s != "" {
		t.Errorf("the zero token reveals %q", s)
	}
}

func TestNeverPrintsItself(t *testing.T) {
	tok := fixed(t, 0x5a)
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U", "%t", "%T|%v"} {
		args := []any{tok}
		if strings.HasPrefix(verb, "%T") {
			args = append(args, tok)
		}
		fmt.Fprintf(&out, verb+"\n", args...)
		fmt.Fprintf(&out, verb[len(verb)-2:]+"\n", &tok)
		fmt.Fprintf(&out, "%v %+v %#v %v\n", struct{ t Token }{tok}, &struct{ t Token }{tok}, struct{ t *Token }{&tok}, []struct{ t Token }{{tok}})
		fmt.Fprintf(&out, "%v %+v %#v\n", struct{ T Token }{tok}, []Token{tok}, map[string]any{"t": tok})
	}
	fmt.Fprintln(&out, tok, tok.String(), tok.GoString())
	log := slog.New(slog.NewTextHandler(&out, nil))
	log.Info("text", "token", tok, "in", struct{ T Token }{tok})
	slog.New(slog.NewJSONHandler(&out, nil)).Info("json", "token", tok, "in", struct{ T Token }{tok})
	if err := json.NewEncoder(&out).Encode(map[string]any{"a": tok, "b": struct{ T Token }{tok}}); err != nil {
		t.Fatal(err)
	}
	secret := bytes.Repeat([]byte{0x5a}, 4)
	for name, leak := range map[string]string{
		"text": tok.Reveal()[len(prefix) : len(prefix)+8], "hex": hex.EncodeToString(secret), "bytes": string(secret),
		"base64": base64.StdEncoding.EncodeToString(secret)[:4], "list": "90 90 90", "go syntax": "0x5a, 0x5a", "json list": "90,90",
	} {
		if strings.Contains(strings.ToLower(out.String()), strings.ToLower(leak)) {
			t.Errorf("%s of the token was printed:\n%s", name, out.String())
		}
	}
	if strings.Count(out.String(), redacted) < 30 {
		t.Errorf("placeholder missing:\n%s", out.String())
	}
}
