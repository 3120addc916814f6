package ldap

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	ber "github.com/go-asn1-ber/asn1-ber"
	ldapv3 "github.com/go-ldap/ldap/v3"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/plugins/ldap/internal/message"
	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// hostileEntries are what makes readers of BER stumble: every length around the
// forms of a length, empty and binary values, many values, names of every
// escape.
func hostileEntries() string {
	var b strings.Builder
	b.WriteString(estate(40))
	for n, size := range []int{1, 126, 127, 128, 129, 255, 256, 257, 65534, 65535, 65536, 65537, 200_000} {
		b.WriteString(person(fmt.Sprintf("uid=size%d,%s", n, peopleBase), fmt.Sprintf("size%d", n), "Size", "jpegPhoto", strings.Repeat("\x00\x30\x84\xff", (size+3)/4)[:size]))
	}
	for n, text := range []string{"<script>", "$(reboot)", "\u202egpj.exe", "a\nb", "\x1b[31mred", "''; DROP TABLE", "%s%n", "ﷺ", "\U0001F600", strings.Repeat("long ", 2000)} {
		b.WriteString(person(fmt.Sprintf("uid=text%d,%s", n, peopleBase), fmt.Sprintf("text%d", n), "Text", "description", text, "displayName", text))
	}
	var members []string
	for n := range 3000 {
		members = append(members, "member", fmt.Sprintf(`cn=Member\2C %d+uid=m%d,%s`, n, n, peopleBase))
	}
	b.WriteString(ldif("cn=many,"+groupsBase, append([]string{"objectClass", "groupOfNames", "cn", "many"}, members...)...))
	return b.String()
}

// dump is an entry in go-ldap's form, to compare.
func dump(e *ldapv3.Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q\n", e.DN)
	for _, a := range e.Attributes {
		fmt.Fprintf(&b, "%q: %q %q\n", a.Name, a.ByteValues, a.Values)
	}
	return b.String()
}

