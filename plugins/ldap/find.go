package ldap

import (
	"context"
	"errors"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
)

// anchorsPerSearch bounds the OR filter of one search.
const anchorsPerSearch = 100

// found is what a look-up by anchors came to.
type found struct {
	anchor  string
	entries map[string]*ldap.Entry
	// unsure is why an anchor without an entry is not known to be absent.
	unsure *sdk.Problem
}

// find looks anchors up: below the bases first, then in the naming contexts
// that hold them, since an object that left its base is not gone.
func (i *Instance) find(ctx context.Context, l *lane, bases, anchors, attributes []string) (*found, error) {
	f := &found{entries: map[string]*ldap.Entry{}}
	for start := 0; start < len(anchors); start += anchorsPerSearch {
		chunk := anchors[start:min(start+anchorsPerSearch, len(anchors))]
		if err := i.findChunk(ctx, l, f, bases, chunk, attributes); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (i *Instance) findChunk(ctx context.Context, l *lane, f *found, bases, anchors, attributes []string) error {
	for _, base := range bases {
		missing := f.missing(anchors)
		if len(missing) == 0 {
			return nil
		}
		err := i.findBelow(ctx, l, f, base, missing, attributes)
		switch {
		case err == nil:
		case !isAnswer(err):
			return i.problem(err, base, "read by anchor")
		default:
			f.unsure = i.problem(err, base, "read by anchor")
		}
	}
	var contexts []string
	err := i.ask(ctx, l, func(s *session) error {
		contexts = holding(s.server.contexts, bases)
		return nil
	})
	if err != nil {
		return i.problem(err, i.settings.URL, "read by anchor")
	}
	for _, base := range contexts {
		missing := f.missing(anchors)
		if len(missing) == 0 {
			return nil
		}
		err := i.findBelow(ctx, l, f, base, missing, attributes)
		switch code := resultCode(err); {
		case err == nil:
		case code == ldap.LDAPResultNoSuchObject, code == ldap.LDAPResultInsufficientAccessRights:
			// The bind account sees its bases only. What it cannot see outside
			// of them is, to it, not there.
		case !isAnswer(err):
			return i.problem(err, base, "read by anchor")
		default:
			f.unsure = i.problem(err, base, "read by anchor")
		}
	}
	return nil
}

func (f *found) missing(anchors []string) []string {
	var out []string
	for _, a := range anchors {
		if f.entries[a] == nil {
			out = append(out, a)
		}
	}
	return out
}

func (i *Instance) findBelow(ctx context.Context, l *lane, f *found, base string, anchors, attributes []string) error {
	return i.ask(ctx, l, func(s *session) error {
		f.anchor = s.server.anchor
		result, err := s.conn.Search(ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, anyOf(f.anchor, anchors),
			append([]string{f.anchor}, attributes...), nil))
		if result != nil {
			// What came before an error is sound; only its absence means nothing.
			for _, e := range result.Entries {
				f.entries[e.GetEqualFoldAttributeValue(f.anchor)] = e
			}
		}
		return err
	})
}

// holding are the contexts that hold any of the bases and are not themselves
// among them.
func holding(contexts, bases []string) []string {
	var out []string
	for _, c := range contexts {
		above, err := parseDN(c)
		if err != nil || len(above) == 0 {
			continue
		}
		for _, b := range bases {
			dn, err := parseDN(b)
			if err == nil && len(dn) > len(above) && dnKey(dn[len(dn)-len(above):]) == dnKey(above) {
				out = append(out, c)
				break
			}
		}
	}
	return out
}

// lookup reads one entry by its DN. No entry and no error means that the
// directory says it is not there; one that is there and cannot be read is a
// problem.
func (i *Instance) lookup(ctx context.Context, l *lane, dn string, attributes []string) (*ldap.Entry, error) {
	var result *ldap.SearchResult
	err := i.ask(ctx, l, func(s *session) (err error) {
		result, err = s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject,
			append([]string{s.server.anchor, "objectClass"}, attributes...), nil))
		return err
	})
	switch {
	case resultCode(err) == ldap.LDAPResultNoSuchObject && !errors.Is(err, errNotSent):
		return nil, nil
	case err != nil:
		return nil, i.problem(err, displayDN(dn), "read the entry")
	case len(result.Entries) == 0:
		return nil, i.unreadable(dn, "the server says neither what it is nor that it is not there")
	default:
		return result.Entries[0], nil
	}
}
