package ldap

import (
	"errors"
	"strings"
	"testing"

	ldapv3 "github.com/go-ldap/ldap/v3"
	"pgregory.net/rapid"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func TestParseDN(t *testing.T) {
	for _, c := range []struct{ dn, key, display string }{
		{"", "dn:", ""},
		{"UID=Anna,OU=People,DC=example,DC=com", "dn:uid=anna,ou=people,dc=example,dc=com", "UID=Anna,OU=People,DC=example,DC=com"},
		{`cn=Berg\, Anna,dc=x`, `dn:cn=berg\, anna,dc=x`, `cn=Berg\, Anna,dc=x`},
		{`cn=Berg\2c Anna,dc=x`, `dn:cn=berg\, anna,dc=x`, `cn=Berg\, Anna,dc=x`},
		{`cn=\ lead,dc=x`, "dn:cn=lead,dc=x", `cn=\ lead,dc=x`},
		{`cn=trail\ ,dc=x`, "dn:cn=trail,dc=x", `cn=trail\ ,dc=x`},
		{`cn=trail\20 ,dc=x`, "dn:cn=trail,dc=x", `cn=trail\ ,dc=x`},
		{" cn = spaced out  ,  dc = x ", "dn:cn=spaced out,dc=x", "cn=spaced out,dc=x"},
		{`cn=Lu\C4\8Di\C4\87,dc=x`, "dn:cn=lučić,dc=x", "cn=Lučić,dc=x"},
		{"cn=Lučić,dc=x", "dn:cn=lučić,dc=x", "cn=Lučić,dc=x"},
		{"uid=b+cn=A,dc=x", "dn:cn=a+uid=b,dc=x", "cn=A+uid=b,dc=x"},
		{"2.5.4.3=a,0.9.2342.19200300.100.1.25=x", "dn:cn=a,dc=x", "2.5.4.3=a,0.9.2342.19200300.100.1.25=x"},
		{"OID.2.5.4.3=a", "dn:cn=a", "2.5.4.3=a"},
		{"cn=#0403666f6f,dc=x", "dn:cn=foo,dc=x", "cn=foo,dc=x"},
		{"1.3.6.1=#02020102,dc=x", "dn:1.3.6.1=#02020102,dc=x", `1.3.6.1=\#02020102,dc=x`},
		{`cn=\ff\fe,dc=x`, "dn:cn=#0402fffe,dc=x", `cn=\#0402fffe,dc=x`},
		{`cn=\#0402fffe,dc=x`, `dn:cn=\#0402fffe,dc=x`, `cn=\#0402fffe,dc=x`},
		{`cn=a\00b`, `dn:cn=a\00b`, `cn=a\00b`},
		{"cn=,dc=x", "dn:cn=,dc=x", "cn=,dc=x"},
		{"cn=a=b,dc=x", `dn:cn=a\=b,dc=x`, `cn=a\=b,dc=x`},
	} {
		dn, err := parseDN(c.dn)
		if err != nil {
			t.Errorf("%q: %v", c.dn, err)
			continue
		}
		if got := dnKey(dn); got != c.key {
			t.Errorf("%q: key %q, want %q", c.dn, got, c.key)
		}
		if got := name(dn).Text(); got != c.display {
			t.Errorf("%q: text %q, want %q", c.dn, got, c.display)
		}
	}
}

func TestParseDNRefuses(t *testing.T) {
	for _, dn := range []string{"anna", "=a", "cn=a,", "cn=a,,dc=x", "cn=a+", `cn=a\`, `cn=a\z`, `cn=a\4`, `cn="a"`, "cn=a;dc=x", "cn=a<b", "cn=#", "cn=#0", "cn=#zz", "1.=a", "01.2=a", "c n=a", "cn=\x00"} {
		if got, err := parseDN(dn); !errors.Is(err, errDN) {
			t.Errorf("%q: want a refusal, got %v, %v", dn, got, err)
		}
	}
}

func drawName(t *rapid.T) *connectorv1.Name {
	text := rapid.OneOf(rapid.StringN(0, 8, -1), rapid.StringOfN(rapid.SampledFrom([]rune(` ,+"\#=<>;aAé日`)), 0, 6, -1))
	n := &connectorv1.Name{}
	for range rapid.IntRange(1, 4).Draw(t, "components") {
		c := &connectorv1.Component{}
		for range rapid.IntRange(1, 3).Draw(t, "parts") {
			c.Parts = append(c.Parts, &connectorv1.Part{Type: rapid.SampledFrom([]string{"cn", "OU", "uid", "dc", "x-1"}).Draw(t, "type"), Value: text.Draw(t, "value")})
		}
		n.Components = append(n.Components, c)
	}
	return n
}

// What the contract writes this parser reads back, and go-ldap's agrees.
func TestParseDNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := drawName(t)
		dn, err := parseDN(n.Text())
		if err != nil {
			t.Fatalf("%q: %v", n.Text(), err)
		}
		if got, want := name(dn).Key(connectorv1.CaseRule_CASE_RULE_EXACT), n.Key(connectorv1.CaseRule_CASE_RULE_EXACT); got != want {
			t.Fatalf("%q: read back as %s, want %s", n.Text(), got, want)
		}
		theirs, err := ldapv3.ParseDN(n.Text())
		if err != nil {
			t.Fatalf("go-ldap refuses %q: %v", n.Text(), err)
		}
		agree(t, n.Text(), dn, theirs)
		leaf, parent := splitRDN(n.Text())
		if parent != "" && leaf+","+parent != n.Text() || parent != (&connectorv1.Name{Components: n.Components[1:]}).Text() {
			t.Fatalf("%q: split into %q and %q", n.Text(), leaf, parent)
		}
	})
}

