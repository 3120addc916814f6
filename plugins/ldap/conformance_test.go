package ldap

import (
	"os"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk/connectortest"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

const (
	uniqueBase = "ou=unique," + groupsBase
	posixBase  = "ou=posix," + groupsBase
)

// TestConformance runs the SDK's suite over the wire, the connector in a process
// of its own, against a server for each contract point.
func TestConformance(t *testing.T) {
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, method := range []string{DisablePPolicy, DisableAttribute, DisableNone} {
		t.Run(method, func(t *testing.T) {
			samples := conformanceSamples(t)
			if method != DisablePPolicy {
				// The other groups know nothing of disabling.
				delete(samples, "groupOfUniqueNames")
				delete(samples, "posixGroup")
			}
			connectortest.Run(t, connectortest.Target{
				Command: []string{executable},
				Setup:   func(t testing.TB) connectortest.Directory { return conformanceDirectory(t, method) },
				Samples: samples,
			})
		})
	}
}

func conformanceDirectory(t testing.TB, method string) connectortest.Directory {
	o := slapd.Options{ACL: leastPrivilege, LDIF: skeleton() +
		ldif(uniqueBase, "objectClass", "organizationalUnit", "ou", "unique") + ldif(posixBase, "objectClass", "organizationalUnit", "ou", "posix") +
		person("uid=anna,"+peopleBase, "anna", "Anna", "mail", "anna@example.com") +
		ldif("cn=staff,"+groupsBase, "objectClass", "groupOfNames", "cn", "staff", "member", "uid=anna,"+peopleBase)}
	switch method {
	case DisablePPolicy:
		// It names deletions from its session log,
		o.Overlays, o.SessionLog = []string{"ppolicy", "syncprov"}, 1000
	case DisableAttribute:
		// and this one remembers none.
		o.Overlays = []string{"syncprov"}
	}
	s := slapd.Start(t, o)
	disable := map[string]any{"method": method}
	if method == DisableAttribute {
		disable["attribute"] = map[string]any{"name": "employeeType", "enabled": "active", "disabled": "disabled"}
	}
	types := map[string]any{
		"inetOrgPerson":      map[string]any{"bases": []string{peopleBase}, "auxiliary": []string{"posixAccount"}},
		"groupOfNames":       map[string]any{"bases": []string{groupsBase}},
		"groupOfUniqueNames": map[string]any{"bases": []string{uniqueBase}},
		"posixGroup":         map[string]any{"bases": []string{posixBase}},
	}
	changes := map[string]any{"disable": disable, "types": types}
	if method == DisableNone {
		changes["empty_member"] = "none"
	}
	d := connectortest.Directory{Settings: settings(s, changes), Secrets: secrets(), State: func(t testing.TB) string { return state(t, s) }}
	if method != DisableAttribute {
		// What an attribute means is for the applications that read it, not for
		// the server's bind.
		d.Verify = func(t testing.TB, o *connectorv1.Object, secret []byte) bool {
			return canBind(t, s, o.GetName().Text(), string(secret))
		}
	}
	return d
}

func conformanceSamples(t testing.TB) map[string]connectortest.Sample {
	move := dnOf(t, "ou=former,"+peopleBase).Components
	return map[string]connectortest.Sample{
		"inetOrgPerson": {
			Create: func(leaf string) *connectorv1.Create {
				return below(t, peopleBase, "uid", leaf, "cn", "Kari Nordmann", "sn", "Nordmann", "mail", "kari@example.com", "uidNumber", "1000", "gidNumber", "100", "homeDirectory", "/home/kari")
			},
			Values: map[string][]string{
				"title": {"Engineer", "Überingenieur, leitend"}, "displayName": {"Kari", "kari", "Kari N."}, "uidNumber": {"2000", "2001"},
				"jpegPhoto": {"\xff\xd8\xff\x00one", "\xff\xd8\xff\x00two"}, "mail": {"k@example.com", "kari.n@example.com"},
				"telephoneNumber": {"+47 22 33 44 55", "+47 99 88 77 66"}, "description": {"one", "two"}, "loginShell": {"/bin/sh", "/bin/bash"},
			},
			MoveTo: move, Secret: "Kit-7xQ-pate-9vT-Lm",
		},
		"groupOfNames": {
			Create: func(leaf string) *connectorv1.Create {
				return below(t, groupsBase, "cn", leaf, "description", "a group")
			},
			Values: map[string][]string{"description": {"one", "two"}}, Member: "inetOrgPerson", MoveTo: move,
		},
		"groupOfUniqueNames": {
			Create: func(leaf string) *connectorv1.Create { return below(t, uniqueBase, "cn", leaf) },
			Values: map[string][]string{"description": {"one", "two"}}, Member: "inetOrgPerson",
		},
		"posixGroup": {
			Create: func(leaf string) *connectorv1.Create { return below(t, posixBase, "cn", leaf, "gidNumber", "500") },
			Values: map[string][]string{"gidNumber": {"501", "502"}}, Member: "inetOrgPerson",
		},
	}
}
