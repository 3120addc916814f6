package policy

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// ParameterType is what a parameter's value is.
type ParameterType string

const (
	ParameterString   ParameterType = "string"
	ParameterInt      ParameterType = "int"
	ParameterBool     ParameterType = "bool"
	ParameterList     ParameterType = "list"
	ParameterName     ParameterType = "name"
	ParameterDuration ParameterType = "duration"
)

// Parameter is one thing that may vary by tenant.
type Parameter struct {
	At   Position
	Name string
	Type ParameterType
	// Enum, when not empty, lists the allowed values (of a list: its items).
	Enum []string
	// Default is the value's text; HasDefault tells an empty one from none.
	Default    string
	HasDefault bool
	// Required parameters have no default and must be given.
	Required bool
	// Classification is public, internal or confidential.
	Classification string
	Description    string
}

// Values are a tenant's parameters as text by name. A list is written as a JSON
// array of strings or separated by commas, a bool as true or false, a name as
// in RFC 4514, a duration as ParseDuration takes it.
type Values map[string]string

// parameterValue is a value checked against its schema.
type parameterValue struct {
	cel ref.Val
	// canonical texts; equal values have equal texts.
	canonical []string
}

// celType of a parameter in rules.
func (p Parameter) celType() *cel.Type {
	switch p.Type {
	case ParameterInt:
		return cel.IntType
	case ParameterBool:
		return cel.BoolType
	case ParameterList:
		return cel.ListType(cel.StringType)
	case ParameterName:
		return nameType
	case ParameterDuration:
		return cel.DurationType
	default:
		return cel.StringType
	}
}

// parse checks one value's text.
func (p Parameter) parse(text string) (parameterValue, error) {
	if strings.ContainsRune(text, 0) {
		return parameterValue{}, fmt.Errorf("holds a NUL character; take it out")
	}
	if len(text) > maxValue {
		return parameterValue{}, fmt.Errorf("is %d bytes long; at most %d are allowed", len(text), maxValue)
	}
	items := []string{text}
	var v ref.Val
	switch p.Type {
	case ParameterInt:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return parameterValue{}, fmt.Errorf("%q is not a whole number", printable(text))
		}
		v, items = types.Int(n), []string{strconv.FormatInt(n, 10)}
	case ParameterBool:
		if text != "true" && text != "false" {
			return parameterValue{}, fmt.Errorf("%q is not true or false", printable(text))
		}
		v = types.Bool(text == "true")
	case ParameterList:
		list, err := parseList(text)
		if err != nil {
			return parameterValue{}, err
		}
		if len(list) > maxValues {
			return parameterValue{}, fmt.Errorf("has %d items; at most %d are allowed", len(list), maxValues)
		}
		v, items = types.NewStringList(types.DefaultTypeAdapter, list), list
	case ParameterName:
		components, err := ParseDN(text)
		if err != nil {
			return parameterValue{}, err
		}
		v, items = nameVal(components), []string{NameText(components)}
	case ParameterDuration:
		d, err := ParseDuration(text)
		if err != nil {
			return parameterValue{}, err
		}
		v, items = types.Duration{Duration: d}, []string{d.String()}
	default:
		v = types.String(text)
	}
	for _, item := range items {
		if len(p.Enum) > 0 && !slices.Contains(p.Enum, item) {
			return parameterValue{}, fmt.Errorf("%q is not one of %s", printable(item), strings.Join(p.Enum, ", "))
		}
	}
	return parameterValue{cel: v, canonical: items}, nil
}

func parseList(text string) ([]string, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "[") {
		list := []string{}
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, fmt.Errorf("%q is not a JSON array of strings", printable(text))
		}
		return list, nil
	}
	list := []string{}
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list, nil
}

// zero stands in for a required parameter while a bundle is checked without a
// tenant.
func (p Parameter) zero() parameterValue {
	switch p.Type {
	case ParameterInt:
		return parameterValue{cel: types.IntZero}
	case ParameterBool:
		return parameterValue{cel: types.False}
	case ParameterList:
		return parameterValue{cel: types.NewStringList(types.DefaultTypeAdapter, nil)}
	case ParameterName:
		return parameterValue{cel: nameVal(nil)}
	case ParameterDuration:
		return parameterValue{cel: types.Duration{Duration: time.Duration(0)}}
	default:
		return parameterValue{cel: types.String("")}
	}
}

// bind checks values against the schema and fills in defaults. The error wraps
// ErrParameters and names every parameter that is wrong.
func bind(bundle string, schema []Parameter, values Values) (map[string]parameterValue, error) {
	names := make([]string, len(schema))
	for i, p := range schema {
		names[i] = p.Name
	}
	var wrong []string
	for _, given := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(names, given) {
			wrong = append(wrong, fmt.Sprintf("unknown parameter %q: %s", printable(given), didYouMean(given, names)))
		}
	}
	bound := make(map[string]parameterValue, len(schema))
	for _, p := range schema {
		text, given := values[p.Name]
		if !given {
			if p.Required {
				wrong = append(wrong, fmt.Sprintf("parameter %q is missing: give it with -p %s=…%s", p.Name, p.Name, describe(p)))
				continue
			}
			text = p.Default
		}
		v, err := p.parse(text)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("parameter %q (%s): %s", p.Name, p.Type, err))
			continue
		}
		bound[p.Name] = v
	}
	if len(wrong) > 0 {
		return nil, fmt.Errorf("%w for bundle %s: %s", ErrParameters, bundle, strings.Join(wrong, "; "))
	}
	return bound, nil
}

func describe(p Parameter) string {
	if p.Description == "" {
		return ""
	}
	return " (" + printable(p.Description) + ")"
}

// digestParameters is SHA-256 over the values sorted by name, each as name,
// number of texts and texts with their lengths.
func digestParameters(bound map[string]parameterValue) []byte {
	h := sha256.New()
	writeFramed(h, []byte("reeve policy parameters v1"))
	for _, name := range slices.Sorted(maps.Keys(bound)) {
		writeFramed(h, []byte(name))
		texts := bound[name].canonical
		writeFramed(h, []byte(strconv.Itoa(len(texts))))
		for _, text := range texts {
			writeFramed(h, []byte(text))
		}
	}
	return h.Sum(nil)
}
