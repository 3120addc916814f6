package ldap

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

const sixGroup = "cn=six," + groupsBase

// scripted answers searches of the groups' base with search, all others with
// nothing.
func scripted(search func(request, *fakeConn)) func(request, *fakeConn) {
	return func(r request, c *fakeConn) {
		switch {
		case r.tag == ldapv3.ApplicationSearchRequest && r.scope != ldapv3.ScopeBaseObject:
			search(r, c)
		case r.tag == ldapv3.ApplicationSearchRequest:
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}
	}
}

func group6(c *fakeConn, n int) {
	c.entry(fmt.Sprintf("cn=g%d,%s", n, groupsBase), "entryUUID", fmt.Sprintf("uuid-%d", n), "objectClass", "top groupOfNames", "cn", fmt.Sprintf("g%d", n), "member", "cn=a,dc=x")
}

func TestMembersInRanges(t *testing.T) {
	for name, endless := range map[string]bool{"to the end": false, "a server that goes in circles": true} {
		t.Run(name, func(t *testing.T) {
			f := startFake(t, &fake{script: func(r request, c *fakeConn) {
				switch asked := strings.Join(r.attributes, " "); {
				case strings.Contains(asked, "member;range=2-*"):
					c.entry(sixGroup, "member;range=2-3", "cn=c,dc=x cn=d,dc=x")
				case strings.Contains(asked, "member;range=4-*") && endless:
					c.entry(sixGroup, "member;range=2-3", "cn=c,dc=x cn=d,dc=x")
				case strings.Contains(asked, "member;range=4-*"):
					c.entry(sixGroup, "member;range=4-*", "cn=e,dc=x cn=f,dc=x")
				case r.scope != ldapv3.ScopeBaseObject:
					c.entry(sixGroup, "nsUniqueId", "ns-6", "entryUUID", "uuid-6", "objectClass", "top groupOfNames", "cn", "six", "member", "", "member;range=0-1", "cn=a,dc=x cn=b,dc=x")
				case r.base == groupsBase:
					c.entry(groupsBase, "nsUniqueId", "ns-1", "entryUUID", "uuid-1")
				}
				c.done(ldapv3.ApplicationSearchResultDone, 0)
			}})
			i := f.open(t, nil)
			objects, done := observe(t, i)
			if endless {
				wantIncomplete(t, done, sdk.CodeUnreachable, sixGroup, "")
				return
			}
			o := objects[sixGroup]
			if want := []string{"dn:cn=a,dc=x", "dn:cn=b,dc=x", "dn:cn=c,dc=x", "dn:cn=d,dc=x", "dn:cn=e,dc=x", "dn:cn=f,dc=x"}; !slices.Equal(o.GetMembers(), want) || !isComplete(done) {
				t.Errorf("members %q, %v", o.GetMembers(), done)
			}
			if o.GetAnchor() != "ns-6" {
				t.Errorf("a server with nsUniqueId anchors by %q", o.GetAnchor())
			}
		})
	}
}

