package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSize is the greatest size of agent.yaml in bytes.
const MaxSize = 1 << 20

// ErrInvalid is wrapped by every error about the file's content; the error's
// text has one line a fault, each with file and line number.
var ErrInvalid = errors.New("agent.yaml is not valid")

// Load reads and validates a file. A file that others than its owner and group
// can write is refused, since whoever can write it can lift the guardrails.
func Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w; name the file with --config", ErrInvalid, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o002 != 0 {
		return nil, fmt.Errorf("%w: %s can be written by everyone (mode %04o); run chmod o-w on it", ErrInvalid, path, info.Mode().Perm())
	}
	raw, err := io.ReadAll(io.LimitReader(f, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", ErrInvalid, path, err)
	}
	return Parse(path, raw)
}

// Parse reads and validates the content of a file; path is only for messages.
func Parse(path string, raw []byte) (*File, error) {
	if len(raw) > MaxSize {
		return nil, fmt.Errorf("%w: %s is larger than %d bytes", ErrInvalid, path, MaxSize)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	var doc yaml.Node
	if err := d.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %s is empty", ErrInvalid, path)
		}
		return nil, invalid(path, decodeFaults(err))
	}
	var second yaml.Node
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: %s holds more than one document", ErrInvalid, path)
	}
	if line := aliasLine(&doc); line > 0 {
		return nil, invalid(path, []fault{{line: line, text: "anchors and aliases are not allowed; write the value out"}})
	}

	strict := yaml.NewDecoder(bytes.NewReader(raw))
	strict.KnownFields(true)
	f := &File{Path: path}
	if err := strict.Decode(f); err != nil {
		return nil, invalid(path, decodeFaults(err))
	}
	v := validator{file: f, lines: lineIndex(&doc)}
	v.run()
	if len(v.faults) > 0 {
		return nil, invalid(path, v.faults)
	}
	return f, nil
}

// fault is one thing that is wrong, at a line.
type fault struct {
	line int
	text string
}

func (f *fault) Error() string { return fmt.Sprintf("line %d: %s", f.line, f.text) }

func invalid(path string, faults []fault) error {
	lines := make([]string, len(faults))
	for i, f := range faults {
		lines[i] = fmt.Sprintf("%s:%d: %s", path, f.line, f.text)
	}
	return fmt.Errorf("%w:\n%s", ErrInvalid, strings.Join(lines, "\n"))
}

var (
	lineText     = regexp.MustCompile(`^(?:yaml: )?line (\d+): (.*)$`)
	unknownField = regexp.MustCompile(`^field (.*) not found in type .*$`)
	typeError    = regexp.MustCompile("^cannot unmarshal !!(\\w+)(?: `(.*)`)? into .*$")
)

// decodeFaults turns the decoder's errors, which speak of Go types, into words
// about the file.
func decodeFaults(err error) []fault {
	var own *fault
	if errors.As(err, &own) {
		return []fault{*own}
	}
	texts := []string{err.Error()}
	var many *yaml.TypeError
	if errors.As(err, &many) {
		texts = many.Errors
	}
	out := make([]fault, 0, len(texts))
	for _, text := range texts {
		f := fault{text: strings.TrimPrefix(text, "yaml: ")}
		if m := lineText.FindStringSubmatch(text); m != nil {
			f.line, _ = strconv.Atoi(m[1])
			f.text = m[2]
		}
		if m := unknownField.FindStringSubmatch(f.text); m != nil {
			f.text = "key " + quoted(m[1]) + " is not known here; remove it or correct its spelling"
		} else if m := typeError.FindStringSubmatch(f.text); m != nil {
			f.text = "a value of another kind is needed here than " + kindWord(m[1])
			if m[2] != "" {
				f.text += " " + quoted(m[2])
			}
		}
		out = append(out, f)
	}
	return out
}

func kindWord(tag string) string {
	switch tag {
	case "map":
		return "a mapping"
	case "seq":
		return "a list"
	case "str":
		return "the text"
	default:
		return "the " + tag
	}
}

func aliasLine(n *yaml.Node) int {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return n.Line
	}
	for _, c := range n.Content {
		if line := aliasLine(c); line > 0 {
			return line
		}
	}
	return 0
}

// lineIndex maps paths such as "connectors[1].role" to lines.
func lineIndex(doc *yaml.Node) map[string]int {
	lines := map[string]int{}
	var walk func(n *yaml.Node, path string)
	walk = func(n *yaml.Node, path string) {
		lines[path] = n.Line
		switch n.Kind {
		case yaml.DocumentNode:
			for _, c := range n.Content {
				walk(c, path)
			}
		case yaml.MappingNode:
			for i := 0; i+1 < len(n.Content); i += 2 {
				walk(n.Content[i+1], strings.TrimPrefix(path+"."+n.Content[i].Value, "."))
				lines[strings.TrimPrefix(path+"."+n.Content[i].Value, ".")] = n.Content[i].Line
			}
		case yaml.SequenceNode:
			for i, c := range n.Content {
				walk(c, fmt.Sprintf("%s[%d]", path, i))
			}
		}
	}
	walk(doc, "")
	return lines
}

func quoted(s string) string { return strconv.QuoteToGraphic(s) }
