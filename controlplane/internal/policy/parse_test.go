package policy_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// A bundle that is not right is refused with its place, object and remedy.
func TestRefusedBundles(t *testing.T) {
	tests := []struct {
		name, old, new string
		want           []string
	}{
		{"alias", `version: "1"`, "version: &v \"1\"\ndescription: *v", []string{"small.yaml:3:10", "anchor &v is not allowed", "small.yaml:4:14", "alias *v"}},
		{"merge key", `leaver: {snapshots: 2, grace: 1h, retention: 30d}`, "leaver: {<<: {snapshots: 2}}", []string{`unknown key "<<"`}},
		{"tag", `version: "1"`, `version: !!str 1`, []string{"small.yaml:3:10", "tag !!str is not allowed"}},
		{"duplicate key", `version: "1"`, "version: \"1\"\nversion: \"2\"", []string{"small.yaml:4:1", `key "version" stands twice, first on line 3`}},
		{"duplicate key deep inside", `grace: 1h,`, `grace: 1h, grace: 2h,`, []string{`key "grace" stands twice`}},
		{"two documents", `leaver:`, "---\nleaver:", []string{"more than one YAML document"}},
		{"unknown key", `correlate:`, `corelate:`, []string{"small.yaml:25:1", `unknown key "corelate"`, `did you mean "correlate"?`}},
		{"unknown key in a role", `cause: msp`, `couse: msp`, []string{`role "team"`, `unknown key "couse"`, `did you mean "cause"?`}},
		{"unquoted version", `version: "1"`, `version: 1`, []string{"small.yaml:3:10", "expected text", "put it in quotes"}},
		{"format", `policy/v1`, `policy/v2`, []string{`"policy/v2" is not one of policy/v1`}},
		{"not YAML", `name: small`, `name: [small`, []string{"small.yaml:", "correct the YAML"}},
		{"unknown cause", `cause: msp`, `cause: mps`, []string{`"mps" is not one of client, msp`, `did you mean "msp"?`}},
		{"privileged by role", `entitlements: [app/users]`, `entitlements: [app/users, app/root]`, []string{`role "people"`, `"app/root" is privileged and cannot follow from a role`, "reeve grant add"}},
		{"end by role", `max_grant: 8h}`, `require_end: true}` + "\n  - {id: x/y, connector: corp, type: group, name: 'dn(\"cn=x\")'}", nil},
		{"unknown entitlement", `entitlements: [app/users]`, `entitlements: [app/user]`, []string{`there is no entitlement "app/user"`, `did you mean "app/users"?`}},
		{"role twice", `id: team`, `id: people`, []string{`role "people"`, "stands twice, first at small.yaml:"}},
		{"parameter without default", `type: int, default: 5`, `type: int`, []string{`parameter "quota"`, "not required and has no default"}},
		{"default outside enum", `default: oslo`, `default: rome`, []string{`parameter "site"`, `"rome" is not one of oslo, bergen`}},
		{"default of the wrong type", `default: 5`, `default: five`, []string{`"five" is not a whole number`}},
		{"default that is no name", `"ou=people,dc=example"`, `"ou=people;dc=example"`, []string{"RFC 4514", "must be escaped"}},
		{"correlation with unknown attribute", `{identity: login,`, `{identity: logon,`, []string{`no source gives identities an attribute "logon"`, `did you mean "login"?`}},
		{"attribute twice", `{name: title,`, `{name: MAIL,`, []string{`attribute "MAIL" stands twice`}},
		{"observed with value", `authority: additive}`, `authority: observe}`, []string{`attribute "mail"`, "never written"}},
		{"no such duration", `grace: 1h`, `grace: 1 hour`, []string{"leaver", `"1 hour" is not a duration`, "90d"}},
		{"control characters in a name are not printed raw", `name: small`, `name: "sm\x1b[31mall"`, []string{`sm\x1b[31mall`, "is not a valid name"}},

		{"syntax", `'row.attr("login")'`, `'row.attr("login"'`, []string{"small.yaml:13:", `source "hr person": attribute "login"`, "Syntax error"}},
		{"type of a condition", `when: 'identity.attr("login") != ""'`, `when: 'identity.attr("login")'`, []string{`role "people": when`, "is of type string, expected bool"}},
		{"type of a name", `name: 'name([rdn("uid", identity.attr("login"))], params.base)'`, `name: 'identity.attr("login")'`, []string{`account "corp normal": name`, "is of type string, expected name"}},
		{"type of a value", `value: 'identity.attr("title")'`, `value: '5'`, []string{`attribute "title": value`, "is of type int, expected string or list(string) or null"}},
		{"attribute that no source gives", `identity.attr("team")`, `identity.attr("taem")`, []string{`role "team": when`, `no source gives identities an attribute "taem"`, `did you mean "team"?`}},
		{"entitlement nobody could hold", `- {id: app/users, connector: corp, type`, `- {id: app/users, connector: corp, purpose: test, type`, []string{`role "people"`, "no role gives an account of purpose test on corp"}},
		{"separation of what is not there", `[[app/editors, app/root]]`, `[[app/editors, app/boot]]`, []string{"separation", `did you mean "app/root"?`}},
		{"separation of one", `[[app/editors, app/root]]`, `[[app/root, app/root]]`, []string{"expected a pair of different entitlements"}},
		{"offboarding of what is not there", `undo: [team]`, `undo: [teem]`, []string{`there is no role "teem"`}},
		{"offboarding both ways", `hand_over: []`, `hand_over: [team]`, []string{"both undone and handed over"}},
		{"percent", `percent: 7`, `percent: 700`, []string{"expected a whole number from 0 to 100"}},
		{"unknown function", `row.attr("boss")`, `row.atr("boss")`, []string{"undeclared reference to 'atr'"}},
		{"unknown parameter in a rule", `params.teams`, `params.team`, []string{`role "team": when`, `there is no parameter "team"`, `did you mean "teams"?`}},
		{"attribute as a field", `identity.attr("team")`, `identity.team`, []string{`identity has no field "team"`, `write identity.attr("team")`}},
		{"identity in a source", `row.attr("boss")`, `identity.attr("boss")`, []string{"undeclared reference to 'identity'"}},
		{"dn from a source value", `name([rdn("uid", "msp-" + identity.attr("login"))], params.base)`, `dn("uid=" + identity.attr("login"))`, []string{"msp: account", "dn() takes literal text only"}},
		{"dn that is none", `name([rdn("cn", "root")], params.base)`, `dn("cn=root, dc=x")`, []string{`entitlement "app/root": name`, `" dc" is not an attribute type`}},
		{"type of a part from a source value", `rdn("uid", "msp-"`, `rdn(identity.attr("x"), "msp-"`, []string{"rdn() takes the attribute type as literal text"}},
		{"loop over a map", `value: 'identity.attr("title")'`, `value: '{"a": 1, "b": 2}.map(k, k)'`, []string{"whose order is not fixed"}},
		{"cost", `value: 'identity.attr("title")'`, `value: '` + tooDear() + `'`, []string{"it costs at least", "simplify the expression"}},
		{"length", `value: 'identity.attr("title")'`, `value: '"` + strings.Repeat("x", 9000) + `"'`, []string{`attribute "title": value`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := refusal(with(t, tt.old, tt.new))
			if len(tt.want) == 0 {
				if got != "" {
					t.Fatalf("refused: %s", got)
				}
				return
			}
			if got == "" {
				t.Fatal("accepted")
			}
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("the error lacks %q:\n%s", want, got)
				}
			}
			if strings.ContainsAny(got, "\x1b\x00") {
				t.Errorf("control characters in %q", got)
			}
		})
	}
}

