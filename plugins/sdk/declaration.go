package sdk

import (
	"cmp"
	"fmt"
	"slices"
	"unicode/utf8"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// declaration is what an instance says it has; everything else is refused.
type declaration struct {
	alias        string
	list         []*connectorv1.ObjectType
	types        map[string]*connectorv1.ObjectType
	attributes   map[string]map[string]*connectorv1.AttributeType
	capabilities []connectorv1.Capability
	transactions bool
}

func newDeclaration(alias string, types []*connectorv1.ObjectType) (*declaration, error) {
	d := &declaration{alias: alias, list: types, types: map[string]*connectorv1.ObjectType{}, attributes: map[string]map[string]*connectorv1.AttributeType{}}
	for _, t := range types {
		if t.GetName() == "" || d.types[t.GetName()] != nil {
			return nil, connectorBug(alias, "declare types", fmt.Sprintf("type %q is nameless or declared twice", t.GetName()))
		}
		if t.GetKind() == connectorv1.Kind_KIND_UNSPECIFIED {
			return nil, connectorBug(alias, "declare types", fmt.Sprintf("type %q has no kind", t.GetName()))
		}
		slices.SortFunc(t.Attributes, func(x, y *connectorv1.AttributeType) int { return cmp.Compare(x.GetName(), y.GetName()) })
		attributes := map[string]*connectorv1.AttributeType{}
		for _, a := range t.GetAttributes() {
			if a.GetName() == "" || attributes[a.GetName()] != nil {
				return nil, connectorBug(alias, "declare types", fmt.Sprintf("attribute %q of type %q is nameless or declared twice", a.GetName(), t.GetName()))
			}
			if a.GetRule() == connectorv1.MatchingRule_MATCHING_RULE_UNSPECIFIED {
				return nil, connectorBug(alias, "declare types", fmt.Sprintf("attribute %q of type %q has no matching rule", a.GetName(), t.GetName()))
			}
			attributes[a.GetName()] = a
		}
		d.types[t.GetName()], d.attributes[t.GetName()] = t, attributes
	}
	return d, nil
}

// declareInstance checks an instance's types against what the connector
// described and derives its capabilities from the interfaces it has.
func declareInstance(alias string, i Instance, described *connectorv1.DescribeResponse) (*declaration, error) {
	d, err := newDeclaration(alias, i.Types())
	if err != nil {
		return nil, err
	}
	_, applies := i.(Applier)
	for _, t := range d.list {
		at := slices.IndexFunc(described.GetTypes(), func(w *connectorv1.ObjectType) bool { return w.GetName() == t.GetName() })
		if at < 0 {
			return nil, connectorBug(alias, "configure", fmt.Sprintf("type %q is not among those of Describe", t.GetName()))
		}
		for _, op := range t.GetOperations() {
			if !applies {
				return nil, connectorBug(alias, "configure", fmt.Sprintf("type %q declares operations, the instance has no Apply", t.GetName()))
			}
			if !described.GetTypes()[at].Allows(op) {
				return nil, connectorBug(alias, "configure", fmt.Sprintf("type %q declares %s, Describe does not", t.GetName(), op.Word()))
			}
		}
	}
	has := map[connectorv1.Capability]bool{}
	_, has[connectorv1.Capability_CAPABILITY_INCREMENTAL] = i.(ChangeReader)
	_, has[connectorv1.Capability_CAPABILITY_WATCH] = i.(Watcher)
	for _, c := range i.Capabilities() {
		if derived, known := has[c]; known && !derived {
			return nil, connectorBug(alias, "configure", fmt.Sprintf("claims %s without its interface", c))
		}
		has[c] = true
	}
	for c, yes := range has {
		if yes && c != connectorv1.Capability_CAPABILITY_UNSPECIFIED {
			d.capabilities = append(d.capabilities, c)
		}
	}
	slices.Sort(d.capabilities)
	d.transactions = has[connectorv1.Capability_CAPABILITY_TRANSACTIONS]
	return d, nil
}

// conform brings the object into the contract's form and returns what the
// connector did wrong, and whether the object may be sent at all.
func (d *declaration) conform(o *connectorv1.Object) (faults []string, sendable bool) {
	attributes, known := d.attributes[o.GetType()]
	switch {
	case !known:
		return []string{fmt.Sprintf("type %q is not declared", Clean(o.GetType()))}, false
	case o.GetAnchor() == "":
		return []string{"object without an anchor"}, false
	case !validText(o):
		return []string{"object with text that is not UTF-8"}, false
	}
	kept := o.Attributes[:0]
	for _, a := range o.GetAttributes() {
		declared := attributes[a.GetName()]
		switch {
		case declared == nil:
			faults = append(faults, fmt.Sprintf("attribute %q is not declared", Clean(a.GetName())))
		case declared.GetSecret():
			faults = append(faults, fmt.Sprintf("secret attribute %q was emitted; it is withheld", a.GetName()))
		case len(a.GetValues()) == 0:
		case len(a.GetValues()) > 1 && !declared.GetMultiValued():
			faults = append(faults, fmt.Sprintf("attribute %q is single-valued and has several values", a.GetName()))
		default:
			kept = append(kept, a)
		}
	}
	clear(o.Attributes[len(kept):])
	o.Attributes = kept
	slices.SortFunc(o.Attributes, func(x, y *connectorv1.Attribute) int { return cmp.Compare(x.GetName(), y.GetName()) })
	for i := 1; i < len(o.Attributes); i++ {
		if o.Attributes[i].GetName() == o.Attributes[i-1].GetName() {
			return append(faults, fmt.Sprintf("attribute %q stands twice in one object", o.Attributes[i].GetName())), false
		}
	}
	slices.Sort(o.Keys)
	o.Keys = slices.Compact(o.Keys)
	slices.Sort(o.Members)
	o.Members = slices.Compact(o.Members)
	for _, c := range o.GetName().GetComponents() {
		slices.SortFunc(c.Parts, func(x, y *connectorv1.Part) int {
			return cmp.Or(cmp.Compare(x.GetType(), y.GetType()), cmp.Compare(x.GetValue(), y.GetValue()))
		})
	}
	o.Display = Clean(o.GetDisplay())
	return faults, true
}

func validText(o *connectorv1.Object) bool {
	ok := utf8.ValidString(o.GetAnchor())
	for _, s := range o.GetKeys() {
		ok = ok && utf8.ValidString(s)
	}
	for _, s := range o.GetMembers() {
		ok = ok && utf8.ValidString(s)
	}
	for _, c := range o.GetName().GetComponents() {
		for _, p := range c.GetParts() {
			ok = ok && utf8.ValidString(p.GetType()) && utf8.ValidString(p.GetValue())
		}
	}
	return ok
}

// checkRef refuses what a connector should never see.
func (d *declaration) checkRef(ref *connectorv1.ObjectRef, byName bool) *Problem {
	if d.types[ref.GetType()] == nil {
		return NewProblem(CodeUnknownType, d.alias+": type "+Clean(ref.GetType()), "use the type", "use a type that the instance declares")
	}
	named := len(ref.GetName().GetComponents()) > 0
	switch {
	case ref.GetChange() != "":
		return NewProblem(CodeInvalidValue, d.alias, "use a reference to a change", "the agent must put the anchor in its place first")
	case (ref.GetAnchor() != "") == named:
		return NewProblem(CodeInvalidValue, d.alias, "use a reference", "set exactly one of anchor and name")
	case named && !byName:
		return NewProblem(CodeInvalidValue, d.alias, "use a reference by name", "name the object by its anchor")
	}
	return nil
}

// checkRead holds one result to the contract: in a read-back, an object with a
// withheld part would be taken for the whole truth.
func (d *declaration) checkRead(ref *connectorv1.ObjectRef, r *connectorv1.ReadResult) *connectorv1.ReadResult {
	label := d.alias + ": " + ref.GetType() + " " + Clean(ref.GetAnchor()) + ref.GetName().Text()
	switch out := r.GetOutcome().(type) {
	case *connectorv1.ReadResult_Problem:
		return readProblem(FromProto(out.Problem))
	case *connectorv1.ReadResult_Absent:
		return r
	case *connectorv1.ReadResult_Object:
		if out.Object.GetType() != ref.GetType() || (ref.GetAnchor() != "" && out.Object.GetAnchor() != ref.GetAnchor()) {
			return readProblem(connectorBug(label, "read", "another object than the one asked for"))
		}
		if faults, sendable := d.conform(out.Object); !sendable || len(faults) > 0 {
			return readProblem(connectorBug(label, "read", fmt.Sprint(faults)))
		}
		return r
	default:
		return readProblem(connectorBug(label, "read", "no result"))
	}
}
