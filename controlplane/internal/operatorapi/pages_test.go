package operatorapi

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/dispatch/dispatchstore"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/identity/identitystore"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/inventory/inventorystore"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/planning/planningstore"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// counted counts the rows that a walk over pages reads.
type counted struct {
	inventorystore.Store
	rows *int
}

func (c counted) ObjectsAfter(t tx.Tx, tenant, alias string, seq int64, after string, limit int) ([]inventory.Object, error) {
	list, err := c.Store.ObjectsAfter(t, tenant, alias, seq, after, limit)
	*c.rows += len(list)
	return list, err
}

// A list is walked page by page, under every filter, and a page reads no more
// than lies between it and the next.
func TestObjectsArePagedByKey(t *testing.T) {
	s := open(t)
	rows := 0
	s.Objects = counted{rows: &rows}
	const all = 57
	put := func(t tx.Tx) error {
		store := inventorystore.Store{}
		if err := store.PutConnector(t, inventory.Connector{Tenant: "fabrikam", Alias: "corp", Agent: "dc1", State: &agentv1.ConnectorState{Alias: "corp"}}); err != nil {
			return err
		}
		var objects []inventory.Object
		for i := range all {
			o := &connectorv1.Object{Type: []string{"person", "group"}[i%2], Anchor: fmt.Sprintf("a%03d", i)}
			body, err := proto.Marshal(o)
			if err != nil {
				return err
			}
			objects = append(objects, inventory.Object{Type: o.GetType(), Anchor: o.GetAnchor(), Body: body})
			if i%3 != 0 {
				continue
			}
			if err := (identitystore.Store{}).PutAccount(t, "fabrikam", identity.Account{Connector: "corp", Anchor: o.GetAnchor(), Identity: "id", Purpose: "normal", Type: o.GetType()}); err != nil {
				return err
			}
		}
		if err := store.PutObjects(t, "fabrikam", "corp", 1, objects, func(string, [32]byte) {}); err != nil {
			return err
		}
		return store.EndSnapshot(t, "fabrikam", "corp", 1, &agentv1.SnapshotEnd{Header: &planv1.SnapshotHeader{}}, nil)
	}
	if err := s.DB.Do(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	for _, filter := range []*operatorv1.ListObjectsRequest{{}, {Type: "group"}, {Orphans: true}, {Type: "person", Orphans: true}, {Type: "printer"}} {
		var want []string
		for i := range all {
			if (filter.GetType() == "" || filter.GetType() == []string{"person", "group"}[i%2]) && (!filter.GetOrphans() || i%3 != 0) {
				want = append(want, fmt.Sprintf("a%03d", i))
			}
		}
		for _, size := range []uint32{1, 2, 7, 100} {
			rows = 0
			pages := 0
			var got []string
			r := proto.CloneOf(filter)
			r.Tenant, r.Connector, r.PageSize = "fabrikam", "corp", size
			for more := true; more; more = r.GetPageToken() != "" {
				resp, err := (inventories{Server: s}).ListObjects(t.Context(), r)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range resp.GetObjects() {
					got = append(got, o.GetObject().GetAnchor())
				}
				r.PageToken = resp.GetNextPageToken()
				pages++
			}
			if !slices.Equal(got, want) {
				t.Errorf("%v in pages of %d: %v", filter, size, got)
			}
			if most := all + pages*int(size); rows > most {
				t.Errorf("%v in %d pages of %d: %d rows were read, at most %d should be", filter, pages, size, rows, most)
			}
		}
	}
}

// Changes are walked in the plan's order over all its chunks, with the receipts
// that there are.
func TestChangesArePagedByPlace(t *testing.T) {
	s := open(t)
	s.Orders, s.Objects = dispatchstore.Store{}, inventorystore.Store{}
	var want []string
	put := func(t tx.Tx) error {
		want = nil
		var chunks []planning.Chunk
		for i, n := range []int{5, 0, 1, 9} {
			chunk := new(planv1.Chunk)
			for j := range n {
				id := fmt.Sprintf("c%d-%d", i, j)
				want = append(want, id)
				chunk.Changes = append(chunk.Changes, &planv1.Change{Id: id, Connector: "corp", Operation: &connectorv1.Operation{Id: id, Action: &connectorv1.Operation_Delete{Delete: &connectorv1.Delete{}}}})
			}
			raw, err := planv1.Encode(chunk)
			if err != nil {
				return err
			}
			chunks = append(chunks, planning.Chunk{Ordinal: i, Agent: "dc1", Bytes: raw})
		}
		if err := (planningstore.Store{}).Put(t, planning.Plan{ID: "plan-1", Tenant: "fabrikam", Digest: []byte("d"), Manifest: []byte("m"), Rehearsal: &planv1.Rehearsal{}}, chunks, nil); err != nil {
			return err
		}
		receipt := func(plan string, result auditv1.Receipt_Result) error {
			return dispatchstore.Store{}.PutReceipt(t, "fabrikam", plan, dispatch.Receipt{Change: "c3-4", Receipt: &auditv1.Receipt{Change: "c3-4", Result: result}})
		}
		// The same change in another plan is not this one's.
		if err := receipt("plan-0", auditv1.Receipt_RESULT_FAILED); err != nil {
			return err
		}
		return receipt("plan-1", auditv1.Receipt_RESULT_APPLIED)
	}
	if err := s.DB.Do(t.Context(), put); err != nil {
		t.Fatal(err)
	}
	for size := range uint32(20) {
		var got []string
		r := &operatorv1.ListChangesRequest{Plan: "plan-1", PageSize: size}
		for more := true; more; more = r.GetPageToken() != "" {
			resp, err := (plans{Server: s}).ListChanges(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if size > 0 && len(resp.GetChanges()) > int(size) {
				t.Fatalf("a page of %d has %d", size, len(resp.GetChanges()))
			}
			for _, c := range resp.GetChanges() {
				got = append(got, c.GetChange().GetId())
				if applied := c.GetReceipt().GetResult() == auditv1.Receipt_RESULT_APPLIED; applied != (c.GetChange().GetId() == "c3-4") || !applied && c.GetReceipt() != nil {
					t.Errorf("receipt of %s: %v", c.GetChange().GetId(), c.GetReceipt())
				}
			}
			r.PageToken = resp.GetNextPageToken()
		}
		if !slices.Equal(got, want) {
			t.Errorf("in pages of %d: %v", size, got)
		}
	}
	for _, token := range []string{"c3-4", "-1/0", "0/-1", "1/2/3", "01/2", "1/2 "} {
		if _, err := (plans{Server: s}).ListChanges(t.Context(), &operatorv1.ListChangesRequest{Plan: "plan-1", PageToken: next(1, 1, token)}); err == nil {
			t.Errorf("token %q was taken", token)
		}
	}
	if resp, err := (plans{Server: s}).ListChanges(t.Context(), &operatorv1.ListChangesRequest{Plan: "plan-1", PageToken: next(1, 1, "9/9")}); err != nil || len(resp.GetChanges()) > 0 {
		t.Errorf("past the end: %v, %v", resp, err)
	}
}

// byKey is a store that nobody may read whole.
type byKey struct{ identitystore.Store }

var errWhole = errors.New("all of a tenant's rows were read for one page")

func (byKey) Links(tx.Tx, string) ([]identity.Link, error)       { return nil, errWhole }
func (byKey) Accounts(tx.Tx, string) ([]identity.Account, error) { return nil, errWhole }

// A page of identities shows each with its own sources and accounts, and reads
// nobody else's.
func TestIdentitiesArePagedByKey(t *testing.T) {
	s := open(t)
	s.IdentityStore = byKey{}
	s.Policies = policystore.New(s.DB, records{}, time.Now, "msp")
	if err := s.DB.Do(t.Context(), func(t tx.Tx) error {
		store := identitystore.Store{}
		for i := range 7 {
			id := fmt.Sprintf("id-%d", i)
			if err := errors.Join(store.Put(t, "fabrikam", identity.Identity{ID: id, Kind: "human", Label: "L " + id}),
				store.PutLink(t, "fabrikam", identity.Link{Connector: "hr", Anchor: "h" + id, Identity: id}),
				store.PutAccount(t, "fabrikam", identity.Account{Connector: "corp", Anchor: "c" + id, Identity: id, Purpose: "normal", Type: "person"})); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := &operatorv1.ListIdentitiesRequest{Tenant: "fabrikam", PageSize: 3}
	for more := true; more; more = r.GetPageToken() != "" {
		resp, err := (identities{Server: s}).ListIdentities(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range resp.GetIdentities() {
			if len(i.GetSources()) != 1 || i.GetSources()[0] != "hr h"+i.GetId() || len(i.GetAccounts()) != 1 || i.GetAccounts()[0].GetAnchor() != "c"+i.GetId() {
				t.Errorf("%v", i)
			}
			got = append(got, i.GetId())
		}
		r.PageToken = resp.GetNextPageToken()
	}
	if !slices.Equal(got, []string{"id-0", "id-1", "id-2", "id-3", "id-4", "id-5", "id-6"}) {
		t.Errorf("%v", got)
	}
}
