package faults_test

import (
	"database/sql"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	_ "modernc.org/sqlite" // the driver registers itself

	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	"github.com/reevehq/reeve/test/rig"
)

// forge changes what a journal holds.
func forge(t *testing.T, path, query string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	done, err := db.Exec(query)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := done.RowsAffected(); err != nil || n == 0 {
		t.Fatalf("%s changed nothing: %v", query, err)
	}
}

// planned is a client whose accounts are there, with a plan that changes one.
func planned(t *testing.T) (*rig.Estate, *rig.Rig, *operatorv1.Plan) {
	t.Helper()
	e := rig.NewEstate(4)
	e.Status = true
	r := rig.New(t, rig.Options{Bin: bin, Estate: e})
	r.Applied(r.CarryOut())
	shipped(t, r)
	e.Suspend(t, e.People()[0], true)
	r.Observe()
	p := r.Plan()
	return e, r, p
}

// The journal is forged under an agent that works: it ends when it meets the row,
// changes nothing more and says what to do.
func TestJournalIsTamperedWithAtWork(t *testing.T) {
	t.Parallel()
	e, r, p := planned(t)
	before := e.Files(t)
	r.Agent.ForgetLog()
	// What a day's budget has been charged with is read when an order comes.
	forge(t, filepath.Join(r.State, "journal.db"), "UPDATE charges SET at = at - 86400000000000")
	r.Approve(p)
	rig.Until(t, "the agent has ended", func() (bool, string) { return r.Agent.Ended(), r.Agent.Log() })
	r.Agent.Forget()
	says(t, r.Agent.Log(), "the journal has stopped", "row", "of table charges", "invite agent dc1 again", "join in a new state folder")
	if now := e.Files(t); !maps.Equal(now, before) {
		t.Errorf("a target was changed: %v, before: %v", now, before)
	}
}

// Whoever can write to the state folder changes what the journal holds, or the
// disk does: the agent does not act on it and says what to do; what the sentence
// says leads back to work.
func TestJournalIsTamperedWith(t *testing.T) {
	t.Parallel()
	statement := func(query string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) { forge(t, path, query) }
	}
	// page overwrites the root page of a table, or of the file itself.
	page := func(table string) func(t *testing.T, path string) {
		return func(t *testing.T, path string) {
			t.Helper()
			number, size := 1, 0
			db, err := sql.Open("sqlite", "file:"+path)
			if err != nil {
				t.Fatal(err)
			}
			// Into the one file, so that no page lies in the log as well.
			_, err = db.Exec("PRAGMA wal_checkpoint(TRUNCATE)")
			err = errors.Join(err, db.QueryRow("PRAGMA page_size").Scan(&size))
			if table != "" {
				err = errors.Join(err, db.QueryRow("SELECT rootpage FROM sqlite_schema WHERE name = $1", table).Scan(&number))
			}
			if err = errors.Join(err, db.Close()); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			noise := []byte(strings.Repeat("\xa5\x3c", size/2))
			if _, err := f.WriteAt(noise, int64(number-1)*int64(size)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, tamper := range map[string]func(t *testing.T, path string){
		"record's body":       statement("UPDATE records SET body = zeroblob(length(body)) WHERE idx = (SELECT max(idx) FROM records) - 2"),
		"record's header":     statement("UPDATE records SET header = zeroblob(length(header)) WHERE idx = (SELECT max(idx) FROM records) - 3"),
		"record taken out":    statement("DELETE FROM records WHERE idx = (SELECT max(idx) FROM records) - 1"),
		"newest records cut":  statement("DELETE FROM records WHERE idx >= (SELECT max(idx) FROM records) - 1"),
		"order changed":       statement("UPDATE orders SET body = zeroblob(length(body))"),
		"created taken out":   statement("DELETE FROM created"),
		"time of charge":      statement("UPDATE charges SET at = at - 86400000000000"),
		"seal set back":       statement("UPDATE seal SET length = length - 1"),
		"page of the seal":    page("seal"),
		"page of the records": page("records"),
		"page of the orders":  page("orders"),
		"first page":          page(""),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, r, p := planned(t)
			r.Agent.Stop()
			tamper(t, filepath.Join(r.State, "journal.db"))
			before := e.Files(t)
			r.Agent.ForgetLog()
			r.Approve(p)
			for range 2 {
				r.Agent.Start()
				rig.Until(t, "the agent has ended", func() (bool, string) { return r.Agent.Ended(), r.Agent.Log() })
				r.Agent.Forget()
			}
			says(t, r.Agent.Log(), "open journal", "invite agent dc1 again", "join in a new state folder")
			if now := e.Files(t); !maps.Equal(now, before) {
				t.Errorf("a target was changed: %v, before: %v", now, before)
			}
			// What cannot be trusted is not carried over.
			if got := r.Local("recover", "--config", "agent.yaml"); got.Code == 0 || !strings.Contains(got.Stderr, "join again in a new state folder") {
				t.Errorf("recover: exit code %d: %s", got.Code, got.Stderr)
			}
			// As the sentence says.
			r.Do("agent", "invite", rig.Tenant, "dc1", "--token-file", "again.token")
			r.State = filepath.Join(r.Dir, "again")
			r.Configure("agent.yaml", r.State)
			if got := r.Local("join", "--config", "agent.yaml", "--token-file", "again.token"); got.Code != 0 {
				t.Fatalf("join: exit code %d\n%s%s", got.Code, got.Stdout, got.Stderr)
			}
			r.Agent.Start()
			r.Connected()
			if got := r.Ended(p.GetId()).GetState(); got.GetApplied() != 0 {
				t.Errorf("the order for the journal that was lost ended as %v", got)
			}
			r.Observe()
			r.Applied(r.CarryOut())
			wholeStory(t, r)
		})
	}
}