func TestHostileOrBrokenServers(t *testing.T) {
	page := func(c *fakeConn, cookie string) {
		paging := ldapv3.NewControlPaging(0)
		paging.SetCookie([]byte(cookie))
		c.done(ldapv3.ApplicationSearchResultDone, 0, paging)
	}
	paged := []string{oidPaging}
	for _, c := range []struct {
		name     string
		controls []string
		search   func(request, *fakeConn)
		changes  map[string]any
		// code of the INCOMPLETE finding, empty for a complete read.
		code    string
		objects int
	}{
		{"two pages", paged, func(r request, c *fakeConn) {
			if r.cookie == "" {
				group6(c, 1)
				page(c, "next")
			} else {
				group6(c, 2)
				page(c, "")
			}
		}, nil, "", 2},
		{"the control is missing from page two", paged, func(r request, c *fakeConn) {
			if r.cookie == "" {
				group6(c, 1)
				page(c, "next")
			} else {
				c.done(ldapv3.ApplicationSearchResultDone, 0)
			}
		}, nil, codePagingLost, 1},
		{"the same empty page for ever", paged, func(r request, c *fakeConn) { page(c, "same") }, nil, codePagingLost, 0},
		{"the control is ignored", paged, func(r request, c *fakeConn) {
			group6(c, 1)
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}, nil, "", 1},
		{"entries, then a size limit", nil, func(r request, c *fakeConn) {
			group6(c, 1)
			c.done(ldapv3.ApplicationSearchResultDone, 4)
		}, nil, sdk.CodeSizeLimit, 1},
		{"an element of a gigabyte", nil, func(r request, c *fakeConn) {
			group6(c, 1)
			_, _ = c.Write([]byte{0x30, 0x84, 0x40, 0, 0, 0})
		}, nil, sdk.CodeSizeLimit, 1},
		{"cut in the middle of an entry", nil, func(r request, c *fakeConn) {
			group6(c, 1)
			_, _ = c.Write([]byte{0x30, 0x20, 0x02})
			_ = c.Close()
		}, nil, sdk.CodeUnreachable, 1},
		{"a part is elsewhere", nil, func(r request, c *fakeConn) {
			group6(c, 1)
			c.referral("ldap://other.example.com/ou=more")
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}, nil, codeReferral, 1},
		{"a part is elsewhere, and that is known", nil, func(r request, c *fakeConn) {
			group6(c, 1)
			c.referral("ldap://other.example.com/ou=more")
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}, map[string]any{"ignore_referrals": true}, "", 1},
		{"a name that is none", nil, func(r request, c *fakeConn) {
			c.entry("no name", "entryUUID", "u", "objectClass", "groupOfNames", "cn", "x")
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}, nil, codeUnreadable, 0},
		{"a member that is no name", nil, func(r request, c *fakeConn) {
			c.entry(sixGroup, "entryUUID", "u", "objectClass", "groupOfNames", "cn", "x", "member", "\x1b[31mroot")
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		}, nil, codeUnreadable, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := startFake(t, &fake{controls: c.controls, script: scripted(c.search)}).open(t, c.changes)
			objects, done := observe(t, i)
			if len(objects) != c.objects {
				t.Errorf("%d objects, want %d", len(objects), c.objects)
			}
			if c.code == "" {
				if !isComplete(done) {
					t.Errorf("want a complete read, got %v", done.Findings)
				}
				return
			}
			wantIncomplete(t, done, c.code, "", "")
			for _, p := range done.Findings {
				if strings.Contains(p.String(), `\x1b`) || strings.Contains(p.GetTried(), "\x1b") || p.GetRemedy() == "" {
					t.Errorf("not fit to print: %v", p)
				}
			}
		})
	}
}

func TestConnectionCutAfterSendingIsUnknown(t *testing.T) {
	f := startFake(t, &fake{script: func(r request, c *fakeConn) {
		switch r.tag {
		case ldapv3.ApplicationSearchRequest:
			if r.scope != ldapv3.ScopeBaseObject {
				c.entry(sixGroup, "entryUUID", "uuid-6", "objectClass", "groupOfNames")
			}
			c.done(ldapv3.ApplicationSearchResultDone, 0)
		case ldapv3.ApplicationModifyRequest:
			_ = c.Close() // it may have been carried out
		}
	}})
	i := f.open(t, map[string]any{"empty_member": "none"})
	var ops []*connectorv1.Operation
	for n := range 3 {
		op := &connectorv1.Operation{Id: fmt.Sprint(n), Object: &connectorv1.ObjectRef{Type: "groupOfNames", Anchor: "uuid-6"}, Action: &connectorv1.Operation_AddMember{
			AddMember: &connectorv1.AddMember{Member: &connectorv1.ObjectRef{Type: "groupOfNames", Name: dnOf(t, fmt.Sprintf("cn=m%d,dc=x", n))}}}}
		ops = append(ops, op)
	}
	for _, r := range i.Apply(t.Context(), ops) {
		if r.GetOutcome() != unknown || r.GetProblem().GetRemedy() == "" {
			t.Errorf("want unknown, got %v", r)
		}
	}
}

func TestSchemaWordsAreNotTakenFromDescriptions(t *testing.T) {
	a := parseSchemaAttribute(`( 1.2.3 NAME ( 'one' 'other' ) DESC 'EQUALITY booleanMatch SINGLE-VALUE' SUP name EQUALITY caseExactMatch NO-USER-MODIFICATION )`)
	if !slices.Equal(a.names, []string{"one", "other"}) || a.equality != "caseExactMatch" || a.sup != "name" || a.single || !a.readOnly {
		t.Errorf("%+v", a)
	}
	for _, broken := range []string{"", "(", "'", "( NAME", "( NAME ( 'a'", "( 1 NAME 'x' SUP"} {
		parseSchemaAttribute(broken) // must not panic
	}
	i := startFake(t, &fake{script: scripted(func(r request, c *fakeConn) { c.done(ldapv3.ApplicationSearchResultDone, 0) })}).open(t, nil)
	circle := &schemaAttribute{names: []string{"description"}, sup: "description"}
	i.types[0].refine(map[string]*schemaAttribute{"description": circle})
	if i.types[0].byName["description"].GetRule() != exact {
		t.Error("an attribute without an equality rule compares by octet")
	}
}
