package faults_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	ldap "github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

// TestChangesAreFollowedThroughKills: people come, change and go while the agent,
// its connectors and the directory's server are killed. Each time the inventory
// comes to what the directory itself holds.
func TestChangesAreFollowedThroughKills(t *testing.T) {
	t.Parallel()
	server, directory := rig.NewDirectory(t, "syncprov")
	e := rig.NewEstate(2)
	e.Directory = directory
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	inventory := r.Inventory("corp")
	faults := []func() error{
		func() error { return nil },
		func() error { r.Agent.Kill(); r.Agent.Start(); return nil },
		func() error { r.Agent.KillChildren(); return nil },
		func() error { r.Agent.KillAlone(); r.Agent.Start(); return nil },
		func() error { server.Kill(); return server.Restart() },
		server.Restart,
	}
	for round := range 2 * len(faults) {
		edited := make(chan error, 1)
		go func() { edited <- editDirectory(server, round) }()
		pause(300 * time.Millisecond)
		fault := round % len(faults)
		if fault < 4 {
			if err := faults[fault](); err != nil {
				t.Fatal(err)
			}
		}
		if err := <-edited; err != nil {
			t.Fatal(err)
		}
		if fault >= 4 {
			if err := faults[fault](); err != nil {
				t.Fatal(err)
			}
		}
		// Others may be a minute from their next look: whoever is behind is asked.
		asked := false
		rig.Until(t, "the inventory is what the directory holds", func() (bool, string) {
			dump, err := server.Dump()
			if err != nil {
				t.Fatal(err)
			}
			want, got := dumped(dump), []string{}
			for anchor, o := range inventory.Objects() {
				line := anchor + " " + strings.ToLower(o.GetName().Text()) + " " + strings.Join(o.GetMembers(), " ")
				for _, v := range o.Attribute("sn") {
					line += " " + string(v)
				}
				got = append(got, line)
			}
			slices.Sort(got)
			if !asked && fault >= 2 {
				r.Try("observe", rig.Tenant)
				asked = true
			}
			return slices.Equal(got, want), fmt.Sprintf("inventory\n%s\ndirectory\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), r.Agent.Log())
		})
		if h := inventory.Header(); !h.GetComplete() {
			t.Errorf("round %d ends with an incomplete snapshot", round)
		}
	}
}

// editDirectory adds five people to the group, gives two of them other names and
// takes one away.
func editDirectory(server *slapd.Server, round int) error {
	c, err := ldap.DialURL(server.URL)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Bind(server.RootDN, server.RootPassword); err != nil {
		return err
	}
	staff := "cn=staff,ou=groups," + server.Suffix
	for n := range 5 {
		uid := fmt.Sprintf("e%d-%d", round, n)
		dn := "uid=" + uid + ",ou=people," + server.Suffix
		add := ldap.NewAddRequest(dn, nil)
		add.Attribute("objectClass", []string{"inetOrgPerson"})
		add.Attribute("cn", []string{uid})
		add.Attribute("sn", []string{fmt.Sprint(rand.IntN(1000))})
		join := ldap.NewModifyRequest(staff, nil)
		join.Add("member", []string{dn})
		if err := c.Add(add); err != nil {
			return err
		}
		if err := c.Modify(join); err != nil {
			return err
		}
		pause(20 * time.Millisecond)
		switch n {
		case 1, 2:
			err = c.ModifyDN(ldap.NewModifyDNRequest(dn, "uid=renamed-"+uid, true, ""))
		case 3:
			err = c.Del(ldap.NewDelRequest(dn, nil))
		case 4:
			leave := ldap.NewModifyRequest(staff, nil)
			leave.Delete("member", []string{dn})
			err = c.Modify(leave)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dumped are the people and groups of slapcat's output, as the inventory's lines.
func dumped(dump []byte) []string {
	out := []string{}
	for entry := range bytes.SplitSeq(dump, []byte("\n\n")) {
		fields := map[string][]string{}
		for line := range strings.Lines(string(entry)) {
			if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
				fields[name] = append(fields[name], value)
			}
		}
		if !slices.Contains(fields["objectClass"], "inetOrgPerson") && !slices.Contains(fields["objectClass"], "groupOfNames") {
			continue
		}
		var members []string
		for _, m := range fields["member"] {
			members = append(members, "dn:"+strings.ToLower(m))
		}
		slices.Sort(members)
		line := fields["entryUUID"][0] + " " + strings.ToLower(fields["dn"][0]) + " " + strings.Join(members, " ")
		if sn := fields["sn"]; len(sn) > 0 {
			line += " " + sn[0]
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}
