package ldap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// errPages is wrapped when the server's paging went wrong.
var errPages = errors.New("paged search broken off")

// observation is one Observe under way.
type observation struct {
	*builder
	conn     *searchConn
	server   *server
	emit     func(*connectorv1.Object) error
	findings []*connectorv1.Problem
	// seen holds anchors: an entry of two types, or in overlapping bases, is
	// told once.
	seen digestSet
	// uids holds posix login names, which must name one account.
	uids digestSet
	// pages counts answers, entries what they held; unpaged tells that the
	// server had no pages.
	pages, entries int
	unpaged        bool
	// shared tells that accounts share a login name.
	shared bool
	// list, if set, takes entries in place of take: they show their anchor only.
	list func(e *message.Entry) error
}

// emitError carries an error of emit through the search.
type emitError struct{ error }

// Observe implements sdk.Observer. It has a connection of its own and holds one
// entry at a time.
func (i *Instance) Observe(ctx context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	raw, conn, server, err := i.connectForSearch(ctx)
	if err != nil {
		return sdk.Completeness{}, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	o := newObservation(i, conn, server, emit)
	// Before anything is read: what changes from here on, Changes tells.
	cursor := o.begin()
	if err := o.readAll(ctx); err != nil {
		return sdk.Completeness{}, err
	}
	done := o.completeness()
	if !o.shared {
		// Which of the accounts has a shared name shows in a whole read only.
		done.Cursor = cursor
	}
	return done, nil
}

func newObservation(i *Instance, conn *searchConn, server *server, emit func(*connectorv1.Object) error) *observation {
	return &observation{builder: newBuilder(i), conn: conn, server: server, emit: emit, seen: newDigestSet(), uids: newDigestSet()}
}

// readAll reads every base of every type. What goes wrong with one is a finding.
func (o *observation) readAll(ctx context.Context) error {
	for _, t := range o.types {
		for _, base := range t.settings.Bases {
			err := o.search(ctx, t, base, o.settings.PageSize)
			var stop emitError
			switch {
			case err == nil:
			case errors.As(err, &stop):
				return stop.error
			case ctx.Err() != nil:
				return o.problem(ctx.Err(), o.alias, "observe")
			default:
				o.left(o.searchProblem(err, t, base))
				if !isAnswer(err) && !errors.Is(err, errPages) {
					// The connection is gone, and with it all that is left.
					return nil
				}
			}
		}
	}
	return nil
}

func (o *observation) completeness() sdk.Completeness {
	method := fmt.Sprintf("paged search, %d pages, result code 0", o.pages)
	if o.unpaged {
		method = fmt.Sprintf("search without pages, %d answers, result code 0", o.pages)
	}
	for _, f := range o.findings {
		if f.GetSeverity() == connectorv1.Severity_SEVERITY_INCOMPLETE {
			method = fmt.Sprintf("broken off or partly refused after %d pages", o.pages)
			break
		}
	}
	return sdk.Completeness{Method: method, Findings: o.findings}
}

func (o *observation) left(p *sdk.Problem) { o.findings = append(o.findings, p.Incomplete()) }

func (o *observation) searchProblem(err error, t *objectType, base string) *sdk.Problem {
	tried := "read every " + t.name
	if errors.Is(err, errPages) {
		return sdk.NewProblem(codePagingLost, base, tried, "see the directory server's log; a proxy or load balancer between may have changed servers").WithCause(err)
	}
	return o.problem(err, base, tried)
}

func (t *objectType) filter() string {
	filter := "(objectClass=" + t.name + ")"
	if t.settings.Filter != "" {
		filter = "(&" + filter + t.settings.Filter + ")"
	}
	return filter
}

func (t *objectType) request(base, filter string, attributes []string) *ldap.SearchRequest {
	return ldap.NewSearchRequest(base, t.scope(), ldap.NeverDerefAliases, 0, 0, false, filter, attributes, nil)
}

func (t *objectType) scope() int {
	if t.settings.Scope == "one" {
		return ldap.ScopeSingleLevel
	}
	return ldap.ScopeWholeSubtree
}

// smallestPage is the size below which smaller pages are not tried.
const smallestPage = 10

// search reads one base in pages (RFC 2696), in smaller ones if the server
// refuses them, and at once if it refuses all pages or does not know them.
func (o *observation) search(ctx context.Context, t *objectType, base string, pageSize int) error {
	request := t.request(base, t.filter(), t.everything(o.Instance))
	if o.list != nil {
		request.Attributes = []string{o.server.anchor}
	}
	if !o.server.control(oidPaging) {
		o.unpaged = true
		_, err := o.page(ctx, t, request)
		return err
	}
	paging := ldap.NewControlPaging(uint32(pageSize))
	request.Controls = []ldap.Control{paging}
	for first := true; ; first = false {
		before := o.entries
		cookie, err := o.page(ctx, t, request)
		code := resultCode(err)
		switch {
		case first && before == o.entries && refusesPages(code):
			if paging.PagingSize > smallestPage {
				// The pages may be too large for the server's liking (size.pr).
				return o.search(ctx, t, base, pageSize/4)
			}
			o.unpaged = true
			request.Controls = nil
			_, err := o.page(ctx, t, request)
			return err
		case err != nil:
			return err
		case cookie == nil && !first:
			// RFC 2696 wants the control in every answer. Without it nobody
			// knows whether there was more.
			return fmt.Errorf("%w: the server left the paging control out of page %d", errPages, o.pages)
		case cookie == nil:
			o.unpaged = true
			return nil
		case len(cookie) == 0:
			return nil
		case bytes.Equal(cookie, paging.Cookie) && before == o.entries:
			return fmt.Errorf("%w: the server returned the same cookie and no entries", errPages)
		}
		paging.SetCookie(cookie)
	}
}

// refusesPages reports codes by which servers refuse the paging control;
// OpenLDAP's is adminLimitExceeded. A limit that is one shows again without it.
func refusesPages(code uint16) bool {
	return code == ldap.LDAPResultUnwillingToPerform || code == ldap.LDAPResultUnavailableCriticalExtension || code == ldap.LDAPResultAdminLimitExceeded
}

// page runs one search and returns the paging cookie: nil if the answer had no
// paging control, empty at the last page.
func (o *observation) page(ctx context.Context, t *objectType, request *ldap.SearchRequest) ([]byte, error) {
	o.pages++
	return o.conn.each(request, func(m *message.Message) error {
		if m.Op == message.SearchResultReference {
			o.refer(t, string(m.References[0]))
			return nil
		}
		return o.take(ctx, t, &m.Entry)
	})
}

// refer tells that a part of the tree is elsewhere.
func (o *observation) refer(t *objectType, url string) {
	p := sdk.NewProblem(codeReferral, url, "read every "+t.name, "configure a connector for that server too, or set ignore_referrals: true if nothing in scope is there")
	if o.settings.IgnoreReferrals {
		o.findings = append(o.findings, p.WithSeverity(connectorv1.Severity_SEVERITY_NOTE).Proto())
	} else {
		o.left(p)
	}
}

// take tells one entry of a search.
func (o *observation) take(ctx context.Context, t *objectType, e *message.Entry) error {
	o.entries++
	if o.list != nil {
		return o.list(e)
	}
	if err := o.completeRanges(ctx, e); err != nil {
		o.left(o.problem(err, displayDN(string(e.Name)), "read all values"))
		return nil
	}
	object, p := o.object(t, o.server.anchor, e)
	if p != nil {
		o.left(p)
		return nil
	}
	if !o.seen.claim(object.GetAnchor()) {
		return nil
	}
	o.dropTakenUIDs(object)
	if err := o.emit(object); err != nil {
		return emitError{err}
	}
	return nil
}

// dropTakenUIDs takes away login names that another account has: a membership by
// such a name is nobody's in particular.
func (o *observation) dropTakenUIDs(object *connectorv1.Object) {
	kept := object.Keys[:0]
	for _, key := range object.Keys {
		if strings.HasPrefix(key, uidKeyPrefix) && !o.uids.claim(key) {
			o.shared = true
			o.findings = append(o.findings, sdk.NewProblem(sdk.CodeAlreadyExists, object.GetDisplay(), "tell accounts apart by "+key,
				"give each posixAccount its own uid: groups that name members by uid mean the first account read").
				WithSeverity(connectorv1.Severity_SEVERITY_NOTE).Proto())
			continue
		}
		kept = append(kept, key)
	}
	object.Keys = kept
}

// digestSet holds hashes for texts: of a million objects it takes some tens of
// megabytes less than the texts. With 128 bits of two seeds that nobody knows,
// two texts of one hash do not come up.
type digestSet struct {
	seeds [2]maphash.Seed
	has   map[[2]uint64]struct{}
}

func newDigestSet() digestSet {
	return digestSet{[2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}, map[[2]uint64]struct{}{}}
}

// claim puts s into the set and reports whether it was not there.
func (d *digestSet) claim(s string) bool {
	before := len(d.has)
	d.has[[2]uint64{maphash.String(d.seeds[0], s), maphash.String(d.seeds[1], s)}] = struct{}{}
	return len(d.has) > before
}
