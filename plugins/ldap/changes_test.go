package ldap

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

const formerBase = "ou=former," + suffix

// syncedServer has two bases of people and a group with three of them.
func syncedServer(t *testing.T, sessionLog int) *slapd.Server {
	data := skeleton() + ldif(formerBase, "objectClass", "organizationalUnit", "ou", "former")
	group := []string{"objectClass", "groupOfNames", "cn", "staff"}
	for n := range 5 {
		uid := fmt.Sprintf("p%d", n)
		data += person("uid="+uid+","+peopleBase, uid, "Person "+uid, "employeeType", "staff")
		if n < 3 {
			group = append(group, "member", "uid="+uid+","+peopleBase)
		}
	}
	return slapd.Start(t, slapd.Options{LDIF: data + ldif("cn=staff,"+groupsBase, group...), Overlays: []string{"refint", "syncprov"}, SessionLog: sessionLog})
}

func syncedTypes() map[string]any {
	return map[string]any{"types": map[string]any{
		"inetOrgPerson": map[string]any{"bases": []string{peopleBase, formerBase}, "filter": "(employeeType=staff)", "auxiliary": []string{"posixAccount"}},
		"groupOfNames":  map[string]any{"bases": []string{groupsBase}},
	}}
}

// follower holds what it was told.
type follower struct {
	t        *testing.T
	instance *synchronized
	objects  map[string]*connectorv1.Object
	cursor   []byte
}

func follow(t *testing.T, s *slapd.Server) *follower {
	t.Helper()
	i := openInstance(t, s, syncedTypes())
	if !i.synchronizes {
		t.Fatal("the server has syncprov and is not followed")
	}
	i.groupsAfter = 2 * time.Second
	f := &follower{t: t, instance: &synchronized{i}}
	f.objects, f.cursor = f.observe()
	if f.cursor == nil {
		t.Fatal("Observe gives no cursor")
	}
	return f
}

func (f *follower) observe() (map[string]*connectorv1.Object, []byte) {
	f.t.Helper()
	objects := map[string]*connectorv1.Object{}
	done, err := f.instance.Observe(f.t.Context(), func(o *connectorv1.Object) error { objects[o.GetAnchor()] = o; return nil })
	if err != nil {
		f.t.Fatal(err)
	}
	return objects, done.Cursor
}

func (f *follower) changes() error {
	f.t.Helper()
	told := map[string]bool{}
	done, err := f.instance.Changes(f.t.Context(), f.cursor, sdk.Telling{
		Changed: func(o *connectorv1.Object) error { f.objects[o.GetAnchor()], told[o.GetAnchor()] = o, true; return nil },
		Removed: func(anchor string) error { delete(f.objects, anchor); return nil },
		Present: func(anchor string) error { told[anchor] = true; return nil },
	})
	if err != nil {
		return err
	}
	if done.Enumerated {
		maps.DeleteFunc(f.objects, func(anchor string, _ *connectorv1.Object) bool { return !told[anchor] })
	}
	f.cursor = done.Cursor
	return nil
}

// agrees reads the changes until what is known is what a whole read gives: refint
// works a little after the change.
func (f *follower) agrees(what string) {
	f.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err := f.changes(); err != nil {
			f.t.Fatalf("%s: %v", what, err)
		}
		now, _ := f.observe()
		if maps.EqualFunc(f.objects, now, func(a, b *connectorv1.Object) bool { return a.Digest() == b.Digest() }) {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("after %s changes give\n%v\na whole read\n%v", what, f.objects, now)
		}
	}
}

// TestChangesFollowTheDirectory: with a session log and without, whatever may
// happen to an entry.
func TestChangesFollowTheDirectory(t *testing.T) {
	for _, sessionLog := range []int{0, 1000} {
		t.Run(fmt.Sprint(sessionLog), func(t *testing.T) {
			s := syncedServer(t, sessionLog)
			f, c := follow(t, s), root(t, s)
			modify := func(dn, attribute string, values ...string) error {
				m := ldapv3.NewModifyRequest(dn, nil)
				m.Replace(attribute, values)
				return c.Modify(m)
			}
			p := func(n int) string { return fmt.Sprintf("uid=p%d,%s", n, peopleBase) }
			group := "cn=staff," + groupsBase
			for _, step := range []struct {
				what string
				do   func() error
			}{
				{"nothing", func() error { return nil }},
				{"a new value", func() error { return modify(p(0), "title", "Engineer") }},
				{"a value of another entry", func() error { return modify(reeveDN, "description", "x") }},
				{"a deletion that refint carries into the group", func() error { return c.Del(ldapv3.NewDelRequest(p(1), nil)) }},
				{"a rename", func() error { return c.ModifyDN(ldapv3.NewModifyDNRequest(p(2), "uid=renamed", true, "")) }},
				{"a move between two bases, forth", func() error { return c.ModifyDN(ldapv3.NewModifyDNRequest(p(3), "uid=p3", true, formerBase)) }},
				{"and back", func() error {
					return c.ModifyDN(ldapv3.NewModifyDNRequest("uid=p3,"+formerBase, "uid=p3", true, peopleBase))
				}},
				{"leaving the filter", func() error { return modify(p(3), "employeeType", "guest") }},
				{"coming back into it", func() error { return modify(p(3), "employeeType", "staff") }},
				{"leaving every base", func() error {
					return c.ModifyDN(ldapv3.NewModifyDNRequest(p(4), "uid=p4", true, "ou=services,"+suffix))
				}},
				{"a member removed", func() error { return modify(group, "member", p(0)) }},
				{"a group deleted", func() error { return c.Del(ldapv3.NewDelRequest(group, nil)) }},
				{"a restart and then a deletion", func() error {
					if err := s.Restart(); err != nil {
						return err
					}
					c = root(t, s)
					return c.Del(ldapv3.NewDelRequest(p(0), nil))
				}},
			} {
				if err := step.do(); err != nil {
					t.Fatalf("%s: %v", step.what, err)
				}
				f.agrees(step.what)
			}
		})
	}
}

