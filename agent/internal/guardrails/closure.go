package guardrails

import (
	"maps"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Groups is every group of a directory at one moment. It is not safe for
// concurrent use.
type Groups struct {
	all map[string]*connectorv1.Object
	// byMember are the groups by whom they name as members, byName the member keys
	// by the name that they read as, byKey the groups by their own keys; all are nil
	// until needed.
	byMember map[string][]*connectorv1.Object
	byName   map[string][]string
	byKey    map[string][]*connectorv1.Object
}

// NewGroups takes groups. They must be all there are.
func NewGroups(all []*connectorv1.Object) *Groups {
	g := &Groups{all: make(map[string]*connectorv1.Object, len(all))}
	for _, o := range all {
		g.all[groupID(o)] = o
	}
	return g
}

// Put takes a group as it was read now, new or in its former state's place.
func (g *Groups) Put(o *connectorv1.Object) {
	g.all[groupID(o)] = o
	g.byMember, g.byName, g.byKey = nil, nil, nil
}

func groupID(o *connectorv1.Object) string { return o.GetType() + "\x00" + o.GetAnchor() }

func (g *Groups) naming(key string) []*connectorv1.Object {
	if g.byMember == nil {
		g.byMember = map[string][]*connectorv1.Object{}
		for _, id := range slices.Sorted(maps.Keys(g.all)) {
			for _, key := range g.all[id].GetMembers() {
				g.byMember[key] = append(g.byMember[key], g.all[id])
			}
		}
	}
	return g.byMember[key]
}

func (g *Groups) keysOf(values string) []string {
	if g.byName == nil {
		g.byName = map[string][]string{}
		seen := map[string]bool{}
		for _, o := range g.all {
			for _, key := range o.GetMembers() {
				if seen[key] {
					continue
				}
				seen[key] = true
				for _, name := range readAs(key) {
					g.byName[name] = append(g.byName[name], key)
				}
			}
		}
	}
	return g.byName[values]
}

// Naming returns every group that would have an object of that name among its
// members, directly or through others, though the object has none of the keys own
// now: they name what bore the name before, or what is yet to come.
func (g *Groups) Naming(name *connectorv1.Name, own []string) []*connectorv1.Object {
	if len(name.GetComponents()) == 0 {
		return nil
	}
	stale := &connectorv1.Object{}
	for _, reading := range calledBy(name) {
		for _, key := range g.keysOf(reading) {
			if !slices.Contains(own, key) {
				stale.Keys = append(stale.Keys, key)
			}
		}
	}
	return g.Above(stale)
}

// calledBy is what link keys that name an object of that name can read as: the
// whole name, its own component, and each part of that, since one part alone may
// be what groups list.
func calledBy(name *connectorv1.Name) []string {
	own := name.Leaf()
	out := []string{valuesOf(name), valuesOf(&connectorv1.Name{Components: []*connectorv1.Component{own}})}
	for _, p := range own.GetParts() {
		out = append(out, valuesOf(&connectorv1.Name{Components: []*connectorv1.Component{{Parts: []*connectorv1.Part{p}}}}))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// readAs are the readings of a link key, in the form of valuesOf: what follows its
// prefix is a whole name, or a value of the object's own component, such as
// "dn:uid=anna,ou=people" and "uid:anna".
func readAs(key string) []string {
	_, text, found := strings.Cut(key, ":")
	if !found || text == "" {
		return nil
	}
	out := []string{valuesOf(&connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("", text)}})}
	if name, err := ParseName(text); err == nil && len(name.GetComponents()) > 0 {
		out = append(out, valuesOf(name))
	}
	return out
}

// valuesOf is a name without its parts' types, since a type has other names and
// numbers too (RFC 4512 2.5); case does not count.
func valuesOf(n *connectorv1.Name) string {
	bare := &connectorv1.Name{}
	for _, c := range n.GetComponents() {
		component := &connectorv1.Component{}
		for _, p := range c.GetParts() {
			component.Parts = append(component.Parts, &connectorv1.Part{Value: preparedValue(p.GetValue())})
		}
		bare.Components = append(bare.Components, component)
	}
	return bare.Key(connectorv1.CaseRule_CASE_RULE_IGNORE)
}

// Below returns the link keys of all who are in the group, directly or through
// others; of a group within it that is known its members, not the group. Each
// stands once, sorted.
func (g *Groups) Below(group *connectorv1.Object) []string {
	if g.byKey == nil {
		g.byKey = map[string][]*connectorv1.Object{}
		for _, o := range g.all {
			for _, key := range o.GetKeys() {
				g.byKey[key] = append(g.byKey[key], o)
			}
		}
	}
	people, seen := map[string]bool{}, map[string]bool{groupID(group): true}
	for queue := []*connectorv1.Object{group}; len(queue) > 0; queue = queue[1:] {
		for _, key := range queue[0].GetMembers() {
			inner := g.byKey[key]
			if !slices.ContainsFunc(inner, func(o *connectorv1.Object) bool { return len(o.GetMembers()) > 0 }) {
				people[key] = true
			}
			for _, o := range inner {
				if id := groupID(o); !seen[id] {
					seen[id] = true
					queue = append(queue, o)
				}
			}
		}
	}
	return slices.Sorted(maps.Keys(people))
}

// Above returns every group that o is in, directly or through others, o itself
// not among them unless it is in a circle. Each stands once.
func (g *Groups) Above(o *connectorv1.Object) []*connectorv1.Object {
	var out []*connectorv1.Object
	seen := map[string]bool{}
	for queue := []*connectorv1.Object{o}; len(queue) > 0; queue = queue[1:] {
		for _, key := range queue[0].GetKeys() {
			for _, parent := range g.naming(key) {
				if id := groupID(parent); !seen[id] {
					seen[id] = true
					out = append(out, parent)
					queue = append(queue, parent)
				}
			}
		}
	}
	return out
}
