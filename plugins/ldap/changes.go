package ldap

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// mostGone bounds how many removals one read of changes holds; more are the
// business of a whole read.
const mostGone = 20000

// incremental is one Changes under way.
type incremental struct {
	*observation
	tell sdk.Telling
	// at is where each search stands, since the lowest CSN it began with.
	at    cursor
	since string
	// gone are named as deleted. OpenLDAP names more than was ever told: entries
	// of other searches, and changed ones that do not match this search.
	gone map[message.UUID]struct{}
	ids  []message.UUID
	// unnamed tells that a server named no deletions: it does not remember them.
	unnamed bool
	// moved tells that accounts changed or went.
	moved      bool
	loginNames []string
}

// errTooMuch ends a read of changes that is not worth while.
var errTooMuch = errors.New("too much changed")

// Changes implements sdk.ChangeReader: each search is synchronized from its
// cookie on (refreshOnly). What a server names as deleted is looked for once more
// before it is told as gone. A server that cannot name deletions has everything
// listed, by anchor alone: its own list of what is present leaves out what
// changes while it is made.
func (i *synchronized) Changes(ctx context.Context, from []byte, tell sdk.Telling) (sdk.Completeness, error) {
	at, err := i.decodeCursor(from)
	if err != nil {
		return sdk.Completeness{}, err
	}
	raw, conn, server, err := i.connectForSearch(ctx)
	if err != nil {
		return sdk.Completeness{}, err
	}
	defer raw.Close()
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	d := &incremental{tell: tell, at: at, gone: map[message.UUID]struct{}{}}
	d.observation = newObservation(i.Instance, conn, server, d.changed)
	for _, cookie := range at.Cookies {
		if csn := stamp(cookie); d.since == "" || csn < d.since {
			d.since = csn
		}
	}
	if err := d.read(ctx); err != nil {
		return sdk.Completeness{}, d.fail(ctx, err)
	}
	done := d.completeness()
	done.Cursor, done.Enumerated = d.at.encode(), d.unnamed
	return done, nil
}

// fail tells what the server refused, which leaves the cursor of no use, from
// what became of the connection.
func (d *incremental) fail(ctx context.Context, err error) error {
	var stop emitError
	var p *sdk.Problem
	switch code := resultCode(err); {
	case errors.As(err, &stop):
		return stop.error
	case errors.As(err, &p):
		return p
	case ctx.Err() != nil:
		return d.problem(ctx.Err(), d.alias, "read what changed")
	case errors.Is(err, errTooMuch):
		return d.lost(err.Error())
	case isAnswer(err) && code != ldap.LDAPResultBusy && code != ldap.LDAPResultUnavailable:
		return d.lost(said(err))
	default:
		return d.problem(err, d.settings.URL, "read what changed")
	}
}

func (d *incremental) read(ctx context.Context) error {
	if err := d.refresh(ctx); err != nil {
		return err
	}
	if d.unnamed {
		if err := d.enumerate(ctx); err != nil {
			return err
		}
		// What moved between the searches while they were listed is told now.
		if err := d.refresh(ctx); err != nil {
			return err
		}
	}
	if err := d.confirm(ctx); err != nil {
		return err
	}
	if err := d.containers(); err != nil {
		return err
	}
	if err := d.logins(); err != nil {
		return err
	}
	return d.groups(ctx)
}

// groups reads all groups anew when that is due, and notes that it will be.
func (d *incremental) groups(ctx context.Context) error {
	now := d.now()
	if d.at.Owed > 0 && now.Sub(time.Unix(d.at.Owed, 0)) >= d.groupsAfter {
		d.at.Owed = 0
		d.again()
		for _, s := range d.searches() {
			if s.kind != connectorv1.Kind_KIND_GROUP {
				continue
			}
			if err := d.search(ctx, s.objectType, s.base, d.settings.PageSize); err != nil {
				return err
			}
		}
	}
	if d.moved && d.at.Owed == 0 {
		d.at.Owed = now.Unix()
	}
	return nil
}

// refresh brings every search to the server's present state.
func (d *incremental) refresh(ctx context.Context) error {
	d.again()
	for n, s := range d.searches() {
		request := s.request(s.base, s.filter(), append(s.everything(d.Instance), versionAttribute))
		request.Controls = []ldap.Control{ldap.NewControlSyncRequest(ldap.SyncRequestModeRefreshOnly, []byte(d.at.Cookies[n]), false)}
		m, err := d.conn.exchange(request, func(m *message.Message) error { return d.receive(ctx, s, m) })
		if err != nil {
			return err
		}
		cookie, deletes, err := doneCookie(m)
		if err != nil {
			return err
		}
		if cookie != "" && cookie != d.at.Cookies[n] {
			d.unnamed = d.unnamed || !deletes
			d.at.Cookies[n] = cookie
		}
	}
	return nil
}

// again begins a further pass over the searches: what was told in the one before
// may have changed since and is told once more.
func (d *incremental) again() { d.seen, d.uids = newDigestSet(), newDigestSet() }

