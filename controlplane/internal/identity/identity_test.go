package identity_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// fakeLog keeps the verbs of acts.
type fakeLog struct{ verbs []string }

func (f *fakeLog) AppendAct(_ tx.Tx, _ string, _ *auditv1.Header, b *auditv1.Body) (uint64, error) {
	f.verbs = append(f.verbs, b.GetAct().GetVerb())
	return 0, nil
}

// byLogin maps rows by their columns and finds accounts by login.
type byLogin struct{}

func (byLogin) Row(_ string, o *connectorv1.Object) (identity.Row, bool, error) {
	get := func(name string) string {
		if v := o.Attribute(name); len(v) > 0 {
			return string(v[0])
		}
		return ""
	}
	if get("broken") != "" {
		return identity.Row{}, false, errors.New("date cannot be read")
	}
	return identity.Row{
		InScope: get("scope") != "out", Kind: "human", Label: get("login"), Attributes: map[string][]string{"login": {get("login")}},
	}, true, nil
}

func (d *desk) Matches() []identity.Match {
	if d.matches != nil {
		return d.matches
	}
	return []identity.Match{{Connector: "corp", Type: "user", Purpose: "normal", Pairs: []identity.Pair{{Identity: "login", Object: "uid"}}}}
}

type desk struct {
	byLogin
	*identity.Service
	// matches in place of the one by login.
	matches []identity.Match
	clock   func() time.Time
	t       *testing.T
	db      *tx.DB
	log     *fakeLog
	n       int
}

func open(t *testing.T) *desk {
	t.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := new(fakeLog)
	return &desk{clock: time.Now, Service: identity.New(db, identitystore.Store{}, log, time.Now), t: t, db: db, log: log}
}

var types = []*connectorv1.ObjectType{{
	Name: "user", Kind: connectorv1.Kind_KIND_ACCOUNT,
	Attributes: []*connectorv1.AttributeType{{Name: "uid", Rule: connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE}},
}}

// row writes "anchor login [more]" as an object.
func row(typ, attribute, text string) *connectorv1.Object {
	f := strings.Fields(text)
	o := &connectorv1.Object{Type: typ, Anchor: f[0], Display: f[0], Attributes: []*connectorv1.Attribute{{Name: attribute, Values: [][]byte{[]byte(f[1])}}}}
	for _, more := range f[2:] {
		name, value, _ := strings.Cut(more, "=")
		o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: name, Values: [][]byte{[]byte(value)}})
	}
	return o
}

func (d *desk) reconcile(complete bool, hr, corp []string) identity.Outcome {
	d.t.Helper()
	d.n++
	src := identity.SourceSnapshot{Connector: "hr", Snapshot: fmt.Sprint("s", d.n), Complete: complete, At: time.Unix(int64(d.n), 0)}
	for _, text := range hr {
		src.Objects = append(src.Objects, row("person", "login", text))
	}
	target := identity.TargetSnapshot{Connector: "corp", Types: types}
	for _, text := range corp {
		target.Objects = append(target.Objects, row("user", "uid", text))
	}
	var out identity.Outcome
	// Twice: folding a snapshot again must change nothing.
	for range 2 {
		if err := d.db.Do(context.Background(), func(t tx.Tx) (err error) {
			out, err = d.Reconcile(t, "fabrikam", []identity.SourceSnapshot{src}, []identity.TargetSnapshot{target}, d)
			return err
		}); err != nil {
			d.t.Fatal(err)
		}
	}
	return out
}

