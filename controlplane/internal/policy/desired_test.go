package policy_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// brief prints a Desired in a line an example can state.
func brief(d policy.Desired) string {
	var parts []string
	for _, a := range d.Accounts {
		text := a.Connector + "/" + a.Purpose + " " + policy.NameText(a.Name) + " " + a.Cause + " " + a.Rule
		if !a.Enabled {
			text += " disabled"
		}
		if a.Delete {
			text += " delete"
		}
		for _, x := range a.Attributes {
			text += " " + x.Name + "(" + string(x.Authority) + ")=" + strings.Join(slices.Concat(x.Values, x.Refs), "|")
		}
		parts = append(parts, text)
	}
	for _, e := range d.Entitlements {
		text := e.Entitlement + " by " + e.Rule + e.Grant + " " + e.Cause
		if !e.End.IsZero() {
			text += " until " + e.End.Format(time.TimeOnly)
		}
		if len(e.Also) > 0 {
			text += " also " + strings.Join(e.Also, ", ")
		}
		parts = append(parts, text)
	}
	for _, p := range d.Problems {
		parts = append(parts, "problem: "+p)
	}
	return strings.Join(parts, "\n")
}

func TestDesired(t *testing.T) {
	p := mustCompile(t, small, nil)
	hour := func(h int) time.Time { return time.Date(2026, 3, 1, h, 0, 0, 0, time.UTC) }
	at := func(s policy.Subject, state policy.State, left time.Time) policy.Subject {
		s.State, s.LeftAt = state, left
		return s
	}
	msp := func(s policy.Subject) policy.Subject { s.MSP = true; return s }
	anna := person(map[string]string{"login": "anna", "email": "anna@x.example"})
	const annaHas = "corp/normal uid=anna,ou=people,dc=example client small/people"
	const attributes = " mail(additive)=anna@x.example manager(enforce)= title(enforce)="
	tests := []struct {
		name   string
		s      policy.Subject
		grants []policy.Grant
		want   string
	}{
		{"a role", anna, nil, annaHas + attributes + "\napp/users by small/people client"},
		{"no role", person(map[string]string{"team": "z"}), nil, ""},
		{"two roles give one account: values join, the client's cause stays",
			person(map[string]string{"login": "bo", "email": "bo@x.example", "team": "a", "manager": "id-7", "note": "n"}), nil,
			"corp/normal uid=bo,ou=people,dc=example client small/people mail(additive)=bo@x.example mail(additive)=bo@team.example manager(enforce)=id-7 note(enforce)=n title(enforce)=\n" +
				"app/users by small/people client also rule small/team"},
		{"pending", at(anna, policy.StatePending, time.Time{}), nil, annaHas + " disabled" + attributes + "\napp/users by small/people client"},
		{"suspended keeps memberships", at(anna, policy.StateSuspended, time.Time{}), nil, annaHas + " disabled" + attributes + "\napp/users by small/people client"},
		{"leaver", at(anna, policy.StateLeaver, noon.AddDate(0, 0, -29)), []policy.Grant{{ID: "g", Entitlement: "app/editors", Cause: "client", End: hour(13), Start: hour(11)}}, annaHas + " disabled" + attributes},
		{"leaver after retention", at(anna, policy.StateLeaver, noon.AddDate(0, 0, -30)), nil, annaHas + " disabled delete" + attributes},
		{"leaver of unknown date is kept", at(anna, policy.StateLeaver, time.Time{}), nil, annaHas + " disabled" + attributes},
		{"a grant of a privileged entitlement", anna, []policy.Grant{{ID: "g1", Entitlement: "app/admins", Cause: "client", Start: hour(11), End: hour(13)}},
			annaHas + attributes + "\napp/admins by grantg1 client until 13:00:00\napp/users by small/people client"},
		{"a grant yet to start, and one that ends now", anna, []policy.Grant{
			{ID: "g1", Entitlement: "app/admins", Cause: "client", Start: noon.Add(time.Second), End: hour(13)},
			{ID: "g2", Entitlement: "app/editors", Cause: "client", Start: hour(11), End: noon}},
			annaHas + attributes + "\napp/users by small/people client"},
		{"a grant that starts now", anna, []policy.Grant{{ID: "g1", Entitlement: "app/admins", Cause: "client", Start: noon, End: hour(13)}},
			annaHas + attributes + "\napp/admins by grantg1 client until 13:00:00\napp/users by small/people client"},
		{"the longest grant wins", anna, []policy.Grant{
			{ID: "g2", Entitlement: "app/admins", Cause: "msp", Start: hour(11), End: hour(14)},
			{ID: "g1", Entitlement: "app/admins", Cause: "client", Start: hour(11), End: hour(13)}},
			annaHas + attributes + "\napp/admins by grantg2 msp until 14:00:00 also grant g1\napp/users by small/people client"},
		{"a role outlasts a grant", anna, []policy.Grant{{ID: "g1", Entitlement: "app/users", Cause: "client", Start: hour(11), End: hour(13)}},
			annaHas + attributes + "\napp/users by small/people client also grant g1"},
		{"a role stands before an open grant", anna, []policy.Grant{{ID: "0", Entitlement: "app/users", Cause: "client"}},
			annaHas + attributes + "\napp/users by small/people client also grant 0"},
		{"a grant without the end it needs", anna, []policy.Grant{{ID: "g1", Entitlement: "app/admins", Cause: "client"}},
			annaHas + attributes + "\napp/users by small/people client\nproblem: grant g1 of app/admins does not count: the entitlement requires an end; give a grant with one"},
		{"a grant that is too long", anna, []policy.Grant{{ID: "g1", Entitlement: "app/editors", Cause: "client", Start: hour(4), End: hour(13)}},
			annaHas + attributes + "\napp/users by small/people client\nproblem: grant g1 of app/editors does not count: it lasts longer than 8h0m0s; give a shorter grant"},
		{"a grant without an account to hold it", anna, []policy.Grant{{ID: "g1", Entitlement: "app/root", Cause: "client"}},
			annaHas + attributes + "\napp/users by small/people client\nproblem: grant g1 gives app/root, but no rule gives an account of purpose admin on corp to hold it; add the account to a rule or take the entitlement away"},
		{"an ended grant of an entitlement the bundle has dropped", anna, []policy.Grant{{ID: "g9", Entitlement: "app/gone", End: noon.Add(-time.Hour)}},
			annaHas + attributes + "\napp/users by small/people client"},
		{"an MSP identity without grants", msp(anna), nil, ""},
		{"an MSP identity before its grant", msp(anna), []policy.Grant{{ID: "g", Entitlement: "app/editors", Cause: "msp", Start: hour(13), End: hour(14)}}, ""},
		{"an MSP identity with a grant the client asked for", msp(anna), []policy.Grant{{ID: "g", Entitlement: "app/editors", Cause: "client", Start: hour(11), End: hour(14)}},
			"corp/normal uid=msp-anna,ou=people,dc=example msp small/msp\napp/editors by grantg msp until 14:00:00"},
		{"an MSP identity after its grant", msp(anna), []policy.Grant{{ID: "g", Entitlement: "app/editors", Cause: "msp", Start: hour(10), End: hour(11)}},
			"corp/normal uid=msp-anna,ou=people,dc=example msp small/msp disabled"},
		{"an MSP identity long after its grant", msp(anna), []policy.Grant{{ID: "g", Entitlement: "app/editors", Cause: "msp", Start: noon.AddDate(0, 0, -10).Add(-time.Hour), End: noon.AddDate(0, 0, -10)}},
			"corp/normal uid=msp-anna,ou=people,dc=example msp small/msp disabled delete"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, err := p.Desired(tt.s, tt.grants, noon)
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(d); got != tt.want {
				t.Errorf("got\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

// What only the MSP's role maps on the client's account keeps its cause.
func TestAttributesKeepTheirRolesCause(t *testing.T) {
	const mail = `          - {name: mail, value: '[identity.attr("login") + "@team.example"]', authority: additive}`
	p := mustCompile(t, with(t, mail, mail+"\n          - {name: badge, value: 'identity.attr(\"team\")'}"), nil)
	d, err := p.Desired(person(map[string]string{"login": "bo", "email": "bo@x.example", "team": "a"}), nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	causes := map[string][]string{}
	for _, a := range d.Accounts[0].Attributes {
		causes[a.Name] = append(causes[a.Name], strings.TrimSpace(a.Cause+" "+a.Rule+" "+strings.Join(a.Values, " ")))
	}
	// A value of each stands beside the other's, and stays apart.
	want := map[string][]string{"badge": {"msp small/team a"}, "mail": {"bo@x.example", "msp small/team bo@team.example"}, "manager": {""}, "title": {""}}
	if d.Accounts[0].Cause != "client" || !reflect.DeepEqual(causes, want) {
		t.Errorf("account of %s with %v, want %v", d.Accounts[0].Cause, causes, want)
	}
}

// What policy cannot say for certain is an error: the planner leaves the
// identity alone.
func TestDesiredErrors(t *testing.T) {
	p := mustCompile(t, small, nil)
	tests := []struct {
		name   string
		p      *policy.Program
		s      policy.Subject
		grants []policy.Grant
		want   []string
	}{
		{"unknown entitlement", p, person(map[string]string{"login": "anna"}), []policy.Grant{{ID: "g9", Entitlement: "app/gone"}}, []string{"identity id-1", "grant g9", `"app/gone"`, "revoke the grant"}},
		{"unknown entitlement of a grant yet to start", p, person(nil), []policy.Grant{{ID: "g9", Entitlement: "app/gone", Start: noon.Add(time.Hour)}}, []string{`"app/gone"`}},
		{"NUL in a name", p, person(map[string]string{"login": "an\x00na"}), nil, []string{"small.yaml:", `role "people": account "corp normal": name`, "cannot be seen"}},
		{"outer space in a name", p, person(map[string]string{"login": " anna"}), nil, []string{"begins or ends with a space"}},
		{"state", p, policy.Subject{ID: "id-1", State: "retired"}, nil, []string{`"retired" is not a state`}},
		{"too long a value", p, person(map[string]string{"login": strings.Repeat("x", 5000)}), nil, []string{"attribute login", "5000 bytes"}},
		{"roles disagree", mustCompile(t, with(t, `name: 'name([rdn("uid", identity.attr("login"))], params.base)'
        attributes:
          - {name: mail, value: '[`, `name: 'name([rdn("cn", identity.attr("login"))], params.base)'
        attributes:
          - {name: mail, value: '[`), nil), person(map[string]string{"login": "bo", "team": "a"}), nil, []string{"rules small/people and small/team disagree about the name of the normal account on corp"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := tt.p.Desired(tt.s, tt.grants, noon)
			if !errors.Is(err, policy.ErrEvaluation) {
				t.Fatalf("got %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			if strings.ContainsRune(err.Error(), 0) {
				t.Error("the error has a NUL")
			}
		})
	}
}

func TestEvaluationCost(t *testing.T) {
	p := mustCompile(t, with(t, `value: 'identity.attr("title")'`,
		`value: 'identity.attrs("title").all(a, identity.attrs("title").all(b, identity.attrs("title").all(c, a + b + "y" != c))) ? "x" : "y"'`), nil)
	s := person(map[string]string{"login": "anna"})
	if _, err := p.Desired(s, nil, noon); err != nil {
		t.Fatalf("with little data: %v", err)
	}
	for i := range 200 {
		s.Attributes["title"] = append(s.Attributes["title"], strings.Repeat("x", i))
	}
	_, err := p.Desired(s, nil, noon)
	if !errors.Is(err, policy.ErrCost) || !strings.Contains(err.Error(), `attribute "title": value`) {
		t.Fatalf("with much data: %v", err)
	}
}

func TestPlanCost(t *testing.T) {
	allowance := policy.NewAllowance(10_000)
	p := mustCompile(t, small, nil).Metered(allowance)
	s := person(map[string]string{"login": "anna"})
	if _, err := p.Desired(s, nil, noon); err != nil {
		t.Fatal(err)
	}
	one := allowance.Spent()
	if one == 0 {
		t.Fatal("nothing was charged")
	}
	var err error
	for n := uint64(1); err == nil; n++ {
		if n*one > 10_000+one {
			t.Fatalf("the allowance was not kept: spent %d", allowance.Spent())
		}
		_, err = p.Desired(s, nil, noon)
	}
	if !errors.Is(err, policy.ErrCost) || !strings.Contains(err.Error(), "allowance of 10000") {
		t.Fatal(err)
	}
}

func TestEntitlementsAndDigests(t *testing.T) {
	oslo := mustCompile(t, small, nil)
	bergen := mustCompile(t, small, policy.Values{"site": "bergen"})
	same := mustCompile(t, small, policy.Values{"site": "oslo", "teams": `["a","b"]`, "quota": "05"})
	var names []string
	for _, e := range oslo.Entitlements() {
		names = append(names, e.ID+" "+e.Application+" "+policy.NameText(e.Name))
	}
	want := []string{"app/admins app cn=admins,ou=people,dc=example", "app/editors app cn=editors,ou=people,dc=example", "app/root app cn=root,ou=people,dc=example", "app/users app cn=users oslo,ou=people,dc=example"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q", names)
	}
	if e, _ := bergen.Entitlement("app/users"); policy.NameText(e.Name) != "cn=users bergen,ou=people,dc=example" {
		t.Errorf("got %s", policy.NameText(e.Name))
	}
	if !reflect.DeepEqual(oslo.Digest(), bergen.Digest()) || len(oslo.Digest()) != 32 {
		t.Error("the bundle's digest depends on parameters")
	}
	if reflect.DeepEqual(oslo.ParametersDigest(), bergen.ParametersDigest()) {
		t.Error("different parameters have one digest")
	}
	if !reflect.DeepEqual(oslo.ParametersDigest(), same.ParametersDigest()) {
		t.Error("equal parameters written otherwise have another digest")
	}
	if got := oslo.Connectors(); !slices.Equal(got, []string{"corp", "hr"}) {
		t.Errorf("connectors %q", got)
	}
}

func TestParameters(t *testing.T) {
	tests := []struct {
		name   string
		values policy.Values
		want   []string
	}{
		{"unknown", policy.Values{"sites": "oslo"}, []string{"bundle small", `unknown parameter "sites"`, `did you mean "site"?`}},
		{"nothing near", policy.Values{"colour": "red"}, []string{`unknown parameter "colour"`, "known are base, site, quota, teams"}},
		{"enum", policy.Values{"site": "rome"}, []string{`parameter "site" (string)`, `"rome" is not one of oslo, bergen`}},
		{"int", policy.Values{"quota": "many"}, []string{`parameter "quota" (int)`}},
		{"name", policy.Values{"base": "people"}, []string{`parameter "base" (name)`, "RFC 4514"}},
		{"all at once", policy.Values{"quota": "x", "site": "y"}, []string{`"quota"`, `"site"`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := policy.Compile(mustParse(t, small), tt.values)
			if !errors.Is(err, policy.ErrParameters) {
				t.Fatalf("got %v", err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
		})
	}
	required := with(t, `type: string, enum: [oslo, bergen], default: oslo`, `type: string, required: true, description: the office`)
	if _, err := policy.Compile(mustParse(t, required), nil); !errors.Is(err, policy.ErrParameters) || !strings.Contains(err.Error(), "-p site=… (the office)") {
		t.Errorf("got %v", err)
	}
	if err := policy.Check(mustParse(t, required)); err != nil {
		t.Errorf("a bundle is checked without parameters: %v", err)
	}
}
