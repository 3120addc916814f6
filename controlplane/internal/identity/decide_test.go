package identity_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func (d *desk) account(anchor string) (found identity.Account) {
	d.t.Helper()
	if err := d.db.View(context.Background(), func(t tx.Tx) error {
		list, err := identitystore.Store{}.Accounts(t, "fabrikam")
		for _, a := range list {
			if a.Anchor == anchor {
				found = a
			}
		}
		return err
	}); err != nil {
		d.t.Fatal(err)
	}
	return found
}

func (d *desk) decide(id, candidate string) error {
	d.t.Helper()
	_, err := d.DecideCase(context.Background(), "fabrikam", id, candidate, "", "operator:kari")
	return err
}

func TestADecisionLinksWhatTheCaseIsAbout(t *testing.T) {
	d := open(t)
	// Two accounts fit one identity, found by the match for admin accounts.
	d.matches = []identity.Match{{Connector: "corp", Type: "user", Purpose: "admin", Pairs: []identity.Pair{{Identity: "login", Object: "uid"}}}}
	d.reconcile(true, []string{"1 anna"}, []string{"u1 anna", "u2 anna"})
	cases := d.cases()
	if len(cases) != 1 || cases[0].Subject != d.find("anna").ID || strings.Join(cases[0].Candidates, " ") != "u1 u2" {
		t.Fatalf("%+v", cases)
	}
	if err := d.decide(cases[0].ID, "u2"); err != nil {
		t.Fatal(err)
	}
	want := identity.Account{Connector: "corp", Anchor: "u2", Identity: d.find("anna").ID, Purpose: "admin", Type: "user"}
	if got := d.account("u2"); got != want {
		t.Fatalf("linked %+v, want %+v", got, want)
	}
	if err := d.decide(cases[0].ID, "u1"); !errors.Is(err, identity.ErrDecided) {
		t.Fatalf("decided twice: %v", err)
	}
	d.reconcile(true, []string{"1 anna"}, []string{"u1 anna", "u2 anna"})
	if len(d.cases()) != 0 || d.owner("u1") != "" {
		t.Fatal("the decision did not last")
	}
}

func TestDecidingForNoneLastsAndLinksNothing(t *testing.T) {
	d := open(t)
	for range 2 {
		d.reconcile(true, []string{"1 anna", "2 anna"}, []string{"u1 anna"})
		for _, c := range d.cases() {
			if err := d.decide(c.ID, "none"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d.owner("u1") != "" || strings.Join(d.log.verbs, ",") != "open case,decide case" {
		t.Fatalf("owner %q, on record %v", d.owner("u1"), d.log.verbs)
	}
}

// A decision never takes an account from somebody, nor gives a second one.
func TestADecisionCannotTakeWhatIsTaken(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna", "2 anna"}, []string{"u1 anna"})
	c := d.cases()[0]
	put := func(a identity.Account) {
		t.Helper()
		if err := d.db.Do(context.Background(), func(t tx.Tx) error { return identitystore.Store{}.PutAccount(t, "fabrikam", a) }); err != nil {
			d.t.Fatal(err)
		}
	}
	put(identity.Account{Connector: "corp", Anchor: "u9", Identity: c.Candidates[0], Purpose: "normal", Type: "user"})
	if err := d.decide(c.ID, c.Candidates[0]); !errors.Is(err, identity.ErrTaken) {
		t.Fatalf("a second account: %v", err)
	}
	put(identity.Account{Connector: "corp", Anchor: "u1", Identity: "id-other", Purpose: "normal", Type: "user", Created: true})
	if err := d.decide(c.ID, c.Candidates[1]); !errors.Is(err, identity.ErrTaken) {
		t.Fatalf("another's account: %v", err)
	}
	if got := d.account("u1"); got.Identity != "id-other" || !got.Created {
		t.Fatalf("%+v", got)
	}
	if len(d.cases()) != 1 {
		t.Fatal("a refused decision closed the case")
	}
}

// A case is closed when there is nothing to decide any more, and opened again when
// there is.
func TestCasesPassWithWhatTheyWereAbout(t *testing.T) {
	d := open(t)
	both, one := []string{"1 anna", "2 anna"}, []string{"1 anna", "2 bo"}
	for i, step := range []struct {
		rows []string
		open int
	}{{both, 1}, {both, 1}, {one, 0}} {
		d.reconcile(true, step.rows, []string{"u1 anna"})
		if got := d.cases(); len(got) != step.open {
			t.Fatalf("step %d: %+v", i, got)
		}
	}
	if d.owner("u1") != d.find("anna").ID {
		t.Fatal("what is clear now was not linked")
	}
	d = open(t)
	for i, step := range []struct {
		accounts []string
		open     int
	}{{[]string{"u1 anna", "u2 anna"}, 1}, {nil, 0}, {[]string{"u1 anna", "u2 anna"}, 1}} {
		d.reconcile(true, []string{"1 anna"}, step.accounts)
		if got := d.cases(); len(got) != step.open {
			t.Fatalf("accounts, step %d: %+v", i, got)
		}
	}
}

// An account that was deleted and made anew by others is its owner's again.
func TestAnAccountMadeAnewIsLinked(t *testing.T) {
	d := open(t)
	d.reconcile(true, []string{"1 anna"}, []string{"u1 anna"})
	d.reconcile(true, []string{"1 anna"}, []string{"u2 anna"})
	if d.owner("u2") != d.find("anna").ID {
		t.Fatalf("owner of the new account: %q", d.owner("u2"))
	}
}

// Folding a snapshot in writes what changed and no more: 100,000 people must not
// be written again for one who moved.
func TestFoldingWritesWhatChanged(t *testing.T) {
	d := open(t)
	var rows []string
	for i := range 50 {
		rows = append(rows, fmt.Sprintf("%d p%d", i, i))
	}
	d.reconcile(true, rows, nil)
	d.n++
	src := identity.SourceSnapshot{Connector: "hr", Snapshot: fmt.Sprint("s", d.n), Complete: true}
	for _, text := range rows {
		src.Objects = append(src.Objects, row("person", "login", text))
	}
	src.Objects[7].Attributes[0] = &connectorv1.Attribute{Name: "login", Values: [][]byte{[]byte("moved")}}
	counted := &counting{}
	service := identity.New(d.db, counted, d.log, d.clock)
	if err := d.db.Do(context.Background(), func(t tx.Tx) error {
		_, err := service.Reconcile(t, "fabrikam", []identity.SourceSnapshot{src}, nil, d)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	// What the source says of them now, and they themselves.
	if counted.writes != 2 {
		t.Fatalf("%d writes for one who moved", counted.writes)
	}
}

// counting counts writes.
type counting struct {
	identitystore.Store
	writes int
}

func (c *counting) Put(t tx.Tx, tenant string, i identity.Identity) error {
	c.writes++
	return c.Store.Put(t, tenant, i)
}

func (c *counting) PutLink(t tx.Tx, tenant string, l identity.Link) error {
	c.writes++
	return c.Store.PutLink(t, tenant, l)
}
