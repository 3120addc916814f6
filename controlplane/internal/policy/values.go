package policy

import (
	"fmt"
	"reflect"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// The types of rules beside CEL's own. They are opaque: a name is made of
// components and a component of typed parts, never of text.
var (
	identityType  = cel.OpaqueType("reeve.Identity")
	rowType       = cel.OpaqueType("reeve.Row")
	nameType      = cel.OpaqueType("reeve.Name")
	componentType = cel.OpaqueType("reeve.Component")
	textsType     = cel.ListType(cel.StringType)
)

// nameVal is a name in a rule.
type nameVal []Component

func (v nameVal) ConvertToNative(t reflect.Type) (any, error) { return noNative(v, t) }
func (v nameVal) ConvertToType(t ref.Type) ref.Val            { return noConversion(v, t) }
func (v nameVal) Equal(other ref.Val) ref.Val {
	o, ok := other.(nameVal)
	return types.Bool(ok && reflect.DeepEqual(v, o))
}
func (v nameVal) Type() ref.Type { return nameType }
func (v nameVal) Value() any     { return []Component(v) }

// componentVal is one component in a rule.
type componentVal Component

func (v componentVal) ConvertToNative(t reflect.Type) (any, error) { return noNative(v, t) }
func (v componentVal) ConvertToType(t ref.Type) ref.Val            { return noConversion(v, t) }
func (v componentVal) Equal(other ref.Val) ref.Val {
	o, ok := other.(componentVal)
	return types.Bool(ok && reflect.DeepEqual(v, o))
}
func (v componentVal) Type() ref.Type { return componentType }
func (v componentVal) Value() any     { return Component(v) }

// attributesVal is what rules ask for attributes: an identity or a row.
type attributesVal struct {
	typ *cel.Type
	// values by name; fold also finds names that differ in case, as directories do.
	values map[string][]string
	fold   bool
}

func (v *attributesVal) ConvertToNative(t reflect.Type) (any, error) { return noNative(v, t) }
func (v *attributesVal) ConvertToType(t ref.Type) ref.Val            { return noConversion(v, t) }
func (v *attributesVal) Equal(other ref.Val) ref.Val                 { return types.Bool(ref.Val(v) == other) }
func (v *attributesVal) Type() ref.Type                              { return v.typ }
func (v *attributesVal) Value() any                                  { return v.values }

func (v *attributesVal) get(name string) []string {
	values, ok := v.values[name]
	if ok || !v.fold {
		return values
	}
	// Two names that differ in case only cannot both be in one object.
	for key, values := range v.values {
		if strings.EqualFold(key, name) {
			return values
		}
	}
	return nil
}

func noNative(v ref.Val, t reflect.Type) (any, error) {
	return nil, fmt.Errorf("%s cannot become %s", v.Type().TypeName(), t)
}

func noConversion(v ref.Val, t ref.Type) ref.Val {
	if t == types.TypeType {
		return v.Type().(ref.Val)
	}
	return types.NewErr("%s cannot become %s", v.Type().TypeName(), t.TypeName())
}

// attr is the first value of an attribute, "" when it has none.
func attr(of, name ref.Val) ref.Val {
	values, n, err := attributeOf(of, name)
	if err != nil {
		return err
	}
	if list := values.get(n); len(list) > 0 {
		return types.String(list[0])
	}
	return types.String("")
}

// attrs are all values of an attribute.
func attrs(of, name ref.Val) ref.Val {
	values, n, err := attributeOf(of, name)
	if err != nil {
		return err
	}
	return types.NewStringList(types.DefaultTypeAdapter, values.get(n))
}

func attributeOf(of, name ref.Val) (*attributesVal, string, ref.Val) {
	values, ok := of.(*attributesVal)
	if !ok {
		return nil, "", types.MaybeNoSuchOverloadErr(of)
	}
	n, ok := name.(types.String)
	if !ok {
		return nil, "", types.MaybeNoSuchOverloadErr(name)
	}
	return values, string(n), nil
}

// rdn makes a component of one part.
func rdn(typ, value ref.Val) ref.Val {
	t, ok := typ.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(typ)
	}
	v, ok := value.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(value)
	}
	if err := nameValue(string(t), string(v)); err != nil {
		return types.WrapErr(err)
	}
	return componentVal{{string(t), string(v)}}
}

// rdns makes a component of several parts from single ones.
func rdns(list ref.Val) ref.Val {
	components, err := componentsOf(list)
	if err != nil {
		return err
	}
	var parts Component
	for _, c := range components {
		parts = append(parts, c...)
	}
	if len(parts) == 0 {
		return types.NewErr("a component needs at least one part")
	}
	c, wrong := newComponent(parts)
	if wrong != nil {
		return types.WrapErr(wrong)
	}
	return componentVal(c)
}

func name(list ref.Val) ref.Val { return nameUnder(list, nameVal(nil)) }

func nameUnder(list, base ref.Val) ref.Val {
	b, ok := base.(nameVal)
	if !ok {
		return types.MaybeNoSuchOverloadErr(base)
	}
	var components []Component
	if c, single := list.(componentVal); single {
		components = []Component{Component(c)}
	} else {
		var err ref.Val
		if components, err = componentsOf(list); err != nil {
			return err
		}
	}
	if len(components) == 0 {
		return types.NewErr("a name needs at least one component of its own")
	}
	return nameVal(append(components, b...))
}

func componentsOf(list ref.Val) ([]Component, ref.Val) {
	l, ok := list.(traits.Lister)
	if !ok {
		return nil, types.MaybeNoSuchOverloadErr(list)
	}
	var components []Component
	for it := l.Iterator(); it.HasNext() == types.True; {
		c, ok := it.Next().(componentVal)
		if !ok {
			return nil, types.NewErr("expected components made by rdn()")
		}
		components = append(components, Component(c))
	}
	return components, nil
}

// dn parses a literal; Compile has seen to it that it is one.
func dn(text ref.Val) ref.Val {
	s, ok := text.(types.String)
	if !ok {
		return types.MaybeNoSuchOverloadErr(text)
	}
	components, err := ParseDN(string(s))
	if err != nil {
		return types.WrapErr(err)
	}
	return nameVal(components)
}
