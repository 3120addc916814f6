package ldap

import (
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	"github.com/reevehq/reeve/test/slapd"
)

func checked(t testing.TB, i *Instance) *connectorv1.CheckResponse {
	t.Helper()
	r, err := i.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func problemOf(r *connectorv1.CheckResponse, code string) *connectorv1.Problem {
	for _, p := range r.GetProblems() {
		if p.GetCode() == code {
			return p
		}
	}
	return nil
}

func fact(r *connectorv1.CheckResponse, name string) string {
	for _, f := range r.GetFingerprint() {
		if f.GetName() == name {
			return f.GetValue()
		}
	}
	return ""
}

func TestTLS(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege, TLS: true})
	other := slapd.Start(t, slapd.Options{TLS: true})
	pem, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	localhost := strings.Replace(s.TLSURL, "127.0.0.1", "localhost", 1)
	for _, c := range []struct {
		name    string
		changes map[string]any
		remedy  string
	}{
		{"ldaps, the CA as a file", map[string]any{"url": s.TLSURL, "ca_file": s.CAFile}, ""},
		{"ldaps, the CA as text", map[string]any{"url": localhost, "ca_pem": string(pem)}, ""},
		{"StartTLS", map[string]any{"start_tls": true, "ca_file": s.CAFile}, ""},
		{"ldaps, system's CAs", map[string]any{"url": s.TLSURL}, "ca_file"},
		{"ldaps, another CA", map[string]any{"url": s.TLSURL, "ca_file": other.CAFile}, "ca_file"},
		{"StartTLS, another CA", map[string]any{"start_tls": true, "ca_file": other.CAFile}, "ca_file"},
		{"another name", map[string]any{"url": s.TLSURL, "ca_file": s.CAFile, "server_name": "ldap.example.com"}, "server_name"},
		{"ldaps to a port without TLS", map[string]any{"url": strings.Replace(s.URL, "ldap:", "ldaps:", 1), "ca_file": s.CAFile}, "speaks TLS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := openInstance(t, s, c.changes)
			r := checked(t, i)
			if c.remedy == "" {
				if problemOf(r, sdk.CodeTLSRefused) != nil || !r.GetReachable() || len(fact(r, "TLS public key SHA-256")) != 64 || r.GetBoundAs() != reeveDN {
					t.Errorf("check: %v", r)
				}
				if _, done := observe(t, i); !isComplete(done) {
					t.Errorf("observe: %v", done.Findings)
				}
				return
			}
			if p := problemOf(r, sdk.CodeTLSRefused); p == nil || !strings.Contains(p.GetRemedy(), c.remedy) || p.GetObject() == "" {
				t.Errorf("want %s with %q, got %v", sdk.CodeTLSRefused, c.remedy, r)
			}
			if _, err := i.Observe(t.Context(), func(*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeTLSRefused) {
				t.Errorf("observe: %v", err)
			}
		})
	}
}

func TestStartTLSAgainstAServerWithoutIt(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: skeleton()})
	r := checked(t, openInstance(t, s, map[string]any{"start_tls": true}))
	if p := problemOf(r, sdk.CodeTLSRefused); p == nil || !strings.Contains(p.GetRemedy(), "enable TLS") {
		t.Errorf("%v", r)
	}
}

func TestCheck(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege, Overlays: []string{"ppolicy"}})
	i := openInstance(t, s, map[string]any{"disable": map[string]any{"method": "ppolicy"}})
	r := checked(t, i)
	if !r.GetReachable() || r.GetServer() != "OpenLDAP" || r.GetBoundAs() != reeveDN {
		t.Errorf("%v", r)
	}
	if fact(r, "suffix") != suffix || len(fact(r, "entryUUID of "+suffix)) != 36 {
		t.Errorf("fingerprint %v", r.GetFingerprint())
	}
	rights := map[string]*connectorv1.Right{}
	for _, right := range r.GetRights() {
		rights[right.GetWhat()] = right
	}
	if read := rights["read inetOrgPerson"]; !read.GetAllowed() || !read.GetCertain() || read.GetWhere() != peopleBase {
		t.Errorf("right to read: %v", read)
	}
	if write := rights["write inetOrgPerson"]; write == nil || write.GetCertain() {
		t.Errorf("right to write cannot be known: %v", write)
	}
	if problemOf(r, sdk.CodeConfig) != nil || problemOf(r, sdk.CodeUnsupported) != nil {
		t.Errorf("problems where there are none: %v", r.GetProblems())
	}
	before := fact(r, "entryUUID of "+suffix)
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	if fact(checked(t, i), "entryUUID of "+suffix) != before {
		t.Error("the fingerprint changed over a restart")
	}
	s.Stop()
	if r := checked(t, i); r.GetReachable() || problemOf(r, sdk.CodeUnreachable) == nil {
		t.Errorf("a stopped server: %v", r)
	}
}