func (d *desk) find(who string) identity.Identity {
	d.t.Helper()
	var id identity.Identity
	if err := d.db.View(context.Background(), func(t tx.Tx) (err error) {
		id, err = d.Find(t, "fabrikam", who)
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return id
}

func (d *desk) owner(anchor string) string {
	d.t.Helper()
	owner := ""
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		accounts, err := identitystore.Store{}.Accounts(t, "fabrikam")
		for _, a := range accounts {
			if a.Anchor == anchor {
				owner = a.Identity
			}
		}
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return owner
}

func (d *desk) cases() []identity.Case {
	d.t.Helper()
	var cases []identity.Case
	if err := d.db.View(context.Background(), func(t tx.Tx) (err error) {
		cases, err = identitystore.Store{}.Cases(t, "fabrikam", false)
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return cases
}

func TestOnceLinkedTheAnchorDecides(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 bo"}, []string{"u1 Anna", "u2 bo", "u3 nobody"})
	anna := d.find("anna")
	if d.owner("u1") != anna.ID || d.owner("u2") != d.find("bo").ID || d.owner("u3") != "" {
		t.Fatalf("owners %q %q %q", d.owner("u1"), d.owner("u2"), d.owner("u3"))
	}
	// Anna takes another login, and a newcomer hers.
	d.reconcile(true, []string{"1 aberg", "2 bo", "4 anna"}, []string{"u1 anna", "u2 bo", "u3 nobody"})
	if got := d.find("aberg"); got.ID != anna.ID {
		t.Fatal("the same anchor became another identity")
	}
	if d.owner("u1") != anna.ID {
		t.Fatal("an account changed hands because a login did")
	}
}

func TestWhatFitsSeveralIsACaseForAPerson(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 anna"}, []string{"u1 anna"})
	cases := d.cases()
	if len(cases) != 1 || d.owner("u1") != "" || len(cases[0].Candidates) != 2 {
		t.Fatalf("%+v, owner %q", cases, d.owner("u1"))
	}
	if _, err := d.DecideCase(context.Background(), "fabrikam", cases[0].ID, "id-stranger", "", "operator:kari"); !errors.Is(err, identity.ErrNotCandidate) {
		t.Fatalf("a stranger was accepted: %v", err)
	}
	if _, err := d.DecideCase(context.Background(), "contoso", cases[0].ID, cases[0].Candidates[0], "", "operator:kari"); !errors.Is(err, identity.ErrCaseNotFound) {
		t.Fatalf("a case of another tenant was found: %v", err)
	}
	if _, err := d.DecideCase(context.Background(), "fabrikam", cases[0].ID, cases[0].Candidates[1], "she said so", "operator:kari"); err != nil {
		t.Fatal(err)
	}
	if d.owner("u1") != cases[0].Candidates[1] {
		t.Fatal("the decision did not link")
	}
	d.reconcile(true, []string{"1 anna", "2 anna"}, []string{"u1 anna"})
	if len(d.cases()) != 0 {
		t.Fatalf("a decided case was opened again: %+v", d.cases())
	}
	if got := strings.Join(d.log.verbs, ","); got != "open case,decide case" {
		t.Fatalf("on record: %s", got)
	}
}

func TestAbsenceCountsOnlyInCompleteSnapshots(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 bo", "3 cy"}, nil)
	for _, step := range []struct {
		complete bool
		rows     []string
		want     int
		why      string
	}{
		{false, []string{"1 anna", "3 cy"}, 0, "an incomplete read"},
		{true, nil, 0, "an empty source"},
		{true, []string{"1 anna", "2 bo scope=out", "3 cy"}, 0, "leaving the filter's scope"},
		{true, []string{"1 anna", "2 bo broken=yes", "3 cy"}, 0, "a row that cannot be read"},
		{true, []string{"1 anna", "3 cy"}, 1, "gone from a complete read"},
		{true, []string{"1 anna", "3 cy"}, 2, "gone again"},
		{true, []string{"1 anna", "2 bo", "3 cy"}, 0, "back"},
	} {
		d.reconcile(step.complete, step.rows, nil)
		if got := d.find("bo"); got.Missing != step.want {
			t.Fatalf("after %s: missing %d, want %d", step.why, got.Missing, step.want)
		}
	}
}

func TestSourceThatReplacedItsKeysIsSuspended(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 bo", "3 cy", "4 di"}, nil)
	out := d.reconcile(true, []string{"A1 anna", "A2 bo", "A3 cy", "A4 di"}, nil)
	if out.Suspend["hr"] == "" {
		t.Fatal("a source with all new keys went through")
	}
	if d.find("anna").Missing != 0 {
		t.Fatal("something followed from it")
	}
}

func TestLabelsOfSeveralAreAmbiguous(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 anna"}, nil)
	err := d.db.View(context.Background(), func(t tx.Tx) error {
		_, err := d.Find(t, "fabrikam", "anna")
		return err
	})
	if !errors.Is(err, identity.ErrAmbiguous) {
		t.Fatalf("got %v", err)
	}
}

// two folds snapshots of two sources, HR before the contractors' list, twice.
func (d *desk) two(hr, contractors []identity.Row) identity.Outcome {
	d.t.Helper()
	d.n++
	var sources []identity.SourceSnapshot
	said := saying{}
	for order, rows := range [][]identity.Row{hr, contractors} {
		src := identity.SourceSnapshot{Connector: []string{"hr", "contractors"}[order], Snapshot: fmt.Sprint("s", d.n), Complete: true, At: time.Unix(int64(d.n), 0)}
		for _, row := range rows {
			row.InScope, row.Order = true, order
			anchor := src.Connector + "-" + row.Label
			said[anchor] = row
			src.Objects = append(src.Objects, &connectorv1.Object{Type: "person", Anchor: anchor, Display: anchor})
		}
		// Nobody is missed in an empty source.
		src.Objects = append(src.Objects, &connectorv1.Object{Type: "note", Anchor: "note"})
		sources = append(sources, src)
	}
	var out identity.Outcome
	for range 2 {
		if err := d.db.Do(context.Background(), func(t tx.Tx) (err error) {
			out, err = d.Reconcile(t, "fabrikam", sources, nil, said)
			return err
		}); err != nil {
			d.t.Fatal(err)
		}
	}
	return out
}

// saying maps objects to the rows a test wants, by anchor.
type saying map[string]identity.Row

func (s saying) Row(_ string, o *connectorv1.Object) (identity.Row, bool, error) {
	row, ok := s[o.GetAnchor()]
	return row, ok, nil
}

func (saying) Matches() []identity.Match { return nil }

func attributes(pairs ...string) map[string][]string {
	m := map[string][]string{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = []string{pairs[i+1]}
	}
	return m
}

func TestOnePersonInTwoSourcesIsOneIdentity(t *testing.T) {
	d := open(t)
	day := func(n int) time.Time { return time.Date(2026, 3, n, 0, 0, 0, 0, time.UTC) }
	anna := func(more ...string) identity.Row {
		return identity.Row{Label: "anna", Kind: "human", Attributes: attributes(append([]string{"login", "anna"}, more...)...)}
	}
	contract := func(ends time.Time) identity.Row {
		r := anna("department", "Projects", "title", "Adviser")
		r.Ends = ends
		return r
	}
	d.two([]identity.Row{anna("department", "Sales")}, []identity.Row{contract(day(31))})
	id := d.find("anna")
	if id.Attributes["department"][0] != "Sales" || id.Attributes["title"][0] != "Adviser" || !id.Ends.IsZero() {
		t.Fatalf("together: %+v", id)
	}
	// HR gives an end too: the later one counts.
	leaving := anna("department", "Sales")
	leaving.Ends = day(15)
	d.two([]identity.Row{leaving}, []identity.Row{contract(day(31))})
	if got := d.find("anna"); got.ID != id.ID || !got.Ends.Equal(day(31)) {
		t.Fatalf("two ends: %+v", got)
	}
	// HR drops her; the contractors' list still has her.
	for range 3 {
		d.two(nil, []identity.Row{contract(time.Time{})})
	}
	if got := d.find("anna"); got.ID != id.ID || got.Missing != 0 || !got.Ends.IsZero() || got.Attributes["department"][0] != "Sales" {
		t.Fatalf("in one source alone: %+v", got)
	}
	for range 2 {
		d.two(nil, nil)
	}
	if got := d.find("anna"); got.Missing != 2 {
		t.Fatalf("in no source: missing %d", got.Missing)
	}
}

func TestARowThatFitsSeveralPeopleJoinsNobody(t *testing.T) {
	d := open(t)
	out := d.two([]identity.Row{
		{Label: "anna", Kind: "human", Attributes: attributes("login", "anna")},
		{Label: "bo", Kind: "human", Attributes: attributes("email", "bo@fabrikam.example")},
	}, []identity.Row{{Label: "who", Kind: "human", Attributes: attributes("login", "anna", "email", "bo@fabrikam.example")}})
	if len(out.Problems) != 1 || out.Problems[0].Connector != "contractors" {
		t.Fatalf("problems %+v", out.Problems)
	}
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		all, err := identitystore.Store{}.List(t, "fabrikam", "", 0)
		if err == nil && len(all) != 2 {
			err = fmt.Errorf("%d identities", len(all))
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
