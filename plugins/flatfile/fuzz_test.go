package flatfile

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// sound holds what was read to what every connector promises: anchors that are
// there and differ, and text that can travel.
func sound(t *testing.T, objects []*connectorv1.Object, findings []*connectorv1.Problem) {
	t.Helper()
	seen := map[string]bool{}
	for _, o := range objects {
		if o.GetAnchor() == "" || seen[o.GetAnchor()] {
			t.Fatalf("anchor %q is empty or stands twice", o.GetAnchor())
		}
		seen[o.GetAnchor()] = true
		if _, err := proto.Marshal(o); err != nil {
			t.Fatalf("%q cannot travel: %v", o.GetAnchor(), err)
		}
	}
	for _, p := range findings {
		if p.GetSeverity() != connectorv1.Severity_SEVERITY_INCOMPLETE {
			t.Fatalf("whoever stands in %v counts as gone", p)
		}
		if _, err := proto.Marshal(p); err != nil {
			t.Fatalf("a finding cannot travel: %v", err)
		}
		for _, text := range []string{p.GetObject(), p.GetTried(), p.GetSaid(), p.GetRemedy()} {
			if sdk.Clean(text) != text || strings.ContainsAny(text, "\x00\x1b\n\r") {
				t.Fatalf("a finding that cannot be shown: %q", text)
			}
		}
	}
}

// FuzzCSV: octets anywhere in the list never take anybody off it in silence, and
// a list without findings means the same when it is written again.
func FuzzCSV(f *testing.F) {
	f.Fuzz(func(t *testing.T, latin bool, middle []byte) {
		c := &csvSource{alias: "hr", settings: csvSettings{Path: "/hr/staff.csv", Key: "id", Encoding: "utf-8"}, delimiter: ',',
			header: []string{"id", "login", "name"}, attributes: []string{"id", "login", "name"}}
		if latin {
			c.settings.Encoding = "latin1"
		}
		file := slices.Concat([]byte("id,login,name\n1,anna,Anna Berg\n"), middle, []byte("\n2,kari,Kari Nes\n"))
		people, findings, err := c.read(file)
		if err != nil {
			t.Fatalf("the header is sound: %v", err)
		}
		sound(t, people, findings)
		for _, id := range []string{"1", "2"} {
			there := slices.ContainsFunc(people, func(p *connectorv1.Object) bool { return p.GetAnchor() == id })
			if !there && len(findings) == 0 {
				t.Fatalf("%s left by %q", id, middle)
			}
		}
		if len(findings) > 0 || latin {
			return
		}
		var out bytes.Buffer
		w := csv.NewWriter(&out)
		_ = w.Write(c.header)
		for _, p := range people {
			fields := make([]string, len(c.header))
			for i, name := range c.attributes {
				if values := p.Attribute(name); len(values) > 0 {
					fields[i] = string(values[0])
				}
			}
			_ = w.Write(fields)
		}
		w.Flush()
		again, findings, err := c.read(out.Bytes())
		if err != nil || len(findings) > 0 || !slices.EqualFunc(people, again, func(a, b *connectorv1.Object) bool { return proto.Equal(a, b) }) {
			t.Fatalf("%q is written %q and reads otherwise: %v, %v", file, out.Bytes(), findings, err)
		}
	})
}

