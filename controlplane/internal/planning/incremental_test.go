package planning_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// push sends a connector's state under a snapshot id: what changed since base, or
// all of it without one.
func (d *desk) push(alias, id, base string, had, has map[string]*connectorv1.Object) {
	d.t.Helper()
	ctx := context.Background()
	r, err := d.inventory.Begin(ctx, "fabrikam", "dc1", &agentv1.SnapshotBegin{Connector: alias, Snapshot: id, Base: base})
	if err != nil {
		d.t.Fatal(err)
	}
	batch := new(agentv1.ObservedBatch)
	var set connectorv1.SetDigest
	for _, anchor := range slices.Sorted(maps.Keys(has)) {
		set.Add(anchor, has[anchor].Digest())
		if old := had[anchor]; base == "" || old == nil || old.Digest() != has[anchor].Digest() {
			batch.Objects = append(batch.Objects, has[anchor])
		}
	}
	for _, anchor := range slices.Sorted(maps.Keys(had)) {
		if base != "" && has[anchor] == nil {
			batch.Removed = append(batch.Removed, anchor)
		}
	}
	if err := r.Batch(ctx, batch); err != nil {
		d.t.Fatal(err)
	}
	sum, count := set.Sum()
	if err := r.End(ctx, &agentv1.SnapshotEnd{Header: &planv1.SnapshotHeader{
		Connector: alias, Snapshot: id, Objects: count, SetDigest: sum, Complete: true, ObservedAt: timestamppb.New(d.now),
	}}); err != nil {
		d.t.Fatal(err)
	}
}

// bytes are a plan as it would be signed, but for its id and salts.
func (d *desk) bytes() []byte {
	d.t.Helper()
	in, out, err := d.Preview(context.Background(), "fabrikam", planv1.Purpose_PURPOSE_CHANGE)
	if err != nil {
		d.t.Fatal(err)
	}
	in.Plan = "plan"
	encoded, err := planner.Encode(in, out, func() []byte { return make([]byte, planner.SaltSize) })
	if err != nil {
		d.t.Fatal(err)
	}
	return append(encoded.Manifest, bytes.Join(encoded.Chunks, nil)...)
}

// TestFullEqualsIncremental: a plan from what came as deltas over a history is, to
// the byte, the plan from one full look at the same estate.
func TestFullEqualsIncremental(t *testing.T) {
	logins := []string{"anna", "bo", "cy", "di"}
	rapid.Check(t, func(rt *rapid.T) {
		d := open(t, false)
		hr, corp := map[string]*connectorv1.Object{}, map[string]*connectorv1.Object{}
		last := ""
		for step := range rapid.IntRange(1, 5).Draw(rt, "steps") {
			hadHR, hadCorp := maps.Clone(hr), maps.Clone(corp)
			for range rapid.IntRange(0, 4).Draw(rt, "edits") {
				login := rapid.SampledFrom(logins).Draw(rt, "login")
				switch rapid.IntRange(0, 4).Draw(rt, "edit") {
				case 0:
					hr[login] = row(login + " login=" + login)
				case 1:
					hr[login] = row(login + " login=" + login + " end=2026-02-27")
				case 2:
					delete(hr, login)
				case 3:
					corp["a-"+login] = person(login)
				case 4:
					delete(corp, "a-"+login)
				}
			}
			admins := team("admins")
			admins.Members = []string{"dn:" + rapid.SampledFrom(logins).Draw(rt, "admin")}
			corp["g-admins"] = admins
			id := fmt.Sprint("s", step)
			d.push("hr", id, last, hadHR, hr)
			d.push("corp", id, last, hadCorp, corp)
			incremental := d.bytes()
			d.push("hr", id, "", nil, hr)
			d.push("corp", id, "", nil, corp)
			if full := d.bytes(); !bytes.Equal(full, incremental) {
				rt.Fatalf("step %d: the plan from a full look differs from the one from deltas", step)
			}
			last = id
		}
		_ = d.db.Close()
	})
}
