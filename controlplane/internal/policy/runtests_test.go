package policy_test

import (
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// A test in a bundle that says something wrong must fail, and say what.
func TestRunTestsFindsWhatIsWrong(t *testing.T) {
	const head = "tests:\n  - name: it\n    as_of: 2026-03-01\n"
	const anna = "    identity: {attributes: {login: anna, email: a@x}}\n"
	const account = "{connector: corp, name: \"uid=anna,ou=people,dc=example\"}"
	tests := []struct{ name, test, want string }{
		{"right", anna + "    expect: {accounts: [" + account + "], entitlements: [app/users]}\n", ""},
		{"missing entitlement", anna + "    expect: {accounts: [" + account + "], entitlements: [app/users, app/editors]}\n", "missing entitlement app/editors"},
		{"unexpected entitlement", anna + "    expect: {accounts: [" + account + "]}\n", "unexpected entitlement app/users, given by rule small/people"},
		{"unexpected account", anna + "    expect: {entitlements: [app/users]}\n", "unexpected normal account on corp named uid=anna,ou=people,dc=example"},
		{"missing account", anna + "    expect: {accounts: [" + account + ", {connector: erp, name: x}], entitlements: [app/users]}\n", "missing normal account on erp"},
		{"name", anna + "    expect: {accounts: [{connector: corp, name: uid=bo}], entitlements: [app/users]}\n", "name is uid=anna,ou=people,dc=example, expected uid=bo"},
		{"enabled", anna + "    expect: {accounts: [{connector: corp, name: \"uid=anna,ou=people,dc=example\", enabled: false}], entitlements: [app/users]}\n", "enabled is true, expected false"},
		{"delete", "    identity: {state: leaver, left_at: 2026-01-01, attributes: {login: anna}}\n    expect: {accounts: [{connector: corp, name: \"uid=anna,ou=people,dc=example\", enabled: false}]}\n", "delete is true, expected false"},
		{"attribute", anna + "    expect: {accounts: [{connector: corp, name: \"uid=anna,ou=people,dc=example\", attributes: {mail: [a@x, b@x], title: \"\"}}], entitlements: [app/users]}\n", `attribute mail is ["a@x"], expected ["a@x", "b@x"]`},
		{"error expected", anna + "    expect: {error: cannot}\n", "there is none"},
		{"error unexpected", "    identity: {attributes: {login: \" anna\"}}\n    expect: {}\n", "begins or ends with a space"},
		{"another error", "    identity: {attributes: {login: \" anna\"}}\n    expect: {error: moon}\n", `expected an error with "moon"`},
		{"a grant that does not count", anna + "    grants: [{entitlement: app/admins}]\n    expect: {accounts: [" + account + "], entitlements: [app/users]}\n", "left out: grant test-1 of app/admins does not count"},
		{"parameters", "    params: {site: rome}\n" + anna + "    expect: {}\n", `"rome" is not one of`},
		{"row out of scope", "    identity: {row: {connector: hr, type: person, attributes: {mail: a@x}}}\n    expect: {}\n", "not in the source's scope"},
		{"row", "    identity: {row: {connector: hr, type: person, attributes: {login: anna, end: 2026-02-28}}}\n    expect: {accounts: [{connector: corp, name: \"uid=anna,ou=people,dc=example\", enabled: false}]}\n", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			results, err := policy.RunTests(mustParse(t, small+head+tt.test))
			if err != nil {
				t.Fatal(err)
			}
			if len(results) != 1 || results[0].Name != "it" || results[0].At.Line == 0 {
				t.Fatalf("got %+v", results)
			}
			got := strings.Join(results[0].Failures, "\n")
			if tt.want == "" && got != "" || !strings.Contains(got, tt.want) || results[0].Passed() != (tt.want == "") {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
