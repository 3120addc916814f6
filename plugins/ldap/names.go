package ldap

import (
	"bytes"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Bounds of what is kept of what entries have in common: how many texts, and of
// how many octets each.
const (
	mostRemembered    = 4096
	longestRemembered = 1024
)

// nameCache turns DNs as a server writes them into names and link keys. Entries
// lie below few others: those are parsed once, and of a plain DN no more than
// its own RDN is looked at. It gives the same as parseDN, name and dnKey. It is
// for one goroutine; the zero value is ready.
type nameCache struct {
	parents map[string]*parentName
	// types maps an attribute type as written to its short name.
	types map[string]knownType
}

type knownType struct{ written, short string }

// parentName is what is known of the DN above a leaf.
type parentName struct {
	dn []rdn
	// key and text are dnKey without its prefix, and what people see.
	key, text string
}

// parsedName is one DN in the forms an object needs.
type parsedName struct {
	name      *connectorv1.Name
	key, text string
}

// parse is parseDN, name and dnKey in one.
func (c *nameCache) parse(raw []byte) (parsedName, error) {
	leaf, above, ok := c.split(raw)
	if !ok {
		dn, err := parseDN(string(raw))
		if err != nil {
			return parsedName{}, err
		}
		n := name(dn)
		return parsedName{n, dnKey(dn), n.Text()}, nil
	}
	text := make([]byte, 0, len(raw)+len(leaf.typ.short)+16)
	text = append(append(append(text, leaf.typ.written...), '='), leaf.value...)
	if above != nil {
		text = append(append(text, ','), above.text...)
	}
	out := parsedName{text: string(text)}
	out.key = string(appendPlainKey(text[:0], leaf, above))
	from := len(leaf.typ.written) + 1
	out.name = nameBelow(leaf.typ.written, out.text[from:from+len(leaf.value)], above)
	return out, nil
}

// nameBelow is name for a leaf of one part, in few allocations.
func nameBelow(typ, value string, above *parentName) *connectorv1.Name {
	var dn []rdn
	if above != nil {
		dn = above.dn
	}
	total := 1
	for _, r := range dn {
		total += len(r)
	}
	parts, components := make([]connectorv1.Part, total), make([]connectorv1.Component, 1+len(dn))
	partList, list := make([]*connectorv1.Part, total), make([]*connectorv1.Component, 1+len(dn))
	used := 0
	add := func(n int, r rdn) {
		from := used
		for _, p := range r {
			parts[used].Type, parts[used].Value = p.typ, p.value
			partList[used] = &parts[used]
			used++
		}
		components[n].Parts = partList[from:used:used]
		if len(r) > 1 {
			sortParts(components[n].Parts)
		}
		list[n] = &components[n]
	}
	add(0, rdn{{typ: typ, value: value}})
	for n, r := range dn {
		add(n+1, r)
	}
	return &connectorv1.Name{Components: list}
}

// appendKey appends dnKey of raw to b and reports whether raw is the empty DN.
func (c *nameCache) appendKey(b, raw []byte) (out []byte, empty bool, err error) {
	if leaf, above, ok := c.split(raw); ok {
		return appendPlainKey(b, leaf, above), false, nil
	}
	dn, err := parseDN(string(raw))
	if err != nil {
		return b, false, err
	}
	return append(b, dnKey(dn)...), len(dn) == 0, nil
}

func appendPlainKey(b []byte, leaf plainRDN, above *parentName) []byte {
	b = append(append(append(b, dnKeyPrefix...), leaf.typ.short...), '=')
	for _, octet := range leaf.value {
		if 'A' <= octet && octet <= 'Z' {
			octet += 'a' - 'A'
		}
		b = append(b, octet)
	}
	if above != nil {
		b = append(append(b, ','), above.key...)
	}
	return b
}

// plainRDN is an RDN of one part whose value is the same escaped and unescaped,
// and folds by letter case alone.
type plainRDN struct {
	typ   knownType
	value []byte
}

// split cuts a DN behind its plain leaf and looks up what is above, which is nil
// if there is nothing. It gives up on what is not plain.
func (c *nameCache) split(raw []byte) (leaf plainRDN, above *parentName, ok bool) {
	equals := bytes.IndexByte(raw, '=')
	if equals < 1 {
		return leaf, nil, false
	}
	value := raw[equals+1:]
	end := 0
	for end < len(value) && plainOctets[value[end]] {
		if value[end] == ' ' && (end == 0 || end+1 == len(value) || !plainOctets[value[end+1]] || value[end+1] == ' ') {
			// Spaces at either end or in a row are not all of the value.
			return leaf, nil, false
		}
		end++
	}
	if end == 0 || value[0] == '#' || end < len(value) && value[end] != ',' {
		return leaf, nil, false
	}
	if leaf.typ, ok = c.typ(raw[:equals]); !ok {
		return leaf, nil, false
	}
	leaf.value = value[:end]
	if end == len(value) {
		return leaf, nil, true
	}
	above, ok = c.parent(value[end+1:])
	return leaf, above, ok
}

// plainOctets stand for themselves in a value (RFC 4514 section 2.4) and in the
// contract's text of it.
var plainOctets = func() (plain [256]bool) {
	for octet := byte(' '); octet < 0x7f; octet++ {
		plain[octet] = strings.IndexByte(`"+,;<>\=`, octet) < 0
	}
	return plain
}()

func (c *nameCache) typ(written []byte) (knownType, bool) {
	if t, known := c.types[string(written)]; known {
		return t, true
	}
	t := knownType{written: string(written)}
	if !isDescriptor(t.written) {
		return t, false
	}
	t.short = canonicalType(t.written)
	if len(written) > longestRemembered {
		return t, true
	}
	if c.types == nil || len(c.types) == mostRemembered {
		c.types = map[string]knownType{}
	}
	c.types[t.written] = t
	return t, true
}

func (c *nameCache) parent(raw []byte) (*parentName, bool) {
	if p, known := c.parents[string(raw)]; known {
		return p, true
	}
	dn, err := parseDN(string(raw))
	if err != nil || len(dn) == 0 {
		// A comma with nothing behind it: the whole is no DN.
		return nil, false
	}
	p := &parentName{dn: dn, key: strings.TrimPrefix(dnKey(dn), dnKeyPrefix), text: name(dn).Text()}
	if len(raw) > longestRemembered {
		return p, true
	}
	if c.parents == nil || len(c.parents) == mostRemembered {
		c.parents = map[string]*parentName{}
	}
	c.parents[string(raw)] = p
	return p, true
}