// tooDear nests loops over literals so deep that no input makes it cheap.
func tooDear() string {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 60), ",") + "]"
	return list + ".map(a, " + list + ".map(b, " + list + ".map(c, a + b + c))).size() > 0 ? \"x\" : \"y\""
}

func TestErrorsAreBundleErrors(t *testing.T) {
	_, err := policy.Parse([]policy.File{{Path: "a.yaml", Data: []byte("reeve: policy/v1\n")}})
	if !errors.Is(err, policy.ErrBundle) || !strings.Contains(err.Error(), "name and version") {
		t.Fatalf("got %v", err)
	}
}

// An author sees all problems at once, in the order of the file.
func TestAllProblemsAtOnce(t *testing.T) {
	source := strings.NewReplacer("correlate:", "corelate:", "cause: msp", "cause: nobody").Replace(small)
	_, err := policy.Parse([]policy.File{{Path: "small.yaml", Data: []byte(source)}})
	var problems policy.Problems
	if !errors.As(err, &problems) || len(problems) != 2 || problems[0].At.Line >= problems[1].At.Line {
		t.Fatalf("got %v", err)
	}
}

func TestBundleOfSeveralFiles(t *testing.T) {
	head, tail, _ := strings.Cut(small, "roles:\n")
	fsys := fstest.MapFS{
		"p/a.yaml":     {Data: []byte(head)},
		"p/b.yml":      {Data: []byte("reeve: policy/v1\nroles:\n" + tail)},
		"p/notes.txt":  {Data: []byte("not policy")},
		"p/sub/c.yaml": {Data: []byte("reeve: policy/v9")},
	}
	files, err := policy.ReadFiles(fsys, "p")
	if err != nil {
		t.Fatal(err)
	}
	b, err := policy.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if b.Name != "small" || len(b.Roles) != 2 || b.Rules.Leaver.Snapshots != 2 {
		t.Fatalf("got %s with %d roles, %+v", b.Name, len(b.Roles), b.Rules)
	}
	reversed, err := policy.Parse([]policy.File{files[1], files[0]})
	if err != nil {
		t.Fatal(err)
	}
	if string(reversed.Digest()) != string(b.Digest()) {
		t.Error("the digest depends on the order of files")
	}
	files[0].Data = append(files[0].Data, '\n')
	changed, err := policy.Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	if string(changed.Digest()) == string(b.Digest()) {
		t.Error("the digest does not depend on the bytes")
	}
	_, err = policy.Parse([]policy.File{{Path: "a.yaml", Data: []byte(small)}, {Path: "b.yaml", Data: []byte("reeve: policy/v1\nname: other\n")}})
	if err == nil || !strings.Contains(err.Error(), "b.yaml:2:7: bundle: `name` is given twice, first at a.yaml:2:7") {
		t.Errorf("got %v", err)
	}
}

