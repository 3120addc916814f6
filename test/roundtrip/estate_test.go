package roundtrip

import (
	"encoding/csv"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/reevehq/reeve/test/slapd"
)

const (
	suffix  = "dc=fabrikam,dc=example"
	people  = "ou=people," + suffix
	groups  = "ou=groups," + suffix
	hidden  = "ou=hidden," + people
	agentDN = "cn=reeve,ou=services," + suffix
	secret  = "correct horse battery"
)

// person is one line of the staff list, and what the directory knows of them.
type person struct {
	id, given, family, email, login, department, title, manager, start, end, status string
	// uid is the number for new accounts.
	number int

	// dn of the account that is there before Reeve, empty where there is none.
	dn string
	// ambiguous: two accounts fit, so that a person must decide.
	ambiguous bool
}

func (p *person) display() string { return strings.TrimSpace(p.given + " " + p.family) }
func (p *person) left() bool      { return p.end != "" && p.end < "2026" }

// estate is a client before Reeve comes.
type estate struct {
	people []*person
	ldif   string
}

var header = []string{"employee_id", "given_name", "family_name", "email", "login", "department", "title", "manager", "start_date", "end_date", "status", "number"}

func (e *estate) csv() string {
	var b strings.Builder
	w := csv.NewWriter(&b)
	_ = w.Write(header) // a strings.Builder never fails
	for _, p := range e.people {
		_ = w.Write([]string{p.id, p.given, p.family, p.email, p.login, p.department, p.title, p.manager, p.start, p.end, p.status, fmt.Sprint(p.number)})
	}
	w.Flush()
	return b.String()
}

var departments = []string{"Sales", "Finance", "IT", "Production", "Production", "Production", "Production", "Support"}

