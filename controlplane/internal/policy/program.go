package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// Program is a bundle with a tenant's parameters, type-checked and ready. It
// never changes and is safe for concurrent use.
type Program struct {
	bundle           *Bundle
	digest           []byte
	parametersDigest []byte
	params           map[string]ref.Val
	sources          map[string]*sourceProgram
	roles            []roleProgram
	msp              []accountProgram
	// names of the bundle's entitlements, in its order.
	names        []*expression
	entitlements []Entitlement
	byID         map[string]*Entitlement
	rules        Rules
	groups       []alike
	// allowance is nil when evaluations are not counted together.
	allowance *Allowance
}

type roleProgram struct {
	rule         string
	cause        string
	when         *expression
	accounts     []accountProgram
	entitlements []string
	// group of roles that read the same, -1 for none, and the place in it.
	group, place int
}

type accountProgram struct {
	*AccountRule
	rule, cause string
	when, name  *expression
	attributes  []attributeProgram
}

type attributeProgram struct {
	name      string
	authority Authority
	when      *expression
	value     *expression
	reference bool
}

// Check type-checks every rule of the bundle without a tenant's parameters. The
// error is of type Problems.
func Check(b *Bundle) error {
	bound := map[string]parameterValue{}
	for _, p := range b.Parameters {
		bound[p.Name] = p.zero()
	}
	_, err := compile(b, bound)
	return err
}

// Compile makes a Program of a bundle and a tenant's parameters. A rule that is
// wrong gives an error of type Problems, a parameter one that wraps
// ErrParameters.
func Compile(b *Bundle, values Values) (*Program, error) {
	bound, err := bind(b.Name, b.Parameters, values)
	if err != nil {
		return nil, err
	}
	p, err := compile(b, bound)
	if err != nil {
		return nil, err
	}
	p.parametersDigest = digestParameters(bound)
	if err := p.nameEntitlements(); err != nil {
		return nil, err
	}
	return p, nil
}

func compile(b *Bundle, bound map[string]parameterValue) (*Program, error) {
	env, err := newEnvironments(b.Parameters)
	if err != nil {
		return nil, fmt.Errorf("the rules' environment cannot be made: %w", err)
	}
	c := &compiler{environments: env, attributes: b.attributes()}
	p := &Program{
		bundle: b, digest: b.Digest(), rules: b.Rules,
		params:  make(map[string]ref.Val, len(bound)),
		sources: make(map[string]*sourceProgram, len(b.Sources)),
		byID:    make(map[string]*Entitlement, len(b.Entitlements)),
	}
	for _, param := range b.Parameters {
		c.parameters = append(c.parameters, param.Name)
		p.params["params."+param.Name] = bound[param.Name].cel
	}
	for i := range b.Sources {
		p.sources[sourceKey(b.Sources[i].Connector, b.Sources[i].Type)] = c.source(&b.Sources[i], i)
	}
	for _, r := range b.Roles {
		object := fmt.Sprintf("role %q", r.ID)
		role := roleProgram{rule: b.Name + "/" + r.ID, cause: r.Cause, when: c.compile(env.identity, r.When, object+": when", cel.BoolType)}
		for i := range r.Accounts {
			role.accounts = append(role.accounts, c.account(&r.Accounts[i], object, role.rule, r.Cause))
		}
		for _, use := range r.Entitlements {
			role.entitlements = append(role.entitlements, use.ID)
		}
		p.roles = append(p.roles, role)
	}
	p.group()
	// The MSP's people come from the MSP's own source and bundle.
	c.attributes = nil
	for i := range b.MSP.Accounts {
		p.msp = append(p.msp, c.account(&b.MSP.Accounts[i], "msp", b.Name+"/msp", "msp"))
	}
	for i := range b.Entitlements {
		e := b.Entitlements[i]
		p.names = append(p.names, c.compile(env.params, e.NameExpr, fmt.Sprintf("entitlement %q: name", e.ID), nameType))
	}
	if err := c.problems.err(); err != nil {
		return nil, err
	}
	return p, nil
}

func (c *compiler) account(a *AccountRule, owner, rule, cause string) accountProgram {
	object := fmt.Sprintf("%s: account %q", owner, a.Connector+" "+a.Purpose)
	out := accountProgram{
		AccountRule: a, rule: rule, cause: cause,
		when: c.compile(c.identity, a.When, object+": when", cel.BoolType),
		name: c.compile(c.identity, a.Name, object+": name", nameType),
	}
	for _, attribute := range a.Attributes {
		what := fmt.Sprintf("%s: attribute %q", object, attribute.Name)
		compiled := attributeProgram{name: attribute.Name, authority: attribute.Authority, when: c.compile(c.identity, attribute.When, what+": when", cel.BoolType)}
		if attribute.Ref.Set() {
			compiled.reference = true
			compiled.value = c.compile(c.identity, attribute.Ref, what+": ref", cel.StringType, textsType)
		} else {
			compiled.value = c.compile(c.identity, attribute.Value, what+": value", cel.StringType, textsType, cel.NullType)
		}
		out.attributes = append(out.attributes, compiled)
	}
	return out
}

