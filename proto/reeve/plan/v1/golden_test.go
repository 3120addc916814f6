package planv1_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

var update = flag.Bool("update", false, "write the golden vectors anew")

var at = timestamppb.New(time.Date(2026, 3, 1, 8, 30, 0, 5, time.UTC))

func chunk() *planv1.Chunk {
	return &planv1.Chunk{Salt: []byte("0123456789abcdef"), Changes: []*planv1.Change{{
		Id: "c1", Connector: "corp", Level: 3, Cause: planv1.Cause_CAUSE_MSP, Identity: "id-1", Rule: "baseline/staff", Reason: "joiner",
		Operation: &connectorv1.Operation{
			Object: &connectorv1.ObjectRef{Type: "group", Anchor: "g1"},
			Expect: []*connectorv1.Assertion{{Attribute: "cn", Values: [][]byte{[]byte("ø"), {0, 0xff}}}},
			Action: &connectorv1.Operation_AddMember{AddMember: &connectorv1.AddMember{Member: &connectorv1.ObjectRef{Type: "user", Change: "c0"}}},
		},
		DependsOn: []string{"c0"}, EndsAt: at, Grant: "grant-1", Display: "uid=anna",
	}}}
}

func manifest() *planv1.Manifest {
	return &planv1.Manifest{
		Format: 1, Plan: "plan-1", TrustDomain: "reeve.example", Tenant: "fabrikam", Purpose: planv1.Purpose_PURPOSE_CHANGE, AsOf: at,
		Audiences:     []*planv1.Audience{{Agent: "dc1", Connectors: []string{"corp"}}},
		PolicyVersion: "baseline 1.0", PolicyDigest: bytes.Repeat([]byte{1}, 32), ParametersDigest: bytes.Repeat([]byte{2}, 32),
		Snapshots: []*planv1.SnapshotHeader{{Connector: "corp", Snapshot: "s1", Objects: 3, SetDigest: bytes.Repeat([]byte{3}, 32), Complete: true, ObservedAt: at}},
		Chunks:    []*planv1.ChunkRef{{Agent: "dc1", Digest: bytes.Repeat([]byte{4}, 32), Size: 99, Changes: 1}},
	}
}

func order() *planv1.Order {
	return &planv1.Order{
		Format: 1, Order: "order-1", PlanDigest: bytes.Repeat([]byte{5}, 32), TrustDomain: "reeve.example", Tenant: "fabrikam", Agent: "dc1",
		Epoch: 2, Sequence: 7, NotBefore: at, Expires: at,
		Rehearsal: &planv1.Rehearsal{Verdict: planv1.Rehearsal_VERDICT_ROUND_TRIP, ForwardChanges: 1, BackwardChanges: 1, At: at},
		Approvals: []*planv1.Approval{{Kind: planv1.Approval_KIND_OPERATOR, Actor: "operator:ola", PlanDigest: bytes.Repeat([]byte{5}, 32), At: at}},
		Proofs:    []*planv1.InclusionProof{{Checkpoint: "reeve.example/tenant/fabrikam\n1\nx\n", Index: 0, Entry: []byte{1}, Hashes: [][]byte{{2}}}},
	}
}

// TestGolden: what was signed years ago must still be these bytes.
func TestGolden(t *testing.T) {
	for name, m := range map[string]proto.Message{"chunk": chunk(), "manifest": manifest(), "order": order()} {
		got, err := planv1.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join("..", "..", "..", "..", "test", "golden", "plan", name+".hex")
		if *update {
			if err := os.WriteFile(file, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(strings.TrimSpace(string(text)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s encodes to\n%x\nwant\n%x", name, got, want)
		}
		back := m.ProtoReflect().New().Interface()
		if err := planv1.Decode(want, back); err != nil || !proto.Equal(back, m) {
			t.Errorf("%s does not decode to itself: %v", name, err)
		}
	}
}

// TestDecodeRefusesWhatItDoesNotKnow at any depth, in a message, a list and a
// oneof.
func TestDecodeRefusesWhatItDoesNotKnow(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 4095, protowire.VarintType), 1)
	c := chunk()
	c.Changes[0].Operation.GetAddMember().Member.ProtoReflect().SetUnknown(unknown)
	deep := manifest()
	deep.Snapshots[0].ObservedAt = proto.CloneOf(at)
	deep.Snapshots[0].ObservedAt.ProtoReflect().SetUnknown(unknown)
	top := order()
	top.ProtoReflect().SetUnknown(unknown)
	enum := order()
	enum.Approvals[0].Kind = 99
	for name, m := range map[string]proto.Message{"field in a oneof": c, "field in a list": deep, "field on top": top, "enum value": enum} {
		encoded, err := planv1.Encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if err := planv1.Decode(encoded, m.ProtoReflect().New().Interface()); !errors.Is(err, planv1.ErrUnknown) {
			t.Errorf("unknown %s: %v", name, err)
		}
	}
	if err := planv1.Decode([]byte{0xff}, new(planv1.Order)); err == nil {
		t.Error("garbage was decoded")
	}
}
