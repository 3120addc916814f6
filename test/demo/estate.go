package demo

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// person is one line of the staff list.
type person struct {
	id, given, family, login, department, title, manager, start, end, status string
}

const header = "employee_id,given_name,family_name,email,login,department,title,manager,start_date,end_date,status"

func (p person) line() string {
	return strings.Join([]string{p.id, p.given, p.family, p.login + "@fabrikam.example", p.login, p.department, p.title, p.manager, p.start, p.end, p.status}, ",")
}

// estate is the client's side before Reeve comes: a staff list and two targets
// that grew by hand.
type estate struct {
	dir    string
	people []person
	// corp is nil where no slapd is installed.
	corp *directory
}

func (e *estate) hr() string     { return filepath.Join(e.dir, "hr", "staff.csv") }
func (e *estate) web() string    { return filepath.Join(e.dir, "web", "htpasswd") }
func (e *estate) groups() string { return filepath.Join(e.dir, "web", "groups") }
func (e *estate) etc() string    { return filepath.Join(e.dir, "fileserver", "etc") }

var (
	givenNames  = []string{"Anna", "Bjørn", "Carla", "David", "Eva", "Fredrik", "Grete", "Håkon", "Ida", "Jonas"}
	familyNames = []string{"Aas", "Berg", "Dahl", "Eide", "Foss", "Haugen", "Iversen", "Johansen", "Krogh", "Lund", "Moe", "Næss", "Olsen", "P. Quist", "Ruud", "Solberg", "Torp", "Ulven", "Vik", "Wold", "Ytre", "Ødegård", "Åsen", "Bakken", "Lie"}
	departments = []string{"Sales", "Production", "Production", "Support", "IT", "Finance", "Production", "Sales", "Support", "Production"}
)

var ascii = strings.NewReplacer("ø", "o", "å", "a", "æ", "ae", "Ø", "o", "Å", "a", "Æ", "ae", " ", "", ".", "")