// FuzzField: a value that is quoted as RFC 4180 says is read to the byte, or its
// line is a finding, and neither changes the lines around it.
func FuzzField(f *testing.F) {
	f.Fuzz(func(t *testing.T, crlf bool, broken []byte, value string) {
		c := &csvSource{alias: "hr", settings: csvSettings{Path: "/hr/staff.csv", Key: "id", Encoding: "utf-8"}, delimiter: ',',
			header: []string{"id", "login", "name"}, attributes: []string{"id", "login", "name"}}
		end := map[bool]string{true: "\r\n", false: "\n"}[crlf]
		quote := func(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
		if bytes.ContainsAny(broken, "\n\r") {
			return // one line, of any kind
		}
		file := "id,login,name" + end + "1,anna," + quote(value) + end + string(broken) + end + "2,kari," + quote(value) + end
		people, findings, err := c.read([]byte(file))
		if err != nil {
			t.Fatalf("the header is sound: %v", err)
		}
		for _, id := range []string{"1", "2"} {
			at := slices.IndexFunc(people, func(p *connectorv1.Object) bool { return p.GetAnchor() == id })
			if at < 0 {
				if len(findings) == 0 {
					t.Fatalf("%s is gone from %q", id, file)
				}
				continue
			}
			got := ""
			if values := people[at].Attribute("name"); len(values) > 0 {
				got = string(values[0])
			}
			if got != value {
				t.Fatalf("%q of %s became %q in %q", value, id, got, file)
			}
		}
	})
}

// FuzzHeader: a header that is taken names each column once, in text.
func FuzzHeader(f *testing.F) {
	f.Fuzz(func(t *testing.T, latin bool, data []byte) {
		c := &csvSource{alias: "hr", settings: csvSettings{Path: "/hr/staff.csv", Encoding: "utf-8"}, delimiter: ';'}
		if latin {
			c.settings.Encoding = "latin1"
		}
		header, err := c.readHeader(data)
		if err != nil {
			if said := sdk.AsProblem(err, "hr", "read").Proto(); sdk.Clean(said.GetSaid()) != said.GetSaid() {
				t.Fatalf("a refusal that cannot be shown: %q", said.GetSaid())
			}
			return
		}
		seen := map[string]bool{}
		for _, column := range header {
			if column == "" || seen[column] || !utf8.ValidString(column) || strings.ContainsAny(column, "\n\r\x00\x1b") {
				t.Fatalf("%q has column %q", data, column)
			}
			seen[column] = true
		}
	})
}

// rewritten holds a target's files to their bytes: what was not changed is what
// was read, and what is made and taken away again leaves no trace.
func rewritten(t *testing.T, f format, files ...[]byte) {
	before := make(tables, len(files))
	for i, data := range files {
		before[i] = parseTable(data, f.files()[i].nis)
		if got := before[i].bytes(); !bytes.Equal(got, data) {
			t.Fatalf("%q comes back as %q", data, got)
		}
	}
	list, findings := f.entries(before)
	objects := make([]*connectorv1.Object, len(list))
	for i, e := range list {
		objects[i] = e.object
	}
	sound(t, objects, findings)
	lines := 0
	for _, table := range before {
		for _, line := range table.lines {
			if !table.skipped(line) {
				lines++
			}
		}
	}
	if len(list) > lines {
		t.Fatalf("%d entries on %d lines", len(list), lines)
	}
	for _, e := range list {
		for _, ref := range []*connectorv1.ObjectRef{
			{Type: e.object.GetType(), Anchor: e.object.GetAnchor()}, {Type: e.object.GetType(), Name: e.object.GetName()},
		} {
			found, p := f.lookup(before, ref)
			if p != nil || found == nil || !proto.Equal(found.object, e.object) || found.hash != e.hash {
				t.Fatalf("%v was read and is not found by %v: %v, %v", e.object, ref, found, p)
			}
		}
		if e.object.GetType() == "user" && !locked(e.hash) {
			disabled, p := f.change(before, e, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "user"}, Action: &connectorv1.Operation_Disable{}})
			if p != nil {
				continue
			}
			shut, p := f.lookup(disabled, &connectorv1.ObjectRef{Type: "user", Anchor: e.object.GetAnchor()})
			if p != nil || shut == nil || shut.object.GetEnablement() != connectorv1.Enablement_ENABLEMENT_DISABLED {
				t.Fatalf("%v was disabled and is %v, %v", e.object, shut, p)
			}
			if e.hash == "" {
				continue // enabling would let everybody in, and is refused
			}
			enabled, p := f.change(disabled, shut, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "user"}, Action: &connectorv1.Operation_Enable{}})
			if p != nil {
				continue
			}
			unchanged(t, before, enabled, "a lock that was put on and taken off")
		}
	}
	fresh := nameOf("login", "freshly-made")
	if there, p := f.lookup(before, &connectorv1.ObjectRef{Type: "user", Name: fresh}); there != nil || p != nil {
		return
	}
	made, p := f.create(before, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "user"}, Action: &connectorv1.Operation_Create{Create: &connectorv1.Create{Name: fresh}}})
	if p != nil {
		return
	}
	e, p := f.lookup(made, &connectorv1.ObjectRef{Type: "user", Name: fresh})
	if p != nil || e == nil {
		t.Fatalf("made and not there: %v, files %q", p, files)
	}
	gone, p := f.change(made, e, &connectorv1.Operation{Object: &connectorv1.ObjectRef{Type: "user"}, Action: &connectorv1.Operation_Delete{}})
	if p != nil {
		t.Fatalf("made and cannot be deleted: %v", p)
	}
	// A shadow line or a membership of nobody may go with it: it was left over.
	for i, data := range files {
		if !strings.Contains(string(data), "freshly-made") && !bytes.Equal(gone[i].bytes(), data) {
			t.Fatalf("a user that came and went leaves %q of %q", gone[i].bytes(), data)
		}
	}
}

