package ldap

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

// observe returns objects by display name.
func observe(t testing.TB, i *Instance) (map[string]*connectorv1.Object, sdk.Completeness) {
	t.Helper()
	objects := map[string]*connectorv1.Object{}
	done, err := i.Observe(t.Context(), func(o *connectorv1.Object) error {
		if objects[o.GetDisplay()] != nil {
			t.Errorf("%s was told twice", o.GetDisplay())
		}
		objects[o.GetDisplay()] = o
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return objects, done
}

func isComplete(c sdk.Completeness) bool {
	return !slices.ContainsFunc(c.Findings, func(p *connectorv1.Problem) bool {
		return p.GetSeverity() == connectorv1.Severity_SEVERITY_INCOMPLETE
	})
}

// wantIncomplete fails unless a finding of that code makes the read incomplete
// and names object and remedy.
func wantIncomplete(t testing.TB, c sdk.Completeness, code, object, remedy string) {
	t.Helper()
	for _, p := range c.Findings {
		if p.GetCode() == code && p.GetSeverity() == connectorv1.Severity_SEVERITY_INCOMPLETE &&
			strings.Contains(p.GetObject(), object) && strings.Contains(p.GetRemedy(), remedy) {
			return
		}
	}
	t.Errorf("no INCOMPLETE finding %s about %q with remedy %q in %v", code, object, remedy, c.Findings)
}

const photo = "\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01 binary \x00\x80\xfe"

// awkward are people whose names parsers get wrong.
func awkward() string {
	return person(`uid=lucic,`+peopleBase, "lucic", "Lučić", "jpegPhoto", photo, "userPassword", "never-read", "mail", "Lucic@Example.com") +
		person(`cn=Berg\2C Anna,`+peopleBase, "anna.berg", "Berg, Anna") +
		person(`cn=\20lead and trail\20,`+peopleBase, "lead", " lead and trail ") +
		person(`cn=plus\2Bquote\22back\5C\3Cangle\3E\3B\3D\23,`+peopleBase, "plus", `plus+quote"back\<angle>;=#`) +
		person(`cn=\23hash,`+peopleBase, "hash", "#hash") +
		person(`cn=Ola Nordmann+uid=ola,`+peopleBase, "ola", "Ola Nordmann", "manager", `CN=Berg\, Anna,OU=People,`+suffix) +
		person(`cn=日本 太郎,`+peopleBase, "taro", "日本 太郎", "description", "山") +
		ldif("uid=posix,"+peopleBase, "objectClass", "inetOrgPerson", "objectClass", "posixAccount", "uid", "posix", "uid", "Posix2", "cn", "P", "sn", "P",
			"uidNumber", "7", "gidNumber", "7", "homeDirectory", "/home/posix")
}

func estate(people int) string {
	var b strings.Builder
	b.WriteString(skeleton() + awkward())
	for n := range people {
		uid := fmt.Sprintf("user%04d", n)
		b.WriteString(person("uid="+uid+","+peopleBase, uid, "User "+uid, "mail", uid+"@example.com"))
	}
	return b.String()
}

func TestObserveAwkwardEstate(t *testing.T) {
	var members []string
	for n := range 2500 {
		members = append(members, "member", fmt.Sprintf("uid=user%04d,%s", n, peopleBase))
	}
	data := estate(300) +
		ldif("ou=secret,"+peopleBase, "objectClass", "organizationalUnit", "ou", "secret") +
		person("uid=hidden,ou=secret,"+peopleBase, "hidden", "Hidden") +
		ldif("cn=big,"+groupsBase, append([]string{"objectClass", "groupOfNames", "cn", "big"}, members...)...) +
		ldif("cn=empty,"+groupsBase, "objectClass", "groupOfNames", "cn", "empty", "member", defaultPlaceholder) +
		ldif("cn=odd,"+groupsBase, "objectClass", "groupOfUniqueNames", "cn", "odd", "uniqueMember", `CN=Berg\, Anna,OU=People,`+suffix, "uniqueMember", "uid=gone,"+peopleBase) +
		ldif("cn=unix,"+groupsBase, "objectClass", "posixGroup", "cn", "unix", "gidNumber", "7", "memberUid", "posix", "memberUid", "Nobody", "userPassword", "x")
	s := slapd.Start(t, slapd.Options{LDIF: data, ACL: leastPrivilege})
	types := map[string]any{"inetOrgPerson": map[string]any{"bases": []string{peopleBase}, "auxiliary": []string{"posixAccount"}}}
	for _, group := range []string{"groupOfNames", "groupOfUniqueNames", "posixGroup"} {
		types[group] = map[string]any{"bases": []string{groupsBase}}
	}
	i := openInstance(t, s, map[string]any{"page_size": 50, "types": types})
	objects, done := observe(t, i)
	if !isComplete(done) || len(done.Findings) > 0 || !strings.Contains(done.Method, "result code 0") {
		t.Errorf("not complete: %q %v", done.Method, done.Findings)
	}
	if want := 300 + 8 + 4; len(objects) != want {
		t.Errorf("%d objects, want %d", len(objects), want)
	}
	for _, c := range []struct{ display, key, leaf string }{
		{`cn=Berg\, Anna,` + peopleBase, `dn:cn=berg\, anna,` + peopleBase, "Berg, Anna"},
		{`cn=\ lead and trail\ ,` + peopleBase, "dn:cn=lead and trail," + peopleBase, " lead and trail "},
		{`cn=plus\+quote\"back\\\<angle\>\;\=#,` + peopleBase, `dn:cn=plus\+quote\"back\\\<angle\>\;\=#,` + peopleBase, `plus+quote"back\<angle>;=#`},
		{`cn=\#hash,` + peopleBase, `dn:cn=\#hash,` + peopleBase, "#hash"},
		{`cn=日本 太郎,` + peopleBase, "dn:cn=日本 太郎," + peopleBase, "日本 太郎"},
		{"uid=user0299," + peopleBase, "dn:uid=user0299," + peopleBase, "user0299"},
	} {
		o := objects[c.display]
		if o == nil {
			t.Errorf("%s is missing", c.display)
			continue
		}
		if !slices.Equal(o.GetKeys(), []string{c.key}) || o.GetName().Leaf().GetParts()[0].GetValue() != c.leaf || len(o.GetName().GetComponents()) != 4 {
			t.Errorf("%s: keys %q, name %v", c.display, o.GetKeys(), o.GetName())
		}
	}
	two := objects["cn=Ola Nordmann+uid=ola,"+peopleBase]
	if parts := two.GetName().Leaf().GetParts(); len(parts) != 2 || string(two.Attribute("manager")[0]) != `dn:cn=berg\, anna,`+peopleBase {
		t.Errorf("multi-valued RDN or reference read as %v", two)
	}
	lucic := objects["uid=lucic,"+peopleBase]
	if !bytes.Equal(lucic.Attribute("jpegPhoto")[0], []byte(photo)) || string(lucic.Attribute("mail")[0]) != "Lucic@Example.com" || lucic.Attribute("userPassword") != nil {
		t.Errorf("values are not as stored, or a secret was read: %v", lucic)
	}
	if keys := objects["uid=posix,"+peopleBase].GetKeys(); !slices.Equal(keys, []string{"dn:uid=posix," + peopleBase, "uid:Posix2", "uid:posix"}) {
		t.Errorf("keys of the posix account: %q", keys)
	}
	for display, want := range map[string][]string{
		"cn=empty," + groupsBase: nil,
		"cn=odd," + groupsBase:   {`dn:cn=berg\, anna,` + peopleBase, "dn:uid=gone," + peopleBase},
		"cn=unix," + groupsBase:  {"uid:Nobody", "uid:posix"},
	} {
		if got := objects[display].GetMembers(); !slices.Equal(got, want) {
			t.Errorf("%s: members %q, want %q", display, got, want)
		}
	}
	if got := len(objects["cn=big,"+groupsBase].GetMembers()); got != 2500 {
		t.Errorf("the big group has %d members, want 2500", got)
	}
	for display := range objects {
		if strings.Contains(display, "hidden") {
			t.Errorf("%s may not be read and was", display)
		}
	}
}

func TestObserveThatIsCutShortIsIncomplete(t *testing.T) {
	limits := func(what string) slapd.Options {
		return slapd.Options{LDIF: estate(300), Database: []string{`olcLimits: dn.exact="` + reeveDN + `" ` + what}}
	}
	hiding := func(rule string) slapd.Options {
		return slapd.Options{LDIF: estate(5), ACL: append([]string{`to dn.exact="uid=user0003,` + peopleBase + `" ` + rule}, leastPrivilege...)}
	}
	for _, c := range []struct {
		name                 string
		options              slapd.Options
		changes              map[string]any
		code, object, remedy string
	}{
		{"size limit over all pages", limits("size.prtotal=60"), map[string]any{"page_size": 20}, sdk.CodeSizeLimit, peopleBase, "olcLimits"},
		{"size limit, paging refused", limits("size.soft=40 size.hard=40 size.prtotal=disabled"), nil, sdk.CodeSizeLimit, peopleBase, "olcLimits"},
		{"anchor hidden", hiding(`attrs=entryUUID by * none`), nil, codeUnreadable, "uid=user0003", "read the whole entry"},
		{"required attribute hidden", hiding(`attrs=sn by * none`), nil, codeUnreadable, "uid=user0003", "read the whole entry"},
		{"base is not there", slapd.Options{LDIF: estate(5)}, map[string]any{"types": map[string]any{
			"inetOrgPerson": map[string]any{"bases": []string{peopleBase, "ou=nowhere," + suffix}}}}, sdk.CodeNotFound, "ou=nowhere", "exists"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := slapd.Start(t, c.options)
			_, done := observe(t, openInstance(t, s, c.changes))
			wantIncomplete(t, done, c.code, c.object, c.remedy)
		})
	}
}

func TestObserveWithoutPagesIsCompleteByResultCode(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(120), Database: []string{`olcLimits: dn.exact="` + reeveDN + `" size.soft=unlimited size.hard=unlimited size.prtotal=disabled`}})
	objects, done := observe(t, openInstance(t, s, map[string]any{"page_size": 20}))
	if !isComplete(done) || len(objects) != 128 || !strings.Contains(done.Method, "without pages") {
		t.Errorf("%d objects, %q, %v", len(objects), done.Method, done.Findings)
	}
}

