package connectorv1

import (
	"slices"
	"strconv"
	"strings"
)

// NewComponent returns a component of one part.
func NewComponent(typ, value string) *Component {
	return &Component{Parts: []*Part{{Type: typ, Value: value}}}
}

// Key returns a string that is equal for two names exactly when they are the
// same name under rule. Part types never count case (RFC 4514 2.3, 3).
func (n *Name) Key(rule CaseRule) string {
	var b strings.Builder
	b.Grow(24 * len(n.GetComponents()))
	for _, c := range n.GetComponents() {
		c.appendKey(&b, rule)
		b.WriteByte(',')
	}
	return b.String()
}

// Key is Name.Key for one component.
func (c *Component) Key(rule CaseRule) string {
	var b strings.Builder
	c.appendKey(&b, rule)
	return b.String()
}

func (c *Component) appendKey(b *strings.Builder, rule CaseRule) {
	if len(c.GetParts()) == 1 {
		c.GetParts()[0].appendKey(b, rule)
		b.WriteByte('+')
		return
	}
	parts := make([]string, len(c.GetParts()))
	for i, p := range c.GetParts() {
		var part strings.Builder
		p.appendKey(&part, rule)
		parts[i] = part.String()
	}
	slices.Sort(parts)
	for _, p := range parts {
		b.WriteString(p)
		b.WriteByte('+')
	}
}

func (p *Part) appendKey(b *strings.Builder, rule CaseRule) {
	b.WriteString(keyType(FoldCase(p.GetType())))
	b.WriteByte('=')
	// Quoted, so that no value can imitate a boundary between parts.
	value := FoldValue(p.GetValue(), rule)
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }) {
		b.WriteString(strconv.Quote(value))
		return
	}
	b.WriteByte('"')
	b.WriteString(value)
	b.WriteByte('"')
}

// keyType quotes a type that is no descriptor of RFC 4512, so that it cannot
// imitate a boundary either.
func keyType(typ string) string {
	if strings.ContainsAny(typ, `"=+,`) {
		return strconv.Quote(typ)
	}
	return typ
}

// FoldValue returns the compared form of a part's value.
func FoldValue(value string, rule CaseRule) string {
	if rule == CaseRule_CASE_RULE_IGNORE {
		return FoldSpace(FoldCase(value))
	}
	return value
}

// Leaf returns the name's own component, nil for an empty name.
func (n *Name) Leaf() *Component {
	if len(n.GetComponents()) == 0 {
		return nil
	}
	return n.Components[0]
}

// Parent returns everything above the leaf. It shares memory with n.
func (n *Name) Parent() *Name {
	if len(n.GetComponents()) == 0 {
		return &Name{}
	}
	return &Name{Components: n.Components[1:]}
}

// Under reports whether n lies below base, and how many levels: 0 is base
// itself.
func (n *Name) Under(base *Name, rule CaseRule) (depth int, ok bool) {
	depth = len(n.GetComponents()) - len(base.GetComponents())
	if depth < 0 {
		return 0, false
	}
	tail := &Name{Components: n.GetComponents()[depth:]}
	return depth, tail.Key(rule) == base.Key(rule)
}

// Text prints the name for people in the form of RFC 4514, leaf first. Values
// are escaped, control characters as hexadecimal pairs, so that the result is
// safe on a terminal and in a log.
func (n *Name) Text() string {
	components := make([]string, len(n.GetComponents()))
	for i, c := range n.GetComponents() {
		components[i] = c.Text()
	}
	return strings.Join(components, ",")
}

// Text is Name.Text for one component.
func (c *Component) Text() string {
	parts := make([]string, len(c.GetParts()))
	for i, p := range c.GetParts() {
		parts[i] = escapeValue(p.GetType()) + "=" + escapeValue(p.GetValue())
	}
	return strings.Join(parts, "+")
}

const hexDigits = "0123456789abcdef"

func escapeValue(value string) string {
	var b strings.Builder
	for i, r := range value {
		switch {
		case r < 0x20, r == 0x7f, isBidi(r), r >= 0x80 && r < 0xa0, r == '�':
			for _, octet := range []byte(string(r)) {
				b.WriteByte('\\')
				b.WriteByte(hexDigits[octet>>4])
				b.WriteByte(hexDigits[octet&15])
			}
		case strings.ContainsRune(`"+,;<>\=`, r),
			r == ' ' && (i == 0 || i == len(value)-1),
			r == '#' && i == 0:
			b.WriteByte('\\')
			b.WriteRune(r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isBidi reports the characters that reorder what stands beside them (Unicode
// TR 9): a name must not be able to make another look like it.
func isBidi(r rune) bool {
	return r == 0x061c || r == 0x200e || r == 0x200f || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
}

// Attribute returns the values of the named attribute, compared without case.
func (o *Object) Attribute(name string) [][]byte {
	for _, a := range o.GetAttributes() {
		if strings.EqualFold(a.GetName(), name) {
			return a.GetValues()
		}
	}
	return nil
}

// AttributeType returns the declaration of the named attribute, nil if the type
// has none.
func (t *ObjectType) AttributeType(name string) *AttributeType {
	for _, a := range t.GetAttributes() {
		if strings.EqualFold(a.GetName(), name) {
			return a
		}
	}
	return nil
}

// Allows reports whether the type declares the operation.
func (t *ObjectType) Allows(kind OperationKind) bool {
	return slices.Contains(t.GetOperations(), kind)
}

// Kind returns which action the operation carries.
func (o *Operation) Kind() OperationKind {
	switch o.GetAction().(type) {
	case *Operation_Create:
		return OperationKind_OPERATION_KIND_CREATE
	case *Operation_Update:
		return OperationKind_OPERATION_KIND_UPDATE
	case *Operation_Rename:
		return OperationKind_OPERATION_KIND_RENAME
	case *Operation_Move:
		return OperationKind_OPERATION_KIND_MOVE
	case *Operation_Enable:
		return OperationKind_OPERATION_KIND_ENABLE
	case *Operation_Disable:
		return OperationKind_OPERATION_KIND_DISABLE
	case *Operation_Delete:
		return OperationKind_OPERATION_KIND_DELETE
	case *Operation_AddMember:
		return OperationKind_OPERATION_KIND_ADD_MEMBER
	case *Operation_RemoveMember:
		return OperationKind_OPERATION_KIND_REMOVE_MEMBER
	case *Operation_SetCredential:
		return OperationKind_OPERATION_KIND_SET_CREDENTIAL
	case *Operation_RevokeCredential:
		return OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL
	default:
		return OperationKind_OPERATION_KIND_UNSPECIFIED
	}
}

// Word returns the kind as people read it, such as "add member".
func (k OperationKind) Word() string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(k.String(), "OPERATION_KIND_"), "_", " "))
}
