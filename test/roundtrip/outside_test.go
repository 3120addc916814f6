package roundtrip

import (
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/test/slapd"
)

// TestOutsideEditsAndTheClientsDoingStay: with joiners, movers, leavers and
// edits by others in between, offboarding leaves what was there before, what the
// client caused and what others did; everything else it names.
func TestOutsideEditsAndTheClientsDoingStay(t *testing.T) {
	e := newEstate(640)
	server := slapd.Start(t, e.options())
	h := newHouse(t, e, server, "mixed")
	before := h.dump()
	h.connect()
	w := &world{tree: search(t, server), accounts: map[*person]string{}, joined: map[[2]string]bool{}, made: map[string]bool{}, gone: map[*person]bool{}}
	o := &outsider{t, server, w}

	round := func(what string) {
		t.Helper()
		p := h.makePlan()
		if p.State.Total == 0 {
			t.Fatalf("%s: the plan is empty: %v", what, p.Findings)
		}
		if p = h.carryOut(p.ID); p.State.Applied != p.State.Total {
			t.Errorf("%s: %+v", what, p.State)
		}
		w.client(e.people)
		h.observe()
		h.nothingToDo()
	}
	model := w.clone()
	round("onboarding")
	middle := search(t, server)
	wildcardPasswords(t, model, middle)
	report(t, "after onboarding", differences(w.msp(), middle))
	sameOutOfScope(t, before, h.dump())

	// People of each department who are there, work, and have a plain name.
	pick := picker(t, e, w)
	sales, finance, support, it := pick("Sales"), pick("Finance"), pick("Support"), pick("IT")
	dn := func(p *person) string { return w.accounts[p] }

	// What others do between two plans.
	o.modify(dn(finance[0]), "delete", "description", "Looked after by the MSP: "+finance[0].login)
	o.modify(dn(finance[0]), "add", "description", "edited by hand")
	o.modify(dn(finance[1]), "add", "description", "added by hand")
	o.modify(dn(support[0]), "replace", "displayName", "Outside Name")
	o.modify(dn(sales[0]), "replace", "title", "Outside Title")
	o.modify(dn(it[0]), "replace", "telephoneNumber", "+47 99 99 99 99")
	o.modify(groupSales, "add", "uniqueMember", dn(it[1]))
	o.modify(groupSales, "delete", "uniqueMember", o.addedTo(groupSales, "uniqueMember", sales))
	o.delete("uid=joiner010," + people)
	o.modify(groupStaff, "delete", "member", "uid=joiner010,"+people)
	from := dn(sales[2])
	o.correct(from, o.rename(from, "newname", people))
	from = dn(finance[2])
	o.correct(from, o.rename(from, "moved", "ou=Oslo,"+people))
	// Renamed without a word to the groups; with a membership of the MSP's.
	member := o.addedTo(groupSales, "uniqueMember", sales)
	o.rename(member, "silent", people)
	// Put back by hand to what it was.
	for _, p := range support[2:] {
		if former := "Former Name " + strings.TrimLeft(p.id, "E0"); treeOf(before, nil)[dn(p)]["displayName"][former] {
			o.modify(dn(p), "replace", "displayName", former)
			break
		}
	}

	// What HR does.
	finance[3].department, sales[3].department, it[3].department, support[3].department = "Sales", "Finance", "Support", "Finance"
	sales[4].end, finance[4].end, support[4].status = "2020-01-01", "2020-01-01", "suspended"
	e.people = append(e.people,
		&person{id: "K1", given: "Kjell", family: "Ny", login: "kjell", department: "Finance", title: "New", status: "active", number: 60001, email: "kjell@fabrikam.example"},
		&person{id: "K2", given: "Siv", family: "Ny", login: "siv", department: "Support", title: "New", status: "active", number: 60002, email: "siv@fabrikam.example"})
	h.write("staff.csv", e.csv())
	h.observe()
	round("change")

	// What others do before the client leaves.
	o.modify(dn(support[1]), "replace", "displayName", "Last Word")
	o.modify(dn(finance[5]), "delete", "description")
	o.modify(dn(finance[6]), "add", "mail", "more@fabrikam.example")
	o.modify(dn(sales[5]), "replace", "title", "Last Title")
	o.modify(groupSales, "add", "uniqueMember", dn(it[4]))
	o.modify(groupFinance, "add", "member", dn(it[5]))
	from = dn(finance[7])
	o.correct(from, o.rename(from, "last", people))
	o.delete(dn(finance[8]))
	o.delete("uid=kjell," + people)
	edit(t, server, "dn: uid=stranger,"+people+"\nchangetype: add\nobjectClass: inetOrgPerson\nuid: stranger\ncn: S\nsn: S\n\n")
	w.made[canonical("uid=stranger,"+people)] = true
	stranger := node{}
	for _, v := range []value{{"objectClass", "inetOrgPerson"}, {"uid", "stranger"}, {"cn", "S"}, {"sn", "S"}} {
		stranger.add(v.attribute, v.text)
	}
	w.tree[canonical("uid=stranger,"+people)] = stranger
	// Deleted with memberships of the MSP's; out of the agent's sight with values
	// of the MSP's; a group made anew under its name.
	o.delete(o.addedTo(groupSales, "uniqueMember", sales))
	o.rename(dn(support[6]), "secretive", hidden)
	o.remake(groupFinance)
	h.observe()

	residue := h.offboard()
	after := h.dump()
	now := search(t, server)
	for made := range w.made {
		if now[made] != nil && len(now[made]["userPassword"]) == 1 {
			now[made].replace("userPassword", "*")
		}
	}
	anchors := map[string]string{}
	for dn, n := range treeOf(after, nil) {
		anchors[dn] = n.first("entryUUID")
	}
	named := 0
	for _, d := range differences(w.tree, now) {
		if !told(residue, d, anchors[d.dn]) {
			t.Errorf("nobody named: %s", d)
			continue
		}
		named++
		t.Logf("named in the residue: %s", d)
	}
	sameIdentity(t, before, after)
	t.Logf("%d findings tell what stays, %d differences from the oracle are among them", len(residue), named)
	h.verify()
}

