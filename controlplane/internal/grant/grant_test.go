package grant_test

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/grant/grantstore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
)

type records struct{ headers []*auditv1.Header }

func (r *records) AppendAct(_ tx.Tx, _ string, h *auditv1.Header, _ *auditv1.Body) (uint64, error) {
	r.headers = append(r.headers, h)
	return 0, nil
}

type desk struct {
	*grant.Service
	now     time.Time
	records records
}

func open(t *testing.T) *desk {
	t.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	d := &desk{now: time.Date(2026, 3, 1, 8, 0, 0, 0, time.UTC)}
	d.Service = grant.New(db, grantstore.Store{}, &d.records, func() time.Time { return d.now })
	return d
}

func TestWhatAGrantMustSay(t *testing.T) {
	ctx := context.Background()
	d := open(t)
	for _, c := range []struct {
		name    string
		grant   grant.Grant
		lasts   time.Duration
		rule    grant.Rule
		refused bool
		cause   string
	}{
		{name: "of the client's own", grant: grant.Grant{Identity: "id-a", Reason: "audit"}, cause: "client"},
		{name: "a ticket is a reason", grant: grant.Grant{Identity: "id-a", Ticket: "T-1"}, cause: "client"},
		{name: "no reason", grant: grant.Grant{Identity: "id-a", Reason: "  "}, refused: true},
		{name: "backwards", grant: grant.Grant{Identity: "id-a", Reason: "x"}, lasts: -time.Hour, refused: true},
		{name: "without the end its entitlement needs", grant: grant.Grant{Identity: "id-a", Reason: "x"}, rule: grant.Rule{RequireEnd: true}, refused: true},
		{name: "a technician's without end", grant: grant.Grant{Identity: "msp/id-k", Reason: "x"}, refused: true},
		{name: "a technician's", grant: grant.Grant{Identity: "msp/id-k", Reason: "x"}, lasts: time.Hour, cause: "msp"},
		{name: "longer than may be", grant: grant.Grant{Identity: "id-a", Reason: "x"}, lasts: 2*time.Hour + 1, rule: grant.Rule{MaxGrant: 2 * time.Hour}, refused: true},
		{name: "endless where a longest is set", grant: grant.Grant{Identity: "id-a", Reason: "x"}, rule: grant.Rule{MaxGrant: 2 * time.Hour}, refused: true},
		{name: "as long as may be", grant: grant.Grant{Identity: "id-a", Reason: "x"}, lasts: 2 * time.Hour, rule: grant.Rule{MaxGrant: 2 * time.Hour}, cause: "client"},
	} {
		before := len(d.records.headers)
		g, err := d.Add(ctx, "fabrikam", c.grant, c.lasts, c.rule, "operator:kari")
		if errors.Is(err, grant.ErrInvalid) != c.refused || (err != nil) != c.refused {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if recorded := len(d.records.headers) > before; recorded == c.refused {
			t.Errorf("%s: on record: %v", c.name, recorded)
		}
		if !c.refused && (g.Cause != c.cause || !g.Open(d.now) || g.ID == "") {
			t.Errorf("%s: %+v", c.name, g)
		}
	}
}

func TestAGrantCountsFromItsStartToItsEnd(t *testing.T) {
	ctx := context.Background()
	d := open(t)
	start := d.now
	timed, err := d.Add(ctx, "fabrikam", grant.Grant{Identity: "id-a", Reason: "x"}, time.Hour, grant.Rule{}, "operator:kari")
	if err != nil {
		t.Fatal(err)
	}
	standing, err := d.Add(ctx, "fabrikam", grant.Grant{Identity: "id-a", Reason: "x"}, 0, grant.Rule{}, "operator:kari")
	if err != nil {
		t.Fatal(err)
	}
	for at, open := range map[time.Duration][2]bool{-1: {false, false}, 0: {true, true}, time.Hour - 1: {true, true}, time.Hour: {false, true}} {
		if got := [2]bool{timed.Open(start.Add(at)), standing.Open(start.Add(at))}; got != open {
			t.Errorf("after %s: %v, want %v", at, got, open)
		}
	}
	if _, err := d.End(ctx, "contoso", standing.ID, "", "operator:kari"); !errors.Is(err, grant.ErrNotFound) {
		t.Fatalf("another tenant's grant: %v", err)
	}
	d.now = d.now.Add(time.Minute)
	first, err := d.End(ctx, "fabrikam", standing.ID, "done", "operator:kari")
	if err != nil || first.Open(d.now) {
		t.Fatalf("%+v, %v", first, err)
	}
	d.now = d.now.Add(time.Minute)
	if again, err := d.End(ctx, "fabrikam", standing.ID, "done", "operator:kari"); err != nil || !again.Ended.Equal(first.Ended) {
		t.Fatalf("ended twice: %+v, %v", again, err)
	}
	if n := len(d.records.headers); n != 3 {
		t.Fatalf("%d records of two grants and one end", n)
	}
	list, err := d.List(ctx, "fabrikam", "", 0)
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
}

// Headers are never erased: they name a random id or nobody.
func TestHeadersNameNobody(t *testing.T) {
	d := open(t)
	for identity, want := range map[string]string{"id-abc": "id-abc", "msp/id-kar": "id-kar", "msp/kari": "", "anna@fabrikam.example": ""} {
		d.records.headers = nil
		if _, err := d.Add(context.Background(), "fabrikam", grant.Grant{Identity: identity, Reason: "x"}, time.Hour, grant.Rule{}, "operator:kari"); err != nil {
			t.Fatal(err)
		}
		if got := d.records.headers[0].GetSubject(); got != want {
			t.Errorf("%s: subject %q, want %q", identity, got, want)
		}
	}
}
