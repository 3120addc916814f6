package slapd

import (
	"fmt"
	"strings"
)

// Estate returns LDIF of people below one base and groups below another, whose
// entries are not made. It is the same for the same sizes, entryUUIDs included:
// two programs that read it can be compared to the byte. Memberships are spread
// evenly over groups and people.
func Estate(peopleBase, groupsBase string, people, groups, memberships int) string {
	var b strings.Builder
	uuid := func(kind, n int) string { return fmt.Sprintf("%08x-0000-4000-8000-%012x", kind, n) }
	for n := range people {
		fmt.Fprintf(&b, "dn: uid=user%06[1]d,%[2]s\nobjectClass: inetOrgPerson\nuid: user%06[1]d\ncn: First%[1]d Last%[1]d\nsn: Last%[1]d\ngivenName: First%[1]d\n"+
			"mail: user%06[1]d@example.com\ntelephoneNumber: +47 %08[1]d\ntitle: Engineer %[3]d\ndepartmentNumber: %[4]d\nemployeeNumber: %[1]d\nentryUUID: %[5]s\n\n",
			n, peopleBase, n%40, n%100, uuid(1, n))
	}
	each := max(memberships/max(groups, 1), 1)
	for n := range groups {
		fmt.Fprintf(&b, "dn: cn=group%05[1]d,%[2]s\nobjectClass: groupOfNames\ncn: group%05[1]d\ndescription: Group number %[1]d\nentryUUID: %[3]s\n", n, groupsBase, uuid(2, n))
		for m := range each {
			// A prime stride takes each person once in a group.
			fmt.Fprintf(&b, "member: uid=user%06d,%s\n", (n*each+m*7919)%people, peopleBase)
		}
		b.WriteString("\n")
	}
	return b.String()
}
