package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// MaxCost is the most one evaluation of one rule may cost, in CEL's units: about
// one for a comparison or a call, a tenth for a character read.
const MaxCost = 100_000

// PlanCost is an allowance that fits one plan of 100,000 identities under rules
// of 200,000 units an identity.
const PlanCost = 20_000_000_000

// cheapCost is a worst case, at the bounds of what rules see, that a rule may
// have and run without being watched: watching takes five times as long.
const cheapCost = 20_000

// Allowance is what all evaluations of one plan together may cost. It is safe
// for concurrent use.
type Allowance struct {
	limit uint64
	spent atomic.Uint64
}

// NewAllowance returns an allowance of limit cost units.
func NewAllowance(limit uint64) *Allowance { return &Allowance{limit: limit} }

// Spent is the cost so far.
func (a *Allowance) Spent() uint64 { return a.spent.Load() }

func (a *Allowance) charge(units uint64) error {
	if a == nil {
		return nil
	}
	if a.spent.Add(units) > a.limit {
		return fmt.Errorf("%w: the plan's allowance of %d cost units is used up; simplify the bundle's rules or raise the allowance", ErrCost, a.limit)
	}
	return nil
}

// expression is a compiled rule.
type expression struct {
	program cel.Program
	at      Position
	// rule it belongs to, such as `role "staff": when`.
	rule string
	// worst is its cost at the bounds of what rules see; watched ones stop at
	// MaxCost instead.
	worst   uint64
	watched bool
	// reads is nil where it cannot be told.
	reads *reads
}

// compiler type-checks rules and collects problems.
type compiler struct {
	environments
	parameters []string
	// attributes that sources give identities; empty when the bundle has no
	// source and cannot know.
	attributes []string
	problems   Problems
}

func (c *compiler) add(at Position, object, text, remedy string) {
	c.problems = append(c.problems, Problem{At: at, Object: object, Text: text, Remedy: remedy})
}

// compile checks e against the wanted types; nil when it has problems or is not
// set.
func (c *compiler) compile(env *cel.Env, e Expr, rule string, want ...*cel.Type) *expression {
	if !e.Set() {
		return nil
	}
	parsed, issues := env.Parse(e.Source)
	if issues.Err() != nil {
		c.issues(e, rule, issues)
		return nil
	}
	if !c.known(env, e, rule, parsed) {
		return nil
	}
	// Checking writes qualified names into the tree.
	asks, told := readsOf(parsed)
	checked, issues := env.Check(parsed)
	if issues.Err() != nil {
		c.issues(e, rule, issues)
		return nil
	}
	if !slices.ContainsFunc(want, func(t *cel.Type) bool { return fits(checked.OutputType(), t) }) {
		words := make([]string, len(want))
		for i, t := range want {
			words[i] = typeWord(t)
		}
		c.add(e.At, rule, fmt.Sprintf("the expression is of type %s, expected %s", typeWord(checked.OutputType()), strings.Join(words, " or ")), "change the expression so that it gives that")
		return nil
	}
	if !c.fixedOrder(e, rule, checked) {
		return nil
	}
	estimate, err := env.EstimateCost(checked, inputSizes{})
	if err != nil {
		c.add(e.At, rule, "its cost cannot be estimated: "+err.Error(), "simplify the expression")
		return nil
	}
	if estimate.Min > MaxCost {
		c.add(e.At, rule, fmt.Sprintf("it costs at least %d units; %d are allowed", estimate.Min, MaxCost), "simplify the expression")
		return nil
	}
	x := &expression{at: e.At, rule: rule, worst: estimate.Max, watched: estimate.Max > cheapCost}
	if told {
		x.reads = &asks
	}
	var options []cel.ProgramOption
	if x.watched {
		options = append(options, cel.CostLimit(MaxCost))
	} else {
		options = append(options, cel.EvalOptions(cel.OptOptimize))
	}
	if x.program, err = env.Program(checked, options...); err != nil {
		c.add(e.At, rule, err.Error(), "correct the expression")
		return nil
	}
	return x
}

// issues turns CEL's messages into problems at their place in the file.
func (c *compiler) issues(e Expr, rule string, issues *cel.Issues) {
	for _, issue := range issues.Errors() {
		text := strings.TrimSuffix(issue.Message, " (in container '')")
		text = strings.NewReplacer("reeve.Identity", "identity", "reeve.Row", "row", "reeve.Name", "name", "reeve.Component", "component").Replace(text)
		c.add(e.place(issue.Location.Line(), issue.Location.Column()), rule, text, "")
	}
}

// place is where a line and column of the expression stand in the file.
func (e Expr) place(line, column int) Position {
	at := e.At
	switch {
	case e.block:
		at.Line += line
		at.Column = column + 1
	case line <= 1:
		at.Column += column
	default:
		at.Line += line - 1
		at.Column = column + 1
	}
	return at
}

