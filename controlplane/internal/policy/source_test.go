package policy_test

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/policy"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func object(anchor string, attributes map[string][]string) *connectorv1.Object {
	o := &connectorv1.Object{Type: "person", Anchor: anchor, Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("n", anchor)}}}
	for name, values := range attributes {
		a := &connectorv1.Attribute{Name: name}
		for _, v := range values {
			a.Values = append(a.Values, []byte(v))
		}
		o.Attributes = append(o.Attributes, a)
	}
	return o
}

func TestSource(t *testing.T) {
	p := mustCompile(t, small, nil)
	row, err := p.Source("hr", "person", object("42", map[string][]string{
		// Directories do not count the case of attribute names.
		"LOGIN": {"anna"}, "mail": {"a@x", "\xff\xfe", "b@x"}, "employeenumber": {"7"}, "boss": {"9"}, "start": {"2026-01-01"}, "end": {"2026-03-01"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if row.Key != "42" || row.Kind != "human" || !row.InScope || !row.Active {
		t.Errorf("got %+v", row)
	}
	if want := map[string][]string{"login": {"anna"}, "email": {"a@x", "b@x"}, "number": {"7"}}; !reflect.DeepEqual(row.Attributes, want) {
		t.Errorf("attributes %v", row.Attributes)
	}
	if want := []policy.Reference{{Name: "manager", Attribute: "number", Values: []string{"9"}}}; !reflect.DeepEqual(row.References, want) {
		t.Errorf("references %v", row.References)
	}

	out, err := p.Source("hr", "person", object("43", map[string][]string{"status": {"leave"}}))
	if err != nil {
		t.Fatal(err)
	}
	if out.InScope || out.Active || len(out.Attributes) != 0 {
		t.Errorf("got %+v", out)
	}

	_, err = p.Source("hr", "person", object("44", map[string][]string{"login": {"x"}, "end": {"31.03.2026\x1b[2J"}}))
	if !errors.Is(err, policy.ErrEvaluation) || !strings.Contains(err.Error(), "object 44 of source hr") || !strings.Contains(err.Error(), "31.03.2026") || strings.ContainsRune(err.Error(), 0x1b) {
		t.Errorf("a date that cannot be read: %v", err)
	}
	if _, err = p.Source("hr", "robot", object("1", nil)); !errors.Is(err, policy.ErrEvaluation) {
		t.Errorf("an unknown type: %v", err)
	}
}

// The last day counts to its midnight where the client is, summer time or not.
func TestStateAt(t *testing.T) {
	oslo, err := time.LoadLocation("Europe/Oslo")
	if err != nil {
		t.Fatal(err)
	}
	date := func(s string) policy.Date {
		d, err := policy.ParseDate(s)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	tests := []struct {
		start, end string
		active     bool
		at         string
		want       policy.State
	}{
		{"2026-03-02", "", true, "2026-03-01T22:59:59Z", policy.StatePending},
		{"2026-03-02", "", true, "2026-03-01T23:00:00Z", policy.StateActive},
		{"2026-03-02", "", false, "2026-03-01T23:00:00Z", policy.StateSuspended},
		{"", "2026-03-29", true, "2026-03-29T21:59:59Z", policy.StateActive},
		{"", "2026-03-29", true, "2026-03-29T22:00:00Z", policy.StateLeaver},
		{"", "2026-10-25", true, "2026-10-25T22:59:59Z", policy.StateActive},
		{"", "2026-10-25", true, "2026-10-25T23:00:00Z", policy.StateLeaver},
		{"", "2026-03-29T12:00:00+02:00", true, "2026-03-29T10:00:01Z", policy.StateLeaver},
		{"2026-05-01", "2026-03-29", true, "2026-04-01T00:00:00Z", policy.StateLeaver},
	}
	for _, tt := range tests {
		at, err := time.Parse(time.RFC3339, tt.at)
		if err != nil {
			t.Fatal(err)
		}
		row := policy.SourceRow{Start: date(tt.start), End: date(tt.end), Active: tt.active}
		if got := row.StateAt(at, oslo); got != tt.want {
			t.Errorf("%+v: got %s", tt, got)
		}
	}
}

func TestMergeRows(t *testing.T) {
	rows := []policy.SourceRow{
		{Order: 1, Key: "b", Attributes: map[string][]string{"login": {"late"}, "phone": {"1"}}},
		{Order: 0, Key: "a", Attributes: map[string][]string{"login": {"first"}}},
		{Order: 1, Key: "a", Attributes: map[string][]string{"phone": {"2"}}},
	}
	want := map[string][]string{"login": {"first"}, "phone": {"2"}}
	if got := policy.MergeRows(rows); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
	slices.Reverse(rows)
	if got := policy.MergeRows(rows); !reflect.DeepEqual(got, want) {
		t.Errorf("reversed: got %v", got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"0": 0, "90d": 90 * 24 * time.Hour, "1w2d": 9 * 24 * time.Hour, "1h30m": 90 * time.Minute, "45s": 45 * time.Second} {
		if got, err := policy.ParseDuration(text); err != nil || got != want {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "h", "-1h", "1h1h", "1m1h", "1.5h", "1 h", "9999999d", "999999w", "1y"} {
		if got, err := policy.ParseDuration(text); err == nil {
			t.Errorf("%q: got %s", text, got)
		}
	}
}

func TestParseDN(t *testing.T) {
	tests := map[string]string{ // accepted, and how it prints again
		"":                                "",
		"uid=anna":                        "uid=anna",
		"UID=jsmith,DC=example,DC=net":    "UID=jsmith,DC=example,DC=net",
		`OU=Sales+CN=J.\20Smith,DC=x`:     "CN=J. Smith+OU=Sales,DC=x",
		`CN=James \"Jim\" Smith\, III`:    `CN=James \"Jim\" Smith\, III`,
		`CN=Before\0dAfter,DC=x`:          `CN=Before\0dAfter,DC=x`,
		`CN=Lu\C4\8Di\C4\87`:              "CN=Lučić",
		`cn=\ x\ `:                        `cn=\ x\ `,
		`cn=\23x`:                         `cn=\#x`,
		"1.3.6.1.4.1.1466.0=text,dc=x":    "1.3.6.1.4.1.1466.0=text,dc=x",
		"cn=a=b":                          `cn=a\=b`,
		"cn=two  spaces,ou=Salg og Råd":   "cn=two  spaces,ou=Salg og Råd",
		`cn=\\\,\+\;\<\>\=\"\#,dc=x`:      `cn=\\\,\+\;\<\>\=\"#,dc=x`,
		`cn=sk\C3\B8yter+uid=1,o=a\2bb`:   `cn=skøyter+uid=1,o=a\+b`,
		"cn=x#y,dc=z":                     "cn=x#y,dc=z",
		"cn=a\u202eb":                     `cn=a\e2\80\aeb`,
		"descr-with-hyphen9=v,x=y,Z=q,a=": "refused",
	}
	for text, want := range tests {
		got, err := policy.ParseDN(text)
		if want == "refused" {
			if err == nil {
				t.Errorf("%q accepted", text)
			}
			continue
		}
		if err != nil || policy.NameText(got) != want {
			t.Errorf("%q: got %s, %v", text, policy.NameText(got), err)
		}
	}
	for _, text := range []string{
		"anna", "=anna", "cn=", "cn=a,", ",cn=a", "cn=a, dc=b", "cn=a ,dc=b", "cn= a", "cn =a", "cn=a;dc=b", `cn="a"`, "cn=a<b", "cn=a\x00",
		`cn=a\`, `cn=a\zz`, `cn=\ff`, "cn=#0403", "1=x", "1.02=x", "-a=x", "a_b=x", "cn=a+cn=b", "cn=a+CN=b", "cn=a\xff", "cn=a++uid=b", "oid.1.2=x",
	} {
		if got, err := policy.ParseDN(text); err == nil {
			t.Errorf("%q: accepted as %s", text, policy.NameText(got))
		}
	}
}
