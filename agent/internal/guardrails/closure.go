package guardrails

import connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"

// Groups is every group of a directory at one moment, indexed by whom they name
// as members.
type Groups struct {
	byMember map[string][]*connectorv1.Object
}

// NewGroups indexes groups. They must be all there are.
func NewGroups(all []*connectorv1.Object) *Groups {
	g := &Groups{byMember: map[string][]*connectorv1.Object{}}
	for _, o := range all {
		for _, key := range o.GetMembers() {
			g.byMember[key] = append(g.byMember[key], o)
		}
	}
	return g
}

// Above returns every group that o is in, directly or through others, o itself
// not among them unless it is in a circle. Each stands once.
func (g *Groups) Above(o *connectorv1.Object) []*connectorv1.Object {
	var out []*connectorv1.Object
	seen := map[string]bool{}
	for queue := []*connectorv1.Object{o}; len(queue) > 0; queue = queue[1:] {
		for _, key := range queue[0].GetKeys() {
			for _, parent := range g.byMember[key] {
				if id := parent.GetType() + "\x00" + parent.GetAnchor(); !seen[id] {
					seen[id] = true
					out = append(out, parent)
					queue = append(queue, parent)
				}
			}
		}
	}
	return out
}
