package guardrails

import (
	"slices"
	"strings"
	"sync"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Groups is every group of a directory at one moment, indexed by whom they name
// as members. It is safe for concurrent use.
type Groups struct {
	byMember map[string][]*connectorv1.Object
	// byName are the member keys by the name that they read as; it is made when
	// first needed.
	byName func() map[string][]string
}

// NewGroups indexes groups. They must be all there are.
func NewGroups(all []*connectorv1.Object) *Groups {
	g := &Groups{byMember: map[string][]*connectorv1.Object{}}
	for _, o := range all {
		for _, key := range o.GetMembers() {
			g.byMember[key] = append(g.byMember[key], o)
		}
	}
	g.byName = sync.OnceValue(func() map[string][]string {
		out := map[string][]string{}
		for key := range g.byMember {
			if name := readAs(key); name != "" {
				out[name] = append(out[name], key)
			}
		}
		return out
	})
	return g
}

// Naming returns every group that would have an object of that name among its
// members, directly or through others, though the object has none of the keys own
// now: they name what bore the name before, or what is yet to come.
func (g *Groups) Naming(name *connectorv1.Name, own []string) []*connectorv1.Object {
	if len(name.GetComponents()) == 0 {
		return nil
	}
	stale := &connectorv1.Object{}
	whole := valuesOf(name)
	keys := g.byName()[whole]
	if len(name.GetComponents()) > 1 {
		keys = slices.Concat(keys, g.byName()[valuesOf(&connectorv1.Name{Components: name.GetComponents()[:1]})])
	}
	for _, key := range keys {
		if !slices.Contains(own, key) {
			stale.Keys = append(stale.Keys, key)
		}
	}
	return g.Above(stale)
}

// readAs is what a link key reads as: its values in the form of valuesOf. What
// follows the key's prefix is a whole name, or a value of the object's own
// component, such as "dn:uid=anna,ou=people" and "uid:anna".
func readAs(key string) string {
	_, text, found := strings.Cut(key, ":")
	if !found || text == "" {
		return ""
	}
	if name, err := ParseName(text); err == nil && len(name.GetComponents()) > 0 {
		return valuesOf(name)
	}
	return valuesOf(&connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent("", text)}})
}

// valuesOf is a name without its parts' types, since a type has other names and
// numbers too (RFC 4512 2.5); case does not count.
func valuesOf(n *connectorv1.Name) string {
	bare := &connectorv1.Name{}
	for _, c := range n.GetComponents() {
		component := &connectorv1.Component{}
		for _, p := range c.GetParts() {
			component.Parts = append(component.Parts, &connectorv1.Part{Value: p.GetValue()})
		}
		bare.Components = append(bare.Components, component)
	}
	return bare.Key(connectorv1.CaseRule_CASE_RULE_IGNORE)
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
