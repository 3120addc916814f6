package flatfile

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

func stripBOM(data []byte) []byte { return bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) }

// cutLine splits off the first line, without its line end.
func cutLine(data []byte) (line, rest []byte, found bool) {
	line, rest, found = bytes.Cut(data, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r")), rest, found
}

// decode makes text of octets under the encoding that the settings state.
func (c *csvSource) decode(b []byte) string {
	if c.settings.Encoding == "utf-8" {
		return string(b)
	}
	runes := make([]rune, len(b))
	for i, octet := range b {
		runes[i] = rune(octet) // Latin-1 is the first 256 characters of Unicode
	}
	return string(runes)
}

func (c *csvSource) reader(data []byte) *csv.Reader {
	r := csv.NewReader(strings.NewReader(keepReturns(c.decode(data), c.delimiter)))
	r.Comma = c.delimiter
	r.FieldsPerRecord = -1
	return r
}

// keepReturns doubles the carriage return before each line break inside quotes:
// csv.Reader takes one away from every line, which is right at a record's end and
// would alter a value within. It walks as the reader does: quotes count at a
// field's beginning, and after a fault both go on with the next line.
func keepReturns(text string, delimiter rune) string {
	if !strings.Contains(text, "\r\n") {
		return text
	}
	var b strings.Builder
	begins, quoted := true, false
	for rest := text; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case quoted && strings.HasPrefix(rest, `""`):
			size = 2
		case quoted && r == '"':
			quoted = false
			if after := rest[1:]; after != "" && after[0] != '\n' && !strings.HasPrefix(after, "\r\n") && !strings.HasPrefix(after, string(delimiter)) {
				size = lineLength(rest) // a quote in the middle
				begins = true
			}
		case quoted && strings.HasPrefix(rest, "\r\n"):
			b.WriteByte('\r')
			size = 2
		case quoted:
		case begins && r == '"':
			begins, quoted = false, true
		case r == '"':
			size = lineLength(rest) // a bare quote
			begins = true
		default:
			begins = r == delimiter || r == '\n'
		}
		b.WriteString(rest[:size])
		rest = rest[size:]
	}
	return b.String()
}

// lineLength is the length of the text's first line with its line break.
func lineLength(text string) int {
	if n := strings.IndexByte(text, '\n'); n >= 0 {
		return n + 1
	}
	return len(text)
}

func (c *csvSource) headerProblem(said string) error {
	return sdk.NewProblem(sdk.CodeConfig, c.alias+": "+c.settings.Path+":1", "read the header",
		"let the first line name each column once, in the encoding that the settings state").WithSaid(said)
}

func (c *csvSource) readHeader(data []byte) ([]string, error) {
	data = stripBOM(data)
	// The first line exactly: a blank one would be skipped by the reader.
	line, _, _ := cutLine(data)
	header, err := c.reader(line).Read()
	if err != nil {
		return nil, c.headerProblem(strings.TrimSpace("no header: " + err.Error()))
	}
	seen := map[string]bool{}
	for i, column := range header {
		header[i] = strings.TrimSpace(column)
		switch column = header[i]; {
		case column == "" || seen[column]:
			return nil, c.headerProblem(fmt.Sprintf("column %d, %q, is empty or stands twice", i+1, column))
		case !utf8.ValidString(column) || strings.IndexFunc(column, unicode.IsControl) >= 0:
			return nil, c.headerProblem(fmt.Sprintf("column %d is not text", i+1))
		}
		seen[column] = true
	}
	return header, nil
}