// TestWhatChangesMeanwhileIsToldAgain: an entry that was told and changes while
// everything is listed is told as it is at the cursor.
func TestWhatChangesMeanwhileIsToldAgain(t *testing.T) {
	s := syncedServer(t, 0)
	f, c := follow(t, s), root(t, s)
	title := func(to string) {
		m := ldapv3.NewModifyRequest("uid=p0,"+peopleBase, nil)
		m.Replace("title", []string{to})
		if err := c.Modify(m); err != nil {
			t.Error(err)
		}
	}
	title("first")
	var last *connectorv1.Object
	meanwhile := sync.OnceFunc(func() { title("second") })
	_, err := f.instance.Changes(t.Context(), f.cursor, sdk.Telling{
		Changed: func(o *connectorv1.Object) error { last = o; return nil },
		Removed: func(string) error { return nil },
		Present: func(string) error { meanwhile(); return nil },
	})
	if err != nil || string(last.Attribute("title")[0]) != "second" {
		t.Errorf("the last word is %v (%v)", last, err)
	}
}

// TestWhatOnlyAWholeReadShowsLosesTheCursor: the server says nothing of those
// below a renamed unit, and nothing of who else has a login name.
func TestWhatOnlyAWholeReadShowsLosesTheCursor(t *testing.T) {
	for what, do := range map[string]func(c *ldapv3.Conn) error{
		"a renamed unit": func(c *ldapv3.Conn) error {
			if err := c.ModifyDN(ldapv3.NewModifyDNRequest("uid=p0,"+peopleBase, "uid=p0", true, "ou=former,"+peopleBase)); err != nil {
				return err
			}
			return c.ModifyDN(ldapv3.NewModifyDNRequest("ou=former,"+peopleBase, "ou=past", true, ""))
		},
		"a shared login name": func(c *ldapv3.Conn) error {
			for n := range 2 {
				m := ldapv3.NewModifyRequest(fmt.Sprintf("uid=p%d,%s", n, peopleBase), nil)
				m.Add("objectClass", []string{"posixAccount"})
				m.Add("uid", []string{"same"})
				m.Add("uidNumber", []string{"7"})
				m.Add("gidNumber", []string{"7"})
				m.Add("homeDirectory", []string{"/"})
				if err := c.Modify(m); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := syncedServer(t, 1000)
			f := follow(t, s)
			if err := do(root(t, s)); err != nil {
				t.Fatal(err)
			}
			if err := f.changes(); !sdk.HasCode(err, sdk.CodeCursorLost) {
				t.Errorf("want %s, got %v", sdk.CodeCursorLost, err)
			}
			// The whole read that follows begins anew, where it can.
			now, cursor := f.observe()
			f.objects, f.cursor = now, cursor
			if what == "a shared login name" {
				if cursor != nil {
					t.Error("a cursor is given while accounts share a login name")
				}
				return
			}
			f.agrees("a new cursor")
		})
	}
}

// TestRefusedCookiesAreLost: whatever the server does not take is a lost cursor,
// and removes nobody.
func TestRefusedCookiesAreLost(t *testing.T) {
	s := syncedServer(t, 1000)
	f := follow(t, s)
	sound := slices.Clone(f.cursor)
	for what, cursor := range map[string][]byte{
		"garbage for a cookie":            bytes.ReplaceAll(sound, []byte("csn="), []byte("csn=x")),
		"from the future":                 bytes.ReplaceAll(sound, []byte("csn=20"), []byte("csn=29")),
		"one that the server passes over": bytes.ReplaceAll(sound, []byte("#000#"), []byte("#00a#")),
		"of other searches":               bytes.Replace(sound, []byte(`"scope":"`), []byte(`"scope":"0`), 1),
		"cut off":                         sound[:len(sound)-2],
	} {
		before := len(f.objects)
		f.cursor = cursor
		if err := f.changes(); !sdk.HasCode(err, sdk.CodeCursorLost) || len(f.objects) != before {
			t.Errorf("%s: want %s, got %v", what, sdk.CodeCursorLost, err)
		}
	}
}

func TestServersThatCannotBeFollowedDeclareNothing(t *testing.T) {
	if i := openInstance(t, slapd.Start(t, slapd.Options{LDIF: skeleton()}), nil); i.synchronizes {
		t.Error("a server without syncprov is followed")
	}
	s := slapd.Start(t, slapd.Options{LDIF: skeleton(), Overlays: []string{"memberof", "syncprov"}})
	if i := openInstance(t, s, nil); !i.synchronizes {
		t.Error("a server with syncprov is not followed")
	}
	memberships := map[string]any{"types": map[string]any{"inetOrgPerson": map[string]any{"bases": []string{peopleBase},
		"attributes": []map[string]any{{"name": "memberOf"}}}}}
	if i := openInstance(t, s, memberships); i.synchronizes {
		t.Error("memberOf is followed, whose changes touch no entryCSN")
	}
}