func TestBundleSize(t *testing.T) {
	big := small + "#" + strings.Repeat("x", policy.MaxBundleBytes)
	if got := refusal(big); !strings.Contains(got, "larger than 1 MiB") {
		t.Errorf("Parse: %q", got)
	}
	_, err := policy.ReadFiles(fstest.MapFS{"big.yaml": {Data: []byte(big)}}, "big.yaml")
	if err == nil || !strings.Contains(err.Error(), "larger than 1 MiB") {
		t.Errorf("ReadFiles: %v", err)
	}
	if _, err := policy.ReadFiles(fstest.MapFS{"d/x.txt": {}}, "d"); err == nil {
		t.Error("a directory without a bundle was read")
	}
}

// Depth is bounded: a small file must not exhaust the stack.
func TestDeepNesting(t *testing.T) {
	for _, deep := range []string{strings.Repeat("[", 500_000), strings.Repeat("{a: ", 200_000), strings.Repeat("- ", 400_000)} {
		if got := refusal("reeve: policy/v1\nroles: " + deep); got == "" {
			t.Error("accepted")
		}
	}
	if got := refusal(with(t, `value: 'identity.attr("title")'`, `value: '`+strings.Repeat("(", 3000)+`"x"`+strings.Repeat(")", 3000)+`'`)); !strings.Contains(got, `attribute "title": value`) {
		t.Errorf("got %q", got)
	}
}

func TestBlockScalarPositions(t *testing.T) {
	source := with(t, `when: 'identity.attr("team") in params.teams'`, "when: |\n      identity.attr(\"team\") != \"\" &&\n      params.nothing == 1")
	line := 1 + strings.Count(source[:strings.Index(source, "params.nothing")], "\n")
	if got := refusal(source); !strings.Contains(got, fmt.Sprintf("small.yaml:%d:", line)) {
		t.Errorf("expected line %d in %s", line, got)
	}
}

func TestRules(t *testing.T) {
	got := mustCompile(t, small, nil).Rules()
	want := policy.Rules{
		Budgets: policy.Budgets{
			Disable: policy.Budget{Percent: 7, Floor: 4}, Delete: policy.Budget{Percent: 1, Floor: 1},
			Membership: policy.Budget{Percent: 10, Floor: 5}, // not given: the default
		},
		Leaver:      policy.LeaverRule{Snapshots: 2, Grace: time.Hour, Retention: 30 * 24 * time.Hour},
		Separation:  [][2]string{{"app/editors", "app/root"}},
		SelfApprove: 3,
		Tiers:       policy.Tiers{TwoOperators: policy.Tier{People: 20, Privileged: true}, Client: policy.Tier{Offboarding: true}},
		Offboarding: policy.OffboardingRule{Undo: []string{"small/team"}, HandOver: []string{}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v", got)
	}
	two, client := got.Tiers.TwoOperators, got.Tiers.Client
	if two.Needed(20, false, true) || !two.Needed(21, false, false) || !two.Needed(1, true, false) || client.Needed(9999, true, false) || !client.Needed(0, false, true) {
		t.Error("tiers are not needed when they should be")
	}
}
