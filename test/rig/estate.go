package rig

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Estate is the client's side: a staff list, and an htpasswd file with its groups
// as target. Everything that policy gives is caused by the MSP, so that the
// offboarding must end where it all began, to the byte.
type Estate struct {
	// Cost is bcrypt's for new passwords: how long a change takes.
	Cost int
	// Unix adds passwd, shadow and group files as a second target, whose accounts
	// bear the person's name: a value that changes.
	Unix bool
	// Directory adds an LDAP directory as a further target; nil has none.
	Directory *Directory
	// Status adds a column to the staff list that suspends people: their accounts
	// are disabled until they are back.
	Status bool
	// MaxGrant is how long somebody may be in admins at most; an hour if 0.
	MaxGrant time.Duration
	// Own, if set, stands in the place of staff list, targets and policy.
	Own *Own

	dir    string
	people []string
	names  map[string]string
	off    map[string]bool
}

// NewEstate has a staff list of n people, p000 and so on, none of whom has an
// account yet.
func NewEstate(n int) *Estate {
	e := &Estate{Cost: 5, names: map[string]string{}, off: map[string]bool{}}
	for i := range n {
		e.people = append(e.people, fmt.Sprintf("p%03d", i))
	}
	return e
}

// People are the logins on the staff list.
func (e *Estate) People() []string { return slices.Clone(e.people) }

// HR, Users and Groups are the files.
func (e *Estate) HR() string     { return filepath.Join(e.dir, "hr", "staff.csv") }
func (e *Estate) Users() string  { return filepath.Join(e.dir, "web", "htpasswd") }
func (e *Estate) Groups() string { return filepath.Join(e.dir, "web", "groups") }
func (e *Estate) Passwd() string { return filepath.Join(e.dir, "etc", "passwd") }

// aliases is how many connectors there are.
func (e *Estate) aliases() int {
	n := 2
	if e.Own != nil {
		return n
	}
	if e.Unix {
		n++
	}
	if e.Directory != nil {
		n++
	}
	return n
}

// old are the targets before Reeve came.
func (e *Estate) old() map[string]string {
	files := map[string]string{
		e.Users():  "# grown by hand\nold-admin:" + oldHash + "\nold-clerk:" + oldHash + "\n",
		e.Groups(): "staff: old-clerk\nadmins: old-admin\nprinters: old-clerk old-admin\n",
	}
	if e.Unix {
		etc := filepath.Dir(e.Passwd())
		files[e.Passwd()] = "root:x:0:0:root:/root:/bin/bash\nold-clerk:x:2000:100:Old Clerk:/home/old-clerk:/bin/sh\n"
		files[filepath.Join(etc, "shadow")] = "root:*:19000:0:99999:7:::\nold-clerk:*:19000:0:99999:7:::\n"
		files[filepath.Join(etc, "group")] = "root:x:0:\nusers:x:100:\n"
	}
	return files
}

// oldHash belongs to accounts that were there before; nobody knows its password.
const oldHash = "$2y$05$abcdefghijklmnopqrstuuJ0cYx1bTtqkS5l6qVxT0s4pYyQy4n2e"

