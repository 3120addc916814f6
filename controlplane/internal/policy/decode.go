package policy

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Parse reads a bundle from its files. The error is of type Problems and wraps
// ErrBundle. Rules are type-checked by Check and Compile.
func Parse(files []File) (*Bundle, error) {
	var problems Problems
	total := 0
	for _, f := range files {
		if total += len(f.Data); total > MaxBundleBytes {
			return nil, Problems{tooLarge(f.Path)}
		}
	}
	b := &Bundle{Files: slices.Clone(files)}
	slices.SortFunc(b.Files, func(x, y File) int { return strings.Compare(x.Path, y.Path) })
	b.defaults()
	once := map[string]Position{}
	for _, f := range b.Files {
		d := &decoder{file: f.Path, problems: &problems}
		if root := d.root(f.Data); root != nil {
			d.bundle(root, b, once)
		}
	}
	if len(problems) == 0 && b.Name == "" {
		at := Position{}
		if len(b.Files) > 0 {
			at.File = b.Files[0].Path
		}
		problems = append(problems, Problem{At: at, Text: "no file of the bundle gives its name and version", Remedy: "add `name:` and `version:` to one of them"})
	}
	if len(problems) == 0 {
		problems = b.resolve()
	}
	if err := problems.err(); err != nil {
		return nil, err
	}
	return b, nil
}

// defaults are cautious: they hold removals back rather than through.
func (b *Bundle) defaults() {
	b.Rules.Leaver = LeaverRule{Snapshots: 3, Grace: 24 * time.Hour}
	b.Rules.Budgets = Budgets{
		Disable:    Budget{Percent: 5, Floor: 3},
		Delete:     Budget{Percent: 2, Floor: 2},
		Membership: Budget{Percent: 10, Floor: 5},
	}
}

