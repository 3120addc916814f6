package guardrails

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// leaf checks an object's new own component: a directory writes its parts into
// the object as attributes (RFC 4511 4.7), so all but the naming attribute's are
// attributes that must be listed. Parts that the object had before stay.
func (k *checking) leaf(typ string, leaf *connectorv1.Component, before *connectorv1.Name) {
	shown := &connectorv1.Name{Components: []*connectorv1.Component{leaf}}
	seen := map[string]bool{}
	for _, p := range leaf.GetParts() {
		folded := connectorv1.FoldCase(p.GetType())
		if seen[folded] {
			k.refuse("attributes", "the name %s has two parts of one type", shown.Text())
			return
		}
		seen[folded] = true
		had := slices.ContainsFunc(before.Leaf().GetParts(), func(old *connectorv1.Part) bool {
			return strings.EqualFold(old.GetType(), p.GetType()) && old.GetValue() == p.GetValue()
		})
		naming := strings.EqualFold(p.GetType(), k.types[typ].GetNamingAttribute())
		if had || naming && len(k.rulesFor(typ, p.GetType())) == 0 {
			continue
		}
		k.attribute(typ, p.GetType(), [][]byte{[]byte(p.GetValue())}, shown)
	}
}

// leftOut checks the parts that a rename takes from the name: with them the
// directory takes values from the object, so their attributes must be listed.
func (k *checking) leftOut(typ string, leaf *connectorv1.Component, before *connectorv1.Name) {
	for _, old := range before.Leaf().GetParts() {
		stays := slices.ContainsFunc(leaf.GetParts(), func(p *connectorv1.Part) bool {
			return strings.EqualFold(old.GetType(), p.GetType()) && old.GetValue() == p.GetValue()
		})
		if !stays && !strings.EqualFold(old.GetType(), k.types[typ].GetNamingAttribute()) {
			k.attribute(typ, old.GetType(), nil, before)
		}
	}
}

// attribute checks that an attribute may be written, and each new value.
func (k *checking) attribute(typ, name string, values [][]byte, of *connectorv1.Name) {
	declared := k.types[typ].AttributeType(name)
	if declared == nil || declared.GetSecret() {
		k.refuse("attributes", "%s: %s has no attribute %q that changes may write", of.Text(), clean(typ), clean(name))
		return
	}
	if danger := k.danger(declared, name, values); danger != "" && !k.g.allowsDangerous(name) {
		k.refuse("dangerous", "%s: %s; it can grant power by itself and is not named under dangerous", of.Text(), danger)
	}
	rules := k.rulesFor(typ, name)
	if len(rules) == 0 {
		k.refuse("attributes", "%s: the attribute %s is not listed under attributes", of.Text(), clean(name))
		return
	}
	if k.primaryGroup(typ, name) && len(values) > 0 && !k.g.allowsDangerous(name) && slices.ContainsFunc(rules, func(r AttributeRule) bool { return !r.limited() }) {
		k.refuse("dangerous", "%s: %s makes an account a member of whichever group has the number; limit its values by one_of or pattern, or name it under dangerous", of.Text(), clean(name))
	}
	for _, v := range values {
		why := ""
		for _, r := range rules {
			if why = r.allows(v, declared.GetRule()); why == "" {
				break
			}
		}
		if why != "" {
			k.refuse("attributes", "%s: a value of %s %s", of.Text(), clean(name), why)
		}
	}
}

// primaryGroup reports whether the attribute is an account's membership by number.
func (k *checking) primaryGroup(typ, name string) bool {
	bare, _, _ := strings.Cut(name, ";")
	return k.types[typ].GetKind() == connectorv1.Kind_KIND_ACCOUNT && (strings.EqualFold(bare, "gidNumber") || strings.EqualFold(bare, "gid_number"))
}

// rulesFor returns the rules for an attribute of a type.
func (k *checking) rulesFor(typ, name string) (rules []AttributeRule) {
	for _, r := range k.g.Attributes {
		if strings.EqualFold(r.Name, name) && (len(r.Types) == 0 || slices.Contains(r.Types, typ)) {
			rules = append(rules, r)
		}
	}
	return rules
}

// references refuses new references where every rule for the attribute limits
// values: limits are on text, and what a reference will read as is not known.
func (k *checking) references(typ, name string, of *connectorv1.Name) {
	rules := k.rulesFor(typ, name)
	if len(rules) > 0 && !slices.ContainsFunc(rules, func(r AttributeRule) bool { return !r.limited() }) {
		k.refuse("attributes", "%s: %s refers to other objects, and its entries under attributes limit values as text; give it an entry without limits", of.Text(), clean(name))
	}
}

func (r AttributeRule) limited() bool {
	return r.Prefix != "" || r.Suffix != "" || len(r.OneOf) > 0 || r.MaxLength > 0 || r.Pattern.re != nil
}

// allows says why a value is outside the rule's limits, or nothing. Values are
// not repeated: refusals travel further than attributes may.
func (r AttributeRule) allows(v []byte, rule connectorv1.MatchingRule) string {
	length := len(v)
	if utf8.Valid(v) {
		length = utf8.RuneCount(v)
	}
	switch {
	case !bytes.HasPrefix(v, []byte(r.Prefix)):
		return fmt.Sprintf("does not begin with %q", r.Prefix)
	case !bytes.HasSuffix(v, []byte(r.Suffix)):
		return fmt.Sprintf("does not end with %q", r.Suffix)
	case r.MaxLength > 0 && length > r.MaxLength:
		return fmt.Sprintf("is longer than %d characters", r.MaxLength)
	case r.Pattern.re != nil && !r.Pattern.re.Match(v):
		return fmt.Sprintf("does not match %q", r.Pattern.source)
	case len(r.OneOf) > 0 && !slices.ContainsFunc(r.OneOf, func(one string) bool {
		return bytes.Equal(connectorv1.Canonical(rule, []byte(one)), connectorv1.Canonical(rule, v))
	}):
		return "is not one of those listed"
	}
	return ""
}