// A server may allow small pages without end and nothing else.
func TestObserveFindsThePageSizeThatTheServerAllows(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(120), Database: []string{`olcLimits: dn.exact="` + reeveDN + `" size.soft=50 size.hard=50 size.pr=20 size.prtotal=unlimited`}})
	objects, done := observe(t, openInstance(t, s, map[string]any{"page_size": 200}))
	if !isComplete(done) || len(objects) != 128 || !strings.Contains(done.Method, "paged search") {
		t.Errorf("%d objects, %q, %v", len(objects), done.Method, done.Findings)
	}
}

func TestObserveOfAServerThatDies(t *testing.T) {
	for name, die := range map[string]func(*slapd.Server) error{
		"killed": func(s *slapd.Server) error { s.Kill(); return nil },
		"hangs":  func(s *slapd.Server) error { return s.Pause() },
	} {
		t.Run(name, func(t *testing.T) {
			s := slapd.Start(t, slapd.Options{LDIF: estate(300)})
			i := openInstance(t, s, map[string]any{"page_size": 20, "timeout": "1s"})
			count := 0
			done, err := i.Observe(t.Context(), func(*connectorv1.Object) error {
				if count++; count == 50 {
					return die(s)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			code := map[string]string{"killed": sdk.CodeUnreachable, "hangs": sdk.CodeTimeLimit}[name]
			wantIncomplete(t, done, code, peopleBase, "")
			if count < 50 || count >= 308 {
				t.Errorf("%d objects were told", count)
			}
		})
	}
}

func TestObserveStopsForItsReader(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(300)})
	i := openInstance(t, s, map[string]any{"page_size": 20})
	enough := errors.New("enough")
	if _, err := i.Observe(t.Context(), func(*connectorv1.Object) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("emit's error came back as %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	if _, err := i.Observe(ctx, func(*connectorv1.Object) error { cancel(); return nil }); !sdk.HasCode(err, sdk.CodeCancelled) {
		t.Errorf("a cancelled read ended with %v", err)
	}
	if objects, done := observe(t, i); !isComplete(done) || len(objects) != 308 {
		t.Errorf("the read after it: %d objects, %v", len(objects), done.Findings)
	}
}

func TestOneEntryOfTwoTypesIsOneObject(t *testing.T) {
	data := skeleton() + ldif("cn=a,"+groupsBase, "objectClass", "groupOfNames", "objectClass", "extensibleObject", "cn", "a", "member", reeveDN) +
		person("uid=one,"+peopleBase, "one", "One")
	s := slapd.Start(t, slapd.Options{LDIF: data})
	i := openInstance(t, s, map[string]any{"types": map[string]any{
		"inetOrgPerson": map[string]any{"bases": []string{peopleBase, suffix}, "filter": "(uid=one)"},
		"groupOfNames":  map[string]any{"bases": []string{groupsBase}, "scope": "one"}}})
	objects, done := observe(t, i)
	if !isComplete(done) || len(objects) != 2 {
		t.Errorf("%v %v", objects, done)
	}
}
