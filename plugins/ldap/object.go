package ldap

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// uidKeyPrefix begins the link keys by which posixGroup names members. Their
// case counts, as it does to memberUid and to the hosts that read it.
const uidKeyPrefix = "uid:"

// optionalUID is what may follow the DN in a value of Name And Optional UID
// (RFC 4517 3.3.21).
var optionalUID = regexp.MustCompile(`#'[01]*'B$`)

// object makes the contract's form of an entry. A problem in its place is an
// entry that is there and cannot be read well enough.
func (i *Instance) object(t *objectType, anchor string, e *ldap.Entry) (*connectorv1.Object, *sdk.Problem) {
	dn, err := parseDN(e.DN)
	if err != nil {
		return nil, i.unreadable(e.DN, "its name cannot be parsed").WithCause(err)
	}
	id := e.GetEqualFoldAttributeValue(anchor)
	if id == "" || !utf8.ValidString(id) {
		return nil, i.unreadable(e.DN, "it shows no "+anchor)
	}
	for _, must := range append([]string{"objectClass"}, t.must...) {
		if len(e.GetEqualFoldAttributeValues(must)) == 0 {
			return nil, i.unreadable(e.DN, "it shows no "+must+", which every "+t.name+" has")
		}
	}
	o := &connectorv1.Object{Type: t.name, Anchor: id, Name: name(dn), Display: name(dn).Text(), Keys: []string{dnKey(dn)}}
	for _, a := range e.Attributes {
		key := strings.ToLower(a.Name)
		declared := t.byName[key]
		if declared == nil || declared.GetSecret() || len(a.ByteValues) == 0 {
			continue
		}
		values, p := i.values(declared, e.DN, a.ByteValues)
		if p != nil {
			return nil, p
		}
		o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: declared.GetName(), Values: values})
	}
	slices.SortFunc(o.Attributes, func(a, b *connectorv1.Attribute) int { return cmp.Compare(a.GetName(), b.GetName()) })
	switch t.kind {
	case connectorv1.Kind_KIND_ACCOUNT:
		o.Enablement = i.enablement(e)
		if hasClass(e, "posixAccount") {
			for _, uid := range e.GetEqualFoldAttributeValues("uid") {
				o.Keys = append(o.Keys, uidKeyPrefix+uid)
			}
		}
	default:
		members, p := i.members(t, e)
		if p != nil {
			return nil, p
		}
		o.Members = members
	}
	slices.Sort(o.Keys)
	o.Keys = slices.Compact(o.Keys)
	return o, nil
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

// values returns the raw values; of references, link keys.
func (i *Instance) values(a *connectorv1.AttributeType, dn string, raw [][]byte) ([][]byte, *sdk.Problem) {
	if a.GetRule() != reference {
		return raw, nil
	}
	out := make([][]byte, len(raw))
	for n, v := range raw {
		target, err := parseDN(string(v))
		if err != nil {
			return nil, i.unreadable(dn, fmt.Sprintf("%s holds %q, which is no DN", a.GetName(), sdk.Clean(string(v))))
		}
		out[n] = []byte(dnKey(target))
	}
	return out, nil
}

func (i *Instance) members(t *objectType, e *ldap.Entry) ([]string, *sdk.Problem) {
	var out []string
	for _, v := range e.GetEqualFoldAttributeValues(t.member) {
		if t.memberKey == uidKeyPrefix {
			out = append(out, uidKeyPrefix+v)
			continue
		}
		suffix := optionalUID.FindString(v)
		dn, err := parseDN(strings.TrimSuffix(v, suffix))
		if err != nil {
			return nil, i.unreadable(e.DN, fmt.Sprintf("%s holds %q, which is no DN", t.member, sdk.Clean(v)))
		}
		if key := dnKey(dn) + suffix; len(dn) > 0 && key != i.placeholderKey {
			out = append(out, key)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

func (i *Instance) enablement(e *ldap.Entry) connectorv1.Enablement {
	d := i.settings.Disable
	disabled := false
	switch d.Method {
	case DisablePPolicy:
		// Another time is a lock by failed binds, which is not ours to report
		// as an administrator's.
		disabled = slices.Contains(e.GetEqualFoldAttributeValues(lockAttribute), lockedForever)
	case DisableAttribute:
		disabled = slices.ContainsFunc(e.GetEqualFoldAttributeValues(d.Attribute.Name), func(v string) bool { return sameText(v, d.Attribute.Disabled) })
	default:
		return connectorv1.Enablement_ENABLEMENT_UNSPECIFIED
	}
	if disabled {
		return connectorv1.Enablement_ENABLEMENT_DISABLED
	}
	return connectorv1.Enablement_ENABLEMENT_ENABLED
}

// sameText compares as case-ignore, which holds for what marks an account.
func sameText(a, b string) bool {
	ignore := connectorv1.CaseRule_CASE_RULE_IGNORE
	return connectorv1.FoldValue(a, ignore) == connectorv1.FoldValue(b, ignore)
}

func hasClass(e *ldap.Entry, class string) bool {
	return slices.ContainsFunc(e.GetEqualFoldAttributeValues("objectClass"), func(c string) bool { return strings.EqualFold(c, class) })
}
