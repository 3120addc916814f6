package policy_test

import (
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/policy"
)

// hostile draws text that tries to be structure: separators of names, quotes,
// NUL, line ends, bidirectional controls, broken UTF-8.
func hostile() *rapid.Generator[string] {
	bits := []string{",", "+", "=", `"`, `\`, ";", "<", ">", "#", " ", "\x00", "\n", "\x1b[2J", "\u202e", "\u2066", "\xff", "æ", "e\u0301", "ou=admins", "uid=root,dc=x", "a", "B", "7", "\\2c", "*)(", "${x}"}
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(bits), 0, 6).Draw(t, "bits"), "")
	})
}

func subjects() *rapid.Generator[policy.Subject] {
	return rapid.Custom(func(t *rapid.T) policy.Subject {
		text := rapid.OneOf(hostile(), rapid.SampledFrom([]string{"a", "b", "anna", "bo", ""}))
		s := policy.Subject{
			ID: rapid.StringMatching(`[a-z0-9]{4}`).Draw(t, "id"), Kind: "human", MSP: rapid.Bool().Draw(t, "msp"),
			State:      rapid.SampledFrom([]policy.State{policy.StatePending, policy.StateActive, policy.StateSuspended, policy.StateLeaver}).Draw(t, "state"),
			LeftAt:     moment().Draw(t, "left"),
			Attributes: map[string][]string{},
		}
		for _, name := range []string{"login", "email", "title", "team", "note", "manager"} {
			s.Attributes[name] = rapid.SliceOfN(text, 0, 3).Draw(t, name)
		}
		return s
	})
}

func moment() *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		return noon.Add(time.Duration(rapid.IntRange(-50, 50).Draw(t, "hours")) * time.Hour)
	})
}

func grants() *rapid.Generator[[]policy.Grant] {
	one := rapid.Custom(func(t *rapid.T) policy.Grant {
		g := policy.Grant{
			ID: rapid.StringMatching(`[a-z0-9]{2}`).Draw(t, "grant"), Cause: rapid.SampledFrom([]string{"msp", "client"}).Draw(t, "cause"),
			Entitlement: rapid.SampledFrom([]string{"app/users", "app/editors", "app/admins", "app/root", "app/gone"}).Draw(t, "entitlement"),
			Ticket:      rapid.SampledFrom([]string{"", "T-1", "T-2"}).Draw(t, "ticket"), Start: moment().Draw(t, "start"),
		}
		if rapid.Bool().Draw(t, "ends") {
			g.End = g.Start.Add(time.Duration(rapid.IntRange(1, 9).Draw(t, "length")) * time.Hour)
		}
		return g
	})
	return rapid.SliceOfN(one, 0, 5)
}

// reversedRoles is the small bundle with its roles the other way round.
func reversedRoles(t testing.TB) string {
	head, rest, _ := strings.Cut(small, "roles:\n")
	people, rest, _ := strings.Cut(rest, "  - id: team\n")
	team, tail, ok := strings.Cut(rest, "msp:\n")
	if !ok {
		t.Fatal("the fixture changed")
	}
	return head + "roles:\n  - id: team\n" + team + people + "msp:\n" + tail
}

// Of two rules with one cause the first by name stands for the account, in
// whatever order they are written.
func TestAccountRuleIsTheFirstByName(t *testing.T) {
	for _, source := range []string{small, reversedRoles(t)} {
		p := mustCompile(t, strings.Replace(source, "cause: msp", "cause: client", 1), nil)
		d, err := p.Desired(person(map[string]string{"login": "bo", "team": "a"}), nil, noon)
		if err != nil {
			t.Fatal(err)
		}
		if d.Accounts[0].Rule != "small/people" {
			t.Errorf("got %s", brief(d))
		}
	}
}

// Equal inputs give equal Desired: again, with grants in another order, and
// with the bundle's roles in another order.
func TestDesiredIsDeterministic(t *testing.T) {
	p, reversed := mustCompile(t, small, nil), mustCompile(t, reversedRoles(t), nil)
	rapid.Check(t, func(t *rapid.T) {
		s, list, at := subjects().Draw(t, "subject"), grants().Draw(t, "grants"), moment().Draw(t, "as of")
		given := slices.Clone(list)
		first, err := p.Desired(s, list, at)
		if !reflect.DeepEqual(given, list) {
			t.Fatal("Desired changed its input")
		}
		shuffled := slices.Clone(list)
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0))
		random.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		copied := s
		copied.Attributes = maps.Clone(s.Attributes)
		second, err2 := p.Desired(copied, shuffled, at)
		third, err3 := reversed.Desired(s, list, at)
		if (err == nil) != (err2 == nil) || (err == nil) != (err3 == nil) {
			t.Fatalf("errors differ: %v; %v; %v", err, err2, err3)
		}
		if err != nil && err.Error() != err2.Error() {
			t.Fatalf("order of grants changes the error: %v; %v", err, err2)
		}
		if !reflect.DeepEqual(first, second) {
			t.Fatalf("order of grants matters:\n%s\n%s", brief(first), brief(second))
		}
		if !reflect.DeepEqual(first, third) {
			t.Fatalf("order of roles matters:\n%s\n%s", brief(first), brief(third))
		}
	})
}

// Whatever a source says, a name keeps its components, its types and its base,
// and prints to text that parses to the same name; or there is no name at all.
func TestHostileValuesKeepNames(t *testing.T) {
	p := mustCompile(t, small, nil)
	made := 0
	rapid.Check(t, func(t *rapid.T) {
		s := subjects().Draw(t, "subject")
		d, err := p.Desired(s, grants().Draw(t, "grants"), noon)
		if err != nil {
			if !errors.Is(err, policy.ErrEvaluation) || strings.ContainsAny(err.Error(), "\x00\x1b\n\u202e\u2066") {
				t.Fatalf("error %q", err)
			}
			return
		}
		for _, a := range d.Accounts {
			made++
			login := ""
			if values := s.Attributes["login"]; len(values) > 0 {
				login = values[0]
			}
			if s.MSP {
				login = "msp-" + login
			}
			want := []policy.Component{{{"uid", login}}, {{"ou", "people"}}, {{"dc", "example"}}}
			if !reflect.DeepEqual(a.Name, want) {
				t.Fatalf("got %q, want %q", a.Name, want)
			}
			again, err := policy.ParseDN(policy.NameText(a.Name))
			if err != nil || !reflect.DeepEqual(again, a.Name) {
				t.Fatalf("%s parses to %q, %v", policy.NameText(a.Name), again, err)
			}
			if !utf8.ValidString(login) || strings.ContainsAny(login, "\x00\n\x1b\u202e\u2066") {
				t.Fatalf("an account is named %q", login)
			}
		}
	})
	if made == 0 {
		t.Fatal("no account was ever made: the test shows nothing")
	}
}

// States and grants mean what they say, for any input.
func TestDesiredInvariants(t *testing.T) {
	p := mustCompile(t, small, nil)
	rapid.Check(t, func(t *rapid.T) {
		s, list, at := subjects().Draw(t, "subject"), grants().Draw(t, "grants"), moment().Draw(t, "as of")
		d, err := p.Desired(s, list, at)
		if err != nil {
			return
		}
		for _, a := range d.Accounts {
			if a.Enabled && s.State != policy.StateActive {
				t.Fatalf("enabled while %s", s.State)
			}
			if a.Delete && a.Enabled {
				t.Fatal("enabled and deleted")
			}
			if s.MSP && a.Cause != "msp" {
				t.Fatal("a technician's account is the client's")
			}
		}
		for _, e := range d.Entitlements {
			if s.State == policy.StateLeaver {
				t.Fatal("a leaver holds something")
			}
			definition, _ := p.Entitlement(e.Entitlement)
			if definition.Privileged && e.Grant == "" {
				t.Fatal("a privileged entitlement without a grant")
			}
			if e.Grant == "" {
				continue
			}
			if !slices.ContainsFunc(list, func(g policy.Grant) bool {
				return g.ID == e.Grant && g.Entitlement == e.Entitlement && !at.Before(g.Start) && (g.End.IsZero() || at.Before(g.End))
			}) {
				t.Fatalf("%s by a grant that does not count", e.Entitlement)
			}
		}
	})
}

// No text makes the parser or the checker panic, and what they refuse has a
// place in the file.
func TestParseSurvivesAnything(t *testing.T) {
	pieces := strings.SplitAfter(small, " ")
	rapid.Check(t, func(t *rapid.T) {
		damaged := slices.Clone(pieces)
		for range rapid.IntRange(1, 4).Draw(t, "damages") {
			i := rapid.IntRange(0, len(damaged)-1).Draw(t, "at")
			damaged[i] = rapid.OneOf(hostile(), rapid.SampledFrom([]string{"", "- ", "{", "}", "[", "]", ": ", "\n", "&a ", "*a ", "!!map ", "~ ", "null", "'", "\"", "| ", "? ", "<<: ", "9999999999", "\t"}), rapid.SampledFrom(pieces)).Draw(t, "piece")
		}
		b, err := policy.Parse([]policy.File{{Path: "small.yaml", Data: []byte(strings.Join(damaged, ""))}})
		if err == nil {
			err = policy.Check(b)
		}
		var problems policy.Problems
		if err != nil && (!errors.As(err, &problems) || problems[0].At.File != "small.yaml" || strings.ContainsAny(err.Error(), "\x00\x1b")) {
			t.Fatalf("got %q", err)
		}
	})
}

// What parses prints to text that parses to the same.
func TestDNRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := hostile().Draw(t, "text")
		name, err := policy.ParseDN(text)
		if err != nil {
			return
		}
		again, err := policy.ParseDN(policy.NameText(name))
		if err != nil || !reflect.DeepEqual(name, again) {
			t.Fatalf("%q is %q, and again %q, %v", text, name, again, err)
		}
	})
}
