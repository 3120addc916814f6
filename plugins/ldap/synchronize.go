package ldap

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// synchronized is an instance on a server that tells what changed (RFC 4533) and
// stamps entries with CSNs: OpenLDAP with the overlay syncprov.
type synchronized struct{ *Instance }

var (
	_ sdk.ChangeReader = (*synchronized)(nil)
	_ sdk.Watcher      = (*synchronized)(nil)
)

// search is what is read below one base for one type.
type search struct {
	*objectType
	base string
}

func (i *Instance) searches() []search {
	var out []search
	for _, t := range i.types {
		for _, base := range t.settings.Bases {
			out = append(out, search{t, base})
		}
	}
	return out
}

// cursor is what the agent keeps, as JSON: where each search stands.
type cursor struct {
	// Scope is what was searched, and where: other searches go on from nothing.
	Scope string `json:"scope"`
	// Cookies of the server, one a search.
	Cookies []string `json:"cookies"`
	// Owed is since when groups are to be read anew, in Unix seconds; 0 when not.
	Owed int64 `json:"owed,omitempty"`
}

// groupsAfter is how long after an account changed the groups are read anew. The
// overlay refint takes the deleted and renamed out of groups a little later, and
// no CSN tells of it.
const groupsAfter = time.Minute

// scope identifies the searches.
func (i *Instance) scope() string {
	h := sha256.New()
	for _, s := range i.searches() {
		fmt.Fprintf(h, "%q %q %q %d %q\n", i.settings.URL, s.name, s.base, s.objectType.scope(), s.filter())
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (c cursor) encode() []byte {
	out, err := json.Marshal(c)
	if err != nil {
		panic("ldap: a cursor is not JSON: " + err.Error()) // strings always encode
	}
	return out
}

// decodeCursor takes only what encode wrote for these searches.
func (i *Instance) decodeCursor(raw []byte) (cursor, error) {
	var c cursor
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, i.lost("the cursor is not of this connector")
	}
	if c.Scope != i.scope() || len(c.Cookies) != len(i.searches()) {
		return c, i.lost("the cursor is of other searches")
	}
	for _, cookie := range c.Cookies {
		if !csnForm.MatchString(stamp(cookie)) {
			return c, i.lost("the cursor holds a cookie without a CSN")
		}
	}
	return c, nil
}

func (i *Instance) lost(why string) *sdk.Problem {
	return sdk.NewProblem(sdk.CodeCursorLost, i.alias, "read what changed", "nothing: the agent reads everything").WithSaid(why)
}

// nobody matches no entry.
const nobody = "(" + anchorUUID + "=00000000-0000-0000-0000-000000000000)"

// cookies asks for where the server stands, for each search: synchronizing
// nothing costs nothing and ends with a cookie.
func (i *Instance) cookies(c *searchConn) (cursor, error) {
	at := cursor{Scope: i.scope()}
	for _, s := range i.searches() {
		request := s.request(s.base, nobody, []string{noAttributes})
		request.Controls = []ldap.Control{ldap.NewControlSyncRequest(ldap.SyncRequestModeRefreshOnly, nil, false)}
		m, err := c.exchange(request, func(*message.Message) error { return nil })
		if err != nil {
			return at, err
		}
		cookie, _, err := doneCookie(m)
		if err != nil {
			return at, err
		}
		if stamp(cookie) == "" {
			return at, fmt.Errorf("%w: a cookie without a CSN", message.ErrMalformed)
		}
		at.Cookies = append(at.Cookies, cookie)
	}
	return at, nil
}

// doneCookie reads the end of a synchronizing search: an empty cookie says that
// nothing changed.
func doneCookie(m *message.Message) (cookie string, deletes bool, err error) {
	if err := answer(m.Result); err != nil {
		return "", false, err
	}
	control := m.Control(message.SyncDone)
	if control == nil {
		return "", false, fmt.Errorf("%w: a search that synchronizes ends without saying where", message.ErrMalformed)
	}
	raw, deletes, err := message.ReadSyncDone(control.Value)
	return string(raw), deletes, err
}

// csnForm is OpenLDAP's change sequence number: time, counter, server, counter.
var csnForm = regexp.MustCompile(`^[0-9]{14}\.[0-9]{6}Z#[0-9a-f]{6}#[0-9a-f]{3}#[0-9a-f]{6}$`)

// stamp is the lowest CSN in a cookie of OpenLDAP, "rid=…,csn=A;B": entries that
// changed later have a higher one.
func stamp(cookie string) string {
	for part := range strings.SplitSeq(cookie, ",") {
		list, ok := strings.CutPrefix(part, "csn=")
		if !ok {
			continue
		}
		lowest := ""
		for csn := range strings.SplitSeq(list, ";") {
			if lowest == "" || csn < lowest {
				lowest = csn
			}
		}
		return lowest
	}
	return ""
}

// canSynchronize tries what following the directory begins with. Attributes that
// an overlay keeps without touching the entry's CSN would grow stale.
func (i *Instance) canSynchronize(ctx context.Context) bool {
	for _, t := range i.types {
		for _, a := range t.declared.GetAttributes() {
			if strings.EqualFold(a.GetName(), "memberOf") {
				return false
			}
		}
	}
	raw, c, server, err := i.connectForSearch(ctx)
	if err != nil {
		return false
	}
	defer raw.Close()
	if !server.synchronizes() {
		return false
	}
	_, err = i.cookies(c)
	return err == nil
}

func (s *server) synchronizes() bool {
	return s.control(message.SyncRequest) && s.anchor == anchorUUID && s.versioned
}

// begin returns the cursor of the server's present state; nil with a note when it
// has none.
func (o *observation) begin() []byte {
	if !o.synchronizes || !o.server.synchronizes() {
		return nil
	}
	at, err := o.cookies(o.conn)
	if err != nil {
		o.findings = append(o.findings, o.problem(err, o.settings.URL, "learn from where changes could be read").
			WithSeverity(connectorv1.Severity_SEVERITY_NOTE).Proto())
		return nil
	}
	return at.encode()
}

// Watch implements sdk.Watcher: one search that stays open (refreshAndPersist)
// for each that is read. It begins at the server's present state, so that no
// server without a session log lists everything to it.
func (i *synchronized) Watch(ctx context.Context, _ []byte, changed func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var open []func() error
	signalled := make(chan struct{}, 1)
	signal := func() {
		changed()
		select {
		case signalled <- struct{}{}:
		default:
		}
	}
	for n := range i.searches() {
		raw, c, _, err := i.connectForSearch(ctx)
		if err != nil {
			return err
		}
		defer raw.Close()
		defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
		at, err := i.cookies(c)
		if err != nil {
			return i.problem(err, i.settings.URL, "watch")
		}
		open = append(open, func() error { return i.persist(raw, c, i.searches()[n], at.Cookies[n], signal) })
	}
	ended := make(chan error, len(open))
	for _, follow := range open {
		go func() { ended <- follow() }()
	}
	changed()
	err := i.await(ended, signalled, changed)
	cancel()
	for range len(open) - 1 {
		err = errors.Join(err, <-ended)
	}
	return i.problem(err, i.settings.URL, "watch")
}

// await signals once more when groups are due, until a search ends.
func (i *Instance) await(ended <-chan error, signalled <-chan struct{}, changed func()) error {
	due := time.NewTimer(i.groupsAfter)
	defer due.Stop()
	for waits := true; ; {
		select {
		case err := <-ended:
			return err
		case <-signalled:
			if !waits {
				// A second more: Owed has no parts of seconds.
				due.Reset(i.groupsAfter + time.Second)
				waits = true
			}
		case <-due.C:
			waits = false
			changed()
		}
	}
}

// persist follows one search until the connection ends. A dead peer is found by
// TCP's own keep-alive: that nothing changes is no fault.
func (i *Instance) persist(raw net.Conn, c *searchConn, s search, from string, changed func()) error {
	request := s.request(s.base, s.filter(), []string{noAttributes})
	request.Controls = []ldap.Control{ldap.NewControlSyncRequest(ldap.SyncRequestModeRefreshAndPersist, []byte(from), false)}
	c.bounded = true
	m, err := c.exchange(request, func(*message.Message) error {
		changed()
		return nil
	})
	if err == nil {
		err = answer(m.Result)
	}
	if err == nil {
		err = errors.New("the server ended a search that should stay open")
	}
	return err
}
