package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// ConnectorName turns components into the contract's name.
func ConnectorName(components []Component) *connectorv1.Name {
	n := &connectorv1.Name{Components: make([]*connectorv1.Component, len(components))}
	for i, c := range components {
		parts := make([]*connectorv1.Part, len(c))
		for j, p := range c {
			parts[j] = &connectorv1.Part{Type: p[0], Value: p[1]}
		}
		n.Components[i] = &connectorv1.Component{Parts: parts}
	}
	return n
}

// NameText prints a name as connectorv1's Name.Text does.
func NameText(components []Component) string { return ConnectorName(components).Text() }

// ParseDN reads a distinguished name by the grammar of RFC 4514 section 3 and
// nothing looser: no spaces around separators, no quoted values of RFC 2253, no
// semicolons. Values come unescaped; a #hexadecimal value is refused, since its
// BER cannot be matched by guardrails. "" is the empty name.
func ParseDN(s string) ([]Component, error) {
	if s == "" {
		return nil, nil
	}
	if !utf8.ValidString(s) {
		return nil, errors.New("the name is not valid UTF-8")
	}
	p := dnParser{rest: s, whole: s}
	var name []Component
	for {
		c, err := p.component()
		if err != nil {
			return nil, fmt.Errorf("%q is not a distinguished name (RFC 4514): %w", printable(s), err)
		}
		name = append(name, c)
		if p.rest == "" {
			return name, nil
		}
		p.rest = p.rest[1:] // the comma on which component stopped
	}
}

type dnParser struct{ rest, whole string }

func (p *dnParser) fail(format string, args ...any) error {
	return fmt.Errorf("character %d: %s", utf8.RuneCountInString(p.whole[:len(p.whole)-len(p.rest)])+1, fmt.Sprintf(format, args...))
}

// component reads up to a comma or the end.
func (p *dnParser) component() (Component, error) {
	var c Component
	for {
		equal := strings.IndexByte(p.rest, '=')
		if equal < 0 {
			return nil, p.fail("expected type=value")
		}
		typ := p.rest[:equal]
		if !validPartType(typ) {
			return nil, p.fail("%q is not an attribute type", printable(typ))
		}
		p.rest = p.rest[equal+1:]
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		c = append(c, [2]string{typ, value})
		if p.rest == "" || p.rest[0] == ',' {
			return newComponent(c)
		}
		p.rest = p.rest[1:] // the plus sign
	}
}

func (p *dnParser) value() (string, error) {
	if strings.HasPrefix(p.rest, "#") {
		return "", p.fail("a value in hexadecimal BER (#…) is not supported; write it as text")
	}
	var b strings.Builder
	first, escaped := true, false
	for p.rest != "" {
		r, size := utf8.DecodeRuneInString(p.rest)
		if r == ',' || r == '+' {
			break
		}
		escaped = false
		switch {
		case r == '\\':
			octets, length, err := p.escape()
			if err != nil {
				return "", err
			}
			b.WriteString(octets)
			size, escaped = length, true
		case strings.ContainsRune("\";<>\x00", r):
			return "", p.fail("%q must be escaped with a backslash", string(r))
		case r == ' ' && first:
			return "", p.fail("a leading space must be escaped with a backslash")
		default:
			b.WriteRune(r)
		}
		p.rest, first = p.rest[size:], false
	}
	value := b.String()
	if strings.HasSuffix(value, " ") && !escaped {
		return "", p.fail("a trailing space must be escaped with a backslash")
	}
	if !utf8.ValidString(value) {
		return "", p.fail("the value is not valid UTF-8")
	}
	if value == "" {
		return "", p.fail("the value is empty")
	}
	return value, nil
}

// escape reads one pair at a backslash: what it stands for and its length.
func (p *dnParser) escape() (string, int, error) {
	if len(p.rest) >= 2 && strings.IndexByte(` "#+,;<=>\`, p.rest[1]) >= 0 {
		return p.rest[1:2], 2, nil
	}
	if len(p.rest) >= 3 {
		if octet, err := hex.DecodeString(p.rest[1:3]); err == nil {
			return string(octet), 3, nil
		}
	}
	return "", 0, p.fail("a backslash must be followed by a special character or two hexadecimal digits")
}

// validPartType is the grammar of RFC 4512 1.4: a descriptor or a numeric OID.
func validPartType(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	if s[0] >= '0' && s[0] <= '9' {
		arcs := strings.Split(s, ".")
		return len(arcs) > 1 && !slices.ContainsFunc(arcs, func(arc string) bool {
			return arc == "" || len(arc) > 1 && arc[0] == '0' || strings.Trim(arc, "0123456789") != ""
		})
	}
	for i, r := range s {
		letter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
		if !letter && (i == 0 || r != '-' && (r < '0' || r > '9')) {
			return false
		}
	}
	return true
}

// newComponent sorts the parts and refuses a type that stands twice (X.501
// 9.3: the attributes of an RDN are distinct).
func newComponent(parts Component) (Component, error) {
	slices.SortFunc(parts, func(a, b [2]string) int {
		if c := strings.Compare(a[0], b[0]); c != 0 {
			return c
		}
		return strings.Compare(a[1], b[1])
	})
	for i := 1; i < len(parts); i++ {
		if strings.EqualFold(parts[i-1][0], parts[i][0]) {
			return nil, fmt.Errorf("type %s stands twice in one component", parts[i][0])
		}
	}
	return parts, nil
}

// maxNameValue is the longest value of a name's part, in bytes.
const maxNameValue = 256

// nameValue checks a value that is to become part of a new object's name. A
// name people cannot see as it is must not be made, whatever a source says.
func nameValue(typ, value string) error {
	switch {
	case value == "":
		return fmt.Errorf("the name's %s is empty; let the rule's `when` ask for the attribute it comes from", typ)
	case len(value) > maxNameValue:
		return fmt.Errorf("the name's %s is %d bytes long; at most %d are allowed", typ, len(value), maxNameValue)
	case !utf8.ValidString(value):
		return fmt.Errorf("the name's %s is not valid UTF-8", typ)
	case value != strings.TrimSpace(value):
		return fmt.Errorf("the name's %s %q begins or ends with a space; correct it in the source or trim() it", typ, printable(value))
	case printable(value) != value:
		return fmt.Errorf("the name's %s %q holds a control, bidirectional or other character that cannot be seen; correct it in the source", typ, printable(value))
	}
	return nil
}
