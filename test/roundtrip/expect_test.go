package roundtrip

import (
	"strings"
)

// policyOver is what the bundle in testdata/msp says, written again in plain Go
// over the staff list: what the directory holds once it was carried out.
// authoritative tells whether it decides all members of the two IT groups.
func policyOver(before tree, staff []*person, authoritative bool) tree {
	t := before.clone()
	accounts := map[*person]string{}
	byID := map[string]*person{}
	for _, p := range staff {
		byID[p.id] = p
	}
	for _, p := range staff {
		dn := canonical(p.dn)
		if dn == "" && !p.left() && p.status != "suspended" {
			dn = create(t, p)
		}
		if dn == "" || p.ambiguous {
			continue
		}
		accounts[p] = dn
		if p.left() || p.status == "suspended" || p.start != "" {
			t[dn].add("employeeType", "disabled")
		}
	}
	for p, dn := range accounts {
		if p.left() {
			strip(t, dn)
			continue
		}
		n := t[dn]
		if len(n["employeeNumber"]) == 0 {
			n.add("employeeNumber", p.id)
		}
		switch p.department {
		case "Finance":
			if !n.has("description", "Looked after by the MSP: "+p.login) {
				n.add("description", "Looked after by the MSP: "+p.login)
			}
			n.add("mail", number(p)+"@msp.example")
		case "Sales":
			if !n.has("displayName", p.display()) {
				n.replace("displayName", p.display())
			}
		}
		if p.department == "Sales" || p.department == "IT" {
			enforce(n, "title", p.title)
		}
		if m := accounts[byID[p.manager]]; m != "" && p.department == "IT" {
			n.add("manager", m)
		}
		join(t, groupStaff, "member", dn)
		switch p.department {
		case "Sales":
			join(t, groupSales, "uniqueMember", dn)
		case "Finance":
			join(t, groupFinance, "member", dn)
			joinByUID(t, groupUnix, n)
		case "IT":
			join(t, groupIT, "member", dn)
			joinByUID(t, groupUnixIT, n)
		}
	}
	if !authoritative {
		return t
	}
	// The two authoritative groups hold nobody else whom the agent can see.
	wanted := map[string]bool{}
	for p, dn := range accounts {
		if p.department == "IT" && !p.left() {
			wanted[dn] = true
		}
	}
	for dn, n := range before {
		if !n["objectClass"]["inetOrgPerson"] || wanted[dn] || strings.HasSuffix(dn, canonical(hidden)) {
			continue
		}
		t[canonical(groupIT)].remove("member", dn)
		if n["objectClass"]["posixAccount"] {
			for uid := range n["uid"] {
				t[canonical(groupUnixIT)].remove("memberUid", uid)
			}
		}
	}
	return t
}

// lasting is what offboarding leaves of the MSP's policy: that people left or are
// suspended is their story and not the MSP's, so accounts that were there before stay
// disabled, and leavers stay out of the groups.
func lasting(before tree, staff []*person) tree {
	t := before.clone()
	for _, p := range staff {
		dn := canonical(p.dn)
		if dn == "" || p.ambiguous {
			continue
		}
		if p.left() || p.status == "suspended" {
			t[dn].add("employeeType", "disabled")
		}
		if p.left() {
			strip(t, dn)
		}
	}
	return t
}

// strip takes an account out of the groups that entitlements name.
func strip(t tree, dn string) {
	t[canonical(groupStaff)].remove("member", dn)
	t[canonical(groupSales)].remove("uniqueMember", dn)
	t[canonical(groupFinance)].remove("member", dn)
	t[canonical(groupIT)].remove("member", dn)
	if n := t[dn]; n["objectClass"]["posixAccount"] {
		t[canonical(groupUnix)].remove("memberUid", n.first("uid"))
		t[canonical(groupUnixIT)].remove("memberUid", n.first("uid"))
	}
}

func enforce(n node, attribute, v string) {
	for have := range n[attribute] {
		if fold(have) != fold(v) {
			n.remove(attribute, have)
		}
	}
	if !n.has(attribute, v) {
		n.add(attribute, v)
	}
}

func join(t tree, group, attribute, dn string) { t[canonical(group)].add(attribute, dn) }

func joinByUID(t tree, group string, n node) {
	if n["objectClass"]["posixAccount"] {
		uid := n.first("uid")
		t[canonical(group)].add("memberUid", uid)
	}
}

func create(t tree, p *person) string {
	dn := canonical("uid=" + escape(p.login) + "," + people)
	n := node{}
	n.add("objectClass", "top", "person", "organizationalPerson", "inetOrgPerson", "posixAccount")
	n.add("uid", p.login)
	n.add("cn", p.display())
	n.add("sn", p.family)
	n.add("givenName", p.given)
	n.add("uidNumber", number(p))
	n.add("gidNumber", "100")
	n.add("homeDirectory", "/home/"+number(p))
	n.add("userPassword", "*")
	t[dn] = n
	return dn
}
