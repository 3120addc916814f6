package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder walks one file's YAML nodes. It reads a narrow YAML: one document, no
// anchors, aliases, merge keys or tags, no key twice, no key it does not know.
// It collects problems and goes on, so that an author sees all of them.
type decoder struct {
	file     string
	problems *Problems
}

// field decodes one key's value.
type field func(n *yaml.Node, object string)

// root parses a file to its top mapping, nil when it is not YAML.
func (d *decoder) root(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			d.add(Position{File: d.file}, "", "the file is empty", "start it with `reeve: "+Format+"`")
		} else {
			d.add(d.yamlPosition(err), "", strings.TrimPrefix(err.Error(), "yaml: "), "correct the YAML")
		}
		return nil
	}
	var next yaml.Node
	if err := dec.Decode(&next); !errors.Is(err, io.EOF) {
		d.add(Position{File: d.file}, "", "the file holds more than one YAML document", "put each bundle file into a file of its own")
		return nil
	}
	before := len(*d.problems)
	d.narrow(&doc)
	if len(*d.problems) > before {
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		d.add(Position{File: d.file, Line: 1, Column: 1}, "", "a bundle is a mapping", "start it with `reeve: "+Format+"`")
		return nil
	}
	return doc.Content[0]
}

// yamlPosition takes the line out of the library's message, which has no other
// place for it.
func (d *decoder) yamlPosition(err error) Position {
	at := Position{File: d.file, Line: 1, Column: 1}
	if _, rest, ok := strings.Cut(err.Error(), "line "); ok {
		digits, _, _ := strings.Cut(rest, ":")
		if line, err := strconv.Atoi(digits); err == nil {
			at.Line = line
		}
	}
	return at
}

// narrow refuses the parts of YAML by which a document means something else
// than it shows.
func (d *decoder) narrow(n *yaml.Node) {
	switch {
	case n.Kind == yaml.AliasNode:
		d.add(d.at(n), "", fmt.Sprintf("alias *%s is not allowed", n.Value), "write the value out")
		return
	case n.Anchor != "":
		d.add(d.at(n), "", fmt.Sprintf("anchor &%s is not allowed", n.Anchor), "write the value out where it is needed")
	case n.Style&yaml.TaggedStyle != 0:
		d.add(d.at(n), "", fmt.Sprintf("tag %s is not allowed", n.Tag), "leave the tag out")
	}
	if n.Kind == yaml.MappingNode {
		seen := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode {
				d.add(d.at(key), "", "a key is not plain text", "write the key as a word")
				continue
			}
			if line, twice := seen[key.Value]; twice {
				d.add(d.at(key), "", fmt.Sprintf("key %q stands twice, first on line %d", key.Value, line), "keep one of them")
			}
			seen[key.Value] = key.Line
		}
	}
	for _, child := range n.Content {
		d.narrow(child)
	}
}

func (d *decoder) add(at Position, object, text, remedy string) {
	*d.problems = append(*d.problems, Problem{At: at, Object: object, Text: text, Remedy: remedy})
}

func (d *decoder) at(n *yaml.Node) Position {
	return Position{File: d.file, Line: n.Line, Column: n.Column}
}

// mapping decodes the known keys of n. Required keys stand in required.
func (d *decoder) mapping(n *yaml.Node, object string, fields map[string]field, required ...string) {
	if n.Kind != yaml.MappingNode {
		d.add(d.at(n), object, "expected a mapping", "write `key: value` lines")
		return
	}
	missing := slices.Clone(required)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		f, known := fields[key.Value]
		if !known {
			d.add(d.at(key), object, fmt.Sprintf("unknown key %q", key.Value), didYouMean(key.Value, slices.Sorted(maps.Keys(fields))))
			continue
		}
		missing = slices.DeleteFunc(missing, func(m string) bool { return m == key.Value })
		if value.Tag == "!!null" {
			d.add(d.at(value), object, fmt.Sprintf("key %q has no value", key.Value), "give it one or leave the key out")
			continue
		}
		f(value, object)
	}
	for _, m := range missing {
		d.add(d.at(n), object, fmt.Sprintf("key %q is missing", m), "add it")
	}
}

