package guardrails

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// ErrInvalid is wrapped by every error about the guardrails' text; the error has
// one line a fault, each with the line of the file and the key.
var ErrInvalid = errors.New("guardrails are not valid")

type fault struct {
	line int
	text string
}

func (f *fault) Error() string { return visible(fmt.Sprintf("line %d: %s", f.line, f.text)) }

// LosingAccess is the budget key that counts all removals together.
const LosingAccess = "losing_access"

var operationKinds = func() map[string]connectorv1.OperationKind {
	m := map[string]connectorv1.OperationKind{}
	for n := range connectorv1.OperationKind_name {
		if k := connectorv1.OperationKind(n); k != connectorv1.OperationKind_OPERATION_KIND_UNSPECIFIED {
			m[operationName(k)] = k
		}
	}
	return m
}()

// operationName is the kind as agent.yaml writes it, such as "add_member".
func operationName(k connectorv1.OperationKind) string {
	return strings.ToLower(strings.TrimPrefix(k.String(), "OPERATION_KIND_"))
}

// Parse reads the guardrails of the connector alias from their node in agent.yaml.
// Keys it does not know are refused, as are keys given twice, anchors and aliases.
// A zero node gives guardrails that allow nothing. Errors wrap ErrInvalid.
func Parse(alias string, node *yaml.Node) (*Guardrails, error) {
	g := &Guardrails{Alias: alias, Credentials: "created"}
	if node == nil || node.IsZero() {
		return g, nil
	}
	p := &parser{lines: map[string]int{}}
	p.walk(node, reflect.TypeFor[Guardrails](), "guardrails")
	if len(p.faults) == 0 {
		if err := node.Decode(g); err != nil {
			p.decodeFault(err)
		}
	}
	if len(p.faults) == 0 {
		p.validate(g)
	}
	if len(p.faults) > 0 {
		lines := make([]string, len(p.faults))
		for i := range p.faults {
			lines[i] = p.faults[i].Error()
		}
		return nil, fmt.Errorf("%w: connector %s:\n%s", ErrInvalid, alias, strings.Join(lines, "\n"))
	}
	return g, nil
}

type parser struct {
	lines  map[string]int
	faults []fault
}

func (p *parser) add(path, format string, args ...any) {
	line, at := 0, path
	for line == 0 && at != "" {
		line = p.lines[at]
		at = at[:max(strings.LastIndexAny(at, ".["), 0)]
	}
	p.faults = append(p.faults, fault{line: line, text: path + " " + fmt.Sprintf(format, args...)})
}

