package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/test/slapd"
)

// Directory is an LDAP server as the client's administrator knows it: with an
// entry ou=people and an entry ou=groups below the suffix, in the latter the
// group cn=staff.
type Directory struct {
	// URL on loopback, and who binds with the password in SecretFile.
	URL, BindDN, SecretFile string
	Suffix                  string
}

// NewDirectory starts a slapd that holds a clerk, who is a member of cn=staff, and
// gives it with what the administrator knows of it. Its overlays are ppolicy and
// those named.
func NewDirectory(t testing.TB, overlays ...string) (*slapd.Server, *Directory) {
	t.Helper()
	const suffix = "dc=fabrikam,dc=example"
	server := slapd.Start(t, slapd.Options{Suffix: suffix, Overlays: append([]string{"ppolicy"}, overlays...), LDIF: fmt.Sprintf(`dn: %[1]s
objectClass: organization
objectClass: dcObject
dc: fabrikam
o: Fabrikam

dn: ou=people,%[1]s
objectClass: organizationalUnit
ou: people

dn: uid=clerk,ou=people,%[1]s
objectClass: inetOrgPerson
uid: clerk
cn: Old Clerk
sn: Clerk

dn: ou=groups,%[1]s
objectClass: organizationalUnit
ou: groups

dn: cn=staff,ou=groups,%[1]s
objectClass: groupOfNames
cn: staff
member: uid=clerk,ou=people,%[1]s
`, suffix)})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte(server.RootPassword), 0o600); err != nil {
		t.Fatal(err)
	}
	return server, &Directory{URL: server.URL, BindDN: server.RootDN, SecretFile: secret, Suffix: suffix}
}

// connector is the directory's part of agent.yaml.
func (d *Directory) connector() string {
	if d == nil {
		return ""
	}
	return fmt.Sprintf(`  - alias: corp
    connector: ldap
    role: target
    mode: enforce
    settings:
      url: %s
      bind_dn: %q
      disable: {method: ppolicy}
      types:
        inetOrgPerson: {bases: ["ou=people,%[3]s"]}
        groupOfNames: {bases: ["ou=groups,%[3]s"]}
    secrets: {bind_password: "file:%[4]s"}
    release: [uid, cn, sn]
    guardrails:
      scope:
        - rule: people
          types: [inetOrgPerson]
          base: "ou=people,%[3]s"
          depth: 1
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
        - rule: groups
          types: [groupOfNames]
          base: "ou=groups,%[3]s"
          depth: 1
          operations: [add_member, remove_member]
      attributes: [{name: cn}, {name: sn}]
`, d.URL, d.BindDN, d.Suffix, d.SecretFile)
}

// entitlement is the directory's part of the policy's entitlements, and its id
// for the role.
func (d *Directory) entitlement() (definition, id string) {
	if d == nil {
		return "", ""
	}
	return fmt.Sprintf(`
  - {id: corp/staff, connector: corp, type: groupOfNames, name: 'name([rdn("cn", "staff")], dn("ou=groups,%s"))'}`, d.Suffix), ", corp/staff"
}

// account is the directory's part of the role.
func (d *Directory) account() string {
	if d == nil {
		return ""
	}
	return fmt.Sprintf(`
      - connector: corp
        type: inetOrgPerson
        name: 'name([rdn("uid", identity.attr("login"))], dn("ou=people,%s"))'
        attributes:
          - {name: cn, value: 'identity.attr("display_name")'}
          - {name: sn, value: 'identity.attr("login")'}
        credential: {recipient: helpdesk, length: 20}`, d.Suffix)
}
