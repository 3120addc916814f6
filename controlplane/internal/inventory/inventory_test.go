package inventory_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/inventory/inventorystore"
	"github.com/reevehq/reeve/controlplane/internal/sqlstore"
	"github.com/reevehq/reeve/controlplane/internal/tx"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	auditv1 "github.com/reevehq/reeve/proto/reeve/audit/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// fakeLog counts acts and keeps nothing.
type fakeLog struct{ acts []auditv1.Type }

func (f *fakeLog) AppendAct(_ tx.Tx, _ string, h *auditv1.Header, _ *auditv1.Body) (uint64, error) {
	f.acts = append(f.acts, h.GetType())
	return uint64(len(f.acts) - 1), nil
}

type desk struct {
	*inventory.Service
	db  *tx.DB
	log *fakeLog
	// ended agents.
	ended agents
}

type agents map[string]bool

func (a agents) Live(_ tx.Tx, _, agent string) (bool, error) { return !a[agent], nil }

func open(t testing.TB, dir string) desk {
	t.Helper()
	db, err := sqlstore.OpenSQLite(context.Background(), filepath.Join(dir, "reeve.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := new(fakeLog)
	ended := agents{}
	return desk{inventory.New(db, inventorystore.Store{}, log, ended, func(string, bool) {}), db, log, ended}
}

func state(alias string, role agentv1.ConnectorState_Role, facts ...string) *agentv1.ConnectorState {
	s := &agentv1.ConnectorState{Alias: alias, Role: role, Mode: agentv1.ConnectorState_MODE_ENFORCE}
	for _, f := range facts {
		s.Fingerprint = append(s.Fingerprint, &connectorv1.Fact{Name: "suffix", Value: f})
	}
	return s
}

func object(anchor, value string) *connectorv1.Object {
	return &connectorv1.Object{Type: "user", Anchor: anchor, Attributes: []*connectorv1.Attribute{{Name: "cn", Values: [][]byte{[]byte(value)}}}}
}

// send pushes a snapshot the way an agent does: a delta against base, or all of
// it when base is empty. Complete deltas of an odd name are incremental.
func (d desk) send(ctx context.Context, tenant, id, base string, have, want map[string]string, complete bool) error {
	r, err := d.Begin(ctx, tenant, "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: id, Base: base,
		Incremental: base != "" && complete && id[len(id)-1]%2 == 1})
	if err != nil {
		return err
	}
	batch := new(agentv1.ObservedBatch)
	var set connectorv1.SetDigest
	for _, anchor := range slices.Sorted(maps.Keys(want)) {
		o := object(anchor, want[anchor])
		set.Add(anchor, o.Digest())
		if old, ok := have[anchor]; base == "" || !ok || old != want[anchor] {
			batch.Objects = append(batch.Objects, o)
		}
	}
	if base != "" {
		for anchor := range have {
			if _, ok := want[anchor]; !ok {
				batch.Removed = append(batch.Removed, anchor)
			}
		}
	}
	// Every batch twice: an acknowledgement got lost.
	for range 2 {
		if err := r.Batch(ctx, batch); err != nil {
			return err
		}
	}
	sum, count := set.Sum()
	return r.End(ctx, &agentv1.SnapshotEnd{Header: &planv1.SnapshotHeader{
		Connector: "corp", Snapshot: id, Objects: count, SetDigest: sum, Complete: complete, ObservedAt: timestamppb.Now(),
	}})
}

func (d desk) current(t interface{ Fatal(...any) }, tenant string) map[string]string {
	got := map[string]string{}
	err := d.db.View(context.Background(), func(x tx.Tx) error {
		c, err := inventorystore.Store{}.Connector(x, tenant, "corp")
		if err != nil {
			return err
		}
		objects, err := inventory.Objects(x, inventorystore.Store{}, c)
		for _, o := range objects {
			got[o.GetAnchor()] = string(o.Attribute("cn")[0])
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// TestReadersSeeWholeSnapshots follows random histories of full, delta, broken
// off and incomplete snapshots against a map.
func TestReadersSeeWholeSnapshots(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	tenants := 0
	rapid.Check(t, func(rt *rapid.T) {
		tenants++
		tenant := fmt.Sprintf("t%d", tenants)
		if err := d.Report(ctx, tenant, "dc1", []*agentv1.ConnectorState{state("corp", agentv1.ConnectorState_ROLE_TARGET)}); err != nil {
			rt.Fatal(err)
		}
		directory, seen, last := map[string]string{}, map[string]string{}, ""
		for step := range rapid.IntRange(1, 8).Draw(rt, "steps") {
			for range rapid.IntRange(0, 4).Draw(rt, "edits") {
				anchor := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(rt, "anchor")
				if rapid.Bool().Draw(rt, "remove") {
					delete(directory, anchor)
				} else {
					directory[anchor] = rapid.StringMatching(`[a-z]{1,3}`).Draw(rt, "value")
				}
			}
			id, base := fmt.Sprintf("s%d", step), last
			if rapid.Bool().Draw(rt, "full") {
				base = ""
			}
			switch rapid.IntRange(0, 3).Draw(rt, "fate") {
			case 0: // broken off before its end
				r, err := d.Begin(ctx, tenant, "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: id, Base: base})
				if err != nil {
					rt.Fatal(err)
				}
				if err := r.Batch(ctx, &agentv1.ObservedBatch{Objects: []*connectorv1.Object{object("a", "torn")}, Removed: []string{"b", "c"}}); err != nil {
					rt.Fatal(err)
				}
			case 1: // incomplete: what was read counts, what was not is still there
				if err := d.send(ctx, tenant, id, base, seen, directory, false); err != nil {
					rt.Fatal(err)
				}
				maps.Copy(seen, directory)
				last = id
			default:
				if err := d.send(ctx, tenant, id, base, seen, directory, true); err != nil {
					rt.Fatal(err)
				}
				seen, last = maps.Clone(directory), id
			}
			if got := d.current(rt, tenant); !maps.Equal(got, seen) {
				rt.Fatalf("after %s readers see %v, want %v", id, got, seen)
			}
		}
	})
}

func TestDeltaAgainstAnotherSnapshotIsResynced(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	if err := d.Report(ctx, "fabrikam", "dc1", []*agentv1.ConnectorState{state("corp", agentv1.ConnectorState_ROLE_TARGET)}); err != nil {
		t.Fatal(err)
	}
	have := map[string]string{"a": "1"}
	if err := d.send(ctx, "fabrikam", "s1", "", nil, have, true); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s9", Base: "s7"}); !errors.Is(err, inventory.ErrResync) {
		t.Fatalf("unknown base: %v", err)
	}
	// A delta that does not add up to what the agent counted changes nothing,
	// whole or incremental.
	for _, id := range []string{"s2", "s3"} {
		if err := d.send(ctx, "fabrikam", id, "s1", map[string]string{"a": "1", "b": "2"}, map[string]string{"a": "1", "b": "2"}, true); !errors.Is(err, inventory.ErrResync) {
			t.Fatalf("wrong sum of %s: %v", id, err)
		}
	}
	if _, err := d.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s5", Incremental: true}); !errors.Is(err, inventory.ErrInvalid) {
		t.Fatalf("incremental against nothing: %v", err)
	}
	if got := d.current(t, "fabrikam"); !maps.Equal(got, have) {
		t.Fatalf("readers see %v", got)
	}
	if _, err := d.Begin(ctx, "fabrikam", "dc2", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s3"}); !errors.Is(err, inventory.ErrOtherAgent) {
		t.Fatalf("foreign agent: %v", err)
	}
	if _, err := d.Begin(ctx, "contoso", "dc1", &agentv1.SnapshotBegin{Connector: "corp", Snapshot: "s3"}); !errors.Is(err, inventory.ErrNotFound) {
		t.Fatalf("foreign tenant: %v", err)
	}
}

func TestSourceCountsOnlyWhileItsFingerprintIsTheConfirmedOne(t *testing.T) {
	ctx := context.Background()
	d := open(t, t.TempDir())
	get := func() inventory.Connector {
		t.Helper()
		list, err := d.Connectors(ctx, "fabrikam")
		if err != nil || len(list) != 1 {
			t.Fatalf("%v, %v", list, err)
		}
		return list[0]
	}
	report := func(fact ...string) {
		t.Helper()
		if err := d.Report(ctx, "fabrikam", "dc1", []*agentv1.ConnectorState{state("hr", agentv1.ConnectorState_ROLE_SOURCE, fact...)}); err != nil {
			t.Fatal(err)
		}
	}
	report("dc=fabrikam")
	if get().Trusted() {
		t.Fatal("a source nobody confirmed is trusted")
	}
	if _, err := d.Confirm(ctx, "fabrikam", "hr", "0000", "operator:kari", time.Now()); !errors.Is(err, inventory.ErrFingerprint) {
		t.Fatalf("wrong fingerprint: %v", err)
	}
	if _, err := d.Confirm(ctx, "fabrikam", "hr", get().Fingerprint, "operator:kari", time.Now()); err != nil {
		t.Fatal(err)
	}
	report()
	if c := get(); !c.Trusted() || c.Suspended != "" {
		t.Fatal("a source that is down for a moment is not another source")
	}
	report("dc=evil")
	if c := get(); c.Trusted() || c.Suspended == "" {
		t.Fatal("another source under the same alias is trusted")
	}
	if _, err := d.Confirm(ctx, "fabrikam", "hr", get().Fingerprint, "operator:kari", time.Now()); err != nil {
		t.Fatal(err)
	}
	if c := get(); !c.Trusted() || c.Suspended != "" {
		t.Fatal("a confirmed source stays suspended")
	}
	if !slices.Equal(d.log.acts, []auditv1.Type{auditv1.Type_TYPE_SOURCE_CONFIRMED, auditv1.Type_TYPE_SUSPENDED, auditv1.Type_TYPE_SOURCE_CONFIRMED}) {
		t.Fatalf("acts on record: %v", d.log.acts)
	}
}
