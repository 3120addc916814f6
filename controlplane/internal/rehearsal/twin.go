package rehearsal

import (
	"crypto/sha256"
	"maps"
	"slices"

	"github.com/reevehq/reeve/controlplane/internal/planner"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	planv1 "github.com/reevehq/reeve/proto/reeve/plan/v1"
	"google.golang.org/protobuf/proto"
)

// Twin is the connectors of one tenant in memory. It is not safe for concurrent
// use.
type Twin struct {
	directories map[string]*directory
	// made maps a create's change to the anchor of what it made.
	made map[string]string
}

// NewTwin returns a twin of the connectors' snapshots. It shares nothing that it
// changes with them.
func NewTwin(connectors []planner.Connector) *Twin {
	t := &Twin{directories: make(map[string]*directory, len(connectors)), made: map[string]string{}}
	for _, c := range connectors {
		t.directories[c.Alias] = newDirectory(c)
	}
	return t
}

// Object returns the twin's object, nil when there is none. It must not be
// modified.
func (t *Twin) Object(connector, anchor string) *connectorv1.Object {
	if d := t.directories[connector]; d != nil {
		return d.objects[anchor]
	}
	return nil
}

// Made returns the anchor of the object that a create made, empty when it made
// none.
func (t *Twin) Made(change string) string { return t.made[change] }

// Connectors returns the connectors as an observation of the twin would find
// them. Whether a snapshot is complete stays as it was.
func (t *Twin) Connectors() []planner.Connector {
	var out []planner.Connector
	for _, alias := range slices.Sorted(maps.Keys(t.directories)) {
		out = append(out, t.directories[alias].observe())
	}
	return out
}

// Digest is SHA-256 over the state of all connectors.
func (t *Twin) Digest() []byte {
	h := sha256.New()
	for _, alias := range slices.Sorted(maps.Keys(t.directories)) {
		sum, _ := t.directories[alias].set()
		h.Write([]byte(alias))
		h.Write([]byte{0})
		h.Write(sum)
	}
	return h.Sum(nil)
}

// directory is the twin of one connector.
type directory struct {
	conn    planner.Connector
	types   map[string]*connectorv1.ObjectType
	objects map[string]*connectorv1.Object
	// names maps Name.Key to an anchor: no two objects have the same name.
	names map[string]string
	// owners maps a link key to the anchors that have it; holders to the anchors
	// that may name it, as a member or in an attribute. Holders are not forgotten,
	// so what is found there is looked at again.
	owners, holders map[string]map[string]bool
	// former remembers what an object looked like under a name, so that renaming
	// it back gives exactly that again.
	former map[string]appearance
	// prefixes of link keys by type.
	prefixes map[string][]string
}

type appearance struct {
	keys    []string
	display string
}

func newDirectory(c planner.Connector) *directory {
	d := &directory{
		conn: c, types: map[string]*connectorv1.ObjectType{}, objects: make(map[string]*connectorv1.Object, len(c.Objects)),
		names: map[string]string{}, owners: map[string]map[string]bool{}, holders: map[string]map[string]bool{},
		former: map[string]appearance{}, prefixes: map[string][]string{},
	}
	for _, t := range c.Types {
		d.types[t.GetName()] = t
	}
	seen := map[string]map[string]bool{}
	for _, o := range c.Objects {
		o = proto.CloneOf(o)
		d.put(o)
		if seen[o.GetType()] == nil {
			seen[o.GetType()] = map[string]bool{}
		}
		for _, k := range o.GetKeys() {
			seen[o.GetType()][prefixOf(k)] = true
		}
	}
	// A type nobody has seen an object of gets the keys that groups ask for.
	members := map[string]bool{}
	for _, t := range c.Types {
		if t.GetMemberKey() != "" {
			members[t.GetMemberKey()] = true
		}
	}
	for _, t := range c.Types {
		all := seen[t.GetName()]
		if t.GetKind() == connectorv1.Kind_KIND_ACCOUNT {
			all = maps.Clone(members)
			maps.Copy(all, seen[t.GetName()])
		}
		d.prefixes[t.GetName()] = slices.Sorted(maps.Keys(all))
	}
	return d
}

// put takes an object into the indexes.
func (d *directory) put(o *connectorv1.Object) {
	d.objects[o.GetAnchor()] = o
	d.names[o.GetName().Key(d.conn.CaseRule)] = o.GetAnchor()
	for _, k := range o.GetKeys() {
		note(d.owners, k, o.GetAnchor())
	}
	for _, k := range o.GetMembers() {
		note(d.holders, k, o.GetAnchor())
	}
	for _, a := range d.types[o.GetType()].GetAttributes() {
		if a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_REFERENCE {
			for _, v := range o.Attribute(a.GetName()) {
				note(d.holders, string(v), o.GetAnchor())
			}
		}
	}
}

func note(index map[string]map[string]bool, key, anchor string) {
	if index[key] == nil {
		index[key] = map[string]bool{}
	}
	index[key][anchor] = true
}

func (d *directory) observe() planner.Connector {
	c := d.conn
	c.Objects = make([]*connectorv1.Object, 0, len(d.objects))
	for _, anchor := range slices.Sorted(maps.Keys(d.objects)) {
		c.Objects = append(c.Objects, proto.CloneOf(d.objects[anchor]))
	}
	if c.Snapshot != nil {
		sum, count := d.set()
		header := proto.CloneOf(c.Snapshot)
		header.Objects, header.SetDigest = count, sum
		c.Snapshot = header
	}
	return c
}

func (d *directory) set() ([]byte, uint64) {
	var set connectorv1.SetDigest
	for _, anchor := range slices.Sorted(maps.Keys(d.objects)) {
		set.Add(anchor, d.objects[anchor].Digest())
	}
	return set.Sum()
}

// resolve finds the object a link key means.
func (d *directory) resolve(key string) string {
	if len(d.owners[key]) != 1 {
		return ""
	}
	for anchor := range d.owners[key] {
		return anchor
	}
	return ""
}

// look is what the ledger's rules need beside the receipt of a change.
func (t *Twin) look(c *planv1.Change) planner.Look {
	d := t.directories[c.GetConnector()]
	if d == nil {
		return planner.Look{}
	}
	return planner.Look{Type: d.types[c.GetOperation().GetObject().GetType()], Resolve: d.resolve}
}