func (d *incremental) receive(ctx context.Context, s search, m *message.Message) error {
	switch m.Op {
	case message.SearchResultReference:
		d.refer(s.objectType, string(m.References[0]))
		return nil
	case message.IntermediateResponse:
		if string(m.Name) != message.SyncInfo {
			return nil
		}
		info, err := message.ReadSyncInfo(m.Value, d.ids)
		if err != nil || !info.Deleted {
			return err
		}
		d.ids = info.IDs
		return d.named(info.IDs...)
	default:
		control := m.Control(message.SyncState)
		if control == nil {
			return fmt.Errorf("%w: an entry that does not say what became of it", message.ErrMalformed)
		}
		state, id, err := message.ReadSyncState(control.Value)
		switch {
		case err != nil || state == message.StatePresent:
			return err
		case state == message.StateDelete:
			return d.named(id)
		}
		for _, csn := range shown(&m.Entry, versionAttribute) {
			if string(csn) <= d.since {
				// OpenLDAP passes over a cookie that it cannot use, sends everything
				// and says that it names deletions.
				return d.lost("the server begins from nothing: it shows " + displayDN(string(m.Entry.Name)) + ", which did not change")
			}
		}
		return d.take(ctx, s.objectType, &m.Entry)
	}
}

func (d *incremental) named(ids ...message.UUID) error {
	for _, id := range ids {
		d.gone[id] = struct{}{}
	}
	if len(d.gone) > mostGone {
		return fmt.Errorf("%w: more than %d removals", errTooMuch, mostGone)
	}
	return nil
}

// changed is the observation's emit.
func (d *incremental) changed(o *connectorv1.Object) error {
	d.moved = d.moved || d.typeNamed(o.GetType()).kind == connectorv1.Kind_KIND_ACCOUNT
	for _, key := range o.GetKeys() {
		if uid, ok := strings.CutPrefix(key, uidKeyPrefix); ok {
			d.loginNames = append(d.loginNames, uid)
		}
	}
	return d.tell.Changed(o)
}

// enumerate names everything that is there.
func (d *incremental) enumerate(ctx context.Context) error {
	d.list = func(e *message.Entry) error {
		ids := shown(e, d.server.anchor)
		if len(ids) == 0 {
			d.left(d.unreadable(string(e.Name), "it shows no "+d.server.anchor))
			return nil
		}
		if err := d.tell.Present(string(ids[0])); err != nil {
			return emitError{err}
		}
		return nil
	}
	defer func() { d.list = nil }()
	return d.readAll(ctx)
}

// confirm looks once more for what was named as gone: it may have moved from one
// search into another, before or after that one was asked.
func (d *incremental) confirm(ctx context.Context) error {
	d.again()
	anchors := make([]string, 0, len(d.gone))
	for id := range d.gone {
		anchors = append(anchors, id.String())
	}
	slices.Sort(anchors)
	for chunk := range slices.Chunk(anchors, anchorsPerSearch) {
		there := map[string]bool{}
		for _, s := range d.searches() {
			request := s.request(s.base, "(&"+s.filter()+anyOf(anchorUUID, chunk)+")", s.everything(d.Instance))
			_, err := d.conn.each(request, func(m *message.Message) error {
				if m.Op == message.SearchResultReference {
					return nil
				}
				for _, id := range shown(&m.Entry, anchorUUID) {
					there[strings.ToLower(string(id))] = true
				}
				return d.take(ctx, s.objectType, &m.Entry)
			})
			if err != nil {
				return err
			}
		}
		for _, anchor := range chunk {
			if there[anchor] {
				continue
			}
			d.moved = true
			if err := d.tell.Removed(anchor); err != nil {
				return emitError{err}
			}
		}
	}
	return nil
}

// containers gives up when an entry that has others below it changed: those
// below it may have new names, and the server says so of none of them.
func (d *incremental) containers() error {
	filter := fmt.Sprintf("(&(%[1]s>=%[2]s)(!(%[1]s=%[2]s))(hasSubordinates=TRUE))", versionAttribute, ldap.EscapeFilter(d.since))
	for _, base := range append(d.bases(), holding(d.server.contexts, d.bases())...) {
		request := ldap.NewSearchRequest(base, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, filter, []string{noAttributes}, nil)
		name := ""
		_, err := d.conn.each(request, func(m *message.Message) error {
			if m.Op == message.SearchResultEntry {
				name = string(m.Entry.Name)
			}
			return nil
		})
		switch code := resultCode(err); {
		case code == ldap.LDAPResultNoSuchObject, code == ldap.LDAPResultInsufficientAccessRights:
			// What the bind account cannot see outside of its bases is not there to it.
		case err != nil:
			return err
		case name != "":
			return d.lost(displayDN(name) + " changed, and what is below it may have another name")
		}
	}
	return nil
}

// logins gives up when a changed account shares its login name: whose the name is
// shows in a whole read only.
func (d *incremental) logins() error {
	for chunk := range slices.Chunk(d.loginNames, anchorsPerSearch) {
		holders := map[string]string{}
		for _, s := range d.searches() {
			if s.kind != connectorv1.Kind_KIND_ACCOUNT {
				continue
			}
			request := s.request(s.base, "(&(objectClass=posixAccount)"+s.filter()+anyOf("uid", chunk)+")", []string{anchorUUID, "uid"})
			_, err := d.conn.each(request, func(m *message.Message) error {
				ids := shown(&m.Entry, anchorUUID)
				for _, uid := range shown(&m.Entry, "uid") {
					if len(ids) == 0 || !slices.Contains(chunk, string(uid)) {
						continue
					}
					if holder, held := holders[string(uid)]; held && holder != string(ids[0]) {
						d.shared = true
					}
					holders[string(uid)] = string(ids[0])
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	if d.shared {
		return d.lost("accounts share a login name")
	}
	return nil
}

// anyOf is a filter for entries that have any of the values.
func anyOf(attribute string, values []string) string {
	var filter strings.Builder
	filter.WriteString("(|")
	for _, v := range values {
		filter.WriteString("(" + attribute + "=" + ldap.EscapeFilter(v) + ")")
	}
	filter.WriteString(")")
	return filter.String()
}
