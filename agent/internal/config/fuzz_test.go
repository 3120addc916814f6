package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// FuzzParse: a file that is taken keeps every promise of File's comments and is
// the same file when it is read again; one that is refused says where, in words
// that can be shown.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, raw []byte) {
		file, err := Parse("agent.yaml", raw)
		if err != nil {
			if file != nil || !errors.Is(err, ErrInvalid) {
				t.Fatalf("%v, %v", file, err)
			}
			if text := err.Error(); !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) {
				t.Fatalf("the refusal cannot be shown: %q", text)
			}
			return
		}
		again, err := Parse("agent.yaml", raw)
		if err != nil || !reflect.DeepEqual(file, again) {
			t.Fatalf("read twice it is another file: %v", err)
		}
		if CheckAddress(file.ControlPlane) != "" || CheckPin(file.RootSHA256) != "" || file.State == "" {
			t.Fatalf("half a file: %+v", file)
		}
		if every := time.Duration(file.Heartbeat); every < 5*time.Second || every > 10*time.Minute {
			t.Fatalf("a heartbeat of %v", every)
		}
		if every := time.Duration(file.ObserveEvery); every < 10*time.Second {
			t.Fatalf("observing every %v", every)
		}
		aliases := map[string]bool{}
		for _, c := range file.Connectors {
			if c.Alias == "" || aliases[c.Alias] || (c.Name == "") == (len(c.Command) == 0) {
				t.Fatalf("connector %+v", c)
			}
			aliases[c.Alias] = true
			if len(c.Command) > 0 && len(c.SHA256) != 64 {
				t.Fatalf("a command without its hash: %+v", c)
			}
			if c.Role != "source" && c.Role != "target" || c.Mode != ModeObserve && c.Mode != ModeAdopt && c.Mode != ModeEnforce {
				t.Fatalf("connector %+v", c)
			}
			for name, ref := range c.Secrets {
				if !strings.HasPrefix(ref, "file:") && !strings.HasPrefix(ref, "env:") && !strings.HasPrefix(ref, "credential:") {
					t.Fatalf("secret %q is %q itself and no reference", name, ref)
				}
			}
		}
	})
}
