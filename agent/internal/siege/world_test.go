package siege

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

// newWorld is an estate with people and groups inside and outside of what any
// rails reach, groups within groups, and members that are nobody (yet).
func newWorld(r *rand.Rand) *fakeDirectory {
	d := &fakeDirectory{entries: picture{}}
	put := func(typ, anchor, leaf string, above dn, members ...string) *entry {
		naming := typeOf(typ).GetNamingAttribute()
		e := &entry{anchor: anchor, typ: typ, name: append(dn{{{naming, leaf}}}, above...), attributes: map[string][]string{naming: {leaf}}, enabled: typ == "person", members: members}
		if typ == "person" && chance(r, 50) {
			e.attributes["mail"] = []string{leaf + "@fabrikam.example"}
			e.attributes["title"] = []string{"Clerk"}
		}
		d.entries[anchor] = e
		return e
	}
	var keys []string
	person := func(anchor, leaf string, above dn) {
		keys = append(keys, "dn:"+put("person", anchor, leaf, above).key())
	}
	for i := range 6 {
		person(fmt.Sprintf("person-p%d", i), fmt.Sprintf("p%d", i), people)
	}
	person("person-n1", "north, one", north)
	person("person-n2", "p9", north)
	person("person-ceo", "ceo", people)
	person("person-cfo", "cfo", people)
	person("person-root", "root", admins)
	person("person-svc", "svc-backup", admins)
	person("person-below", "device", append(dn{{{"uid", "p2"}}}, people...))
	extra := put("person", "person-extra", "pextra", people)
	extra.known, extra.own = nil, ""
	extra.name[0] = append(extra.name[0], pair{"description", "kept by hand"})
	extra.attributes["description"] = []string{"kept by hand"}
	stale := []string{"dn:" + ou(people).leaf("uid", "late").key(), "dn:" + shares.leaf("cn", "soon").key(), "dn:" + people.leaf("uid", "x1").key(), "dn:" + groups.leaf("cn", "x1").key()}
	group := 0
	for _, above := range []dn{shares, shares, shares, shares, shares, groups, groups, special, special, admins, admins} {
		members := some(r, keys, 25)
		if chance(r, 50) {
			members = append(members, some(r, stale, 40)...)
		}
		e := put("group", fmt.Sprintf("group-%d", group), fmt.Sprintf("g%d", group), above, members...)
		if keys = append(keys, "dn:"+e.key()); chance(r, 50) {
			// Groups contain earlier groups; now and then there is a circle.
			e.members = append(e.members, "dn:"+d.entries[fmt.Sprintf("group-%d", r.IntN(group+1))].name.key())
		}
		e.members = slices.Compact(slices.Sorted(slices.Values(e.members)))
		group++
	}
	put("group", "group-board", "board", shares, "dn:"+people.leaf("uid", "p1").key())
	for i, above := range []dn{shares, groups, admins} {
		put("posix", fmt.Sprintf("posix-%d", i), fmt.Sprintf("x%d", i), above, one(r, []string{"uid:p1", "uid:late", "uid:x1", "uid:p3"}), "uid:p2", "uid:root")
	}
	return d
}

func (n dn) leaf(typ, value string) dn { return append(dn{{{typ, value}}}, n...) }
