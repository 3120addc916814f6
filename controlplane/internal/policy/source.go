package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// SourceRow is what a source object says about its subject.
type SourceRow struct {
	Connector string
	Type      string
	// Key is the object's anchor.
	Key  string
	Kind string
	// Attributes by identity attribute; those without a value are absent.
	Attributes map[string][]string
	// References name other identities by an attribute of theirs, sorted by
	// name. The identity context resolves them and puts the ids of those
	// identities in the Subject's Attributes under Name.
	References []Reference
	// InScope is false when the filter leaves the object out. An object that
	// was in scope and no longer is has not left: it is kept as it stood.
	InScope bool
	// Start and End of employment as given; End's day belongs to it.
	Start, End Date
	// Active is false when the source says suspended.
	Active bool
	// Order is the source's place in precedence; 0 is first.
	Order int
}

// Reference is a value by which a source names another identity.
type Reference struct {
	Name string
	// Attribute of the other identity that has Value.
	Attribute string
	Values    []string
}

// StateAt is the state the row's dates and status mean at asOf in the tenant's
// zone.
func (r SourceRow) StateAt(asOf time.Time, zone *time.Location) State {
	switch {
	case !r.End.IsZero() && asOf.After(r.End.Last(zone)):
		return StateLeaver
	case !r.Start.IsZero() && asOf.Before(r.Start.First(zone)):
		return StatePending
	case !r.Active:
		return StateSuspended
	}
	return StateActive
}

// MergeRows joins the attributes of one identity's rows: each attribute comes
// whole from the first source, in the bundle's order, that gives it a value.
// Rows of equal order come in the order of their keys.
func MergeRows(rows []SourceRow) map[string][]string {
	sorted := slices.SortedFunc(slices.Values(rows), func(a, b SourceRow) int {
		if a.Order != b.Order {
			return a.Order - b.Order
		}
		return strings.Compare(a.Key, b.Key)
	})
	merged := map[string][]string{}
	for _, r := range sorted {
		for name, values := range r.Attributes {
			if _, taken := merged[name]; !taken {
				merged[name] = values
			}
		}
	}
	return merged
}

type sourceProgram struct {
	*Source
	order      int
	filter     *expression
	start, end *expression
	active     *expression
	attributes []*expression
	references []*expression
}

func sourceKey(connector, typ string) string { return connector + "\x00" + typ }

func (c *compiler) source(s *Source, order int) *sourceProgram {
	object := fmt.Sprintf("source %q", s.Connector+" "+s.Type)
	out := &sourceProgram{
		Source: s, order: order,
		filter: c.compile(c.row, s.Filter, object+": filter", cel.BoolType),
		start:  c.compile(c.row, s.Start, object+": start", cel.StringType),
		end:    c.compile(c.row, s.End, object+": end", cel.StringType),
		active: c.compile(c.row, s.Active, object+": active", cel.BoolType),
	}
	for _, m := range s.Attributes {
		out.attributes = append(out.attributes, c.compile(c.row, m.Value, fmt.Sprintf("%s: attribute %q", object, m.Name), cel.StringType, textsType))
	}
	for _, r := range s.References {
		out.references = append(out.references, c.compile(c.row, r.Value, fmt.Sprintf("%s: reference %q", object, r.Name), cel.StringType, textsType))
	}
	return out
}

// IsSource reports whether the bundle reads identities from the type.
func (p *Program) IsSource(connector, typ string) bool {
	return p.sources[sourceKey(connector, typ)] != nil
}

// Source maps an observed object of a source to a row. Attribute values that
// are not UTF-8 text or longer than 4096 bytes, and those after the thousandth
// of one attribute, are not seen by rules. A date that cannot be read is an
// error, never no date.
func (p *Program) Source(connector, typ string, object *connectorv1.Object) (SourceRow, error) {
	s := p.sources[sourceKey(connector, typ)]
	if s == nil {
		return SourceRow{}, fmt.Errorf("%w: bundle %s has no source %s of type %s; add it under `sources`", ErrEvaluation, p.Name(), printable(connector), printable(typ))
	}
	row := SourceRow{Connector: connector, Type: typ, Key: object.GetAnchor(), Kind: s.Kind, Attributes: map[string][]string{}, Order: s.order}
	values, err := rowOf(object)
	if err == nil {
		err = p.fillRow(&row, s, &variables{params: p.params, row: &attributesVal{typ: rowType, values: values, fold: true}})
	}
	if err != nil {
		return SourceRow{}, fmt.Errorf("object %s of source %s: %w", printable(describeObject(object)), connector, err)
	}
	return row, nil
}

func describeObject(o *connectorv1.Object) string {
	if o.GetDisplay() != "" {
		return o.GetDisplay()
	}
	return o.GetAnchor()
}

func rowOf(object *connectorv1.Object) (map[string][]string, error) {
	if len(object.GetAttributes()) > maxAttributes {
		return nil, fmt.Errorf("%w: it has %d attributes; at most %d are read", ErrEvaluation, len(object.Attributes), maxAttributes)
	}
	values := make(map[string][]string, len(object.GetAttributes())+1)
	for _, a := range object.GetAttributes() {
		var texts []string
		for _, v := range a.GetValues() {
			if utf8.Valid(v) && len(v) <= maxValue && len(texts) < maxValues {
				texts = append(texts, string(v))
			}
		}
		values[a.GetName()] = texts
	}
	if leaf := object.GetName().Leaf(); leaf != nil {
		for _, part := range leaf.GetParts() {
			values[ObjectName] = append(values[ObjectName], part.GetValue())
		}
	}
	return values, nil
}

func (p *Program) fillRow(row *SourceRow, s *sourceProgram, vars *variables) error {
	var err error
	if row.InScope, err = p.truth(s.filter, vars); err != nil {
		return err
	}
	if row.Active, err = p.truth(s.active, vars); err != nil {
		return err
	}
	if row.Start, err = p.date(s.start, vars); err != nil {
		return err
	}
	if row.End, err = p.date(s.end, vars); err != nil {
		return err
	}
	for i, x := range s.attributes {
		values, _, err := p.texts(x, vars)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			row.Attributes[s.Attributes[i].Name] = values
		}
	}
	for i, x := range s.references {
		values, _, err := p.texts(x, vars)
		if err != nil {
			return err
		}
		if len(values) > 0 {
			row.References = append(row.References, Reference{Name: s.References[i].Name, Attribute: s.References[i].Attribute, Values: values})
		}
	}
	return nil
}

func (p *Program) date(x *expression, vars *variables) (Date, error) {
	if x == nil {
		return Date{}, nil
	}
	out, err := x.eval(vars, p.allowance)
	if err != nil {
		return Date{}, err
	}
	text, _ := out.(types.String)
	date, err := ParseDate(string(text))
	if err != nil {
		return Date{}, fmt.Errorf("%s: %s: %w: %w", x.at, x.rule, ErrEvaluation, err)
	}
	return date, nil
}