// known looks at the parsed rule for what CEL would report less clearly, and
// for text where only a literal is safe.
func (c *compiler) known(env *cel.Env, e Expr, rule string, parsed *cel.Ast) bool {
	before := len(c.problems)
	native := parsed.NativeRep()
	where := func(x ast.Expr) Position {
		l := native.SourceInfo().GetStartLocation(x.ID())
		return e.place(l.Line(), l.Column())
	}
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		switch x.Kind() {
		case ast.SelectKind:
			c.field(env, x, rule, where(x))
		case ast.CallKind:
			c.literals(x.AsCall(), rule, where(x))
			if env == c.identity {
				c.attribute(x.AsCall(), rule, where(x))
			}
		}
	}))
	return len(c.problems) == before
}

// field refuses unknown fields of params and identity.
func (c *compiler) field(env *cel.Env, x ast.Expr, rule string, at Position) {
	operand, field := x.AsSelect().Operand(), x.AsSelect().FieldName()
	if operand.Kind() != ast.IdentKind {
		return
	}
	switch operand.AsIdent() {
	case "params":
		if !slices.Contains(c.parameters, field) {
			c.add(at, rule, fmt.Sprintf("there is no parameter %q", field), didYouMean(field, c.parameters))
		}
	case "identity":
		fields := []string{"id", "kind", "msp", "state"}
		if env == c.identity && !slices.Contains(fields, field) {
			c.add(at, rule, fmt.Sprintf("identity has no field %q", field), fmt.Sprintf("write identity.attr(%q) for an attribute", field))
		}
	}
}

// attribute refuses names of attributes that no source gives: they would be
// empty for everybody, and a rule on them silently wrong.
func (c *compiler) attribute(call ast.CallExpr, rule string, at Position) {
	if name, ok := attributeRead(call); ok && len(c.attributes) > 0 && !slices.Contains(c.attributes, name) {
		c.add(at, rule, fmt.Sprintf("no source gives identities an attribute %q", name), didYouMean(name, c.attributes))
	}
}

// literals keeps values of a source from becoming the structure of a name.
func (c *compiler) literals(call ast.CallExpr, rule string, at Position) {
	if call.IsMemberFunction() || len(call.Args()) == 0 {
		return
	}
	first := call.Args()[0]
	text, literal := "", false
	if first.Kind() == ast.LiteralKind {
		var s types.String
		s, literal = first.AsLiteral().(types.String)
		text = string(s)
	}
	switch call.FunctionName() {
	case "dn":
		if !literal {
			c.add(at, rule, "dn() takes literal text only, since a value inside it could change what the name means", "build the name from rdn(), name() and parameters of type name")
		} else if _, err := ParseDN(text); err != nil {
			c.add(at, rule, err.Error(), "write it as RFC 4514 says")
		}
	case "rdn":
		if !literal || !validPartType(text) {
			c.add(at, rule, "rdn() takes the attribute type as literal text, such as rdn(\"uid\", …)", "write the type out")
		}
	}
}

// fixedOrder refuses loops over maps, whose order differs from run to run.
func (c *compiler) fixedOrder(e Expr, rule string, checked *cel.Ast) bool {
	fixed := true
	native := checked.NativeRep()
	ast.PreOrderVisit(native.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.Kind() != ast.ComprehensionKind {
			return
		}
		if kind := native.GetType(x.AsComprehension().IterRange().ID()).Kind(); kind != types.ListKind {
			fixed = false
			c.add(e.At, rule, "it loops over something that is not a list, whose order is not fixed", "loop over a list")
		}
	}))
	return fixed
}

// fits reports whether got is want; a literal [] fits any list.
func fits(got, want *cel.Type) bool {
	if got.IsExactType(want) {
		return true
	}
	if got.Kind() != types.ListKind || want.Kind() != types.ListKind {
		return false
	}
	element := got.Parameters()[0].Kind()
	return element == types.DynKind || element == types.TypeParamKind
}

func typeWord(t *cel.Type) string {
	switch {
	case t.IsExactType(nameType):
		return "name"
	case t.IsExactType(componentType):
		return "component"
	case t.IsExactType(identityType):
		return "identity"
	case t.IsExactType(rowType):
		return "row"
	}
	return t.String()
}

// eval runs the rule and charges its cost.
func (x *expression) eval(vars cel.Activation, allowance *Allowance) (ref.Val, error) {
	if !x.watched {
		if err := allowance.charge(x.worst); err != nil {
			return nil, err
		}
	}
	out, details, err := x.program.Eval(vars)
	if x.watched {
		units := uint64(MaxCost)
		if spent := details.ActualCost(); spent != nil {
			units = *spent
		}
		if err := allowance.charge(units); err != nil {
			return nil, err
		}
	}
	if err == nil {
		return out, nil
	}
	var limit cost.LimitExceededError
	if errors.As(err, &limit) || strings.Contains(err.Error(), "cost limit exceeded") {
		return nil, fmt.Errorf("%s: %s: %w: one evaluation may cost %d units; simplify the expression", x.at, printable(x.rule), ErrCost, MaxCost)
	}
	return nil, fmt.Errorf("%s: %s: %w: %s", x.at, printable(x.rule), ErrEvaluation, printable(err.Error()))
}
