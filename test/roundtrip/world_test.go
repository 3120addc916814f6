package roundtrip

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/test/slapd"
)

// world is the oracle of the mixed story: the directory before Reeve, with what
// the client caused and what others did by hand, and nothing of the MSP's.
type world struct {
	tree
	accounts map[*person]string
	// joined are the memberships that the client's causes made.
	joined map[[2]string]bool
	// made are entries that did not exist before.
	made map[string]bool
	// gone are people whose account was deleted by hand: it is not made anew.
	gone map[*person]bool
}

var governed = map[string]string{groupStaff: "member", groupSales: "uniqueMember", groupFinance: "member", groupUnix: "memberUid"}

// client lets the client's part of the bundle in testdata/mixed happen.
func (w *world) client(staff []*person) {
	for _, p := range staff {
		if p.ambiguous || w.gone[p] {
			continue
		}
		dn := w.accounts[p]
		if dn == "" && p.dn != "" {
			dn = canonical(p.dn)
		}
		if dn == "" && !p.left() && p.status != "suspended" {
			dn = create(w.tree, p)
			w.made[dn] = true
		}
		if dn == "" {
			continue
		}
		w.accounts[p] = dn
		n := w.tree[dn]
		switch {
		case p.left():
			n.add("employeeType", "disabled")
			delete(n, "userPassword")
			for group, attribute := range governed {
				name := dn
				if attribute == "memberUid" {
					name = n.first("uid")
				}
				w.leave(group, attribute, name)
			}
			continue
		case p.status == "suspended" || p.start != "":
			n.add("employeeType", "disabled")
		}
		if len(n["employeeNumber"]) == 0 {
			n.add("employeeNumber", p.id)
		}
		if p.department == "Sales" {
			enforce(n, "title", p.title)
		}
		w.join(groupStaff, dn, true)
		w.join(groupFinance, dn, p.department == "Finance")
	}
}

// msp is the MSP's part of the bundle laid upon the oracle.
func (w *world) msp() tree {
	t := w.tree.clone()
	for p, dn := range w.accounts {
		if p.left() {
			continue
		}
		n := t[dn]
		switch p.department {
		case "Finance":
			n.add("description", "Looked after by the MSP: "+p.login)
			n.add("mail", number(p)+"@msp.example")
			joinByUID(t, groupUnix, n)
		case "Support":
			if !n.has("displayName", p.display()) {
				n.replace("displayName", p.display())
			}
		case "Sales":
			join(t, groupSales, "uniqueMember", dn)
		}
	}
	return t
}

func (w *world) join(group, dn string, wanted bool) {
	n := w.tree[canonical(group)]
	key := [2]string{group, dn}
	switch {
	case wanted && !n["member"][dn]:
		n.add("member", dn)
		w.joined[key] = true
	case !wanted && w.joined[key]:
		n.remove("member", dn)
		delete(w.joined, key)
	}
}

func (w *world) leave(group, attribute, name string) {
	if n := w.tree[canonical(group)]; n != nil {
		n.remove(attribute, name)
	}
}

// outsider is somebody else with a root password: every edit is made in the
// directory and in the oracle.
type outsider struct {
	t      *testing.T
	server *slapd.Server
	w      *world
}

func (o *outsider) modify(dn, verb, attribute string, values ...string) {
	o.t.Helper()
	var l ldifWriter
	l.line("dn", dn)
	l.WriteString("changetype: modify\n")
	l.line(verb, attribute)
	for _, v := range values {
		l.line(attribute, v)
	}
	l.WriteString("-\n\n")
	edit(o.t, o.server, l.String())
	n := o.w.tree[canonical(dn)]
	for i, v := range values {
		if refers(attribute) {
			values[i] = canonical(v)
		}
	}
	switch {
	case verb == "add":
		n.add(attribute, values...)
	case verb == "replace":
		n.replace(attribute, values...)
	case len(values) == 0:
		delete(n, attribute)
	default:
		n.remove(attribute, values...)
	}
}

func (o *outsider) delete(dn string) {
	o.t.Helper()
	var l ldifWriter
	l.entry(dn, value{"changetype", "delete"})
	edit(o.t, o.server, l.String())
	delete(o.w.tree, canonical(dn))
	for p, have := range o.w.accounts {
		if have == canonical(dn) {
			o.w.gone[p] = true
			delete(o.w.accounts, p)
		}
	}
}

// remake deletes a group and makes it anew as it was, but for what the oracle
// cannot tell apart: it is another object.
func (o *outsider) remake(dn string) {
	o.t.Helper()
	n := search(o.t, o.server)[canonical(dn)]
	var lines []value
	for _, a := range slices.Sorted(maps.Keys(n)) {
		for _, v := range slices.Sorted(maps.Keys(n[a])) {
			lines = append(lines, value{a, v})
		}
	}
	var l ldifWriter
	l.entry(dn, value{"changetype", "delete"})
	l.entry(dn, append([]value{{"changetype", "add"}}, lines...)...)
	edit(o.t, o.server, l.String())
	o.w.tree[canonical(dn)] = n
}

// rename gives an entry another uid and place, and says so in no group.
func (o *outsider) rename(dn, uid, above string) string {
	o.t.Helper()
	var l ldifWriter
	l.entry(dn, value{"changetype", "modrdn"}, value{"newrdn", "uid=" + uid}, value{"deleteoldrdn", "1"}, value{"newsuperior", above})
	edit(o.t, o.server, l.String())
	from, to := canonical(dn), canonical("uid="+uid+","+above)
	n := o.w.tree[from]
	old, _, _ := strings.Cut(strings.TrimPrefix(from, "uid="), ",")
	n.remove("uid", old)
	n.add("uid", uid)
	o.w.tree[to] = n
	delete(o.w.tree, from)
	for p, have := range o.w.accounts {
		if have == from {
			o.w.accounts[p] = to
		}
	}
	return to
}

// correct puts a renamed entry's new name into the groups that had the old one,
// as an administrator does who minds; Reeve's own memberships count as found.
func (o *outsider) correct(from, to string) {
	o.t.Helper()
	now := search(o.t, o.server)
	for _, group := range slices.Sorted(maps.Keys(now)) {
		for _, attribute := range []string{"member", "uniqueMember"} {
			if !now[group][attribute][from] {
				continue
			}
			edit(o.t, o.server, fmt.Sprintf("dn: %s\nchangetype: modify\nadd: %s\n%s: %s\n-\ndelete: %s\n%s: %s\n-\n\n", group, attribute, attribute, to, attribute, attribute, from))
			if n := o.w.tree[group]; n[attribute][from] {
				n.remove(attribute, from)
				n.add(attribute, to)
			}
		}
	}
}
