package ldap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
)

// errRange is wrapped when a server that answers in ranges of values does not
// come to an end.
var errRange = errors.New("values in ranges")

// completeRanges replaces attributes like "member;range=0-1499" by the whole
// attribute (MS-ADTS 3.1.1.3.1.3.3), and drops attributes without values: a
// server shows the plain name too, empty. Read plainly, such a group looks empty.
func (i *Instance) completeRanges(ctx context.Context, e *message.Entry) error {
	kept := e.Attributes[:0]
	for _, a := range e.Attributes {
		if bytes.IndexByte(a.Type, ';') >= 0 {
			if err := i.completeRange(ctx, e, &a); err != nil {
				return err
			}
		}
		if len(a.Values) > 0 {
			kept = append(kept, a)
		}
	}
	e.Attributes = kept
	return nil
}

func (i *Instance) completeRange(ctx context.Context, e *message.Entry, a *message.Attribute) error {
	base, last, ranged := parseRange(string(a.Type))
	if !ranged {
		return nil
	}
	for last >= 0 {
		next, upTo, err := i.readRange(ctx, string(e.Name), base, last+1)
		if err != nil {
			return err
		}
		if upTo >= 0 && upTo <= last || len(next) == 0 {
			return fmt.Errorf("%w: the server gave nothing of %s from value %d on", errRange, base, last+1)
		}
		a.Values, last = append(a.Values, next...), upTo
	}
	a.Type = []byte(base)
	return nil
}

func (i *Instance) readRange(ctx context.Context, dn, attribute string, from int) ([][]byte, int, error) {
	var result *ldap.SearchResult
	err := i.ask(ctx, &i.reading, func(s *session) (err error) {
		result, err = s.conn.Search(ldap.NewSearchRequest(dn, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject,
			[]string{fmt.Sprintf("%s;range=%d-*", attribute, from)}, nil))
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	for _, e := range result.Entries {
		for _, a := range e.Attributes {
			if base, last, ranged := parseRange(a.Name); ranged && strings.EqualFold(base, attribute) {
				return a.ByteValues, last, nil
			}
		}
	}
	return nil, 0, fmt.Errorf("%w: the server does not show %s from value %d on", errRange, attribute, from)
}

// parseRange reads "member;range=0-1499"; last is -1 for "*", the end.
func parseRange(attribute string) (base string, last int, ranged bool) {
	base, option, found := strings.Cut(attribute, ";")
	if !found || !strings.HasPrefix(strings.ToLower(option), "range=") {
		return attribute, 0, false
	}
	_, to, found := strings.Cut(option, "-")
	if !found {
		return attribute, 0, false
	}
	if to == "*" {
		return base, -1, true
	}
	last, err := strconv.Atoi(to)
	return base, last, err == nil
}
