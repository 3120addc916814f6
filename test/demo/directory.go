package demo

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/reevehq/reeve/test/slapd"
)

// directory is the client's OpenLDAP server, where one is installed.
type directory struct {
	server *slapd.Server
	secret string
	before []byte
}

const (
	suffix = "dc=fabrikam,dc=example"
	people = "ou=people," + suffix
	groups = "ou=groups," + suffix
)

// startDirectory starts slapd with the estate's people; nil without error when it
// is not installed.
func startDirectory(dir string, e *estate) (*directory, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "dn: %s\nobjectClass: organizationalUnit\nou: people\n\ndn: %s\nobjectClass: organizationalUnit\nou: groups\n", people, groups)
	dn := func(p person) string { return "uid=" + p.login + "," + people }
	members := map[string][]string{}
	for i, p := range e.people {
		fmt.Fprintf(&b, "\ndn: %s\nobjectClass: inetOrgPerson\nuid: %s\ncn: %s %s\nsn: %s\ngivenName: %s\ndisplayName: %s %s\nmail: %s@fabrikam.example\nemployeeNumber: %s\ndepartmentNumber: %s\ntitle: %s\nuserPassword: {CRYPT}%s\n",
			dn(p), p.login, p.given, p.family, p.family, p.given, p.given, p.family, p.login, p.id, p.department, p.title, oldHash)
		if p.manager != "" {
			fmt.Fprintf(&b, "manager: %s\n", dn(e.people[0]))
		}
		if i != 17 && i != 131 {
			members["staff"] = append(members["staff"], dn(p))
		}
		if p.department == "IT" || p.department == "Finance" {
			group := strings.ToLower(p.department)
			members[group] = append(members[group], dn(p))
		}
	}
	members["directory-admins"] = []string{dn(e.people[4])}
	for _, group := range []string{"staff", "it", "finance", "directory-admins"} {
		fmt.Fprintf(&b, "\ndn: cn=%s,%s\nobjectClass: groupOfNames\ncn: %s\n", group, groups, group)
		for _, m := range members[group] {
			fmt.Fprintf(&b, "member: %s\n", m)
		}
	}
	d := &directory{secret: filepath.Join(dir, "corp.secret")}
	home := filepath.Join(dir, "slapd")
	err := os.MkdirAll(home, 0o700)
	if err != nil {
		return nil, err
	}
	d.server, err = slapd.New(home, slapd.Options{Suffix: suffix, LDIF: b.String(), TLS: true, Overlays: []string{"ppolicy"}})
	if errors.Is(err, slapd.ErrNotInstalled) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(d.secret, []byte(d.server.RootPassword), 0o600); err != nil {
		return nil, err
	}
	d.before, err = d.server.Dump()
	return d, err
}

// config is the connector in the client's agent.yaml.
func (d *directory) config(mode string) string {
	return fmt.Sprintf(`  - alias: corp
    connector: ldap
    role: target
    mode: %s
    settings:
      url: %s
      ca_file: %s
      bind_dn: %q
      disable: {method: ppolicy}
      types:
        inetOrgPerson: {bases: [%q]}
        groupOfNames: {bases: [%q]}
    secrets: {bind_password: "file:%s"}
    release: [uid, cn, sn, givenName, displayName, mail, employeeNumber, departmentNumber, title, manager]
    guardrails:
      scope:
        - rule: people
          types: [inetOrgPerson]
          base: %q
          depth: 1
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
        - rule: groups
          types: [groupOfNames]
          base: %q
          depth: 1
          operations: [add_member, remove_member]
      attributes:
        - {name: cn}
        - {name: sn}
        - {name: givenName}
        - {name: displayName}
        - {name: mail, suffix: "@fabrikam.example"}
        - {name: employeeNumber}
        - {name: departmentNumber}
        - {name: title}
        - {name: manager}
      credentials: any
      protected:
        - name: "uid=anna,%s"
      budgets:
        day: {losing_access: 20}
`, mode, d.server.TLSURL, d.server.CAFile, d.server.RootDN, people, groups, d.secret, people, groups, people)
}
