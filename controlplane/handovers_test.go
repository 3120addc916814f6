package controlplane

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/inventory/inventorystore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// An agent's receipts count for the connectors whose home it is, in its own
// tenant.
func TestAReceiptCountsForItsAgentsConnectors(t *testing.T) {
	db, err := sqlstore.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	about := &planned{objects: inventorystore.Store{}}
	if err := db.Do(t.Context(), func(x tx.Tx) error {
		return inventorystore.Store{}.PutConnector(x, inventory.Connector{Tenant: "fabrikam", Alias: "corp", Agent: "dc1", State: &agentv1.ConnectorState{
			Types: []*connectorv1.ObjectType{{Name: "person"}},
		}})
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		tenant, agent, connector string
		ok                       bool
	}{
		{"fabrikam", "dc1", "corp", true}, {"fabrikam", "dc2", "corp", false}, {"contoso", "dc1", "corp", false}, {"fabrikam", "dc1", "erp", false},
	} {
		if err := db.View(t.Context(), func(x tx.Tx) error {
			look, ok, err := about.Look(x, c.tenant, c.agent, c.connector, "person")
			if ok != c.ok || (look.Type.GetName() == "person") != c.ok {
				t.Errorf("%+v: %v, %v", c, look.Type, ok)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// Errands run once however often they are asked for before they began, and one
// that fails or blocks nothing keeps the others going.
func TestErrandsRunOnceAndGoOn(t *testing.T) {
	e := newErrands(slog.New(slog.DiscardHandler))
	runs := map[string]int{}
	done := make(chan struct{})
	ask := func(name string, err error) {
		e.ask(name, func(context.Context) error { runs[name]++; return err })
	}
	ask("a", context.DeadlineExceeded)
	ask("b", nil)
	ask("a", nil)
	e.ask("last", func(context.Context) error { close(done); return nil })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { e.run(ctx); close(ended) }()
	<-done
	stop()
	<-ended
	if runs["a"] != 1 || runs["b"] != 1 {
		t.Fatalf("%v", runs)
	}
}
