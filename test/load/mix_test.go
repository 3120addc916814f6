package load

import (
	"fmt"
	"strings"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

const (
	mixSuffix = "dc=fabrikam,dc=example"
	mixPeople = "ou=people," + mixSuffix
	mixGroups = "ou=groups," + mixSuffix
)

// mix is a number of changes to a directory: 30% create a person, 25% add a member
// to a group, 15% remove one, 25% update a person and 5% delete one. It says the
// same twice: as LDIF for ldapmodify, and as staff list and policy for Reeve.
type mix struct {
	entries                                int // people in the directory before
	creates, adds, removes, updates, gones int
	teams                                  int
}

func newMix(changes, entries int) *mix {
	m := &mix{creates: changes * 30 / 100, adds: changes * 25 / 100, removes: changes * 15 / 100, updates: changes * 25 / 100, gones: changes * 5 / 100}
	m.teams = max(changes/200, 1)
	m.entries = max(entries, m.adds+m.removes+m.updates+m.gones+m.teams)
	return m
}

func (m *mix) changes() int { return m.creates + m.adds + m.removes + m.updates + m.gones }

// planned is how many changes Reeve makes of it: whoever goes loses the password
// before the account.
func (m *mix) planned() int { return m.changes() + m.gones }

// Those who are there before stand one after the other: who comes into a team, who
// goes out of one, whose title changes, who is deleted, and whoever keeps a team
// from being empty.
func (m *mix) adder(i int) string   { return existing(i) }
func (m *mix) remover(i int) string { return existing(m.adds + i) }
func (m *mix) updated(i int) string { return existing(m.adds + m.removes + i) }
func (m *mix) gone(i int) string    { return existing(m.adds + m.removes + m.updates + i) }
func (m *mix) keeper(team int) string {
	return existing(m.adds + m.removes + m.updates + m.gones + team)
}

func existing(i int) string       { return fmt.Sprintf("user%06d", i) }
func (m *mix) fresh(i int) string { return fmt.Sprintf("fresh%06d", i) }

func person(login string) string { return "uid=" + login + "," + mixPeople }
func team(i int) string          { return fmt.Sprintf("cn=team%03d,%s", i, mixGroups) }

// directory is what there is before.
func (m *mix) directory() slapd.Options {
	var b strings.Builder
	for _, unit := range []string{"people", "groups"} {
		fmt.Fprintf(&b, "dn: ou=%[1]s,%[2]s\nobjectClass: organizationalUnit\nou: %[1]s\n\n", unit, mixSuffix)
	}
	for t := range m.teams {
		fmt.Fprintf(&b, "dn: %s\nobjectClass: groupOfNames\ncn: team%03d\nmember: %s\n", team(t), t, person(m.keeper(t)))
		for i := t; i < m.removes; i += m.teams {
			fmt.Fprintf(&b, "member: %s\n", person(m.remover(i)))
		}
		b.WriteString("\n")
	}
	b.WriteString(slapd.Estate(mixPeople, mixGroups, m.entries, 0, 0))
	return slapd.Options{Suffix: mixSuffix, LDIF: b.String(), Durable: true}
}

// ldif is the mix as an administrator would write it for ldapmodify.
func (m *mix) ldif() string {
	var b strings.Builder
	for i := range m.creates {
		login := m.fresh(i)
		fmt.Fprintf(&b, "dn: %[1]s\nchangetype: add\nobjectClass: top\nobjectClass: person\nobjectClass: organizationalPerson\nobjectClass: inetOrgPerson\n"+
			"cn: Fresh %[2]s\nsn: %[2]s\nmail: %[2]s@example.com\nuid: %[2]s\n\n", person(login), login)
	}
	membership := func(verb string, group int, login string) {
		fmt.Fprintf(&b, "dn: %s\nchangetype: modify\n%[2]s: member\nmember: %[3]s\n-\n\n", team(group), verb, person(login))
	}
	for i := range m.adds {
		membership("add", i%m.teams, m.adder(i))
	}
	for i := range m.removes {
		membership("delete", i%m.teams, m.remover(i))
	}
	for i := range m.updates {
		fmt.Fprintf(&b, "dn: %s\nchangetype: modify\nreplace: title\ntitle: Architect\n-\n\n", person(m.updated(i)))
	}
	for i := range m.gones {
		fmt.Fprintf(&b, "dn: %s\nchangetype: delete\n\n", person(m.gone(i)))
	}
	return b.String()
}

// staff is the mix as the client's staff list has it.
func (m *mix) staff() string {
	var b strings.Builder
	b.WriteString("employee_id,login,title,team,end\n")
	line := func(login, title, team, end string) {
		fmt.Fprintf(&b, "e-%[1]s,%[1]s,%s,%s,%s\n", login, title, team, end)
	}
	for i := range m.creates {
		line(m.fresh(i), "", "", "")
	}
	for i := range m.adds {
		line(m.adder(i), "", fmt.Sprintf("team%03d", i%m.teams), "")
	}
	for i := range m.removes {
		line(m.remover(i), "", "", "")
	}
	for i := range m.updates {
		line(m.updated(i), "Architect", "", "")
	}
	for i := range m.gones {
		line(m.gone(i), "", "", "2020-01-31")
	}
	for t := range m.teams {
		line(m.keeper(t), "", fmt.Sprintf("team%03d", t), "")
	}
	return b.String()
}

// client is the mix as Reeve is set up for it, with the directory at a URL.
func (m *mix) client(url, bindDN, secretFile string) *rig.Own {
	var entitlements, roles strings.Builder
	for t := range m.teams {
		fmt.Fprintf(&entitlements, "  - {id: corp/team%03[1]d, connector: corp, type: groupOfNames, authority: authoritative, name: 'dn(\"%[2]s\")'}\n", t, team(t))
		fmt.Fprintf(&roles, "  - {id: team%03[1]d, when: 'identity.attr(\"team\") == \"team%03[1]d\"', cause: client, entitlements: [corp/team%03[1]d]}\n", t)
	}
	return &rig.Own{Staff: m.staff(), Release: []string{"employee_id", "login", "title", "team", "end"}, Target: fmt.Sprintf(`  - alias: corp
    connector: ldap
    role: target
    mode: enforce
    settings:
      url: %s
      bind_dn: %q
      types:
        inetOrgPerson: {bases: ["%[3]s"]}
        groupOfNames: {bases: ["%[4]s"]}
    secrets: {bind_password: "file:%[5]s"}
    release: [uid, cn, sn, mail, title]
    guardrails:
      scope:
        - {rule: people, types: [inetOrgPerson], base: "%[3]s", depth: 1, operations: [create, update, delete, revoke_credential]}
        - {rule: teams, types: [groupOfNames], base: "%[4]s", depth: 1, operations: [add_member, remove_member]}
      attributes: [{name: cn}, {name: sn}, {name: mail}, {name: title}]
      credentials: any
`, url, bindDN, mixPeople, mixGroups, secretFile), Policy: `reeve: policy/v1
name: faults
version: "1"
sources:
  - connector: hr
    type: person
    kind: human
    end: 'row.attr("end")'
    attributes:
      employee_id: 'row.attr("employee_id")'
      login: 'row.attr("login")'
      title: 'row.attr("title")'
      team: 'row.attr("team")'
correlate:
  - {connector: corp, type: inetOrgPerson, match: [{identity: login, object: uid}]}
leaver: {snapshots: 3, grace: 24h, retention: 1h}
entitlements:
` + entitlements.String() + `roles:
  - id: staff
    when: 'identity.kind == "human"'
    cause: client
    accounts:
      - connector: corp
        type: inetOrgPerson
        name: 'name([rdn("uid", identity.attr("login"))], dn("` + mixPeople + `"))'
        attributes:
          - {name: cn, value: '"Fresh " + identity.attr("login")', authority: initial}
          - {name: sn, value: 'identity.attr("login")', authority: initial}
          - {name: mail, value: 'identity.attr("login") + "@example.com"', authority: initial}
          - {name: title, value: 'identity.attr("title")', when: 'identity.attr("title") != ""', authority: enforce}
` + roles.String() + `budgets:
  disable: {percent: 100, floor: 100000}
  delete: {percent: 100, floor: 100000}
  membership: {percent: 100, floor: 100000}
`}
}
