package siege

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// pair is one type=value of a name.
type pair struct{ typ, value string }

// dn is a name, leaf first; each level is one or more pairs.
type dn [][]pair

// entry is one object of the fake directory. Entries are never changed, only
// replaced, so that a map of them is a picture of a moment.
type entry struct {
	anchor, typ string
	name        dn
	attributes  map[string][]string // by declared name
	members     []string            // link keys
	enabled     bool
	password    string
	// known are its keys, once somebody asked; own is its name's.
	known []string
	own   string
}

type picture map[string]*entry

// fakeDirectory is a directory in this process that behaves like slapd: names
// compare as RFC 4518 prepares them, what stands in a name is an attribute, members
// are names that may be stale, and nothing tidies them up.
type fakeDirectory struct {
	entries picture
	next    int
	// judge sees every operation that was applied, with the directory before and
	// after it.
	judge func(op *connectorv1.Operation, before, after picture)
	// cut is called when that many more operations have been applied; 0 never.
	cutAfter int
	cut      func()
}

// prepared is the form in which the directory compares (RFC 4518 2): case and
// compatibility forms do not count, nor do characters that nobody sees.
func prepared(s string) string {
	s = norm.NFKC.String(strings.Map(func(r rune) rune {
		if r == 0x00ad || unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s))
	return strings.Join(strings.Fields(norm.NFKC.String(strings.ToLower(strings.ToUpper(s)))), " ")
}

func (n dn) key() string {
	var levels []string
	for _, level := range n {
		var parts []string
		for _, p := range level {
			parts = append(parts, strings.ToLower(p.typ)+"="+escaped(prepared(p.value)))
		}
		slices.Sort(parts)
		levels = append(levels, strings.Join(parts, "+"))
	}
	return strings.Join(levels, ",")
}

func escaped(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(`,+"\<>;=#`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func nameOf(n *connectorv1.Name) dn {
	var out dn
	for _, c := range n.GetComponents() {
		var level []pair
		for _, p := range c.GetParts() {
			level = append(level, pair{p.GetType(), p.GetValue()})
		}
		out = append(out, level)
	}
	return out
}

func (n dn) wire() *connectorv1.Name {
	out := &connectorv1.Name{}
	for _, level := range n {
		out.Components = append(out.Components, wireLevel(level))
	}
	return out
}

func wireLevel(level []pair) *connectorv1.Component {
	c := &connectorv1.Component{}
	for _, p := range level {
		c.Parts = append(c.Parts, &connectorv1.Part{Type: p.typ, Value: p.value})
	}
	return c
}

// key is the name's key, kept since names are compared all the time.
func (e *entry) key() string {
	if e.own == "" {
		e.own = e.name.key()
	}
	return e.own
}

func (e *entry) keys() []string {
	if e.known != nil {
		return e.known
	}
	out := []string{"dn:" + e.key()}
	if e.typ == "person" {
		for _, p := range e.name[0] {
			if strings.EqualFold(p.typ, "uid") {
				out = append(out, "uid:"+p.value)
			}
		}
	}
	slices.Sort(out)
	e.known = out
	return out
}

func (e *entry) object() *connectorv1.Object {
	o := &connectorv1.Object{Type: e.typ, Anchor: e.anchor, Name: e.name.wire(), Keys: slices.Clone(e.keys()), Members: slices.Clone(e.members)}
	for _, name := range slices.Sorted(maps.Keys(e.attributes)) {
		a := &connectorv1.Attribute{Name: name}
		for _, v := range e.attributes[name] {
			a.Values = append(a.Values, []byte(v))
		}
		o.Attributes = append(o.Attributes, a)
	}
	slices.Sort(o.Members)
	if e.typ == "person" {
		o.Enablement = connectorv1.Enablement_ENABLEMENT_DISABLED
		if e.enabled {
			o.Enablement = connectorv1.Enablement_ENABLEMENT_ENABLED
		}
	}
	return o
}

func (e *entry) copy() *entry {
	c := *e
	c.known, c.own = nil, ""
	c.attributes = map[string][]string{}
	for k, v := range e.attributes {
		c.attributes[k] = slices.Clone(v)
	}
	c.members = slices.Clone(e.members)
	return &c
}

func (d *fakeDirectory) clone() *fakeDirectory {
	return &fakeDirectory{entries: maps.Clone(d.entries), next: d.next, judge: func(*connectorv1.Operation, picture, picture) {}}
}

func (d *fakeDirectory) Types() []*connectorv1.ObjectType { return declared }

func (d *fakeDirectory) Ready(context.Context) error { return nil }

func (d *fakeDirectory) CaseRule() connectorv1.CaseRule {
	return connectorv1.CaseRule_CASE_RULE_IGNORE
}

func (d *fakeDirectory) Capabilities() []connectorv1.Capability { return nil }

func (d *fakeDirectory) Released(*connectorv1.Object) {}

func (d *fakeDirectory) find(ref *connectorv1.ObjectRef) *entry {
	if ref.GetAnchor() != "" {
		if e := d.entries[ref.GetAnchor()]; e != nil && e.typ == ref.GetType() {
			return e
		}
		return nil
	}
	if ref.GetName() == nil {
		return nil
	}
	key := nameOf(ref.GetName()).key()
	for _, e := range d.entries {
		if e.typ == ref.GetType() && e.key() == key {
			return e
		}
	}
	return nil
}

func (d *fakeDirectory) Read(_ context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	var out []*connectorv1.ReadResult
	for _, ref := range refs {
		r := &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Absent{Absent: &connectorv1.Absent{}}}
		if e := d.find(ref); e != nil {
			r.Outcome = &connectorv1.ReadResult_Object{Object: e.object()}
		}
		out = append(out, r)
	}
	return out, nil
}

func (d *fakeDirectory) Groups(context.Context) ([]*connectorv1.Object, error) {
	var out []*connectorv1.Object
	for _, anchor := range slices.Sorted(maps.Keys(d.entries)) {
		if d.entries[anchor].typ != "person" {
			out = append(out, d.entries[anchor].object())
		}
	}
	return out, nil
}

func (d *fakeDirectory) Apply(ctx context.Context, operations []*connectorv1.Operation) ([]*connectorv1.ApplyResult, error) {
	var out []*connectorv1.ApplyResult
	for _, op := range operations {
		out = append(out, d.one(op))
		if d.cutAfter > 0 {
			if d.cutAfter--; d.cutAfter == 0 {
				d.cut()
				return nil, ctx.Err()
			}
		}
	}
	return out, nil
}

func (d *fakeDirectory) one(op *connectorv1.Operation) *connectorv1.ApplyResult {
	before := d.entries
	d.entries = maps.Clone(before)
	if said := d.effect(op); said != "" {
		d.entries = before
		return sdk.Refused(op, sdk.NewProblem(sdk.CodeInvalidValue, "fake", op.Kind().Word(), "plan again").WithSaid(said))
	}
	d.judge(op, before, d.entries)
	return sdk.Done(op)
}

func typeOf(name string) *connectorv1.ObjectType {
	for _, t := range declared {
		if t.GetName() == name {
			return t
		}
	}
	return nil
}