func unchanged(t *testing.T, before, after tables, what string) {
	t.Helper()
	for i := range before {
		if !bytes.Equal(before[i].bytes(), after[i].bytes()) {
			t.Fatalf("%s: %q becomes %q", what, before[i].bytes(), after[i].bytes())
		}
	}
}

// FuzzHtpasswd takes any octets for a htpasswd file and its groups.
func FuzzHtpasswd(f *testing.F) {
	f.Fuzz(func(t *testing.T, groups, users []byte) {
		rewritten(t, &htpasswdFormat{alias: "web", settings: htpasswdSettings{Groups: "/web/groups", Cost: 5},
			paths: []targetFile{{path: "/web/groups"}, {path: "/web/htpasswd"}}}, groups, users)
	})
}

// FuzzPasswd takes any octets for shadow, group and passwd.
func FuzzPasswd(f *testing.F) {
	f.Fuzz(func(t *testing.T, shadow, group, passwd []byte) {
		rewritten(t, &passwdFormat{alias: "unix",
			settings: passwdSettings{UIDMin: 5000, UIDMax: 6000, GIDMin: 5000, GIDMax: 6000, DefaultGID: 100, HomeBase: "/home", DefaultShell: "/bin/sh", Rounds: 1000},
			edge:     edge{now: func() time.Time { return time.Unix(1_790_000_000, 0) }, random: bytes.NewReader(make([]byte, 1<<10))},
			paths:    []targetFile{{path: "/etc/shadow", nis: true}, {path: "/etc/group", nis: true}, {path: "/etc/passwd", nis: true}}}, shadow, group, passwd)
	})
}

// FuzzList: a member that is put into a list and taken out again leaves it as it
// was.
func FuzzList(f *testing.F) {
	f.Fuzz(func(t *testing.T, comma bool, text, member string) {
		l := list{text: text, separator: " "}
		if comma {
			l.separator = ","
		}
		if !utf8.ValidString(text) || looseNameFault(member) != "" || strings.Contains(member, ",") || strings.ContainsAny(text, "\n:") {
			return
		}
		had := slices.Contains(l.split(), member)
		added := list{text: l.add(member), separator: l.separator}
		if !slices.Contains(added.split(), member) {
			t.Fatalf("%q is not in %q", member, added.text)
		}
		removed := list{text: added.remove(member), separator: l.separator}
		if slices.Contains(removed.split(), member) {
			t.Fatalf("%q is still in %q", member, removed.text)
		}
		if others := slices.DeleteFunc(l.split(), func(m string) bool { return m == member }); !slices.Equal(removed.split(), others) {
			t.Fatalf("%q without %q is %q", text, member, removed.text)
		}
		if !had && removed.text != text {
			t.Fatalf("%q came to %q and went: %q is left", member, text, removed.text)
		}
	})
}
