package policy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// Functions as a rule's author sees them: each expression gives the values of
// an attribute.
func TestFunctions(t *testing.T) {
	tests := []struct {
		rule string
		want []string
	}{
		{`identity.attr("title").ascii()`, []string{"Aase Oeberg-Gross ae d th l"}},
		{`ascii("Åsa Çelik Ñandú Müller Øyvind Æsir Straße Łódź")`, []string{"Asa Celik Nandu Muller Oyvind AEsir Strasse Lodz"}},
		{`ascii("Анна 漢")`, []string{" "}},
		{`"Åse  Bråten (vikar)".slug()`, []string{"ase-braten-vikar"}},
		{`slug("--")`, nil},
		{`"ÅSE".lower() + "åse".upper()`, []string{"åseÅSE"}},
		{`"a,b,,b".split(",")`, []string{"a", "b"}},
		{`["x", "y"].join("-") + " trim ".trim()`, []string{"x-ytrim"}},
		{`"%s@%s".format(["a", params.site])`, []string{"a@oslo"}},
		{`"abcdef".substring(1, 3) + "aXa".replace("X", "-")`, []string{"bca-a"}},
		{`identity.attrs("email").filter(m, m.endsWith("@x"))`, []string{"a@x"}},
		{`[]`, nil},
		{`identity.attr("number")`, nil},
		{`string(params.quota) + (params.teams.size() > 1 ? "+" : "-")`, []string{"5+"}},
		{`identity.kind + identity.state + identity.id + string(identity.msp)`, []string{"humanactiveid-1false"}},
	}
	s := person(map[string]string{"login": "anna", "title": "Aase Oeberg-Groß æ đ þ ł"})
	s.Attributes["email"] = []string{"a@x", "b@y"}
	for _, tt := range tests {
		p := mustCompile(t, with(t, `value: 'identity.attr("title")'`, `value: '`+tt.rule+`'`), nil)
		d, err := p.Desired(s, nil, noon)
		if err != nil {
			t.Errorf("%s: %v", tt.rule, err)
			continue
		}
		if got := attributeOf(d, "title"); !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.rule, got, tt.want)
		}
	}
}

func attributeOf(d policy.Desired, name string) []string {
	for _, a := range d.Accounts[0].Attributes {
		if a.Name == name {
			return a.Values
		}
	}
	return []string{"not planned"}
}

// null is no opinion, an empty text is no value.
func TestNullIsNoOpinion(t *testing.T) {
	p := mustCompile(t, with(t, `value: 'identity.attr("title")'`, `value: 'null'`), nil)
	d, err := p.Desired(person(map[string]string{"login": "anna"}), nil, noon)
	if err != nil || !slices.Equal(attributeOf(d, "title"), []string{"not planned"}) {
		t.Errorf("got %s, %v", brief(d), err)
	}
}

func TestNamesOfSeveralParts(t *testing.T) {
	p := mustCompile(t, strings.ReplaceAll(small, `name([rdn("uid", identity.attr("login"))], params.base)`,
		`name([rdns([rdn("uid", identity.attr("login")), rdn("cn", "A+B, C")]), rdn("ou", "x=y")], dn("o=Salg\\, og,c=no"))`), nil)
	d, err := p.Desired(person(map[string]string{"login": "anna"}), nil, noon)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := policy.NameText(d.Accounts[0].Name), `cn=A\+B\, C+uid=anna,ou=x\=y,o=Salg\, og,c=no`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	twice := mustCompile(t, strings.ReplaceAll(small, `name([rdn("uid", identity.attr("login"))], params.base)`,
		`name(rdns([rdn("uid", "a"), rdn("UID", "b")]), params.base)`), nil)
	if _, err := twice.Desired(person(map[string]string{"login": "anna"}), nil, noon); err == nil || !strings.Contains(err.Error(), "stands twice in one component") {
		t.Errorf("got %v", err)
	}
}
