package load

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

var directoryPeople = flag.Int("directory.people", 400, "people in the directory of TestChanges; a tenth as many groups, ten memberships each")

// mover writes changes to a directory and knows when each began, and which
// anchors they concern.
type mover struct {
	t       *testing.T
	server  *slapd.Server
	conn    *ldap.Conn
	mu      sync.Mutex
	written map[string]time.Time // by DN
}

func (m *mover) person(n int) string {
	return fmt.Sprintf("uid=user%06d,ou=people,%s", n, m.server.Suffix)
}

func (m *mover) do(dn string, change func() error) error {
	m.mu.Lock()
	m.written[dn] = time.Now()
	m.mu.Unlock()
	if err := change(); err != nil {
		return fmt.Errorf("%s: %w", dn, err)
	}
	return nil
}

// changed is the value that tells a change.
const changed = "Changed"

func (m *mover) rename(n int, sn string) error {
	r := ldap.NewModifyRequest(m.person(n), nil)
	r.Replace("sn", []string{sn})
	return m.conn.Modify(r)
}

// hundred writes 100 changes one after the other: 60 new values, 20 new people, 20
// people gone.
func (m *mover) hundred() error {
	for n := range 60 {
		if err := m.do(m.person(n), func() error { return m.rename(n, changed) }); err != nil {
			return err
		}
	}
	for n := range 20 {
		dn := fmt.Sprintf("uid=new%d,ou=people,%s", n, m.server.Suffix)
		r := ldap.NewAddRequest(dn, nil)
		r.Attribute("objectClass", []string{"inetOrgPerson"})
		r.Attribute("cn", []string{"New"})
		r.Attribute("sn", []string{changed})
		if err := m.do(dn, func() error { return m.conn.Add(r) }); err != nil {
			return err
		}
	}
	for n := range 20 {
		dn := m.person(100 + n)
		if err := m.do(dn, func() error { return m.conn.Del(ldap.NewDelRequest(dn, nil)) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *mover) goes(dn string) bool { return dn >= m.person(100) && dn < m.person(120) }

// arrivals are when each change was seen, by DN.
type arrivals struct {
	mu   sync.Mutex
	at   map[string]time.Time
	uuid map[string]string
}

// consume is the peer: a syncrepl consumer that keeps its search open. It returns
// when the server has begun to tell it of changes.
func consume(ctx context.Context, m *mover) *arrivals {
	m.t.Helper()
	conn := bound(m.t, m.server)
	root, err := conn.Search(ldap.NewSearchRequest(m.server.Suffix, ldap.ScopeBaseObject, 0, 0, 0, false, "(objectClass=*)", []string{"contextCSN"}, nil))
	check(m.t, err)
	cookie := "rid=001,csn=" + root.Entries[0].GetAttributeValue("contextCSN")
	a := &arrivals{at: map[string]time.Time{}, uuid: map[string]string{}}
	r := conn.Syncrepl(ctx, ldap.NewSearchRequest("ou=people,"+m.server.Suffix, ldap.ScopeWholeSubtree, 0, 0, 0, false, "(objectClass=inetOrgPerson)", []string{"uid", "cn", "sn"}, nil),
		1024, ldap.SyncRequestModeRefreshAndPersist, []byte(cookie), false)
	ready := make(chan struct{})
	go func() {
		var once sync.Once
		for r.Next() {
			once.Do(func() { close(ready) }) // the end of the refresh stage
			entry := r.Entry()
			if entry == nil {
				continue
			}
			a.mu.Lock()
			if _, seen := a.at[entry.DN]; !seen {
				a.at[entry.DN] = time.Now()
			}
			for _, c := range r.Controls() {
				if state, ok := c.(*ldap.ControlSyncState); ok {
					a.uuid[entry.DN] = state.EntryUUID.String()
				}
			}
			a.mu.Unlock()
		}
	}()
	select {
	case <-ready:
	case <-time.After(30 * time.Second):
		m.t.Fatal("the server does not begin to tell the consumer of changes")
	}
	return a
}

func bound(t *testing.T, s *slapd.Server) *ldap.Conn {
	t.Helper()
	c, err := ldap.DialURL(s.URL)
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	check(t, c.Bind(s.RootDN, s.RootPassword))
	return c
}

// largeClient is a client whose directory has people and groups beyond those of
// the staff list.
func largeClient(t *testing.T, people int) (*slapd.Server, *rig.Rig) {
	t.Helper()
	const suffix = "dc=fabrikam,dc=example"
	unit := func(name string) string {
		return fmt.Sprintf("dn: ou=%[1]s,%[2]s\nobjectClass: organizationalUnit\nou: %[1]s\n\n", name, suffix)
	}
	server := slapd.Start(t, slapd.Options{Suffix: suffix, Overlays: []string{"ppolicy", "syncprov"}, SessionLog: 10_000,
		LDIF: unit("people") + unit("groups") + slapd.Estate("ou=people,"+suffix, "ou=groups,"+suffix, people, people/10, people*10) +
			"dn: cn=staff,ou=groups," + suffix + "\nobjectClass: groupOfNames\ncn: staff\nmember: uid=user000000,ou=people," + suffix + "\n"})
	secret := filepath.Join(t.TempDir(), "secret")
	check(t, os.WriteFile(secret, []byte(server.RootPassword), 0o600))
	e := rig.NewEstate(2)
	e.Directory = &rig.Directory{URL: server.URL, BindDN: server.RootDN, SecretFile: secret, Suffix: suffix}
	return server, rig.New(t, rig.Options{Bin: bin, Estate: e})
}

// TestChanges: 100 changes, beside a syncrepl consumer of the same server; then a
// directory that comes back from a backup and knows the cursor no more.
func TestChanges(t *testing.T) {
	server, r := largeClient(t, *directoryPeople)
	inventory := r.Inventory("corp")
	rig.Until(t, "the agent watches", func() (bool, string) {
		return strings.Contains(r.Agent.Log(), `msg="watching for changes" alias=corp`), r.Agent.Log()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m := &mover{t: t, server: server, conn: bound(t, server), written: map[string]time.Time{}}
	peer := consume(ctx, m)
	report(t, m.written, peer.at, m.committed(inventory, peer))

	kept := anchors(inventory)
	backup, err := server.Dump()
	check(t, err)
	before := inventory.Header().GetSnapshot()
	check(t, m.rename(1, "Lost"))
	rig.Until(t, "the change that the backup lacks has come", func() (bool, string) { return inventory.Header().GetSnapshot() != before, r.Agent.Log() })
	before = inventory.Header().GetSnapshot()
	r.Agent.ForgetLog()
	check(t, server.Restore(backup))
	rig.Until(t, "the directory was read whole", func() (bool, string) {
		if n := inventory.Header().GetObjects(); n != uint64(len(kept)) {
			t.Fatalf("a lost cursor became removals: %d objects of %d", n, len(kept))
		}
		return inventory.Header().GetSnapshot() != before, r.Agent.Log()
	})
	if !strings.Contains(r.Agent.Log(), "CURSOR_LOST") {
		t.Errorf("the cursor was not lost:\n%s", r.Agent.Log())
	}
	if now := anchors(inventory); !slices.Equal(now, kept) {
		t.Errorf("%d objects before the cursor was lost, %d after", len(kept), len(now))
	}
}

func anchors(i *rig.Inventory) []string { return slices.Sorted(maps.Keys(i.Objects())) }

// committed writes the hundred changes and returns when each was first in the
// snapshot that the control plane's readers see, by DN. Anchors of new people are
// learned from the consumer.
func (m *mover) committed(inventory *rig.Inventory, peer *arrivals) map[string]time.Time {
	m.t.Helper()
	at, seen := map[string]time.Time{}, inventory.Header().GetSnapshot()
	ended := make(chan error, 1)
	go func() { ended <- m.hundred() }()
	for deadline := time.Now().Add(2 * time.Minute); len(at) < 100; {
		if time.Now().After(deadline) {
			m.t.Fatalf("%d of 100 changes are at the control plane, %d at the consumer", len(at), len(peer.anchors()))
		}
		time.Sleep(time.Millisecond)
		now := inventory.Header().GetSnapshot()
		if when := time.Now(); now != seen {
			m.compare(inventory, peer, at, when)
			seen = now
		} else if len(peer.anchors()) == 100 {
			m.compare(inventory, peer, at, when)
		}
	}
	check(m.t, <-ended)
	return at
}

// compare notes what of the changes is in the inventory.
func (m *mover) compare(inventory *rig.Inventory, peer *arrivals, at map[string]time.Time, when time.Time) {
	m.t.Helper()
	known := peer.anchors()
	if len(known) == 0 {
		return
	}
	objects := inventory.Objects(slices.Collect(maps.Values(known))...)
	for dn, anchor := range known {
		o := objects[anchor]
		there := o != nil && len(o.Attribute("sn")) == 1 && string(o.Attribute("sn")[0]) == changed
		if _, noted := at[dn]; !noted && (m.goes(dn) && o == nil || there) {
			at[dn] = when
		}
	}
}

func (a *arrivals) anchors() map[string]string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.uuid)
}

// report prints delays and their ratio: of each change, and from the first write
// to the last arrival.
func report(t *testing.T, written, consumer, controlPlane map[string]time.Time) {
	t.Helper()
	first := slices.MinFunc(slices.Collect(maps.Values(written)), time.Time.Compare)
	figures := func(at map[string]time.Time) (median, all time.Duration) {
		var delays []time.Duration
		for dn, began := range written {
			delays = append(delays, at[dn].Sub(began))
			all = max(all, at[dn].Sub(first))
		}
		slices.Sort(delays)
		return delays[len(delays)/2], all
	}
	one, all := figures(consumer)
	oneHere, allHere := figures(controlPlane)
	t.Logf("100 changes in %d people: all at the consumer after %v, at the control plane after %v: %.2f times; the median of one change %v and %v",
		*directoryPeople, all.Round(time.Millisecond), allHere.Round(time.Millisecond), float64(allHere)/float64(all), one.Round(100*time.Microsecond), oneHere.Round(100*time.Microsecond))
}
