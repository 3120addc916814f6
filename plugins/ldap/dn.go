package ldap

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	ber "github.com/go-asn1-ber/asn1-ber"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// errDN is wrapped by every error about a text that is no DN of RFC 4514.
var errDN = errors.New("not a distinguished name")

// part is one attributeTypeAndValue of an RDN.
type part struct {
	typ string
	// value is unescaped UTF-8; if binary, "#" and the hexadecimal BER encoding.
	value  string
	binary bool
}

type rdn []part

// parseDN parses the string form of RFC 4514 section 3, and spaces around types
// and values besides, which RFC 2253 told readers to allow. Values that are no
// UTF-8 keep the form "#hex".
func parseDN(s string) ([]rdn, error) {
	if strings.Trim(s, " ") == "" {
		return nil, nil
	}
	p := &dnParser{s: s}
	var dn []rdn
	for {
		r, err := p.rdn()
		if err != nil {
			return nil, fmt.Errorf("%w: %s at octet %d", errDN, err, p.at)
		}
		dn = append(dn, r)
		if p.at == len(s) {
			return dn, nil
		}
		p.at++ // rdn stops only at a comma or at the end
	}
}

// splitRDN cuts a DN that parses behind its first RDN, both sides as written.
func splitRDN(dn string) (leaf, parent string) {
	p := &dnParser{s: dn}
	if _, err := p.rdn(); err != nil || p.at == len(dn) {
		return dn, ""
	}
	return dn[:p.at], dn[p.at+1:]
}

type dnParser struct {
	s  string
	at int
}

func (p *dnParser) rdn() (rdn, error) {
	var r rdn
	for {
		typ, err := p.typ()
		if err != nil {
			return nil, err
		}
		value, binary, err := p.value()
		if err != nil {
			return nil, err
		}
		r = append(r, part{typ, value, binary})
		if p.at == len(p.s) || p.s[p.at] == ',' {
			return r, nil
		}
		p.at++ // '+'
	}
}

func (p *dnParser) typ() (string, error) {
	end := strings.IndexByte(p.s[p.at:], '=')
	if end < 0 {
		return "", errors.New("no '=' after a type")
	}
	typ := strings.Trim(p.s[p.at:p.at+end], " ")
	if len(typ) > 4 && strings.EqualFold(typ[:4], "oid.") {
		typ = typ[4:]
	}
	if !isDescriptor(typ) && !isNumericOID(typ) {
		return "", errors.New("a type is neither a short name nor an OID")
	}
	p.at += end + 1
	return typ, nil
}

func (p *dnParser) value() (string, bool, error) {
	for p.at < len(p.s) && p.s[p.at] == ' ' {
		p.at++
	}
	if p.at < len(p.s) && p.s[p.at] == '#' {
		return p.hexValue()
	}
	var b []byte
	solid := 0 // b up to here is no trailing space that may be dropped
loop:
	for ; p.at < len(p.s); p.at++ {
		switch c := p.s[p.at]; c {
		case ',', '+':
			break loop
		case '"', ';', '<', '>', 0:
			return "", false, errors.New("a special character is not escaped")
		case '\\':
			octet, n, err := unescape(p.s[p.at+1:])
			if err != nil {
				return "", false, err
			}
			b = append(b, octet)
			p.at += n
			solid = len(b)
		default:
			b = append(b, c)
			if c != ' ' {
				solid = len(b)
			}
		}
	}
	b = b[:solid]
	if !utf8.Valid(b) {
		encoded := ber.NewString(ber.ClassUniversal, ber.TypePrimitive, ber.TagOctetString, string(b), "").Bytes()
		return "#" + hex.EncodeToString(encoded), true, nil
	}
	return string(b), false, nil
}