// picker returns people of a department in the order of the staff list.
func picker(t *testing.T, e *estate, w *world) func(department string) []*person {
	return func(department string) []*person {
		t.Helper()
		var out []*person
		for _, p := range e.people {
			if dn := w.accounts[p]; p.department == department && p.dn != "" && !p.left() && p.status == "active" && strings.HasPrefix(dn, "uid=user") {
				out = append(out, p)
			}
		}
		if len(out) < 10 {
			t.Fatalf("%d people in %s are too few", len(out), department)
		}
		return out
	}
}

// addedTo finds a person whom Reeve put into a group for the MSP.
func (o *outsider) addedTo(group, attribute string, list []*person) string {
	o.t.Helper()
	now := search(o.t, o.server)[canonical(group)]
	for _, p := range list[6:] {
		if dn := o.w.accounts[p]; now[attribute][dn] && !o.w.tree[canonical(group)][attribute][dn] {
			return dn
		}
	}
	o.t.Fatalf("Reeve put nobody into %s", group)
	return ""
}

// told reports whether the residue names an object that differs, by its name or,
// where the agent cannot see it, by its anchor, and the attribute.
func told(residue []finding, d difference, anchor string) bool {
	return slices.ContainsFunc(residue, func(f finding) bool {
		if f.Kind != "residue" && f.Kind != "diverged" || canonical(f.Object) != d.dn && !strings.Contains(f.Sentence, anchor) {
			return false
		}
		switch d.attribute {
		case "member", "uniqueMember", "memberUid":
			return strings.Contains(f.Sentence, "member")
		case "userPassword":
			return strings.Contains(f.Sentence, "credential")
		default:
			return d.attribute == "" || strings.Contains(f.Sentence, d.attribute)
		}
	})
}

// sameIdentity: what existed before and after is the same entry, not one made
// anew.
func sameIdentity(t *testing.T, before, after []entry) {
	t.Helper()
	lasting := func(list []entry) map[string]string {
		out := map[string]string{}
		for _, e := range list {
			n := treeOf([]entry{e}, nil)[canonical(e.dn)]
			out[n.first("entryUUID")] = n.first("createTimestamp") + n.first("creatorsName") + n.first("structuralObjectClass")
		}
		return out
	}
	was, is := lasting(before), lasting(after)
	for id, facts := range is {
		if was[id] != "" && was[id] != facts {
			t.Errorf("entry %s: %q became %q", id, was[id], facts)
		}
	}
}
