package sqlstore_test

import (
	"fmt"
	"path/filepath"
	"sync"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
)

func opened(t *testing.T) *tx.DB {
	t.Helper()
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// A query that runs while the same one is being read must not disturb it: kept
// statements are not shared by two that run.
func TestQueryWithinItself(t *testing.T) {
	db := opened(t)
	const query = `SELECT id FROM operation WHERE id >= $1 ORDER BY id`
	err := db.Do(t.Context(), func(x tx.Tx) error {
		for i := range 4 {
			if _, err := x.Exec(`INSERT INTO operation (id) VALUES ($1)`, fmt.Sprint(i)); err != nil {
				return err
			}
		}
		scan := func(s tx.Scanner) (id string, err error) { return id, s.Scan(&id) }
		// Twice, since the second time statements are kept already.
		for range 2 {
			outer, err := tx.Collect(x, func(s tx.Scanner) (string, error) {
				id, err := scan(s)
				if err != nil {
					return "", err
				}
				inner, err := tx.Collect(x, scan, query, "2")
				return id + fmt.Sprint(inner), err
			}, query, "0")
			if err != nil {
				return err
			}
			if got, want := fmt.Sprint(outer), "[0[2 3] 1[2 3] 2[2 3] 3[2 3]]"; got != want {
				t.Errorf("read %s, want %s", got, want)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Arguments and rows of one run may not show in the next, a run that failed
// least of all.
func TestStatementsBeginAnew(t *testing.T) {
	db := opened(t)
	insert := func(id any) error {
		return db.Do(t.Context(), func(x tx.Tx) error { _, err := x.Exec(`INSERT INTO operation (id) VALUES ($1)`, id); return err })
	}
	for i := range 3 {
		if err := insert(fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		if insert("0") == nil || insert(nil) == nil {
			t.Fatal("the same id or none was taken")
		}
	}
	var wait sync.WaitGroup
	for range 16 {
		wait.Go(func() {
			for i := range 3 {
				err := db.View(t.Context(), func(x tx.Tx) error {
					var n int
					if err := x.QueryRow(`SELECT count(*) FROM operation WHERE id = $1`, fmt.Sprint(i)).Scan(&n); err != nil || n != 1 {
						return fmt.Errorf("%d rows of id %d: %w", n, i, err)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
}

// More texts than a connection keeps go on working.
func TestManyStatements(t *testing.T) {
	db := opened(t)
	err := db.Do(t.Context(), func(x tx.Tx) error {
		for i := range 1000 {
			var n int
			if err := x.QueryRow(fmt.Sprintf(`SELECT %d + $1`, i), 1).Scan(&n); err != nil || n != i+1 {
				return fmt.Errorf("%d is %d: %w", i+1, n, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