// makeEstate writes 250 people. The targets are as such estates are: nearly
// right, with two people missing from a group, two orphans and a service account.
func makeEstate(dir string) (*estate, error) {
	e := &estate{dir: dir}
	for i := range 250 {
		given, family := givenNames[i%10], familyNames[i/10]
		p := person{
			id: fmt.Sprintf("%04d", 1001+i), given: given, family: family,
			login:      strings.ToLower(ascii.Replace(given[:1]+family)) + fmt.Sprint(i%10),
			department: departments[i%10], title: "Staff", manager: "1001", start: "2019-08-01", status: "active",
		}
		if i == 0 {
			p.title, p.manager, p.department, p.login = "Managing director", "", "Management", "anna"
		}
		// "ø" and the like are two octets: the first letter of the name is taken
		// from its plain form.
		e.people = append(e.people, p)
	}
	for _, d := range []string{"hr", "web", "fileserver/etc"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := e.writeHR(); err != nil {
		return nil, err
	}
	return e, e.writeTargets()
}

func (e *estate) writeHR() error {
	var b strings.Builder
	b.WriteString(header + "\n")
	for _, p := range e.people {
		b.WriteString(p.line() + "\n")
	}
	// As an HR system should: whole, under another name, then renamed.
	tmp := e.hr() + ".part"
	if err := os.WriteFile(tmp, []byte(b.String()), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, e.hr())
}

// oldHash is how the accounts that Reeve finds log in; nobody knows the password.
const oldHash = "$2y$05$abcdefghijklmnopqrstuuJ0cYx1bTtqkS5l6qVxT0s4pYyQy4n2e"

func (e *estate) writeTargets() error {
	var htpasswd, passwd, shadow strings.Builder
	var staff, finance []string
	passwd.WriteString("root:x:0:0:root:/root:/bin/bash\nbackup:x:34:34:backup:/var/backups:/usr/sbin/nologin\n")
	shadow.WriteString("root:*:19000:0:99999:7:::\nbackup:*:19000:0:99999:7:::\n")
	for i, p := range e.people {
		fmt.Fprintf(&htpasswd, "%s:%s\n", p.login, oldHash)
		fmt.Fprintf(&passwd, "%s:x:%d:100:%s:/home/%s:/bin/sh\n", p.login, 2000+i, p.given+" "+p.family, p.login)
		fmt.Fprintf(&shadow, "%s:%s:19000:0:99999:7:::\n", p.login, oldHash)
		if i != 17 && i != 131 {
			staff = append(staff, p.login)
		}
		if p.department == "Finance" {
			finance = append(finance, p.login)
		}
	}
	for i, orphan := range []string{"summer-intern", "old-consultant"} {
		fmt.Fprintf(&htpasswd, "%s:%s\n", orphan, oldHash)
		fmt.Fprintf(&passwd, "%s:x:%d:100::/home/%s:/bin/sh\n", orphan, 1990+i, orphan)
		fmt.Fprintf(&shadow, "%s:%s:19000:0:99999:7:::\n", orphan, oldHash)
	}
	groups := fmt.Sprintf("staff: %s\nfinance: %s\nadmins: %s\n", strings.Join(staff, " "), strings.Join(finance, " "), e.people[4].login)
	group := fmt.Sprintf("root:x:0:\nusers:x:100:\nstaff-oslo:x:3000:%s\nfinance:x:3001:%s\nfiles-admins:x:3002:%s\n",
		strings.Join(staff, ","), strings.Join(append(finance, "old-consultant"), ","), e.people[4].login)
	for path, content := range map[string]string{
		e.web(): htpasswd.String(), e.groups(): groups, filepath.Join(e.etc(), "passwd"): passwd.String(),
		filepath.Join(e.etc(), "shadow"): shadow.String(), filepath.Join(e.etc(), "group"): group,
	} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// agentConfig is what the client's administrator writes.
func (e *estate) agentConfig(state, controlPlane, pin, recipient, mspRecipient, mode string) string {
	target := func(alias, settings, types, attributes string) string {
		return fmt.Sprintf(`  - alias: %s
    connector: flatfile
    role: target
    mode: %s
    settings: %s
    release: [gecos, uid, gid, home, shell]
    guardrails:
      scope:
        - rule: people
          types: [%s]
          base: ""
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
        - rule: staff-groups
          types: [group]
          base: ""
          match: {part: group, glob: "staff*"}
          operations: [add_member, remove_member]
        - rule: finance
          types: [group]
          base: ""
          match: {part: group, glob: finance}
          operations: [add_member, remove_member]
        - rule: admins
          types: [group]
          base: ""
          match: {part: group, glob: "*admins"}
          operations: [add_member, remove_member]
          require_end: true
          max_grant: 4h
      attributes: %s
      # Leavers' old passwords may be revoked, on accounts Reeve did not make too.
      credentials: any
      protected:
        - name: "login=anna"
      budgets:
        day: {losing_access: 20}
`, alias, mode, settings, types, attributes)
	}
	corp := ""
	if e.corp != nil {
		corp = e.corp.config(mode)
	}
	return fmt.Sprintf(`# Written by the client. The MSP cannot change it.
control_plane: %s
trust_domain: reeve.local
root_sha256: %s
state: %s
heartbeat: 5s
observe_every: 1h
recipients:
  helpdesk: %s
  msp: %s
connectors:
  - alias: hr
    connector: flatfile
    role: source
    mode: observe
    settings: {format: csv, path: %q, key: employee_id}
    release: [employee_id, given_name, family_name, email, login, department, title, manager, start_date, end_date, status]
`, controlPlane, pin, state, recipient, mspRecipient, e.hr()) +
		target("web", fmt.Sprintf("{format: htpasswd, path: %q, groups: %q, cost: 5}", e.web(), e.groups()), "user", "[]") +
		target("unix", fmt.Sprintf("{format: passwd, root: %q, uid_min: 5000, uid_max: 6000, rounds: 1000}", e.etc()), "user", "[{name: gecos, max_length: 80}]") + corp
}