func TestCheckTellsWhatIsMissing(t *testing.T) {
	noLock := ldif("ou=policies,"+suffix, "objectClass", "organizationalUnit", "ou", "policies") +
		ldif("cn=default,ou=policies,"+suffix, "objectClass", "device", "objectClass", "pwdPolicy", "cn", "default", "pwdAttribute", "userPassword")
	ppolicy := map[string]any{"disable": map[string]any{"method": "ppolicy"}}
	for _, c := range []struct {
		name         string
		options      slapd.Options
		changes      map[string]any
		code, remedy string
	}{
		{"no ppolicy overlay", slapd.Options{LDIF: estate(1)}, ppolicy, sdk.CodeUnsupported, "overlay"},
		{"ppolicy that does not lock", slapd.Options{LDIF: estate(1) + noLock, Overlays: []string{"ppolicy"}}, ppolicy, sdk.CodeConfig, "pwdLockout"},
		{"unknown attribute", slapd.Options{LDIF: estate(1)}, map[string]any{"types": map[string]any{"inetOrgPerson": map[string]any{
			"bases": []string{peopleBase}, "attributes": []any{map[string]any{"name": "shoeSize"}}}}}, codeSchema, "schema"},
		{"nothing to see", slapd.Options{LDIF: skeleton()}, nil, sdk.CodeNotFound, "base and filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := checked(t, openInstance(t, slapd.Start(t, c.options), c.changes))
			if p := problemOf(r, c.code); p == nil || !strings.Contains(p.GetRemedy(), c.remedy) {
				t.Errorf("want %s with %q, got %v", c.code, c.remedy, r.GetProblems())
			}
		})
	}
}

func TestBindRefused(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(3), ACL: leastPrivilege})
	i, err := New().Open(t.Context(), sdk.Settings{Alias: "corp", JSON: settings(s, nil), Secrets: map[string][]byte{"bind_password": []byte("wrong")}})
	if err != nil {
		t.Fatalf("settings are sound: %v", err)
	}
	defer i.Close()
	r := checked(t, i.(*Instance))
	if p := problemOf(r, sdk.CodeBindRefused); !r.GetReachable() || p == nil || !strings.Contains(p.GetRemedy(), "bind_password") || strings.Contains(p.String(), "wrong") {
		t.Errorf("%v", r)
	}
	if _, err := i.Observe(t.Context(), func(*connectorv1.Object) error { return nil }); !sdk.HasCode(err, sdk.CodeBindRefused) {
		t.Errorf("observe: %v", err)
	}
	if _, err := i.Read(t.Context(), []*connectorv1.ObjectRef{{Type: "inetOrgPerson", Anchor: "x"}}); !sdk.HasCode(err, sdk.CodeBindRefused) {
		t.Errorf("read: %v", err)
	}
}

func TestSocketBindsAsTheOSUser(t *testing.T) {
	s := slapd.Start(t, slapd.Options{LDIF: estate(3)})
	i, err := New().Open(t.Context(), sdk.Settings{Alias: "corp", JSON: settings(s, map[string]any{"url": s.SocketURL, "bind_dn": ""})})
	if err != nil {
		t.Fatal(err)
	}
	defer i.Close()
	if r := checked(t, i.(*Instance)); !strings.Contains(r.GetBoundAs(), "cn=peercred,cn=external,cn=auth") {
		t.Errorf("%v", r)
	}
}

func TestSettingsAreRefusedByName(t *testing.T) {
	s := &slapd.Server{URL: "ldap://127.0.0.1:1"}
	person := func(more map[string]any) map[string]any {
		all := map[string]any{"bases": []string{peopleBase}}
		for k, v := range more {
			all[k] = v
		}
		return map[string]any{"types": map[string]any{"inetOrgPerson": all}}
	}
	for want, changes := range map[string]map[string]any{
		`"url" is missing`:                    {"url": ""},
		`"url" is not of the form`:            {"url": "http://ldap.example.com"},
		"bind password in the clear":          {"url": "ldap://ldap.example.com"},
		`"start_tls" does not go with`:        {"url": "ldaps://ldap.example.com", "start_tls": true},
		`"url" has no socket path`:            {"url": "ldapi://"},
		`"ca_file" cannot be read`:            {"ca_file": "/no/such/file"},
		`"ca_pem" holds no certificate`:       {"ca_pem": "hello"},
		`"types" is missing`:                  {"types": map[string]any{}},
		`"types.person" is not a type`:        {"types": map[string]any{"person": map[string]any{"bases": []string{peopleBase}}}},
		`"types.inetOrgPerson.bases" is`:      {"types": map[string]any{"inetOrgPerson": map[string]any{}}},
		`which is no DN`:                      {"types": map[string]any{"inetOrgPerson": map[string]any{"bases": []string{"people"}}}},
		`.scope" is unknown`:                  person(map[string]any{"scope": "base"}),
		`.filter" is not a filter`:            person(map[string]any{"filter": "(uid=*"}),
		`userPassword, which holds secrets`:   person(map[string]any{"attributes": []any{map[string]any{"name": "userPassword"}}}),
		`an unknown rule`:                     person(map[string]any{"attributes": []any{map[string]any{"name": "x", "rule": "fuzzy"}}}),
		`"disable.method" is unknown`:         {"disable": map[string]any{"method": "shoot"}},
		`"disable.attribute" does not tell`:   {"disable": map[string]any{"method": "attribute", "attribute": map[string]any{"name": "employeeType"}}},
		`"timeout" is no time`:                {"timeout": "soon"},
		`"page_size" is not between`:          {"page_size": 100000},
		`"anchor" is unknown`:                 {"anchor": "dn"},
		`"empty_member" is no DN`:             {"empty_member": "nobody"},
		`"bind_dn" is no DN`:                  {"bind_dn": "reeve"},
		`"paging" is not known`:               {"paging": true},
		`secret "bind_password" is not given`: nil,
	} {
		_, err := New().Open(t.Context(), sdk.Settings{Alias: "corp", JSON: settings(s, changes), Secrets: map[string][]byte{}})
		if !sdk.HasCode(err, sdk.CodeConfig) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "corp") {
			t.Errorf("%v: want CONFIG with %q, got %v", changes, want, err)
		}
	}
	if u, err := url.Parse(s.URL); err != nil || !isLoopback(u.Hostname()) || isLoopback("ldap.example.com") || isLoopback("10.0.0.1") || !isLoopback("::1") {
		t.Error("loopback is told wrongly")
	}
}