// TestEntriesAsGoLDAPReadsThem compares entry by entry, in pages, over every
// kind of connection.
func TestEntriesAsGoLDAPReadsThem(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: hostileEntries(), ACL: leastPrivilege, TLS: true})
	for name, changes := range map[string]map[string]any{
		"plain": nil, "ldaps": {"url": s.TLSURL, "ca_file": s.CAFile}, "StartTLS": {"start_tls": true, "ca_file": s.CAFile},
		"ldapi, SASL EXTERNAL": {"url": s.SocketURL, "bind_dn": ""}, "ldapi, simple bind": {"url": s.SocketURL},
	} {
		t.Run(name, func(t *testing.T) {
			i := openInstance(t, s, changes)
			peer, err := i.connect(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer peer.close()
			raw, own, _, err := i.connectForSearch(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			for _, attributes := range [][]string{{"*", "+"}, {"1.1"}, {"cn", "jpegPhoto", "member"}} {
				request := func(controls ...ldapv3.Control) *ldapv3.SearchRequest {
					return ldapv3.NewSearchRequest(suffix, ldapv3.ScopeWholeSubtree, ldapv3.NeverDerefAliases, 0, 0, false, anyObject, attributes, controls)
				}
				want, err := peer.conn.SearchWithPaging(request(), 37)
				if err != nil {
					t.Fatal(err)
				}
				got := 0
				paging := ldapv3.NewControlPaging(37)
				for {
					cookie, err := own.each(request(paging), func(m *message.Message) error {
						if got == len(want.Entries) {
							return errors.New("more entries than the peer has")
						}
						if read, peer := dump(heldEntry(&m.Entry)), dump(want.Entries[got]); read != peer {
							return fmt.Errorf("entry %d is\n%.2000s\nto the peer\n%.2000s", got, read, peer)
						}
						got++
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
					if len(cookie) == 0 {
						break
					}
					paging.SetCookie(cookie)
				}
				if got != len(want.Entries) || got < 60 {
					t.Errorf("%d entries, the peer has %d", got, len(want.Entries))
				}
			}
			for what, request := range map[string]*ldapv3.SearchRequest{
				"no such object": ldapv3.NewSearchRequest("ou=nowhere,"+suffix, ldapv3.ScopeBaseObject, 0, 0, 0, false, anyObject, nil, nil),
				"size limit":     ldapv3.NewSearchRequest(peopleBase, ldapv3.ScopeWholeSubtree, 0, 3, 0, false, anyObject, []string{"1.1"}, nil),
			} {
				wantResult, wantErr := peer.conn.Search(request)
				result, err := own.Search(request)
				if resultCode(err) != resultCode(wantErr) || resultCode(err) == 0 || said(err) != said(wantErr) || len(result.Entries) != len(wantResult.Entries) {
					t.Errorf("%s: %v with %d entries, the peer has %v with %d", what, err, len(result.Entries), wantErr, len(wantResult.Entries))
				}
			}
		})
	}
}

// TestServersThatLoseTheThread: each breaks the read off with a sentence.
func TestServersThatLoseTheThread(t *testing.T) {
	notice := func(c *fakeConn) {
		op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldapv3.ApplicationExtendedResponse, nil, "")
		op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(52), ""))
		op.AppendChild(octets(""))
		op.AppendChild(octets("going down"))
		op.AppendChild(ber.NewString(ber.ClassContext, ber.TypePrimitive, 10, message.NoticeOfDisconnection, ""))
		(&fakeConn{c.Conn, 0}).send(op)
	}
	for _, c := range []struct {
		name   string
		search func(request, *fakeConn)
		code   string
		says   string
	}{
		{"a notice of disconnection", func(_ request, c *fakeConn) { group6(c, 1); notice(c) }, sdk.CodeUnreachable, "going down"},
		{"an answer to another request", func(_ request, c *fakeConn) {
			group6(c, 1)
			(&fakeConn{c.Conn, c.id + 1}).done(ldapv3.ApplicationSearchResultDone, 0)
		}, sdk.CodeUnreachable, "an answer to request"},
		{"another operation", func(_ request, c *fakeConn) { group6(c, 1); c.done(ldapv3.ApplicationBindResponse, 0) }, sdk.CodeUnreachable, "operation 1"},
		{"an indefinite length", func(_ request, c *fakeConn) { group6(c, 1); _, _ = c.Write([]byte{0x30, 0x80}) }, sdk.CodeUnreachable, "indefinite"},
		{"octet by octet, and then none", func(_ request, c *fakeConn) { group6(c, 1); _, _ = c.Write([]byte{0x30}) }, sdk.CodeTimeLimit, "no answer for"},
		{"an intermediate response is no end", func(_ request, c *fakeConn) {
			c.send(ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldapv3.ApplicationIntermediateResponse, nil, ""))
			group6(c, 1)
			c.done(ldapv3.ApplicationSearchResultDone, 51)
		}, sdk.CodeUnreachable, "busy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := startFake(t, &fake{script: scripted(c.search)}).open(t, map[string]any{"timeout": "1s"})
			objects, done := observe(t, i)
			wantIncomplete(t, done, c.code, groupsBase, "")
			if text := fmt.Sprint(done.Findings); len(objects) != 1 || !strings.Contains(strings.ToLower(text), c.says) {
				t.Errorf("%d objects, %s", len(objects), text)
			}
		})
	}
}

// TestStartTLSInjection: what somebody in the way adds to the answer in the
// clear must not become the first answer under TLS.
func TestStartTLSInjection(t *testing.T) {
	f := startFake(t, &fake{script: func(_ request, c *fakeConn) {
		op := ber.Encode(ber.ClassApplication, ber.TypeConstructed, ldapv3.ApplicationExtendedResponse, nil, "")
		op.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagEnumerated, int64(0), ""))
		op.AppendChild(octets(""))
		op.AppendChild(octets(""))
		var both bytes.Buffer
		for id := range int64(2) {
			p := ber.Encode(ber.ClassUniversal, ber.TypeConstructed, ber.TagSequence, nil, "")
			p.AppendChild(ber.NewInteger(ber.ClassUniversal, ber.TypePrimitive, ber.TagInteger, c.id+id, ""))
			p.AppendChild(op)
			both.Write(p.Bytes())
		}
		_, _ = c.Write(both.Bytes())
	}})
	i := f.open(t, map[string]any{"start_tls": true})
	if _, err := i.Observe(t.Context(), func(*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeTLSRefused) || !strings.Contains(err.Error(), "between the answer to StartTLS") {
		t.Errorf("%v", err)
	}
}

