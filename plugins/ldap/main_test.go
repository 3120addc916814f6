package ldap

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	ldapv3 "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// TestMain makes the test binary the plugin when a host starts it.
func TestMain(m *testing.M) {
	if os.Getenv(sdk.CookieKey) != "" {
		if err := sdk.Serve(New()); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	stopLargeServer()
	os.Exit(code)
}

const (
	suffix     = "dc=example,dc=com"
	peopleBase = "ou=people," + suffix
	groupsBase = "ou=groups," + suffix
	reeveDN    = "cn=reeve,ou=services," + suffix
	reevePass  = "connector-secret"
)

// leastPrivilege is the access README.md tells administrators to grant.
var leastPrivilege = []string{
	`to dn.subtree="ou=secret,` + peopleBase + `" by * none`,
	`to dn.subtree="` + peopleBase + `" attrs=userPassword by dn.exact="` + reeveDN + `" =w by anonymous auth by * none`,
	`to dn.subtree="` + peopleBase + `" by dn.exact="` + reeveDN + `" write by * break`,
	`to dn.subtree="` + groupsBase + `" by dn.exact="` + reeveDN + `" write by * break`,
	`to attrs=userPassword by anonymous auth by * none`,
	`to * by * read`,
}

// ldif renders entries, base64 where LDIF wants it (RFC 2849).
func ldif(dn string, attributes ...string) string {
	var b strings.Builder
	line := func(name, value string) {
		plain := utf8.ValidString(value) && !strings.HasPrefix(value, " ") && !strings.HasPrefix(value, ":") && !strings.HasSuffix(value, " ")
		for _, r := range value {
			plain = plain && r >= 0x20 && r < 0x7f
		}
		if plain {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		} else {
			fmt.Fprintf(&b, "%s:: %s\n", name, base64.StdEncoding.EncodeToString([]byte(value)))
		}
	}
	line("dn", dn)
	for i := 0; i < len(attributes); i += 2 {
		line(attributes[i], attributes[i+1])
	}
	b.WriteString("\n")
	return b.String()
}

func person(dn, uid, cn string, more ...string) string {
	return ldif(dn, append([]string{"objectClass", "inetOrgPerson", "uid", uid, "cn", cn, "sn", "Berg"}, more...)...)
}

// skeleton are the folders and the connector's own account.
func skeleton() string {
	return ldif(peopleBase, "objectClass", "organizationalUnit", "ou", "people") +
		ldif("ou=former,"+peopleBase, "objectClass", "organizationalUnit", "ou", "former") +
		ldif(groupsBase, "objectClass", "organizationalUnit", "ou", "groups") +
		ldif("ou=services,"+suffix, "objectClass", "organizationalUnit", "ou", "services") +
		ldif(reeveDN, "objectClass", "organizationalRole", "objectClass", "simpleSecurityObject", "cn", "reeve", "userPassword", reevePass)
}

// settings are the common ones, with changes.
func settings(s *slapd.Server, changes map[string]any) []byte {
	all := map[string]any{
		"url": s.URL, "bind_dn": reeveDN,
		"types": map[string]any{
			"inetOrgPerson":      map[string]any{"bases": []string{peopleBase}, "auxiliary": []string{}},
			"groupOfNames":       map[string]any{"bases": []string{groupsBase}},
			"groupOfUniqueNames": map[string]any{"bases": []string{groupsBase}},
			"posixGroup":         map[string]any{"bases": []string{groupsBase}},
		},
	}
	maps.Copy(all, changes)
	out, err := json.Marshal(all)
	if err != nil {
		panic(err) // maps of strings always encode
	}
	return out
}

func secrets() map[string][]byte { return map[string][]byte{"bind_password": []byte(reevePass)} }

func openInstance(t testing.TB, s *slapd.Server, changes map[string]any) *Instance {
	t.Helper()
	i, err := New().Open(t.Context(), sdk.Settings{Alias: "corp", JSON: settings(s, changes), Secrets: secrets()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = i.Close() })
	if s, ok := i.(*synchronized); ok {
		return s.Instance
	}
	return i.(*Instance)
}

// state is the database without what the server stamps, with values sorted.
func state(t testing.TB, s *slapd.Server) string {
	t.Helper()
	dump, err := s.Dump()
	if err != nil {
		t.Fatal(err)
	}
	stamped := []string{"entryCSN", "modifyTimestamp", "modifiersName", "createTimestamp", "creatorsName", "entryUUID", "contextCSN", "pwdChangedTime", "structuralObjectClass", "pwdFailureTime"}
	var entries []string
	for _, entry := range strings.Split(string(dump), "\n\n") {
		lines := slices.DeleteFunc(strings.Split(entry, "\n"), func(l string) bool {
			name, _, _ := strings.Cut(l, ":")
			return l == "" || slices.Contains(stamped, name)
		})
		if len(lines) > 1 {
			slices.Sort(lines[1:])
			entries = append(entries, strings.Join(lines, "\n"))
		}
	}
	slices.Sort(entries)
	return strings.Join(entries, "\n\n")
}

// root binds as the server's root, to look and to meddle from outside.
func root(t testing.TB, s *slapd.Server) *ldapv3.Conn {
	t.Helper()
	c, err := ldapv3.DialURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Bind(s.RootDN, s.RootPassword); err != nil {
		t.Fatal(err)
	}
	return c
}

func canBind(t testing.TB, s *slapd.Server, dn, password string) bool {
	t.Helper()
	c, err := ldapv3.DialURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	err = c.Bind(dn, password)
	if err != nil && !ldapv3.IsErrorWithCode(err, ldapv3.LDAPResultInvalidCredentials) && !ldapv3.IsErrorWithCode(err, ldapv3.LDAPResultInappropriateAuthentication) {
		t.Fatalf("bind as %s: %v", dn, err)
	}
	return err == nil
}

func dnOf(t testing.TB, text string) *connectorv1.Name {
	t.Helper()
	dn, err := parseDN(text)
	if err != nil {
		t.Fatal(err)
	}
	return name(dn)
}

// below returns a create whose leaf stands below base.
func below(t testing.TB, base, typ, leaf string, attributes ...string) *connectorv1.Create {
	c := &connectorv1.Create{Name: &connectorv1.Name{Components: append([]*connectorv1.Component{connectorv1.NewComponent(typ, leaf)}, dnOf(t, base).Components...)}}
	for i := 0; i < len(attributes); i += 2 {
		c.Attributes = append(c.Attributes, &connectorv1.Attribute{Name: attributes[i], Values: [][]byte{[]byte(attributes[i+1])}})
	}
	return c
}
