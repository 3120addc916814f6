package wall

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// canaries are texts that only one tenant knows. All begin with its marker, so
// that one search finds any of them, also those nobody thought of.
type canaries struct {
	marker string
	// words by what they stand for.
	words map[string]string
	// secrets are what the control plane made up for the tenant: ids, digests.
	secrets []string
}

const wordLength = 16

func newCanaries() *canaries {
	return &canaries{marker: "zq" + letters(8), words: map[string]string{}}
}

func letters(n int) string {
	b := make([]byte, n)
	rand.Read(b) //nolint:errcheck // never fails (crypto/rand, since Go 1.24)
	for i := range b {
		b[i] = 'a' + b[i]%26
	}
	return string(b)
}

// word is the tenant's text for a label: the same each time, and of the same
// length for everybody.
func (c *canaries) word(label string) string {
	if c.words[label] == "" {
		c.words[label] = c.marker + letters(wordLength-len(c.marker))
	}
	return c.words[label]
}

// found are the spellings of the tenant's canaries in what was received, after
// the texts in said were taken out: who asks for a name may hear it again.
func (c *canaries) found(received []byte, said []string) []string {
	haystack := bytes.ToLower(received)
	if list := c.in(haystack); list == nil || len(said) == 0 {
		return list
	}
	for _, s := range said {
		for _, form := range append(forms([]byte(s)), s) {
			haystack = bytes.ReplaceAll(haystack, []byte(strings.ToLower(form)), []byte("…"))
		}
	}
	return c.in(haystack)
}

// in searches lower-case bytes for every spelling of every canary.
func (c *canaries) in(haystack []byte) (list []string) {
	for _, text := range append([]string{c.marker}, c.secrets...) {
		for _, form := range forms([]byte(text)) {
			if i := bytes.Index(haystack, []byte(strings.ToLower(form))); i >= 0 {
				list = append(list, fmt.Sprintf("%s near %q", form, around(haystack, i)))
			}
		}
	}
	return list
}

func around(b []byte, i int) []byte { return b[max(0, i-60):min(len(b), i+60)] }

// forms are the ways in which a text may stand in bytes: as it is, in hex, and in
// base64 at each of the three places that it may begin at.
func forms(text []byte) []string {
	list := []string{string(text), hex.EncodeToString(text)}
	for shift := range 3 {
		whole := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		// The first letters also depend on what is before, the last on what comes.
		first, last := (shift*8+5)/6, (shift+len(text))*8/6
		inner := whole[first:last]
		list = append(list, inner, strings.NewReplacer("+", "-", "/", "_").Replace(inner))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// said are all texts of a request, and its bytes in hex.
func said(messages []proto.Message) []string {
	var list []string
	var walk func(protoreflect.Message)
	one := func(fd protoreflect.FieldDescriptor, v protoreflect.Value) {
		switch fd.Kind() {
		case protoreflect.StringKind:
			list = append(list, v.String())
		case protoreflect.BytesKind:
			list = append(list, string(v.Bytes()), hex.EncodeToString(v.Bytes()))
		case protoreflect.MessageKind, protoreflect.GroupKind:
			walk(v.Message())
		}
	}
	walk = func(m protoreflect.Message) {
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			if fd.IsList() {
				for i := range v.List().Len() {
					one(fd, v.List().Get(i))
				}
				return true
			}
			one(fd, v)
			return true
		})
	}
	for _, m := range messages {
		walk(m.ProtoReflect())
	}
	list = slices.DeleteFunc(list, func(s string) bool { return len(s) < 6 })
	// Longest first: a name may be part of another.
	slices.SortFunc(list, func(a, b string) int { return len(b) - len(a) })
	return list
}
