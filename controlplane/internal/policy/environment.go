package policy

import (
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// Bounds of what rules see. They make the cost of a rule known before it runs.
const (
	// maxValue is the longest attribute value in bytes.
	maxValue = 4096
	// maxValues is the most values of one attribute.
	maxValues = 1000
	// maxAttributes of one identity or row.
	maxAttributes = 256
	// maxExpression is the longest rule in characters.
	maxExpression = 8192
)

// environments are the three views rules are written against: identities,
// source rows, and parameters alone.
type environments struct{ identity, row, params *cel.Env }

func newEnvironments(schema []Parameter) (environments, error) {
	base, err := cel.NewEnv(
		ext.Strings(ext.StringsVersion(5)),
		functions(),
		cel.ParserExpressionSizeLimit(maxExpression),
		cel.ParserRecursionLimit(64),
		cel.ExpressionNodeLimit(4096),
		cel.RegexProgramSizeLimit(1024),
	)
	if err != nil {
		return environments{}, err
	}
	params := make([]cel.EnvOption, 0, len(schema))
	for _, p := range schema {
		params = append(params, cel.Variable("params."+p.Name, p.celType()))
	}
	var e environments
	if e.params, err = base.Extend(params...); err != nil {
		return environments{}, err
	}
	if e.identity, err = e.params.Extend(
		cel.Variable("identity", identityType),
		cel.Variable("identity.id", cel.StringType),
		cel.Variable("identity.kind", cel.StringType),
		cel.Variable("identity.state", cel.StringType),
		cel.Variable("identity.msp", cel.BoolType),
	); err != nil {
		return environments{}, err
	}
	e.row, err = e.params.Extend(cel.Variable("row", rowType))
	return e, err
}

// functions adds Reeve's functions with their costs, so that a rule's cost is
// known before it runs.
func functions() cel.EnvOption {
	text := cel.StringType
	scan := cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.StringScan(cost.Length(cost.Target()))))
	scanArg := cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.StringScan(cost.Length(cost.Arg(0)))))
	one := cost.ResultSize(cost.AtMost(cost.Const(maxValue)))
	all := cost.ResultSize(cost.List(cost.AtMost(cost.Const(maxValues)), cost.AtMost(cost.Const(maxValue))))
	call := cost.EvalCost(cost.Const(cost.CallCost))
	options := []cel.EnvOption{
		cel.Function("attr",
			cel.MemberOverload("identity_attr", []*cel.Type{identityType, text}, text, cel.BinaryBinding(attr)),
			cel.MemberOverload("row_attr", []*cel.Type{rowType, text}, text, cel.BinaryBinding(attr))),
		cel.Function("attrs",
			cel.MemberOverload("identity_attrs", []*cel.Type{identityType, text}, textsType, cel.BinaryBinding(attrs)),
			cel.MemberOverload("row_attrs", []*cel.Type{rowType, text}, textsType, cel.BinaryBinding(attrs))),
		cel.Function("rdn", cel.Overload("rdn_string_string", []*cel.Type{text, text}, componentType, cel.BinaryBinding(rdn))),
		cel.Function("rdns", cel.Overload("rdns_list", []*cel.Type{cel.ListType(componentType)}, componentType, cel.UnaryBinding(rdns))),
		cel.Function("name",
			cel.Overload("name_list", []*cel.Type{cel.ListType(componentType)}, nameType, cel.UnaryBinding(name)),
			cel.Overload("name_list_base", []*cel.Type{cel.ListType(componentType), nameType}, nameType, cel.BinaryBinding(nameUnder)),
			cel.Overload("name_component_base", []*cel.Type{componentType, nameType}, nameType, cel.BinaryBinding(nameUnder))),
		cel.Function("dn", cel.Overload("dn_string", []*cel.Type{text}, nameType, cel.UnaryBinding(dn))),
		cel.CostModel(
			cost.MemberOverload("identity_attr", call, one), cost.MemberOverload("row_attr", call, one),
			cost.MemberOverload("identity_attrs", call, all), cost.MemberOverload("row_attrs", call, all),
			cost.Overload("rdn_string_string", cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.StringScan(cost.Length(cost.Arg(1)))))),
			cost.Overload("rdns_list", cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.Length(cost.Arg(0))))),
			cost.Overload("name_list", cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.Length(cost.Arg(0))))),
			cost.Overload("name_list_base", cost.EvalCost(cost.Sum(cost.Const(cost.CallCost), cost.Length(cost.Arg(0))))),
			cost.Overload("name_component_base", call),
			cost.Overload("dn_string", scanArg),
		),
	}
	for word, function := range map[string]func(string) string{
		"lower": strings.ToLower, "upper": strings.ToUpper, "ascii": asciiLetters, "slug": slug,
	} {
		unary := cel.UnaryBinding(func(v ref.Val) ref.Val {
			s, ok := v.(types.String)
			if !ok {
				return types.MaybeNoSuchOverloadErr(v)
			}
			return types.String(function(string(s)))
		})
		// Case mapping may lengthen a letter, never beyond three times.
		options = append(options,
			cel.Function(word,
				cel.MemberOverload("string_"+word, []*cel.Type{text}, text, unary),
				cel.Overload(word+"_string", []*cel.Type{text}, text, unary)),
			cel.CostModel(
				cost.MemberOverload("string_"+word, scan, cost.ResultSize(cost.AtMost(cost.Scale(cost.Target(), 3)))),
				cost.Overload(word+"_string", scanArg, cost.ResultSize(cost.AtMost(cost.Scale(cost.Arg(0), 3))))))
	}
	return func(e *cel.Env) (*cel.Env, error) {
		var err error
		for _, option := range options {
			if e, err = option(e); err != nil {
				return nil, err
			}
		}
		return e, nil
	}
}

// inputSizes bounds the variables for the estimate of a rule's cost.
type inputSizes struct{}

func (inputSizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

func (inputSizes) EstimateSize(node cost.AstNode) *cost.SizeEstimate {
	if len(node.Path()) == 0 {
		return nil
	}
	var size cost.SizeEstimate
	switch node.Type().Kind() {
	case types.StringKind:
		size = cost.RangedSizeEstimate(0, maxValue)
	case types.ListKind:
		size = cost.ListSizeEstimate(cost.RangedSizeEstimate(0, maxValues), cost.RangedSizeEstimate(0, maxValue))
	default:
		return nil
	}
	return &size
}
