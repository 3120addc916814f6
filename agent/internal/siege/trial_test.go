package siege

import (
	"maps"

	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
)

// trial is a copy of the estate on which the oracle judges what would be.
type trial struct {
	dir    *fakeDirectory
	oracle *oracle
	made   map[string]string
}

func (c *campaign) trial() *trial {
	t := &trial{dir: c.dir.clone(), oracle: c.oracle.clone(), made: map[string]string{}}
	t.oracle.begin(c.clock.Now())
	return t
}

// harmless carries a change out and reports whether it had an effect, and none
// outside.
func (t *trial) harmless(change *planv1.Change) bool {
	op := proto.CloneOf(change.GetOperation())
	refs := append([]*connectorv1.ObjectRef{op.GetObject(), op.GetAddMember().GetMember(), op.GetRemoveMember().GetMember()}, op.GetCreate().GetMembers()...)
	for _, ref := range refs {
		if ref.GetChange() != "" {
			ref.Anchor, ref.Change = t.made[ref.GetChange()], ""
		}
	}
	if s := op.GetSetCredential(); s != nil {
		s.Secret = []byte("secret-" + change.GetId())
	}
	fine := false
	t.dir.judge = func(_ *connectorv1.Operation, before, after picture) {
		fine = !alike(before, after) && len(t.oracle.judge(before, after, change.GetId(), ends(change))) == 0
		for anchor := range after {
			if before[anchor] == nil {
				t.made[change.GetId()] = anchor
			}
		}
	}
	t.dir.one(op)
	return fine
}

func alike(a, b picture) bool {
	return maps.EqualFunc(a, b, func(x, y *entry) bool {
		return x == y || proto.Equal(x.object(), y.object()) && x.password == y.password
	})
}