// unescape reads what follows a backslash and returns the octet it stands for
// and how many characters it took.
func unescape(s string) (octet byte, n int, err error) {
	if s != "" && strings.IndexByte(` "#+,;<=>\`, s[0]) >= 0 {
		return s[0], 1, nil
	}
	if len(s) >= 2 {
		if pair, err := hex.DecodeString(s[:2]); err == nil {
			return pair[0], 2, nil
		}
	}
	return 0, 0, errors.New("a backslash escapes nothing")
}

func (p *dnParser) hexValue() (string, bool, error) {
	end := strings.IndexAny(p.s[p.at:], ",+")
	if end < 0 {
		end = len(p.s) - p.at
	}
	digits := strings.TrimRight(p.s[p.at+1:p.at+end], " ")
	encoded, err := hex.DecodeString(digits)
	if err != nil || len(encoded) == 0 {
		return "", false, errors.New("'#' without hexadecimal pairs")
	}
	p.at += end
	if content, ok := stringContent(encoded); ok && utf8.Valid(content) {
		return string(content), false, nil
	}
	return "#" + strings.ToLower(digits), true, nil
}

// stringContent returns the octets of one BER element of a string type, in
// short or definite long form, that fills encoded exactly.
func stringContent(encoded []byte) ([]byte, bool) {
	if len(encoded) < 2 {
		return nil, false
	}
	switch ber.Tag(encoded[0]) {
	case ber.TagOctetString, ber.TagUTF8String, ber.TagPrintableString, ber.TagIA5String:
	default:
		return nil, false
	}
	length, rest := int(encoded[1]), encoded[2:]
	if length >= 0x80 {
		n := length & 0x7f
		if n == 0 || n > 3 || n > len(rest) {
			return nil, false
		}
		length = 0
		for _, octet := range rest[:n] {
			length = length<<8 | int(octet)
		}
		rest = rest[n:]
	}
	return rest, length == len(rest)
}

func isDescriptor(s string) bool {
	for i, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c != '-' && (c < '0' || c > '9')) {
			return false
		}
	}
	return s != ""
}

func isNumericOID(s string) bool {
	for _, arc := range strings.Split(s, ".") {
		if arc == "" || strings.Trim(arc, "0123456789") != "" || len(arc) > 1 && arc[0] == '0' {
			return false
		}
	}
	return true
}

// name returns the DN in the contract's form. A binary value and a text that
// looks like it are the same there; link keys tell them apart.
func name(dn []rdn) *connectorv1.Name {
	n := &connectorv1.Name{Components: make([]*connectorv1.Component, len(dn))}
	for i, r := range dn {
		c := &connectorv1.Component{Parts: make([]*connectorv1.Part, len(r))}
		for j, p := range r {
			c.Parts[j] = &connectorv1.Part{Type: p.typ, Value: p.value}
		}
		sortParts(c.Parts)
		n.Components[i] = c
	}
	return n
}

func sortParts(parts []*connectorv1.Part) {
	slices.SortFunc(parts, func(a, b *connectorv1.Part) int {
		return cmp.Or(cmp.Compare(a.GetType(), b.GetType()), cmp.Compare(a.GetValue(), b.GetValue()))
	})
}

// dnKeyPrefix begins the link keys that are DNs.
const dnKeyPrefix = "dn:"

// dnKey returns the link key of a DN: types as short names in lower case,
// values folded as case-ignore, parts of an RDN sorted.
func dnKey(dn []rdn) string {
	var b strings.Builder
	b.WriteString(dnKeyPrefix)
	for i, r := range dn {
		if i > 0 {
			b.WriteByte(',')
		}
		parts := make([]string, len(r))
		for j, p := range r {
			if p.binary {
				parts[j] = canonicalType(p.typ) + "=" + p.value
				continue
			}
			folded := connectorv1.FoldValue(p.value, connectorv1.CaseRule_CASE_RULE_IGNORE)
			parts[j] = connectorv1.NewComponent(canonicalType(p.typ), folded).Text()
		}
		slices.Sort(parts)
		b.WriteString(strings.Join(parts, "+"))
	}
	return b.String()
}

// parsed returns the contract's form as parseDN does.
func parsed(n *connectorv1.Name) []rdn {
	dn := make([]rdn, len(n.GetComponents()))
	for i, c := range n.GetComponents() {
		for _, p := range c.GetParts() {
			dn[i] = append(dn[i], part{typ: p.GetType(), value: p.GetValue()})
		}
	}
	return dn
}

// canonicalType maps the OIDs and long names of RFC 4514 section 3 and RFC 4519
// to the short name, others to lower case.
func canonicalType(typ string) string {
	typ = strings.ToLower(typ)
	switch typ {
	case "2.5.4.3", "commonname":
		return "cn"
	case "2.5.4.4", "surname":
		return "sn"
	case "2.5.4.6", "countryname":
		return "c"
	case "2.5.4.7", "localityname":
		return "l"
	case "2.5.4.8", "stateorprovincename":
		return "st"
	case "2.5.4.9", "streetaddress":
		return "street"
	case "2.5.4.10", "organizationname":
		return "o"
	case "2.5.4.11", "organizationalunitname":
		return "ou"
	case "0.9.2342.19200300.100.1.25", "domaincomponent":
		return "dc"
	case "0.9.2342.19200300.100.1.1", "userid":
		return "uid"
	case "0.9.2342.19200300.100.1.3", "rfc822mailbox":
		return "mail"
	default:
		return typ
	}
}
