package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// small is a bundle that the tests vary.
const small = `reeve: policy/v1
name: small
version: "1"
parameters:
  - {name: base, type: name, default: "ou=people,dc=example"}
  - {name: site, type: string, enum: [oslo, bergen], default: oslo}
  - {name: quota, type: int, default: 5}
  - {name: teams, type: list, default: [a, b]}
sources:
  - connector: hr
    type: person
    attributes:
      login: 'row.attr("login")'
      email: 'row.attrs("mail")'
      number: 'row.attr("employeeNumber")'
      title: 'row.attr("title")'
      team: 'row.attr("team")'
      note: 'row.attr("note")'
    references:
      manager: {value: 'row.attr("boss")', attribute: number}
    filter: 'row.attr("login") != ""'
    start: 'row.attr("start")'
    end: 'row.attr("end")'
    active: 'row.attr("status") != "leave"'
correlate:
  - {connector: corp, type: person, match: [{identity: login, object: "@name"}]}
entitlements:
  - {id: app/users, connector: corp, type: group, name: 'name([rdn("cn", "users " + params.site)], params.base)'}
  - {id: app/editors, connector: corp, type: group, name: 'name([rdn("cn", "editors")], params.base)', max_grant: 8h}
  - {id: app/admins, connector: corp, type: group, name: 'name([rdn("cn", "admins")], params.base)', privileged: true, require_end: true, max_grant: 8h}
  - {id: app/root, connector: corp, purpose: admin, type: group, name: 'name([rdn("cn", "root")], params.base)', privileged: true}
roles:
  - id: people
    when: 'identity.attr("login") != ""'
    accounts:
      - connector: corp
        type: person
        name: 'name([rdn("uid", identity.attr("login"))], params.base)'
        attributes:
          - {name: mail, value: 'identity.attrs("email")', authority: additive}
          - {name: title, value: 'identity.attr("title")'}
          - {name: manager, ref: 'identity.attr("manager")'}
          - {name: note, value: 'identity.attr("note")', when: 'identity.attr("note") != ""'}
    entitlements: [app/users]
  - id: team
    cause: msp
    when: 'identity.attr("team") in params.teams'
    accounts:
      - connector: corp
        type: person
        name: 'name([rdn("uid", identity.attr("login"))], params.base)'
        attributes:
          - {name: mail, value: '[identity.attr("login") + "@team.example"]', authority: additive}
    entitlements: [app/users]
msp:
  retention: 10d
  accounts:
    - {connector: corp, type: person, name: 'name([rdn("uid", "msp-" + identity.attr("login"))], params.base)'}
approval:
  self_approve: 3
  two_operators: {people: 20, privileged: true}
  client: {offboarding: true}
separation: [[app/editors, app/root]]
budgets: {disable: {percent: 7, floor: 4}, delete: {percent: 1, floor: 1}}
offboarding: {undo: [team], hand_over: []}
leaver: {snapshots: 2, grace: 1h, retention: 30d}
`

func mustParse(t testing.TB, source string) *policy.Bundle {
	t.Helper()
	b, err := policy.Parse([]policy.File{{Path: "small.yaml", Data: []byte(source)}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustCompile(t testing.TB, source string, values policy.Values) *policy.Program {
	t.Helper()
	p, err := policy.Compile(mustParse(t, source), values)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// refusal parses and checks a bundle and returns the error's text.
func refusal(source string) string {
	b, err := policy.Parse([]policy.File{{Path: "small.yaml", Data: []byte(source)}})
	if err == nil {
		err = policy.Check(b)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

// with replaces one text of the small bundle that must be there.
func with(t testing.TB, old, new string) string {
	t.Helper()
	if !strings.Contains(small, old) {
		t.Fatalf("the fixture has no %q", old)
	}
	return strings.Replace(small, old, new, 1)
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func person(attributes map[string]string) policy.Subject {
	s := policy.Subject{ID: "id-1", Kind: "human", State: policy.StateActive, Attributes: map[string][]string{}}
	for k, v := range attributes {
		s.Attributes[k] = []string{v}
	}
	return s
}
