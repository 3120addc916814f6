package sqlstore

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/reevehq/reeve/controlplane/internal/tx"
)

// ErrNewerSchema is returned when the database was last used by a newer binary.
var ErrNewerSchema = errors.New("database schema is newer than this binary")

//go:embed sqlite/*.sql
var migrations embed.FS

// readers is how many snapshots may be read at once beside the writer.
const readers = 8

// OpenSQLite opens or creates the database file and migrates it. Commits are
// durable when they return (WAL, synchronous=FULL). Only one process may have a
// file open for writing; the second waits 10 s for each transaction and then
// fails.
func OpenSQLite(ctx context.Context, file string) (*tx.DB, error) {
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return nil, fmt.Errorf("make folder for database: %w", err)
	}
	write, err := open(dsn(file, "_txlock=immediate", "_pragma=cache_size(-16000)"))
	if err != nil {
		return nil, fmt.Errorf("open database %s: %w", file, err)
	}
	write.SetMaxOpenConns(1)
	if err := migrate(ctx, write); err != nil {
		return nil, errors.Join(fmt.Errorf("database %s: %w", file, err), write.Close())
	}
	// The same pages are kept by each reader, and by the kernel beside them.
	read, err := open(dsn(file, "_pragma=query_only(1)", "_pragma=cache_size(-4000)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open database %s: %w", file, err), write.Close())
	}
	read.SetMaxOpenConns(readers)
	return tx.New(write, read), nil
}

func dsn(file string, more ...string) string {
	u := url.URL{Scheme: "file", Opaque: (&url.URL{Path: file}).EscapedPath()}
	return u.String() + "?" + strings.Join(append(more,
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(FULL)",
		"_pragma=foreign_keys(1)",
		"_pragma=busy_timeout(10000)",
		// What was erased must not stay readable in free pages.
		"_pragma=secure_delete(1)",
	), "&")
}

func migrate(ctx context.Context, db *sql.DB) error {
	folder, err := fs.Sub(migrations, "sqlite")
	if err != nil {
		return err
	}
	provider, err := goose.NewProvider(goose.DialectSQLite3, db, folder)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	sources := provider.ListSources()
	newest := sources[len(sources)-1].Version
	have, err := provider.GetDBVersion(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if have > newest {
		return fmt.Errorf("%w: it has version %d, this binary knows %d; start the newer binary", ErrNewerSchema, have, newest)
	}
	if _, err := provider.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema: %w", err)
	}
	return nil
}