func TestEmptyPasswordIsNotSent(t *testing.T) {
	if err := newSearchConn(nil, 0).Bind("cn=a", ""); !ldapv3.IsErrorWithCode(err, ldapv3.ErrorEmptyPassword) {
		t.Errorf("%v", err)
	}
}

// TestNamesAsParsed: the cache gives what parseDN, name and dnKey give, for
// whatever a server writes, and refuses what they refuse.
func TestNamesAsParsed(t *testing.T) {
	var c nameCache
	leaf := rapid.OneOf(
		rapid.StringMatching(`(uid|CN|2\.5\.4\.3|oid\.2\.5\.4\.3|x y|)[ ]?=[ ]?[A-Za-z0-9 .#@]{0,6}`),
		rapid.StringMatching(`cn=([a-zA-Z ]|\\,|\\20|\\C4\\8D|\\23|=|"|;|\\|æ|K|ß){0,5}`),
		rapid.StringMatching(`(cn|sn)=#0403[0-9a-f]{6}`),
		rapid.SampledFrom([]string{"uid=a+cn=b", "CN=B+UID=A", "uid=a+", "cn=\xff", "cn=\x00", "cn=a\\", ""}))
	above := rapid.SampledFrom([]string{"", ",dc=x", ",OU=People,DC=x", ", ou = people , dc=x", ",", ",dc=x,", ", ", ",ou=a+cn=B,dc=x", ",ou=Norrøna\\, AS,dc=x", ",no name", ",dc=#0401ff"})
	check := func(t failer, raw string) {
		want, wantErr := parseDN(raw)
		got, err := c.parse([]byte(raw))
		key, empty, keyErr := c.appendKey([]byte("before"), []byte(raw))
		if (err != nil) != (wantErr != nil) || (keyErr != nil) != (wantErr != nil) {
			t.Fatalf("%q: %v and %v, want %v", raw, err, keyErr, wantErr)
		}
		if wantErr != nil {
			if err.Error() != wantErr.Error() || !errors.Is(err, errDN) {
				t.Fatalf("%q: %v, want %v", raw, err, wantErr)
			}
			return
		}
		n := name(want)
		if got.key != dnKey(want) || string(key) != "before"+dnKey(want) || got.text != n.Text() || empty != (len(want) == 0) ||
			!proto.Equal(got.name, n) {
			t.Fatalf("%q: %q %q %q, want %q %q", raw, got.key, key, got.text, dnKey(want), n.Text())
		}
	}
	rapid.Check(t, func(t *rapid.T) { check(t, leaf.Draw(t, "leaf")+above.Draw(t, "above")) })
	rapid.Check(t, func(t *rapid.T) { check(t, drawName(t).Text()) })
	for n := range 2*mostRemembered + 10 {
		check(t, fmt.Sprintf("cn=a,ou=%d,dc=x", n))
		check(t, fmt.Sprintf("t%d=a", n))
	}
	if len(c.parents) > mostRemembered || len(c.types) > mostRemembered {
		t.Errorf("%d parents and %d types are remembered", len(c.parents), len(c.types))
	}
	check(t, "cn=a,ou="+strings.Repeat("x", 2*longestRemembered))
	if slices.ContainsFunc(slices.Collect(maps.Keys(c.parents)), func(s string) bool { return len(s) > longestRemembered }) {
		t.Error("a long parent is remembered")
	}
}