// escape is RFC 4514 for a value of an RDN.
func escape(v string) string {
	v = strings.NewReplacer(`\`, `\\`, ",", `\,`, "+", `\+`, `"`, `\"`, ";", `\;`, "<", `\<`, ">", `\>`).Replace(v)
	if strings.HasPrefix(v, " ") {
		v = `\` + v
	}
	return v
}

// newEstate makes count people and 300 groups (or fewer, for fewer people).
func newEstate(count int) *estate {
	e := &estate{}
	var w ldifWriter
	add := func(dn string, pairs ...string) {
		var lines []value
		for i := 0; i < len(pairs); i += 2 {
			lines = append(lines, value{pairs[i], pairs[i+1]})
		}
		w.entry(dn, lines...)
	}
	unit := func(dn, ou string) { add(dn, "objectClass", "organizationalUnit", "ou", ou) }
	unit(people, "people")
	unit(groups, "groups")
	unit("ou=services,"+suffix, "services")
	unit("ou=Oslo,"+people, "Oslo")
	unit(`ou=Drift\, innleid,`+people, "Drift, innleid")
	unit(hidden, "hidden")
	add(agentDN, "objectClass", "applicationProcess", "objectClass", "simpleSecurityObject", "cn", "reeve", "userPassword", secret)
	for i := range 20 {
		id := fmt.Sprintf("board%02d", i)
		add("uid="+id+","+hidden, "objectClass", "inetOrgPerson", "uid", id, "cn", "Board "+id, "sn", id, "mail", id+"@fabrikam.example")
	}
	uids := make([]string, count)
	dns := make([]string, count)
	posix := make([]bool, count)
	for i := range count {
		e.addPerson(&w, i, dns, uids, posix)
	}
	e.addGroups(add, count, dns, uids, posix)
	for i := range 40 {
		p := &person{
			id: fmt.Sprintf("J%03d", i), given: "Ny", family: fmt.Sprintf("Joiner%03d", i), login: fmt.Sprintf("joiner%03d", i),
			department: departments[i%8], title: "Trainee", manager: "E00002", status: "active", number: 50000 + i,
		}
		switch i {
		case 3:
			p.login, p.family = "søren,ø", "Sørensen, d.y."
		case 5:
			p.login = "o'neill+o=x"
		case 7:
			p.start = "2099-01-01"
		case 8:
			p.status = "suspended"
		case 9:
			p.end = "2020-01-01"
		}
		p.email = fmt.Sprintf("joiner%03d@fabrikam.example", i)
		e.people = append(e.people, p)
	}
	e.ldif = w.String()
	return e
}

// everybodyWorks leaves nobody with an account who left or is suspended.
func (e *estate) everybodyWorks() {
	for _, p := range e.people {
		if p.dn != "" {
			p.end, p.status = "", "active"
		}
	}
}

func (e *estate) addPerson(w *ldifWriter, i int, dns, uids []string, posix []bool) {
	given, family := []string{"Anna", "Bjørn", "Carla", "David", "Åse"}[i%5], []string{"Lie", "Ødegård", "van der Berg", "O'Neill", "Vik", "Aas", "Dahl"}[i%7]
	login := fmt.Sprintf("user%05d", i)
	uid, cn := login, fmt.Sprintf("%s %s %d", given, family, i)
	p := &person{
		id: fmt.Sprintf("E%05d", i), given: given, family: fmt.Sprintf("%s %d", family, i), login: login,
		email: fmt.Sprintf("user%05d@fabrikam.example", i), department: departments[i%8], title: "staff", manager: "E00002", status: "active", number: 10000 + i,
	}
	above := people
	switch {
	case i%10 == 3:
		above = "ou=Oslo," + people
	case i%10 == 7:
		above = `ou=Drift\, innleid,` + people
	}
	rdn := "uid=" + uid
	switch {
	case i%40 == 5:
		cn = fmt.Sprintf("%s, %s %d", family, given, i)
		rdn = "cn=" + escape(cn)
	case i%40 == 15:
		cn = fmt.Sprintf(" leading %d", i)
		rdn = "cn=" + escape(cn)
	case i%40 == 25:
		rdn = "cn=" + escape(cn) + "+uid=" + uid
	case i%40 == 35:
		cn = fmt.Sprintf("Bjørn 北京 #%d \"B\"", i)
		rdn = "cn=" + escape(cn)
	}
	// Names that differ by case and spaces only, in different places.
	if i%200 == 100 {
		uid = "Twin" + fmt.Sprint(i)
		rdn, cn = "uid="+uid, fmt.Sprintf("Twin  Name %d", i)
	}
	if i%200 == 103 {
		uid = "TWIN" + fmt.Sprint(i-3)
		rdn, cn = "uid="+uid, fmt.Sprintf("twin name %d", i-3)
	}
	dn := rdn + "," + above
	lines := []value{{"objectClass", "inetOrgPerson"}}
	line := func(attribute, v string) { lines = append(lines, value{attribute, v}) }
	if posix[i] = i%3 != 2; posix[i] {
		line("objectClass", "posixAccount")
	}
	mail := fmt.Sprintf("User%05d@Fabrikam.example", i)
	if i%1000 == 500 || i%1000 == 501 {
		// Two accounts with one address and no number: nobody knows whose is whose.
		p.ambiguous = true
		p.email = fmt.Sprintf("dup%d@fabrikam.example", i/1000)
		mail = fmt.Sprintf([]string{"Dup%d@Fabrikam.example", "dup%d@fabrikam.EXAMPLE"}[i%2], i/1000)
	}
	line("uid", uid)
	line("cn", cn)
	line("sn", family)
	line("mail", mail)
	if posix[i] {
		line("uidNumber", fmt.Sprint(10000+i))
		line("gidNumber", "100")
		line("homeDirectory", "/home/"+login)
	}
	if !p.ambiguous && i%4 != 1 {
		line("employeeNumber", p.id)
	}
	if i%4 == 0 {
		line("description", "zulu note")
		line("description", "alpha note")
	}
	if i%8 < 3 {
		switch {
		case i%5 == 0:
			line("title", "Zebra keeper")
			line("title", "Alpha lead")
			p.title = "Chief"
		case i%5 == 1:
			line("title", "STAFF")
		case i%5 == 2:
			line("title", "Porter")
		}
	}
	switch i % 3 {
	case 0:
		line("displayName", strings.ToUpper(p.display()))
	case 1:
		line("displayName", fmt.Sprintf("Former Name %d", i))
	}
	if i%7 == 1 {
		line("manager", dns[0])
	}
	if i%6 == 0 {
		line("employeeType", "staff")
	}
	if i%250 == 40 {
		p.end = "2020-01-01"
	} else if i%2 == 0 {
		line("userPassword", fmt.Sprintf("{SSHA}nobodyknowsit%05d", i))
	}
	if i%250 == 60 {
		p.status = "suspended"
	}
	if i%50 == 0 {
		photo := make([]byte, 300+i%97)
		for n := range photo {
			photo[n] = byte(n*7 + i)
		}
		line("jpegPhoto", "\xff\xd8\xff\xe0"+string(photo))
	}
	line("telephoneNumber", fmt.Sprintf("+47 22 %02d %02d %02d", i%100, i/100%100, i%71))
	p.dn, dns[i], uids[i] = dn, dn, uid
	w.entry(dn, lines...)
	if i%100 != 99 {
		// The others are in the directory and not on the staff list.
		e.people = append(e.people, p)
	}
}

// The groups that policy governs.
var (
	groupStaff   = "cn=all-staff," + groups
	groupSales   = "cn=Sales," + groups
	groupFinance = `cn=Økonomi\, Oslo,` + groups
	groupIT      = "cn=it," + groups
	groupUnix    = "cn=unix-finance," + groups
	groupUnixIT  = "cn=unix-it," + groups
)

func (e *estate) addGroups(add func(dn string, pairs ...string), count int, dns, uids []string, posix []bool) {
	group := func(class, member, dn, cn string, members []string, more ...string) {
		pairs := append([]string{"objectClass", class, "cn", cn}, more...)
		for _, m := range members {
			pairs = append(pairs, member, m)
		}
		add(dn, pairs...)
	}
	pick := func(list []string, want func(i int) bool) (out []string) {
		for i, v := range list {
			if want(i) {
				out = append(out, v)
			}
		}
		return out
	}
	many := count * 5 / 6
	group("groupOfNames", "member", groupStaff, "all-staff",
		append(pick(dns, func(i int) bool { return i < many }), "uid=board01,"+hidden, "cn=gone,"+people))
	group("groupOfUniqueNames", "uniqueMember", groupSales, "Sales", pick(dns, func(i int) bool { return i%16 == 0 }))
	group("groupOfNames", "member", groupFinance, "Økonomi, Oslo", []string{dns[99]}, "description", "én")
	group("groupOfNames", "member", groupIT, "it",
		append(pick(dns, func(i int) bool { return i%16 == 2 || i > 0 && i < 50 && i%8 == 4 }), "uid=board02,"+hidden))
	group("posixGroup", "memberUid", groupUnix, "unix-finance", append(pick(uids, func(i int) bool { return i%32 == 1 && posix[i] }), "nobody"), "gidNumber", "3001")
	group("posixGroup", "memberUid", groupUnixIT, "unix-it", append(pick(uids, func(i int) bool { return (i%32 == 2 || i%200 == 100) && posix[i] }), "legacy"), "gidNumber", "3002")
	group("groupOfNames", "member", "cn=everyone,"+groups, "everyone", pick(dns, func(i int) bool { return i >= count-many }))
	group("groupOfNames", "member", "cn=doors,"+groups, "doors", []string{groupStaff, groupIT, groupSales})
	for n := range min(292, count/20) {
		some := func(i int) bool { return i%(97+n%13) == n%97 }
		name := fmt.Sprintf("Team %03d", n)
		dn := "cn=" + name + "," + groups
		if n%9 == 4 {
			name = fmt.Sprintf("R&D, Oslo+Bergen; %03d", n)
			dn = "cn=" + escape(name) + "," + groups
		}
		switch n % 3 {
		case 0:
			group("groupOfNames", "member", dn, name, append(pick(dns, some), dns[n]), "owner", dns[1])
		case 1:
			group("groupOfUniqueNames", "uniqueMember", dn, name, append(pick(dns, some), dns[n]+"#'0101'B"))
		default:
			group("posixGroup", "memberUid", dn, name, pick(uids, some), "gidNumber", fmt.Sprint(4000+n), "userPassword", "{CRYPT}x")
		}
	}
}

// server starts a slapd with the estate in it.
func (e *estate) options() slapd.Options {
	return slapd.Options{
		Suffix: suffix, LDIF: e.ldif,
		ACL: []string{
			fmt.Sprintf(`to dn.subtree="%s" by dn.exact="%s" none by * none`, hidden, agentDN),
			fmt.Sprintf(`to attrs=userPassword by dn.exact="%s" =w by anonymous auth by * none`, agentDN),
			fmt.Sprintf(`to dn.subtree="%s" by dn.exact="%s" write by * none`, people, agentDN),
			fmt.Sprintf(`to dn.subtree="%s" by dn.exact="%s" write by * none`, groups, agentDN),
			`to * by users read by anonymous auth`,
		},
		Database: []string{
			fmt.Sprintf(`olcLimits: dn.exact="%s" size=unlimited time=unlimited`, agentDN),
			"olcDbIndex: uniqueMember eq", "olcDbIndex: memberUid eq",
		},
	}
}

// agentConfig is what the client's administrator writes.
func (e *estate) agentConfig(h *house) string {
	h.write("staff.csv", e.csv())
	h.write("bind", secret)
	return fmt.Sprintf(`control_plane: %s
trust_domain: reeve.local
root_sha256: %s
state: %s
heartbeat: 5s
observe_every: 1h
recipients: {helpdesk: %s}
connectors:
  - alias: hr
    connector: flatfile
    role: source
    mode: observe
    settings: {format: csv, path: %q, key: employee_id}
    release: [%s]
  - alias: corp
    connector: ldap
    role: target
    mode: enforce
    settings:
      url: %s
      bind_dn: %q
      types:
        inetOrgPerson: {bases: [%q], auxiliary: [posixAccount]}
        groupOfNames: {bases: [%q]}
        groupOfUniqueNames: {bases: [%q]}
        posixGroup: {bases: [%q]}
      disable: {method: attribute, attribute: {name: employeeType, enabled: "", disabled: disabled}}
    secrets: {bind_password: "file:%s"}
    release: [uid, cn, sn, givenName, mail, employeeNumber, description, title, displayName, manager, uidNumber, gidNumber, homeDirectory]
    guardrails:
      scope:
        - rule: people
          types: [inetOrgPerson]
          base: %q
          operations: [create, update, enable, disable, delete, set_credential, revoke_credential]
        - rule: groups
          types: [groupOfNames, groupOfUniqueNames, posixGroup]
          base: %q
          operations: [add_member, remove_member]
      attributes: [{name: uid}, {name: cn}, {name: sn}, {name: givenName}, {name: mail}, {name: employeeNumber}, {name: description}, {name: title}, {name: displayName}, {name: manager}, {name: uidNumber}, {name: gidNumber}, {name: homeDirectory}]
      dangerous: [uidNumber, gidNumber, homeDirectory]
      credentials: any
`, h.addr, h.pin, filepath.Join(h.dir, "agent-state"), h.helper.Recipient(), filepath.Join(h.dir, "staff.csv"), strings.Join(header, ", "),
		h.dirsrv.URL, agentDN, people, groups, groups, groups, filepath.Join(h.dir, "bind"), people, groups)
}

// inScope reports whether Reeve may change an entry at all.
func inScope(dn string) bool {
	dn = canonical(dn)
	if strings.HasSuffix(dn, canonical(hidden)) {
		return false
	}
	governed := []string{groupStaff, groupSales, groupFinance, groupIT, groupUnix, groupUnixIT}
	return strings.HasSuffix(dn, ","+canonical(people)) && !strings.HasPrefix(dn, "ou=") ||
		slices.ContainsFunc(governed, func(g string) bool { return canonical(g) == dn })
}