// read makes people of the file's lines and findings of the lines that are
// unsound.
func (c *csvSource) read(data []byte) (people []*connectorv1.Object, findings []*connectorv1.Problem, err error) {
	header, err := c.readHeader(data)
	if err != nil {
		return nil, nil, err
	}
	if !slices.Equal(header, c.header) {
		return nil, nil, sdk.NewProblem(sdk.CodeConfig, c.alias+": "+c.settings.Path+":1", "read the file",
			"restart the connector and confirm the source again if the new columns are right").
			WithSaid(fmt.Sprintf("the header was %q and is %q", c.header, header))
	}
	_, body, _ := cutLine(stripBOM(data))
	if c.settings.RequireTrailer != "" {
		if body, err = c.cutTrailer(body); err != nil {
			return nil, nil, err
		}
	}
	r := c.reader(body)
	lines := map[string][]int{}
	for {
		fields, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		var parse *csv.ParseError
		if errors.As(err, &parse) {
			findings = append(findings, c.quarantine(parse.StartLine+1, parse.Line+1, parse.Err.Error()))
			continue
		}
		if err != nil {
			return nil, nil, fileProblem(c.alias, c.settings.Path, "read the file", err)
		}
		at, _ := r.FieldPos(0)
		at++ // the header is line 1
		person, fault := c.person(fields)
		if fault != "" {
			findings = append(findings, c.quarantine(at, at, fault))
			continue
		}
		lines[person.GetAnchor()] = append(lines[person.GetAnchor()], at)
		people = append(people, person)
	}
	people = slices.DeleteFunc(people, func(p *connectorv1.Object) bool {
		where := lines[p.GetAnchor()]
		if len(where) < 2 {
			return false
		}
		if where[0] > 0 {
			for _, at := range where {
				findings = append(findings, c.quarantine(at, at, fmt.Sprintf("%s %q stands on lines %s", c.settings.Key, sdk.Clean(p.GetAnchor()), strings.Trim(fmt.Sprint(where), "[]"))))
			}
			where[0] = -where[0] // told
		}
		return true
	})
	return people, findings, nil
}

func (c *csvSource) person(fields []string) (*connectorv1.Object, string) {
	if len(fields) != len(c.header) {
		return nil, fmt.Sprintf("%d columns, the header has %d", len(fields), len(c.header))
	}
	key := strings.TrimSpace(fields[c.key])
	if key == "" {
		return nil, fmt.Sprintf("column %q is empty", c.settings.Key)
	}
	o := &connectorv1.Object{
		Type: "person", Anchor: key, Display: key, Keys: []string{"key:" + key},
		Name: &connectorv1.Name{Components: []*connectorv1.Component{connectorv1.NewComponent(c.attributes[c.key], key)}},
	}
	for i, value := range fields {
		if !utf8.ValidString(value) {
			return nil, fmt.Sprintf("column %q is not UTF-8", c.header[i])
		}
		if strings.ContainsRune(value, 0) || i == c.key && strings.IndexFunc(value, unicode.IsControl) >= 0 {
			return nil, fmt.Sprintf("column %q holds a control character", c.header[i])
		}
		if i == c.key {
			value = key
		}
		if value != "" {
			o.Attributes = append(o.Attributes, &connectorv1.Attribute{Name: c.attributes[i], Values: [][]byte{[]byte(value)}})
		}
	}
	return o, ""
}

func (c *csvSource) quarantine(from, to int, said string) *connectorv1.Problem {
	where := fmt.Sprintf("%s: %s:%d", c.alias, c.settings.Path, from)
	if to > from {
		where += fmt.Sprintf("-%d", to)
	}
	return sdk.NewProblem(sdk.CodeQuarantined, where, "read the line", "correct the line at its source; until then nobody is taken for gone").
		WithSaid(said).Incomplete()
}

// cutTrailer removes the last line, which must be the trailer.
func (c *csvSource) cutTrailer(body []byte) ([]byte, error) {
	trimmed := bytes.TrimRight(body, "\r\n")
	start := bytes.LastIndexByte(trimmed, '\n') + 1
	if last := c.decode(trimmed[start:]); last != c.settings.RequireTrailer {
		return nil, sdk.NewProblem(sdk.CodeChanging, c.alias+": "+c.settings.Path, "read the file",
			"wait until the file is finished, or correct require_trailer in agent.yaml").
			WithSaid(fmt.Sprintf("the last line is not %q", c.settings.RequireTrailer))
	}
	return body[:start], nil
}
