package config

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// toJSON renders a YAML value as JSON. Keys are text, given once.
func toJSON(n *yaml.Node) ([]byte, error) {
	var b bytes.Buffer
	if err := appendJSON(&b, n); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func appendJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode:
		seen := map[string]bool{}
		b.WriteByte('{')
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
				return &fault{line: key.Line, text: "a key must be plain text"}
			}
			if seen[key.Value] {
				return &fault{line: key.Line, text: "key " + quoted(key.Value) + " is given twice"}
			}
			seen[key.Value] = true
			if i > 0 {
				b.WriteByte(',')
			}
			appendText(b, key.Value)
			b.WriteByte(':')
			if err := appendJSON(b, n.Content[i+1]); err != nil {
				return err
			}
		}
		b.WriteByte('}')
	case yaml.SequenceNode:
		b.WriteByte('[')
		for i, item := range n.Content {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := appendJSON(b, item); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	case yaml.ScalarNode:
		return appendScalar(b, n)
	default:
		return &fault{line: n.Line, text: "anchors and aliases are not allowed"}
	}
	return nil
}

func appendScalar(b *bytes.Buffer, n *yaml.Node) error {
	switch n.ShortTag() {
	case "!!null":
		b.WriteString("null")
	case "!!bool":
		b.WriteString(strings.ToLower(n.Value))
	case "!!int":
		v, err := strconv.ParseInt(strings.ReplaceAll(n.Value, "_", ""), 0, 64)
		if err != nil {
			return &fault{line: n.Line, text: quoted(n.Value) + " is not a whole number; put it in quotes if it is text"}
		}
		b.WriteString(strconv.FormatInt(v, 10))
	case "!!float":
		var v float64
		if err := n.Decode(&v); err != nil || math.IsInf(v, 0) || math.IsNaN(v) {
			return &fault{line: n.Line, text: quoted(n.Value) + " is not a number; put it in quotes if it is text"}
		}
		text, err := json.Marshal(v)
		if err != nil {
			return &fault{line: n.Line, text: quoted(n.Value) + " is not a number"}
		}
		b.Write(text)
	case "!!str", "!!timestamp":
		appendText(b, n.Value)
	default:
		return &fault{line: n.Line, text: "the tag " + quoted(n.Tag) + " is not allowed"}
	}
	return nil
}

func appendText(b *bytes.Buffer, s string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes, and bytes.Buffer never fails
	b.Truncate(b.Len() - 1)
}