// Two names have one key exactly if they are one name to the contract.
func TestDNKeyIsTheNamesIdentity(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawName(t), drawName(t)
		ignore := connectorv1.CaseRule_CASE_RULE_IGNORE
		if sameKey, same := dnKey(parsed(a)) == dnKey(parsed(b)), a.Key(ignore) == b.Key(ignore); sameKey != same {
			t.Fatalf("%q and %q: same key %v, same name %v", a.Text(), b.Text(), sameKey, same)
		}
		respelled, err := parseDN(strings.ToUpper(a.Text()))
		if err == nil && strings.EqualFold(strings.ToUpper(a.Text()), a.Text()) && isASCII(a.Text()) && dnKey(respelled) != dnKey(parsed(a)) {
			t.Fatalf("%q: the key depends on case", a.Text())
		}
	})
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > 0x7e || r < 0x20 }) < 0
}

type failer interface {
	Helper()
	Fatalf(string, ...any)
}

func agree(t failer, text string, ours []rdn, theirs *ldapv3.DN) {
	t.Helper()
	if len(ours) != len(theirs.RDNs) {
		t.Fatalf("%q: %d RDNs, go-ldap reads %d", text, len(ours), len(theirs.RDNs))
	}
	for i, r := range ours {
		if len(r) != len(theirs.RDNs[i].Attributes) {
			t.Fatalf("%q: RDN %d has %d parts, go-ldap reads %d", text, i, len(r), len(theirs.RDNs[i].Attributes))
		}
		for j, p := range r {
			their := theirs.RDNs[i].Attributes[j]
			if !strings.EqualFold(p.typ, strings.TrimPrefix(strings.ToLower(their.Type), "oid.")) || !p.binary && p.value != their.Value {
				t.Fatalf("%q: part %s=%q, go-ldap reads %s=%q", text, p.typ, p.value, their.Type, their.Value)
			}
		}
	}
}

func FuzzParseDN(f *testing.F) {
	for _, seed := range []string{"cn=a,dc=x", `cn=\,\2b+uid=\ b\ ,dc=é`, "cn=#0403666f6f", `cn=\ff`, "2.5.4.3=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		dn, err := parseDN(text)
		if err != nil {
			return
		}
		again, err := parseDN(name(dn).Text())
		if err != nil {
			t.Fatalf("%q: its own text %q is refused: %v", text, name(dn).Text(), err)
		}
		if name(again).Text() != name(dn).Text() {
			t.Fatalf("%q: text %q reads as %q", text, name(dn).Text(), name(again).Text())
		}
		if theirs, err := ldapv3.ParseDN(text); err == nil && !strings.Contains(text, "#") && strings.ToValidUTF8(text, "") == text {
			agree(t, text, dn, theirs)
		}
	})
}