// nameEntitlements fills in the names that follow from parameters.
func (p *Program) nameEntitlements() error {
	vars := &variables{params: p.params}
	for i, rule := range p.bundle.Entitlements {
		e := rule.Entitlement
		out, err := p.names[i].eval(vars, nil)
		if err != nil {
			return err
		}
		e.Name = out.(nameVal)
		if len(e.Name) == 0 {
			return fmt.Errorf("%s: entitlement %q: %w: its name is empty; give it a component of its own", rule.At, e.ID, ErrEvaluation)
		}
		e.Cause = p.entitlementCause(e.ID)
		p.entitlements = append(p.entitlements, e)
	}
	slices.SortFunc(p.entitlements, func(a, b Entitlement) int { return strings.Compare(a.ID, b.ID) })
	for i := range p.entitlements {
		p.byID[p.entitlements[i].ID] = &p.entitlements[i]
	}
	return nil
}

func (p *Program) entitlementCause(id string) string {
	cause := "client"
	for _, r := range p.roles {
		if slices.Contains(r.entitlements, id) {
			if cause = r.cause; cause == "client" {
				break
			}
		}
	}
	return cause
}

// Bundle that the program was compiled from.
func (p *Program) Bundle() *Bundle { return p.bundle }

// Name of the bundle.
func (p *Program) Name() string { return p.bundle.Name }

// Version of the bundle.
func (p *Program) Version() string { return p.bundle.Version }

// Digest of the bundle, SHA-256.
func (p *Program) Digest() []byte { return slices.Clone(p.digest) }

// ParametersDigest is SHA-256 over the parameters with defaults filled in: equal
// values, however written, have equal digests.
func (p *Program) ParametersDigest() []byte { return slices.Clone(p.parametersDigest) }

// Entitlements sorted by id, names filled in.
func (p *Program) Entitlements() []Entitlement { return slices.Clone(p.entitlements) }

// Entitlement by id.
func (p *Program) Entitlement(id string) (Entitlement, bool) {
	e, ok := p.byID[id]
	if !ok {
		return Entitlement{}, false
	}
	return *e, true
}

// Rules that hold for the whole plan.
func (p *Program) Rules() Rules { return p.rules }

// Correlations in the order of the bundle: earlier ones are tried first.
func (p *Program) Correlations() []Correlation { return slices.Clone(p.bundle.Correlations) }

// Connectors lists the aliases the bundle uses, sorted.
func (p *Program) Connectors() []string {
	var aliases []string
	for _, s := range p.bundle.Sources {
		aliases = append(aliases, s.Connector)
	}
	for _, c := range p.bundle.Correlations {
		aliases = append(aliases, c.Connector)
	}
	for _, e := range p.bundle.Entitlements {
		aliases = append(aliases, e.Connector)
	}
	for _, r := range p.bundle.Roles {
		for _, a := range r.Accounts {
			aliases = append(aliases, a.Connector)
		}
	}
	for _, a := range p.bundle.MSP.Accounts {
		aliases = append(aliases, a.Connector)
	}
	slices.Sort(aliases)
	return slices.Compact(aliases)
}

// Metered returns the same program with every evaluation charged to the
// allowance of one plan. A rule that is cheap at its worst is charged that
// worst, any other what it cost.
func (p *Program) Metered(a *Allowance) *Program {
	metered := *p
	metered.allowance = a
	return &metered
}

// variables resolves what rules name, already as typed CEL values.
type variables struct {
	subject, id, kind, state, msp ref.Val
	row                           ref.Val
	params                        map[string]ref.Val
}

func (v *variables) Parent() cel.Activation { return nil }

func (v *variables) ResolveName(name string) (any, bool) {
	var value ref.Val
	switch name {
	case "identity":
		value = v.subject
	case "identity.kind":
		value = v.kind
	case "identity.state":
		value = v.state
	case "identity.msp":
		value = v.msp
	case "identity.id":
		value = v.id
	case "row":
		value = v.row
	default:
		value = v.params[name]
	}
	return value, value != nil
}

func (p *Program) truth(x *expression, vars *variables) (bool, error) {
	if x == nil {
		return true, nil
	}
	out, err := x.eval(vars, p.allowance)
	if err != nil {
		return false, err
	}
	return out == types.True, nil
}

// texts gives an expression's values: set is false for null, and an empty text
// is no value.
func (p *Program) texts(x *expression, vars *variables) (values []string, set bool, err error) {
	out, err := x.eval(vars, p.allowance)
	if err != nil {
		return nil, false, err
	}
	switch out := out.(type) {
	case types.Null:
		return nil, false, nil
	case types.String:
		values, err = appendText(nil, string(out))
	default:
		list, ok := out.(interface {
			Get(ref.Val) ref.Val
			Size() ref.Val
		})
		if !ok {
			return nil, false, fmt.Errorf("%s: %s: %w: it gave %s", x.at, x.rule, ErrEvaluation, out.Type().TypeName())
		}
		size, _ := list.Size().(types.Int)
		for i := types.Int(0); i < size && err == nil; i++ {
			text, ok := list.Get(i).(types.String)
			if !ok {
				err = errors.New("it gave a list of something else than text")
				break
			}
			values, err = appendText(values, string(text))
		}
	}
	if err != nil {
		return nil, false, fmt.Errorf("%s: %s: %w: %w", x.at, printable(x.rule), ErrEvaluation, err)
	}
	return values, true, nil
}

func appendText(values []string, text string) ([]string, error) {
	switch {
	case text == "" || slices.Contains(values, text):
		return values, nil
	case len(text) > maxValue:
		return nil, fmt.Errorf("it gave a value of %d bytes; at most %d are allowed", len(text), maxValue)
	case len(values) == maxValues:
		return nil, fmt.Errorf("it gave more than %d values", maxValues)
	}
	return append(values, text), nil
}
