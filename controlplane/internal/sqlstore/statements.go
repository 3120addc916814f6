package sqlstore

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"

	"modernc.org/sqlite"
)

// maxStatements is how many compiled statements one connection keeps: more than
// the control plane has on its busy paths, a few KiB each.
const maxStatements = 128

// open is a pool whose connections keep the statements they compiled. Reading SQL
// again and again was a fifth of the processor time of taking records in.
func open(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

type connector struct{ driver.Connector }

// engine is what the driver's connections can do and database/sql uses.
type engine interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	raw, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	e, ok := raw.(engine)
	if !ok {
		_ = raw.Close()
		return nil, fmt.Errorf("the SQLite driver's connection is a %T, which lacks what is needed", raw)
	}
	return &connection{engine: e, idle: map[string]statement{}}, nil
}

// connection is used by one goroutine at a time, as database/sql has it.
type connection struct {
	engine
	idle map[string]statement
}

type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// take gives out the compiled statement of a text. One that is running has been
// taken already, so a query within the same query gets one of its own.
func (c *connection) take(ctx context.Context, query string) (statement, error) {
	if s, ok := c.idle[query]; ok {
		delete(c.idle, query)
		return s, nil
	}
	s, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	known, ok := s.(statement)
	if !ok {
		_ = s.Close()
		return nil, fmt.Errorf("the SQLite driver's statement is a %T, which lacks what is needed", s)
	}
	return known, nil
}

// put keeps a statement that has ended, in the place of any other when there are
// too many. What defines the schema runs once and is not kept.
func (c *connection) put(query string, s statement) error {
	word, _, _ := strings.Cut(strings.TrimSpace(query), " ")
	switch word {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE", "ROLLBACK":
	default:
		return s.Close()
	}
	if _, twice := c.idle[query]; twice {
		return s.Close()
	}
	for other, old := range c.idle {
		if len(c.idle) < maxStatements {
			break
		}
		delete(c.idle, other)
		if err := old.Close(); err != nil {
			return err
		}
	}
	c.idle[query] = s
	return nil
}

// ExecContext implements driver.ExecerContext.
func (c *connection) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	if err != nil {
		// What failed is not used again.
		_ = s.Close()
		return nil, err
	}
	return result, c.put(query, s)
}

// QueryContext implements driver.QueryerContext.
func (c *connection) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.QueryContext(ctx, args)
	if err != nil {
		_ = s.Close()
		return nil, err
	}
	return &rows{Rows: r, done: func() error { return c.put(query, s) }}, nil
}

// rows give their statement back when they are closed.
type rows struct {
	driver.Rows
	done func() error
}

// Close implements driver.Rows.
func (r *rows) Close() error {
	err := r.Rows.Close()
	if r.done == nil {
		return err
	}
	done := r.done
	r.done = nil
	if e := done(); err == nil {
		err = e
	}
	return err
}

// Close implements driver.Conn.
func (c *connection) Close() error {
	for _, s := range c.idle {
		// The connection's end is what counts.
		_ = s.Close()
	}
	clear(c.idle)
	return c.engine.Close()
}