var identifier = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`)
var attributeName = regexp.MustCompile(`^[a-z][a-z0-9_]{0,63}$`)

func (d *decoder) identifier(into *string, what *regexp.Regexp) field {
	return func(n *yaml.Node, object string) {
		d.text(into)(n, object)
		if n.Kind == yaml.ScalarNode && !what.MatchString(n.Value) {
			d.add(d.at(n), object, fmt.Sprintf("%q is not a valid name", n.Value), "use lower-case letters, digits, - and _ and begin with a letter (attributes and parameters have no -)")
		}
	}
}

// bundle decodes one file into b. Lists of several files are joined; every
// other key may stand in one of the files only.
func (d *decoder) bundle(root *yaml.Node, b *Bundle, once map[string]Position) {
	var format string
	single := func(key string, f field) field {
		return func(n *yaml.Node, object string) {
			if at, twice := once[key]; twice {
				d.add(d.at(n), object, fmt.Sprintf("`%s` is given twice, first at %s", key, at), "keep one of them")
				return
			}
			once[key] = d.at(n)
			f(n, object)
		}
	}
	d.mapping(root, "bundle", map[string]field{
		"reeve":   d.word(&format, Format),
		"name":    single("name", d.identifier(&b.Name, identifier)),
		"version": single("version", d.text(&b.Version)),
		"parameters": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Parameters = append(b.Parameters, d.parameter(item)) })
		},
		"sources": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Sources = append(b.Sources, d.source(item)) })
		},
		"correlate": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Correlations = append(b.Correlations, d.correlation(item)) })
		},
		"entitlements": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Entitlements = append(b.Entitlements, d.entitlement(item)) })
		},
		"roles": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Roles = append(b.Roles, d.role(item)) })
		},
		"tests": func(n *yaml.Node, o string) {
			d.sequence(n, o, func(item *yaml.Node) { b.Tests = append(b.Tests, d.test(item)) })
		},
		"msp": single("msp", func(n *yaml.Node, _ string) {
			d.mapping(n, "msp", map[string]field{
				"accounts":  d.accounts(&b.MSP.Accounts),
				"retention": d.duration(&b.MSP.Retention),
			})
		}),
		"approval": single("approval", func(n *yaml.Node, _ string) {
			d.mapping(n, "approval", map[string]field{
				"self_approve":  d.number(&b.Rules.SelfApprove, 0, 1_000_000),
				"two_operators": d.tier(&b.Rules.Tiers.TwoOperators),
				"client":        d.tier(&b.Rules.Tiers.Client),
			})
		}),
		"separation": d.separation(b),
		"leaver": single("leaver", func(n *yaml.Node, _ string) {
			d.mapping(n, "leaver", map[string]field{
				"snapshots": d.number(&b.Rules.Leaver.Snapshots, 1, 100),
				"grace":     d.duration(&b.Rules.Leaver.Grace),
				"retention": d.duration(&b.Rules.Leaver.Retention),
			})
		}),
		"budgets": single("budgets", func(n *yaml.Node, _ string) {
			d.mapping(n, "budgets", map[string]field{
				"disable":    d.budget(&b.Rules.Budgets.Disable),
				"delete":     d.budget(&b.Rules.Budgets.Delete),
				"membership": d.budget(&b.Rules.Budgets.Membership),
			})
		}),
		"offboarding": single("offboarding", func(n *yaml.Node, _ string) {
			d.mapping(n, "offboarding", map[string]field{
				"undo":      d.texts(&b.Rules.Offboarding.Undo),
				"hand_over": d.texts(&b.Rules.Offboarding.HandOver),
			})
		}),
	}, "reeve")
}

func (d *decoder) tier(into *Tier) field {
	return func(n *yaml.Node, object string) {
		d.mapping(n, object, map[string]field{
			"people":      d.number(&into.People, 1, 1_000_000),
			"privileged":  d.truth(&into.Privileged),
			"offboarding": d.truth(&into.Offboarding),
		})
	}
}

func (d *decoder) budget(into *Budget) field {
	return func(n *yaml.Node, object string) {
		*into = Budget{}
		d.mapping(n, object, map[string]field{
			"percent": d.number(&into.Percent, 0, 100),
			"floor":   d.number(&into.Floor, 0, 1_000_000),
		}, "percent", "floor")
	}
}

func (d *decoder) separation(b *Bundle) field {
	return func(n *yaml.Node, object string) {
		d.sequence(n, object, func(item *yaml.Node) {
			var pair []string
			d.texts(&pair)(item, "separation")
			if len(pair) != 2 || pair[0] == pair[1] {
				d.add(d.at(item), "separation", "expected a pair of different entitlements", "write [one/entitlement, other/entitlement]")
				return
			}
			b.Rules.Separation = append(b.Rules.Separation, [2]string{pair[0], pair[1]})
		})
	}
}

func (d *decoder) parameter(n *yaml.Node) Parameter {
	p := Parameter{At: d.at(n), Classification: "internal"}
	var typ string
	d.mapping(n, d.called("parameter", n, "name"), map[string]field{
		"name":     d.identifier(&p.Name, attributeName),
		"type":     d.word(&typ, "string", "int", "bool", "list", "name", "duration"),
		"enum":     d.texts(&p.Enum),
		"required": d.truth(&p.Required),
		"default": func(v *yaml.Node, object string) {
			p.HasDefault = true
			p.Default = d.parameterText(v, object)
		},
		"classification": d.word(&p.Classification, "public", "internal", "confidential"),
		"description":    d.text(&p.Description),
	}, "name", "type")
	p.Type = ParameterType(typ)
	return p
}

// parameterText is a parameter's value as Values has it.
func (d *decoder) parameterText(n *yaml.Node, object string) string {
	switch n.Kind {
	case yaml.SequenceNode:
		items := []string{}
		d.texts(&items)(n, object)
		text, _ := json.Marshal(items) // strings always marshal
		return string(text)
	case yaml.ScalarNode:
		return n.Value
	}
	d.add(d.at(n), object, "a parameter's value is text, a number or a list", "write one value or a list of texts")
	return ""
}

// called names the object n describes, by the value of its key.
func (d *decoder) called(kind string, n *yaml.Node, keys ...string) string {
	var words []string
	for _, key := range keys {
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == key && n.Content[i+1].Kind == yaml.ScalarNode {
				words = append(words, n.Content[i+1].Value)
			}
		}
	}
	if len(words) == 0 {
		return kind
	}
	return fmt.Sprintf("%s %q", kind, strings.Join(words, " "))
}
