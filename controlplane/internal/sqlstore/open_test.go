package sqlstore_test

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

func TestOnceRunsOnceAcrossReopen(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "with space?", "reeve.db")
	runs := 0
	for range 2 {
		db, err := sqlstore.OpenSQLite(ctx, file)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Once(ctx, "op-1", func(tx.Tx) error { runs++; return nil })
		if runs == 1 && err != nil && !errors.Is(err, tx.ErrAlreadyDone) {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if runs != 1 {
		t.Fatalf("operation ran %d times", runs)
	}
}

func TestFailedCallbackLeavesNothing(t *testing.T) {
	ctx := context.Background()
	db, err := sqlstore.OpenSQLite(ctx, filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	boom := errors.New("boom")
	woken := false
	if err := db.Once(ctx, "op-1", func(x tx.Tx) error { x.OnCommit(func() { woken = true }); return boom }); !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	if err := db.Once(ctx, "op-1", func(tx.Tx) error { return nil }); err != nil {
		t.Fatalf("the failed run left its id behind: %v", err)
	}
	if woken {
		t.Fatal("a rolled back transaction woke somebody")
	}
	if err := db.View(ctx, func(x tx.Tx) error {
		_, err := x.ExecContext(ctx, `INSERT INTO operation (id) VALUES ('x')`)
		return err
	}); err == nil {
		t.Fatal("a view could write")
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	ctx := context.Background()
	file := filepath.Join(t.TempDir(), "reeve.db")
	db, err := sqlstore.OpenSQLite(ctx, file)
	if err != nil {
		t.Fatal(err)
	}
	db.Close()
	raw, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := raw.Exec(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99999, 1)`); err != nil {
		t.Fatal(err)
	}
	raw.Close()
	if _, err := sqlstore.OpenSQLite(ctx, file); !errors.Is(err, sqlstore.ErrNewerSchema) {
		t.Fatalf("got %v", err)
	}
}
