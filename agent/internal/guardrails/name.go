package guardrails

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Name is a name as agent.yaml writes it, parsed.
type Name struct {
	parsed *connectorv1.Name
}

// NewName wraps a parsed name.
func NewName(n *connectorv1.Name) Name { return Name{parsed: n} }

// Parsed returns the name; nil if none was given.
func (n Name) Parsed() *connectorv1.Name { return n.parsed }

// UnmarshalYAML reads text in the form of RFC 4514 or a list of unescaped parts.
func (n *Name) UnmarshalYAML(node *yaml.Node) error {
	switch node.Kind {
	case yaml.ScalarNode:
		parsed, err := ParseName(node.Value)
		if err != nil {
			return &fault{line: node.Line, text: fmt.Sprintf("%q is not a name: %v", node.Value, err)}
		}
		n.parsed = parsed
		return nil
	case yaml.SequenceNode:
		n.parsed = &connectorv1.Name{}
		for _, item := range node.Content {
			typ, value, found := strings.Cut(item.Value, "=")
			if typ = strings.TrimSpace(typ); item.Kind != yaml.ScalarNode || !found || !partType(typ) || value == "" || !utf8.ValidString(value) {
				return &fault{line: item.Line, text: "a name's part is written as type=value, such as ou=people"}
			}
			n.parsed.Components = append(n.parsed.Components, connectorv1.NewComponent(typ, value))
		}
		return nil
	default:
		return &fault{line: node.Line, text: "a name is text such as ou=people,dc=example or a list of parts"}
	}
}

// MarshalJSON gives the text form, for the digest.
func (n Name) MarshalJSON() ([]byte, error) {
	if n.parsed == nil {
		return []byte("null"), nil
	}
	return json.Marshal(n.parsed.Text())
}

// ParseName reads a name in the string form of RFC 4514, leaf first: components
// by comma, parts of a multi-valued component by plus, special characters after a
// backslash, octets as backslash and two hexadecimal digits. Spaces around types,
// separators and unescaped values do not count. "" is the empty name. The
// hexadecimal BER form (#04…) is refused.
func ParseName(text string) (*connectorv1.Name, error) {
	n := &connectorv1.Name{}
	if strings.TrimSpace(text) == "" {
		return n, nil
	}
	c := &connectorv1.Component{}
	for rest := text; ; {
		typ, after, found := strings.Cut(rest, "=")
		typ = strings.TrimSpace(typ)
		if !found || !partType(typ) {
			return nil, errors.New("each part is written as type=value")
		}
		value, separator, tail, err := parseValue(after)
		if err != nil {
			return nil, err
		}
		if value == "" {
			return nil, fmt.Errorf("the value of %s is empty", typ)
		}
		c.Parts = append(c.Parts, &connectorv1.Part{Type: typ, Value: value})
		if separator != '+' {
			slices.SortFunc(c.Parts, func(a, b *connectorv1.Part) int {
				return cmp.Or(cmp.Compare(a.GetType(), b.GetType()), cmp.Compare(a.GetValue(), b.GetValue()))
			})
			n.Components = append(n.Components, c)
			c = &connectorv1.Component{}
		}
		if separator == 0 {
			return n, nil
		}
		rest = tail
	}
}

// partType reports whether a text can be a part's type: nothing that ends or
// escapes something in a name's text, and nothing that cannot be seen, so that no
// type imitates a longer name.
func partType(s string) bool {
	return s != "" && !strings.ContainsAny(s, `,+\";<>#`) && !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) })
}

// parseValue reads up to an unescaped comma, plus or the end.
func parseValue(text string) (value string, separator byte, rest string, err error) {
	text = strings.TrimLeft(text, " ")
	if strings.HasPrefix(text, "#") {
		return "", 0, "", errors.New("the # form is not supported; write the value as text")
	}
	var b []byte
	kept := 0 // length up to the last character that is not an unescaped space
	for i := 0; i < len(text); i++ {
		switch ch := text[i]; ch {
		case ',', '+':
			return finishValue(b[:kept], ch, text[i+1:])
		case ';', '<', '>', '"':
			return "", 0, "", fmt.Errorf("write %c with a backslash before it", ch)
		case '\\':
			if i+1 >= len(text) {
				return "", 0, "", errors.New("it ends in a backslash")
			}
			if i+2 < len(text) {
				if octet, err := hex.DecodeString(text[i+1 : i+3]); err == nil {
					b = append(b, octet[0])
					i += 2
					kept = len(b)
					continue
				}
			}
			if !strings.ContainsRune(` "#+,;<=>\`, rune(text[i+1])) {
				return "", 0, "", fmt.Errorf("\\%c is not an escape of RFC 4514", text[i+1])
			}
			i++
			b = append(b, text[i])
			kept = len(b)
		default:
			b = append(b, ch)
			if ch != ' ' {
				kept = len(b)
			}
		}
	}
	return finishValue(b[:kept], 0, "")
}

func finishValue(b []byte, separator byte, rest string) (string, byte, string, error) {
	if !utf8.Valid(b) {
		return "", 0, "", errors.New("the value is not UTF-8")
	}
	return string(b), separator, rest, nil
}

// glob reports whether value matches pattern, in which "*" stands for any
// characters and "?" for one. It runs in time proportional to the product of the
// lengths at worst.
func glob(pattern, value string) bool {
	p, v := []rune(pattern), []rune(value)
	star, back := -1, 0
	i, k := 0, 0
	for k < len(v) {
		switch {
		case i < len(p) && p[i] == '*':
			star, back = i, k
			i++
		case i < len(p) && (p[i] == '?' || p[i] == v[k]):
			i++
			k++
		case star >= 0:
			back++
			i, k = star+1, back
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