// sequence calls each for the items of n.
func (d *decoder) sequence(n *yaml.Node, object string, each func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		d.add(d.at(n), object, "expected a list", "write `- item` lines")
		return
	}
	for _, item := range n.Content {
		each(item)
	}
}

// pairs calls each for every key of a mapping with free keys.
func (d *decoder) pairs(n *yaml.Node, object string, each func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.add(d.at(n), object, "expected a mapping", "write `key: value` lines")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		each(n.Content[i], n.Content[i+1])
	}
}

func (d *decoder) text(into *string) field {
	return func(n *yaml.Node, object string) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!timestamp" {
			d.add(d.at(n), object, "expected text", "put it in quotes")
			return
		}
		*into = n.Value
	}
}

// word is text that must be one of a set.
func (d *decoder) word(into *string, known ...string) field {
	return func(n *yaml.Node, object string) {
		d.text(into)(n, object)
		if n.Kind == yaml.ScalarNode && !slices.Contains(known, n.Value) {
			d.add(d.at(n), object, fmt.Sprintf("%q is not one of %s", n.Value, strings.Join(known, ", ")), didYouMean(n.Value, known))
		}
	}
}

func (d *decoder) truth(into *bool) field {
	return func(n *yaml.Node, object string) {
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.add(d.at(n), object, "expected true or false", "write true or false without quotes")
			return
		}
		*into = strings.EqualFold(n.Value, "true")
	}
}

func (d *decoder) number(into *int, least, most int) field {
	return func(n *yaml.Node, object string) {
		v, err := strconv.Atoi(n.Value)
		if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < least || v > most {
			d.add(d.at(n), object, fmt.Sprintf("expected a whole number from %d to %d", least, most), "write it without quotes")
			return
		}
		*into = v
	}
}

func (d *decoder) duration(into *time.Duration) field {
	return func(n *yaml.Node, object string) {
		v, err := ParseDuration(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil {
			d.add(d.at(n), object, fmt.Sprintf("%q is not a duration", n.Value), "write it like 90d, 2h or 1h30m")
			return
		}
		*into = v
	}
}

func (d *decoder) instant(into *time.Time) field {
	return func(n *yaml.Node, object string) {
		date, err := ParseDate(n.Value)
		if n.Kind != yaml.ScalarNode || err != nil || date.IsZero() {
			d.add(d.at(n), object, fmt.Sprintf("%q is not a time", n.Value), "write it like 2026-03-01 or 2026-03-01T08:00:00Z")
			return
		}
		*into = date.First(time.UTC)
	}
}

// expr takes any scalar: `true` and `5` are CEL as much as they are YAML.
func (d *decoder) expr(into *Expr) field {
	return func(n *yaml.Node, object string) {
		if n.Kind != yaml.ScalarNode || strings.TrimSpace(n.Value) == "" {
			d.add(d.at(n), object, "expected a CEL expression", "write it as text, in quotes or after `|`")
			return
		}
		*into = Expr{Source: n.Value, At: d.at(n), block: n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0}
		if n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
			into.At.Column++
		}
	}
}

// texts takes one text or a list of them.
func (d *decoder) texts(into *[]string) field {
	return func(n *yaml.Node, object string) {
		if n.Kind == yaml.ScalarNode {
			*into = []string{""}
			d.text(&(*into)[0])(n, object)
			return
		}
		*into = []string{}
		d.sequence(n, object, func(item *yaml.Node) {
			var s string
			d.text(&s)(item, object)
			*into = append(*into, s)
		})
	}
}

// textMap takes a mapping of names to one text or a list of them.
func (d *decoder) textMap(into *map[string][]string) field {
	return func(n *yaml.Node, object string) {
		*into = map[string][]string{}
		d.pairs(n, object, func(key, value *yaml.Node) {
			var values []string
			d.texts(&values)(value, object)
			(*into)[key.Value] = values
		})
	}
}
