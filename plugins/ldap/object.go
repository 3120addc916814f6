package ldap

import (
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// uidKeyPrefix begins the link keys by which posixGroup names members. Their
// case counts, as it does to memberUid and to the hosts that read it.
const uidKeyPrefix = "uid:"

// optionalUID is what may follow the DN in a value of Name And Optional UID
// (RFC 4517 3.3.21).
var optionalUID = regexp.MustCompile(`#'[01]*'B$`)

// builder makes the contract's objects of entries, in memory of their own. It
// remembers what entries have in common and is for one goroutine.
type builder struct {
	*Instance
	names nameCache
	// declared finds a type's attribute by the name as the server writes it.
	declared map[*objectType]map[string]*connectorv1.AttributeType
	// text gathers the strings of one object and spans where each is, so that
	// they are one allocation; octets does the same for values.
	text  []byte
	spans []span
}

type span struct{ from, to int }

func newBuilder(i *Instance) *builder {
	return &builder{Instance: i, declared: map[*objectType]map[string]*connectorv1.AttributeType{}}
}

// shown returns the values of an attribute, whose name may be in any case, as
// the entry first has it.
func shown(e *message.Entry, name string) [][]byte {
	for n := range e.Attributes {
		if a := &e.Attributes[n]; len(a.Type) == len(name) && strings.EqualFold(string(a.Type), name) {
			return a.Values
		}
	}
	return nil
}

// shows reports whether an attribute has that value in any case.
func shows(e *message.Entry, name, value string) bool {
	return slices.ContainsFunc(shown(e, name), func(v []byte) bool { return strings.EqualFold(string(v), value) })
}

// object makes the contract's form of an entry. A problem in its place is an
// entry that is there and cannot be read well enough.
func (b *builder) object(t *objectType, anchor string, e *message.Entry) (*connectorv1.Object, *sdk.Problem) {
	dn, err := b.names.parse(e.Name)
	if err != nil {
		return nil, b.unreadable(string(e.Name), "its name cannot be parsed").WithCause(err)
	}
	var id []byte
	if ids := shown(e, anchor); len(ids) > 0 {
		id = ids[0]
	}
	if len(id) == 0 || !utf8.Valid(id) {
		return nil, b.unreadable(string(e.Name), "it shows no "+anchor)
	}
	if len(shown(e, "objectClass")) == 0 {
		return nil, b.lacks(t, e, "objectClass")
	}
	for _, must := range t.must {
		if len(shown(e, must)) == 0 {
			return nil, b.lacks(t, e, must)
		}
	}
	attributes, p := b.attributes(t, e)
	if p != nil {
		return nil, p
	}
	b.text, b.spans = b.text[:0], b.spans[:0]
	b.keep(append(b.text, id...))
	b.keep(append(b.text, dn.key...))
	keys := 1
	o := &connectorv1.Object{Type: t.name, Name: dn.name, Display: dn.text, Attributes: attributes}
	switch t.kind {
	case connectorv1.Kind_KIND_ACCOUNT:
		if b.settings.Disable.Method != DisableNone {
			o.Enablement = b.enablement(func(name string) []string { return texts(shown(e, name)) })
		}
		if shows(e, "objectClass", "posixAccount") {
			for _, uid := range shown(e, "uid") {
				b.keep(append(append(b.text, uidKeyPrefix...), uid...))
				keys++
			}
		}
	default:
		if p := b.members(t, e); p != nil {
			return nil, p
		}
	}
	all := string(b.text)
	at := func(s span) string { return all[s.from:s.to] }
	o.Anchor = at(b.spans[0])
	o.Keys = make([]string, keys)
	for n := range o.Keys {
		o.Keys[n] = at(b.spans[1+n])
	}
	if members := b.spans[1+keys:]; len(members) > 0 {
		o.Members = make([]string, len(members))
		for n, s := range members {
			o.Members[n] = at(s)
		}
		slices.Sort(o.Members)
		o.Members = slices.Compact(o.Members)
	}
	slices.Sort(o.Keys)
	o.Keys = slices.Compact(o.Keys)
	return o, nil
}

// keep takes over text, which is what was gathered before and one string more.
func (b *builder) keep(text []byte) {
	b.spans = append(b.spans, span{len(b.text), len(text)})
	b.text = text
}

func (b *builder) lacks(t *objectType, e *message.Entry, attribute string) *sdk.Problem {
	return b.unreadable(string(e.Name), "it shows no "+attribute+", which every "+t.name+" has")
}

func (i *Instance) unreadable(dn, why string) *sdk.Problem {
	who := i.settings.BindDN
	if who == "" {
		who = "the anonymous user"
	}
	return sdk.NewProblem(codeUnreadable, displayDN(dn), "read the entry: "+why, "let "+who+" read the whole entry, or leave it out with a filter or another base")
}

// displayDN makes a DN safe to show.
func displayDN(dn string) string {
	parsedDN, err := parseDN(dn)
	if err != nil {
		return sdk.Clean(dn)
	}
	return name(parsedDN).Text()
}

// declaration returns what the type says of an attribute, nil for what is not
// declared or secret.
func (b *builder) declaration(t *objectType, attribute []byte) *connectorv1.AttributeType {
	known := b.declared[t]
	if known == nil {
		known = map[string]*connectorv1.AttributeType{}
		b.declared[t] = known
	}
	if a, ok := known[string(attribute)]; ok {
		return a
	}
	a := t.byName[strings.ToLower(string(attribute))]
	if a.GetSecret() {
		a = nil
	}
	if len(known) < mostRemembered && len(attribute) <= longestRemembered {
		known[string(attribute)] = a
	}
	return a
}

// attributes returns the declared ones, sorted by name, in few allocations.
func (b *builder) attributes(t *objectType, e *message.Entry) ([]*connectorv1.Attribute, *sdk.Problem) {
	count, values, octets := 0, 0, 0
	for n := range e.Attributes {
		a := &e.Attributes[n]
		if len(a.Values) == 0 || b.declaration(t, a.Type) == nil {
			continue
		}
		count, values = count+1, values+len(a.Values)
		for _, v := range a.Values {
			octets += len(v)
		}
	}
	if count == 0 {
		return nil, nil
	}
	out, all := make([]*connectorv1.Attribute, 0, count), make([]connectorv1.Attribute, count)
	lists, data := make([][]byte, 0, values), make([]byte, 0, octets)
	for n := range e.Attributes {
		a := &e.Attributes[n]
		declared := b.declaration(t, a.Type)
		if len(a.Values) == 0 || declared == nil {
			continue
		}
		from := len(lists)
		for _, v := range a.Values {
			if declared.GetRule() == reference {
				key, _, err := b.names.appendKey(nil, v)
				if err != nil {
					return nil, b.noDN(string(e.Name), declared.GetName(), v)
				}
				lists = append(lists, key)
				continue
			}
			data = append(data, v...)
			lists = append(lists, data[len(data)-len(v):len(data):len(data)])
		}
		next := &all[len(out)]
		next.Name, next.Values = declared.GetName(), lists[from:len(lists):len(lists)]
		out = append(out, next)
	}
	slices.SortFunc(out, func(a, b *connectorv1.Attribute) int { return cmp.Compare(a.GetName(), b.GetName()) })
	return out, nil
}

// values returns the raw values; of references, link keys.
func (i *Instance) values(a *connectorv1.AttributeType, dn string, raw [][]byte) ([][]byte, *sdk.Problem) {
	if a.GetRule() != reference {
		return raw, nil
	}
	out := make([][]byte, len(raw))
	for n, v := range raw {
		target, err := parseDN(string(v))
		if err != nil {
			return nil, i.noDN(dn, a.GetName(), v)
		}
		out[n] = []byte(dnKey(target))
	}
	return out, nil
}

func (i *Instance) noDN(dn, attribute string, value []byte) *sdk.Problem {
	return i.unreadable(dn, fmt.Sprintf("%s holds %q, which is no DN", attribute, sdk.Clean(string(value))))
}

// members keeps the group's members.
func (b *builder) members(t *objectType, e *message.Entry) *sdk.Problem {
	for _, v := range shown(e, t.member) {
		if t.memberKey == uidKeyPrefix {
			b.keep(append(append(b.text, uidKeyPrefix...), v...))
			continue
		}
		var suffix []byte
		if bytes.HasSuffix(v, []byte("'B")) {
			suffix = optionalUID.Find(v)
		}
		from := len(b.text)
		text, empty, err := b.names.appendKey(b.text, v[:len(v)-len(suffix)])
		if err != nil {
			return b.noDN(string(e.Name), t.member, v)
		}
		text = append(text, suffix...)
		if empty || string(text[from:]) == b.placeholderKey {
			continue
		}
		b.keep(text)
	}
	return nil
}

// enablement goes by an entry's values of an attribute.
func (i *Instance) enablement(values func(attribute string) []string) connectorv1.Enablement {
	d := i.settings.Disable
	disabled := false
	switch d.Method {
	case DisablePPolicy:
		// Another time is a lock by failed binds, which is not ours to report
		// as an administrator's.
		disabled = slices.Contains(values(lockAttribute), lockedForever)
	case DisableAttribute:
		disabled = slices.ContainsFunc(values(d.Attribute.Name), func(v string) bool { return sameText(v, d.Attribute.Disabled) })
	default:
		return connectorv1.Enablement_ENABLEMENT_UNSPECIFIED
	}
	if disabled {
		return connectorv1.Enablement_ENABLEMENT_DISABLED
	}
	return connectorv1.Enablement_ENABLEMENT_ENABLED
}

func texts(values [][]byte) []string {
	out := make([]string, len(values))
	for n, v := range values {
		out[n] = string(v)
	}
	return out
}

// sameText compares as case-ignore, which holds for what marks an account.
func sameText(a, b string) bool {
	ignore := connectorv1.CaseRule_CASE_RULE_IGNORE
	return connectorv1.FoldValue(a, ignore) == connectorv1.FoldValue(b, ignore)
}

func hasClass(e *ldap.Entry, class string) bool {
	return slices.ContainsFunc(e.GetEqualFoldAttributeValues("objectClass"), func(c string) bool { return strings.EqualFold(c, class) })
}