func (e *Estate) write(t testing.TB, dir string) {
	t.Helper()
	e.dir = dir
	for _, path := range []string{e.HR(), e.Users(), e.Passwd()} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	e.writeHR(t)
	for path, content := range e.old() {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func (e *Estate) maxGrant() string {
	if e.MaxGrant == 0 {
		return "1h"
	}
	return fmt.Sprintf("%.0fh", e.MaxGrant.Hours())
}

// Hire puts n more people on the staff list and returns their logins.
func (e *Estate) Hire(t testing.TB, n int) []string {
	t.Helper()
	first := len(e.people)
	for i := range n {
		e.people = append(e.people, fmt.Sprintf("p%03d", first+i))
	}
	e.writeHR(t)
	return slices.Clone(e.people[first:])
}

// Rename gives a person on the staff list another name.
func (e *Estate) Rename(t testing.TB, login, name string) {
	t.Helper()
	e.names[login] = name
	e.writeHR(t)
}

// Name is what the staff list calls a person.
func (e *Estate) Name(login string) string {
	if name := e.names[login]; name != "" {
		return name
	}
	return fmt.Sprintf("Person %d", slices.Index(e.people, login))
}

// Suspend suspends a person on the staff list, or takes that back.
func (e *Estate) Suspend(t testing.TB, login string, off bool) {
	t.Helper()
	if !e.Status {
		t.Fatal("this estate's staff list has no column status")
	}
	e.off[login] = off
	e.writeHR(t)
}

// Suspended reports whether the staff list suspends a person.
func (e *Estate) Suspended(login string) bool { return e.off[login] }

func (e *Estate) writeHR(t testing.TB) {
	t.Helper()
	if e.Own != nil {
		e.putHR(t, e.Own.Staff)
		return
	}
	var b strings.Builder
	b.WriteString("employee_id,login,name")
	if e.Status {
		b.WriteString(",status")
	}
	b.WriteString("\n")
	for i, login := range e.people {
		fmt.Fprintf(&b, "%d,%s,%s", 1000+i, login, e.Name(login))
		if e.Status {
			fmt.Fprintf(&b, ",%s", map[bool]string{true: "off", false: "on"}[e.off[login]])
		}
		b.WriteString("\n")
	}
	e.putHR(t, b.String())
}

// putHR writes as an HR system should: whole, under another name, then renamed.
func (e *Estate) putHR(t testing.TB, content string) {
	t.Helper()
	part := e.HR() + ".part"
	if err := os.WriteFile(part, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, e.HR()); err != nil {
		t.Fatal(err)
	}
}

// Files are the targets as they are.
func (e *Estate) Files(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{}
	for path := range e.old() {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(path)] = string(raw)
	}
	return out
}

// Accounts parses the users by itself: login to hash. It fails on a line that is
// none, and on a login that stands twice.
func (e *Estate) Accounts(t testing.TB) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(e.Users())
	if err != nil {
		t.Fatal(err)
	}
	out, err := parseAccounts(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parseAccounts(text string) (map[string]string, error) {
	out := map[string]string{}
	for line := range strings.Lines(text) {
		if !strings.HasSuffix(line, "\n") {
			return nil, fmt.Errorf("the users end in the middle of line %q", line)
		}
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		login, hash, found := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if _, twice := out[login]; twice || !found || login == "" {
			return nil, fmt.Errorf("line %q of the users is none, or stands twice", line)
		}
		out[login] = hash
	}
	return out, nil
}

// Members parses the groups by itself: group to members, sorted. It fails on a
// line that is none, on a group or a member that stands twice.
func (e *Estate) Members(t testing.TB) map[string][]string {
	t.Helper()
	raw, err := os.ReadFile(e.Groups())
	if err != nil {
		t.Fatal(err)
	}
	out, err := parseGroups(string(raw))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func parseGroups(text string) (map[string][]string, error) {
	out := map[string][]string{}
	for line := range strings.Lines(text) {
		name, list, found := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		if _, twice := out[name]; twice || !found {
			return nil, fmt.Errorf("line %q of the groups is none, or stands twice", line)
		}
		members := strings.Fields(list)
		slices.Sort(members)
		if len(slices.Compact(slices.Clone(members))) != len(members) {
			return nil, fmt.Errorf("somebody stands twice in group line %q", line)
		}
		out[name] = members
	}
	return out, nil
}

// Gecos parses passwd by itself: login to the name in it.
func (e *Estate) Gecos(t testing.TB) map[string]string {
	t.Helper()
	raw, err := os.ReadFile(e.Passwd())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if _, twice := out[fields[0]]; twice || len(fields) != 7 {
			t.Fatalf("line %q of passwd is none, or stands twice", line)
		}
		out[fields[0]] = fields[4]
	}
	return out
}

// Edit changes a target from outside while no plan runs: whole, under another name, then renamed.
func (e *Estate) Edit(t testing.TB, path string, edit func(string) string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	part := path + ".part"
	if err := os.WriteFile(part, []byte(edit(string(raw))), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(part, path); err != nil {
		t.Fatal(err)
	}
}

// connectors is the client's part of agent.yaml.
func (e *Estate) connectors() string {
	if e.Own != nil {
		return e.Own.connectors(e.HR())
	}
	return fmt.Sprintf(`connectors:
  - alias: hr
    connector: flatfile
    role: source
    mode: observe
    settings: {format: csv, path: %q, key: employee_id}
    release: [employee_id, login, name%s]
  - alias: web
    connector: flatfile
    role: target
    mode: enforce
    settings: {format: htpasswd, path: %q, groups: %q, cost: %d}
    release: []
    guardrails:
      scope:
        - rule: people
          types: [user]
          base: ""
          match: {part: login, glob: "p*"}
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
        - rule: groups
          types: [group]
          base: ""
          match: {part: group, glob: "staff*"}
          operations: [add_member, remove_member]
        - rule: admins
          types: [group]
          base: ""
          match: {part: group, glob: admins}
          operations: [add_member, remove_member]
          require_end: true
          max_grant: %s
      attributes: []
      protected:
        - name: "login=old-admin"
`, e.HR(), map[bool]string{true: ", status"}[e.Status], e.Users(), e.Groups(), e.Cost, e.maxGrant()) + e.unixConnector() + e.Directory.connector()
}

func (e *Estate) unixConnector() string {
	if !e.Unix {
		return ""
	}
	return fmt.Sprintf(`  - alias: unix
    connector: flatfile
    role: target
    mode: enforce
    settings: {format: passwd, root: %q, uid_min: 5000, uid_max: 6000, rounds: 1000}
    release: [gecos]
    guardrails:
      scope:
        - rule: people
          types: [user]
          base: ""
          match: {part: login, glob: "p*"}
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
      attributes: [{name: gecos, max_length: 80}]
`, filepath.Dir(e.Passwd()))
}

// policy gives everybody on the staff list an account and the group staff.
func (e *Estate) policy() string {
	if e.Own != nil {
		return e.Own.Policy
	}
	correlate, accounts, active := "", "", ""
	if e.Status {
		active = `
    active: 'row.attr("status") != "off"'`
	}
	if e.Unix {
		correlate = `
  - {connector: unix, type: user, match: [{identity: login, object: "@name"}]}`
		accounts = `
      - connector: unix
        type: user
        name: 'name([rdn("login", identity.attr("login"))])'
        attributes: [{name: gecos, value: 'identity.attr("display_name")'}]`
	}
	entitlement, entitlements := e.Directory.entitlement()
	accounts += e.Directory.account()
	return `reeve: policy/v1
name: faults
version: "1"
sources:
  - connector: hr
    type: person
    kind: human` + active + `
    attributes:
      employee_id: 'row.attr("employee_id")'
      login: 'row.attr("login")'
      display_name: 'row.attr("name")'
correlate:
  - {connector: web, type: user, match: [{identity: login, object: "@name"}]}` + correlate + `
entitlements:
  - {id: web/staff, connector: web, type: group, name: 'name([rdn("group", "staff")])'}
  - {id: web/admins, connector: web, type: group, name: 'name([rdn("group", "admins")])', privileged: true, require_end: true, max_grant: ` + e.maxGrant() + `}` + entitlement + `
roles:
  - id: staff
    when: 'identity.kind == "human"'
    cause: msp
    accounts:
      - connector: web
        type: user
        name: 'name([rdn("login", identity.attr("login"))])'
        credential: {recipient: helpdesk, length: 20}` + accounts + `
    entitlements: [web/staff` + entitlements + `]
budgets:
  disable: {percent: 100, floor: 1000}
  delete: {percent: 100, floor: 1000}
  membership: {percent: 100, floor: 1000}
`
}
