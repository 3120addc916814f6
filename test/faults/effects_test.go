package faults_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/test/rig"
	"github.com/reevehq/reeve/test/slapd"
)

// effects counts what happened to the targets during one plan, looking at them
// from outside: the files all the time, the directory by its own audit log.
type effects struct {
	t      *testing.T
	e      *rig.Estate
	server *slapd.Server

	stop  chan struct{}
	all   sync.WaitGroup
	turns map[string]int
	now   map[string]string
	seen  map[string]os.FileInfo
	fault error
	from  int64
}

func watchEffects(t *testing.T, e *rig.Estate, server *slapd.Server) *effects {
	t.Helper()
	w := &effects{t: t, e: e, server: server, stop: make(chan struct{}), turns: map[string]int{}, seen: map[string]os.FileInfo{}}
	w.look()
	if w.fault != nil {
		t.Fatal(w.fault)
	}
	clear(w.turns)
	if server != nil {
		// The file is made with the first change.
		if info, err := os.Stat(server.AuditLog()); err == nil {
			w.from = info.Size()
		}
	}
	w.all.Go(func() {
		for {
			select {
			case <-w.stop:
				return
			case <-time.After(2 * time.Millisecond):
				w.look()
			}
		}
	})
	return w
}

// look reads the files when one of them was replaced, and counts every value
// that is not what it was.
func (w *effects) look() {
	paths := []string{w.e.Users(), w.e.Groups()}
	if w.e.Unix {
		paths = append(paths, w.e.Passwd(), filepath.Join(filepath.Dir(w.e.Passwd()), "shadow"))
	}
	same := true
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			w.fault = err
			return
		}
		if before := w.seen[path]; before == nil || !os.SameFile(before, info) || before.Size() != info.Size() || !before.ModTime().Equal(info.ModTime()) {
			same = false
		}
		w.seen[path] = info
	}
	if same {
		return
	}
	now := map[string]string{}
	for i, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			w.fault = err
			return
		}
		if len(raw) > 0 && raw[len(raw)-1] != '\n' {
			w.fault = fmt.Errorf("%s was seen torn", path)
			return
		}
		for line := range strings.Lines(string(raw)) {
			if strings.HasPrefix(line, "#") {
				continue
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
			fields := strings.Split(value, ":")
			key := []string{"web account ", "group ", "unix account ", "unix secret "}[i] + name
			if _, twice := now[key]; twice {
				w.fault = fmt.Errorf("%s stands twice in %s", name, path)
				return
			}
			now[key] = "there"
			switch i {
			case 0, 3:
				now[key+" disabled"] = fmt.Sprint(strings.HasPrefix(fields[0], "!"))
				now[key+" hash"] = strings.TrimLeft(fields[0], "!")
			case 1:
				for _, m := range strings.Fields(value) {
					now[m+" in "+name] = "there"
				}
			case 2:
				now[key+" name"] = fields[3]
			}
		}
	}
	for key, value := range now {
		if before, was := w.now[key]; !was || before != value {
			w.turns[key]++
		}
	}
	for key := range w.now {
		if _, is := now[key]; !is {
			w.turns[key]++
		}
	}
	w.now = now
}

// once ends the watch and fails the test when anything happened more than once,
// or to somebody who had nothing to do with the plan. touched are the logins it
// is about, made those whom it gives accounts.
func (w *effects) once(touched, made []string) {
	w.t.Helper()
	close(w.stop)
	w.all.Wait()
	w.look()
	if w.fault != nil {
		w.t.Errorf("a target was seen in a state that is none: %v", w.fault)
	}
	about := func(key string) (is, isMade bool) {
		for _, login := range touched {
			if slices.Contains(strings.Fields(key), login) {
				return true, slices.Contains(made, login)
			}
		}
		return false, false
	}
	for key, n := range w.turns {
		is, isMade := about(key)
		switch {
		case !is:
			w.t.Errorf("%s was changed %d times and is nobody's of this plan", key, n)
		case isMade && strings.HasSuffix(key, " hash"):
			// A password cannot be read back: it is set anew after a crash.
		case strings.HasSuffix(key, " hash"):
			w.t.Errorf("%s was changed %d times; nobody asked for that", key, n)
		case isMade && strings.HasSuffix(key, " disabled") && n == 2:
			// Made disabled and enabled last.
		case n != 1:
			w.t.Errorf("%s was changed %d times", key, n)
		}
	}
	if w.server != nil {
		w.directory(touched, made)
	}
}