// walk compares a node's keys with the struct it will be decoded into.
func (p *parser) walk(n *yaml.Node, t reflect.Type, path string) {
	p.lines[path] = n.Line
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		p.add(path, "uses an anchor or alias; write the value out")
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		// A limit whose value was forgotten must not be no limit.
		p.add(path, "has no value; give it one or remove the key")
		return
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[yaml.Unmarshaler]()) {
		return
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		if n.Kind != yaml.MappingNode {
			p.add(path, "must be a mapping of keys to values")
			return
		}
		p.walkMapping(n, t, path)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			p.add(path, "must be a list")
			return
		}
		for i, item := range n.Content {
			p.walk(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

func (p *parser) walkMapping(n *yaml.Node, t reflect.Type, path string) {
	known := map[string]reflect.Type{}
	if t.Kind() == reflect.Struct {
		for _, f := range reflect.VisibleFields(t) {
			if name := f.Tag.Get("yaml"); name != "-" {
				known[name] = f.Type
			}
		}
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i].Value, n.Content[i+1]
		at := path + "." + key
		p.lines[at] = n.Content[i].Line
		if seen[key] {
			p.add(at, "is given twice; remove one")
		}
		seen[key] = true
		if t.Kind() == reflect.Map {
			p.walk(value, t.Elem(), at)
			continue
		}
		field, ok := known[key]
		if !ok {
			p.add(at, "is not known here; remove it or use one of: %s", strings.Join(slices.Sorted(maps.Keys(known)), ", "))
			continue
		}
		p.walk(value, field, at)
	}
}

var lineText = regexp.MustCompile(`^line (\d+): (.*)$`)

func (p *parser) decodeFault(err error) {
	var own *fault
	if errors.As(err, &own) {
		p.faults = append(p.faults, *own)
		return
	}
	texts := []string{strings.TrimPrefix(err.Error(), "yaml: ")}
	var many *yaml.TypeError
	if errors.As(err, &many) {
		texts = many.Errors
	}
	for _, t := range texts {
		f := fault{text: t}
		if m := lineText.FindStringSubmatch(t); m != nil {
			_, _ = fmt.Sscan(m[1], &f.line) // the expression matched digits
			f.text = "a value of another kind is needed here: " + m[2]
		}
		p.faults = append(p.faults, f)
	}
}

var ruleForm = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (p *parser) validate(g *Guardrails) {
	if g.Case != "" && g.Case != "exact" && g.Case != "ignore" {
		p.add("guardrails.case", "%q is not a case rule; use exact or ignore", g.Case)
	}
	if g.Credentials != "created" && g.Credentials != "any" {
		p.add("guardrails.credentials", "%q is not known; use created or any", g.Credentials)
	}
	rules := map[string]bool{}
	for i, r := range g.Scope {
		p.scopeRule(fmt.Sprintf("guardrails.scope[%d]", i), r, rules)
	}
	for i, a := range g.Attributes {
		path := fmt.Sprintf("guardrails.attributes[%d]", i)
		if strings.TrimSpace(a.Name) == "" {
			p.add(path+".name", "must be the directory's own name of the attribute")
		}
		p.positive(path+".max_length", int64(a.MaxLength))
		if p.given(path+".one_of") && len(a.OneOf) == 0 {
			p.add(path+".one_of", "lists nothing; list the values or remove the key")
		}
		if DangerousAttribute(a.Name) && !g.allowsDangerous(a.Name) {
			p.add(path+".name", "%q can grant power by itself; if that is meant, name it under dangerous too", a.Name)
		}
	}
	for i, s := range g.Protected {
		if (s.Name.parsed == nil) == (s.Anchor == "") {
			p.add(fmt.Sprintf("guardrails.protected[%d]", i), "must have either a name or an anchor")
		}
		if s.Name.parsed != nil && len(s.Name.parsed.GetComponents()) == 0 {
			p.add(fmt.Sprintf("guardrails.protected[%d].name", i), "is empty and would protect nothing")
		}
	}
	p.budget("guardrails.budgets.plan", g.Budgets.Plan)
	p.budget("guardrails.budgets.day", g.Budgets.Day)
	p.operations("guardrails.client_signature.operations", g.ClientSignature.Operations)
	for i, r := range g.ClientSignature.Rules {
		if !rules[r] {
			p.add(fmt.Sprintf("guardrails.client_signature.rules[%d]", i), "%q is not a rule under scope", r)
		}
	}
}

func (p *parser) scopeRule(path string, r ScopeRule, rules map[string]bool) {
	switch {
	case !ruleForm.MatchString(r.Rule):
		p.add(path+".rule", "must name the rule with 1 to 63 of a-z, 0-9 and inner hyphens")
	case rules[r.Rule]:
		p.add(path+".rule", "%q is given twice; refusals name the rule, so each needs its own name", r.Rule)
	}
	rules[r.Rule] = true
	if len(r.Types) == 0 {
		p.add(path+".types", "must list at least one object type; `reeve-agent connector check` tells them")
	}
	if r.Base.parsed == nil {
		p.add(path+".base", `must say under which name objects lie; "" is the top`)
	}
	if r.Depth != nil && *r.Depth < 0 {
		p.add(path+".depth", "must not be negative")
	}
	if r.Match != nil && (r.Match.Part == "" || r.Match.Glob == "") {
		p.add(path+".match", "must have part and glob")
	}
	p.positive(path+".max_grant", int64(r.MaxGrant))
	p.operations(path+".operations", r.Operations)
}

func (p *parser) given(path string) bool { return p.lines[path] != 0 }

// positive refuses a limit of nothing, which would read as no limit.
func (p *parser) positive(path string, v int64) {
	if p.given(path) && v <= 0 {
		p.add(path, "must be more than 0; without the key there is no limit")
	}
}

func (p *parser) operations(path string, names []string) {
	for i, name := range names {
		if _, ok := operationKinds[name]; !ok {
			p.add(fmt.Sprintf("%s[%d]", path, i), "%q is not an operation; use %s", name, strings.Join(slices.Sorted(maps.Keys(operationKinds)), ", "))
		}
	}
}

func (p *parser) budget(path string, b map[string]int) {
	for _, key := range slices.Sorted(maps.Keys(b)) {
		if _, ok := operationKinds[key]; !ok && key != LosingAccess {
			p.add(path+"."+key, "is not an operation; use %s or %s", strings.Join(slices.Sorted(maps.Keys(operationKinds)), ", "), LosingAccess)
		}
		if b[key] < 0 {
			p.add(path+"."+key, "must not be negative")
		}
	}
}

// UnmarshalYAML reads a duration with its unit.
func (d *Duration) UnmarshalYAML(n *yaml.Node) error {
	v, err := time.ParseDuration(n.Value)
	if err != nil {
		return &fault{line: n.Line, text: fmt.Sprintf("%q is not a length of time; write it with a unit, such as 30m or 8h", n.Value)}
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON gives the duration in nanoseconds, for the digest.
func (d Duration) MarshalJSON() ([]byte, error) { return json.Marshal(int64(d)) }

// Pattern is a compiled regular expression over a whole value.
type Pattern struct {
	source string
	re     *regexp.Regexp
}

// UnmarshalYAML compiles the expression (RE2, see package regexp/syntax).
func (p *Pattern) UnmarshalYAML(n *yaml.Node) error {
	// On its own first: in the middle of the whole, brackets could pair up.
	_, err := regexp.Compile(n.Value)
	if err != nil {
		return &fault{line: n.Line, text: fmt.Sprintf("%q is not a regular expression (RE2): %v", n.Value, err)}
	}
	p.source, p.re = n.Value, regexp.MustCompile(`\A(?:`+n.Value+`)\z`)
	return nil
}

// MarshalJSON gives the expression's text, for the digest.
func (p Pattern) MarshalJSON() ([]byte, error) { return json.Marshal(p.source) }

// Digest is SHA-256 in hexadecimal over everything that limits or lifts: the
// guardrails of all connectors by alias and the approvers' keys. Order of keys
// and comments in agent.yaml do not count. It is shown to people, signed by
// approvers and sent with every session, so a changed guardrail is seen.
func Digest(byAlias map[string]*Guardrails, approvers []Approver) string {
	encoded, err := json.Marshal(struct {
		Format     int                    `json:"format"`
		Connectors map[string]*Guardrails `json:"connectors"`
		Approvers  []Approver             `json:"approvers"`
	}{1, byAlias, approvers})
	if err != nil {
		panic("guardrails: plain structs always encode: " + err.Error())
	}
	sum := sha256.Sum256(encoded)
	return hex.EncodeToString(sum[:])
}