// directory reads what slapd's audit log says was done since the watch began.
func (w *effects) directory(touched, made []string) {
	raw, err := os.ReadFile(w.server.AuditLog())
	if err != nil {
		w.t.Error(err)
		return
	}
	counts, set := map[string]int{}, map[string]int{}
	for record := range strings.SplitSeq(string(raw[min(w.from, int64(len(raw))):]), "\n\n") {
		var dn, kind, op string
		// ppolicy does more of its own when a password is set.
		password := strings.Contains(record, "\nreplace: userPassword\n") || strings.Contains(record, "\nadd: userPassword\n")
		for line := range strings.Lines(record) {
			if _, of, found := strings.Cut(line, "dn: "); found && password {
				set[strings.TrimSpace(of)]++
			}
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch {
			case strings.HasPrefix(line, "#"), strings.HasPrefix(line, " "), strings.HasPrefix(line, "-"):
			case name == "dn":
				dn = value
			case name == "changetype":
				if kind = value; kind != "modify" {
					counts[dn+" "+kind]++
				}
			case kind != "modify":
			case name == "add" || name == "delete" || name == "replace":
				op = name
				switch value {
				case "entryCSN", "modifiersName", "modifyTimestamp", "member":
				default:
					if password {
						value = "userPassword"
					}
					counts[dn+" "+op+" "+value]++
				}
			case name == "member":
				counts[dn+" "+op+" member "+value]++
			}
		}
	}
	for key, n := range counts {
		is, isMade := false, false
		for _, login := range touched {
			if strings.Contains(key, "uid="+login+",") {
				is, isMade = true, slices.Contains(made, login)
			}
		}
		dn, attribute, _ := strings.Cut(key, " ")
		secret := strings.HasSuffix(attribute, "userPassword")
		switch {
		case !is:
			w.t.Errorf("the directory saw %q %d times and it is nobody's of this plan", key, n)
		case secret && !isMade:
			w.t.Errorf("the directory saw %q %d times; nobody asked for that", key, n)
		case isMade && attribute == "add pwdAccountLockedTime" && n <= set[dn]:
			// ppolicy takes the lock away with each new password, and it is put back.
		case !secret && n != 1:
			w.t.Errorf("the directory saw %q %d times", key, n)
		}
	}
}

// asItShould fails the test unless each target is what the staff list asks for.
func asItShould(t *testing.T, r *rig.Rig, server *slapd.Server, c *ldap.Conn) {
	t.Helper()
	e := r.Estate
	accounts, members := e.Accounts(t), e.Members(t)
	var names map[string]string
	var shadow []byte
	if e.Unix {
		names = e.Gecos(t)
		var err error
		if shadow, err = os.ReadFile(filepath.Join(filepath.Dir(e.Passwd()), "shadow")); err != nil {
			t.Fatal(err)
		}
	}
	people := e.People()
	for _, login := range people {
		off := e.Suspended(login)
		if hash, there := accounts[login]; !there || strings.HasPrefix(hash, "!") != off || !strings.HasPrefix(strings.TrimLeft(hash, "!"), "$2") {
			t.Errorf("web account %s is %q, suspended: %v", login, hash, off)
		}
		if !slices.Contains(members["staff"], login) {
			t.Errorf("%s is not in staff", login)
		}
		if !e.Unix {
			continue
		}
		if names[login] != e.Name(login) {
			t.Errorf("passwd calls %s %q, it should be %q", login, names[login], e.Name(login))
		}
		if locked := bytes.Contains(shadow, []byte("\n"+login+":!")); locked != off {
			t.Errorf("shadow has %s locked: %v, suspended: %v", login, locked, off)
		}
	}
	if len(accounts) != len(people)+2 || len(members["staff"]) != len(people)+1 {
		t.Errorf("%d accounts and %d members of staff for %d people", len(accounts), len(members["staff"]), len(people))
	}
	if server == nil {
		return
	}
	found, err := c.Search(ldap.NewSearchRequest(suffix, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(|(objectClass=inetOrgPerson)(cn=staff))", []string{"uid", "cn", "member", "pwdAccountLockedTime"}, nil))
	if err != nil {
		t.Fatal(err)
	}
	there, staff := map[string]*ldap.Entry{}, []string(nil)
	for _, entry := range found.Entries {
		if uid := entry.GetAttributeValue("uid"); uid != "" {
			there[uid] = entry
		} else {
			staff = entry.GetAttributeValues("member")
		}
	}
	for _, login := range people {
		entry := there[login]
		if entry == nil {
			t.Errorf("%s is not in the directory", login)
			continue
		}
		if cn := entry.GetAttributeValues("cn"); !slices.Equal(cn, []string{e.Name(login)}) {
			t.Errorf("the directory calls %s %q, it should be %q", login, cn, e.Name(login))
		}
		if locked := entry.GetAttributeValue("pwdAccountLockedTime") != ""; locked != e.Suspended(login) {
			t.Errorf("the directory has %s locked: %v, suspended: %v", login, locked, e.Suspended(login))
		}
		if !slices.Contains(staff, entry.DN) {
			t.Errorf("%s is not in the directory's staff", login)
		}
	}
	if len(there) != len(people)+1 || len(staff) != len(people)+1 {
		t.Errorf("%d people and %d members in the directory for %d", len(there), len(staff), len(people))
	}
}
