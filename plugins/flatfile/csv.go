package flatfile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

type csvSettings struct {
	Format         string            `json:"format"`
	Path           string            `json:"path"`
	Key            string            `json:"key"`
	Delimiter      string            `json:"delimiter"`
	Encoding       string            `json:"encoding"`
	Columns        map[string]string `json:"columns"`
	RequireTrailer string            `json:"require_trailer"`
}

// csvSource is a file of people. Its types follow from the header, which is
// read at Open and must stay.
type csvSource struct {
	alias     string
	settings  csvSettings
	delimiter rune
	header    []string
	// attributes by column.
	attributes []string
	key        int
}

func openCSV(s sdk.Settings) (*csvSource, error) {
	c := &csvSource{alias: s.Alias, settings: csvSettings{Delimiter: ",", Encoding: "utf-8"}}
	if err := s.Decode(&c.settings); err != nil {
		return nil, err
	}
	if c.settings.Key == "" {
		return nil, s.Problem("key", "is missing", "name the column that identifies a person and never changes")
	}
	delimiter, size := utf8.DecodeRuneInString(c.settings.Delimiter)
	if size != len(c.settings.Delimiter) || delimiter == '"' || delimiter == '\r' || delimiter == '\n' || delimiter == utf8.RuneError {
		return nil, s.Problem("delimiter", "is not one character that can separate columns", `use "," ";" or a tab`)
	}
	c.delimiter = delimiter
	if c.settings.Encoding != "utf-8" && c.settings.Encoding != "latin1" {
		return nil, s.Problem("encoding", "is not known", "set it to utf-8 or latin1")
	}
	// A link is followed at each read: drops are often switched by link.
	if _, err := resolve(s, "path", c.settings.Path); err != nil {
		return nil, err
	}
	files, err := readStable(context.Background(), s.Alias, []string{c.settings.Path})
	if err != nil {
		return nil, err
	}
	c.header, err = c.readHeader(files[0].data)
	if err != nil {
		return nil, err
	}
	return c, c.bindColumns(s)
}

func (c *csvSource) bindColumns(s sdk.Settings) error {
	c.key = slices.Index(c.header, c.settings.Key)
	if c.key < 0 {
		return s.Problem("key", fmt.Sprintf("names column %q, which the file does not have", c.settings.Key), fmt.Sprintf("the columns are %q", c.header))
	}
	for _, column := range slices.Sorted(maps.Keys(c.settings.Columns)) {
		if !slices.Contains(c.header, column) {
			return s.Problem("columns", fmt.Sprintf("names column %q, which the file does not have", column), fmt.Sprintf("the columns are %q", c.header))
		}
	}
	taken := map[string]bool{}
	for _, column := range c.header {
		name := column
		if mapped := c.settings.Columns[column]; mapped != "" {
			name = mapped
		}
		if taken[name] {
			return s.Problem("columns", fmt.Sprintf("gives attribute %q to two columns", name), "give each column its own attribute name")
		}
		taken[name] = true
		c.attributes = append(c.attributes, name)
	}
	return nil
}

func personType(attributes []string) *connectorv1.ObjectType {
	t := &connectorv1.ObjectType{Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT}
	for _, name := range attributes {
		t.Attributes = append(t.Attributes, &connectorv1.AttributeType{Name: name, Rule: connectorv1.MatchingRule_MATCHING_RULE_EXACT, ReadOnly: true})
	}
	return t
}

// Types implements sdk.Instance.
func (c *csvSource) Types() []*connectorv1.ObjectType {
	t := personType(c.attributes)
	t.NamingAttribute = c.attributes[c.key]
	return []*connectorv1.ObjectType{t}
}

// Capabilities implements sdk.Instance.
func (c *csvSource) Capabilities() []connectorv1.Capability { return nil }

// Close implements sdk.Instance.
func (c *csvSource) Close() error { return nil }

// Check implements sdk.Checker.
func (c *csvSource) Check(ctx context.Context) (*connectorv1.CheckResponse, error) {
	files, err := readStable(ctx, c.alias, []string{c.settings.Path})
	if err != nil {
		return &connectorv1.CheckResponse{Problems: []*connectorv1.Problem{sdk.AsProblem(err, c.alias, "check").Proto()}}, nil
	}
	line, _, _ := cutLine(stripBOM(files[0].data))
	people, findings, err := c.read(files[0].data)
	if err != nil {
		findings = append(findings, sdk.AsProblem(err, c.alias, "read the file").Proto())
	}
	return &connectorv1.CheckResponse{
		Reachable: true,
		Server:    fmt.Sprintf("CSV file of %d bytes, %d people", len(files[0].data), len(people)),
		Rights:    []*connectorv1.Right{{What: "read", Where: c.settings.Path, Allowed: true, Certain: true}},
		Fingerprint: []*connectorv1.Fact{
			{Name: "path", Value: c.settings.Path},
			{Name: "header", Value: c.decode(line)},
			{Name: "owner uid", Value: owner(files[0].info)},
		},
		Problems: findings,
	}, nil
}

// Observe implements sdk.Observer.
func (c *csvSource) Observe(ctx context.Context, emit func(*connectorv1.Object) error) (sdk.Completeness, error) {
	people, findings, err := c.load(ctx)
	if err != nil {
		return sdk.Completeness{}, err
	}
	for _, p := range people {
		if err := emit(p); err != nil {
			return sdk.Completeness{}, err
		}
	}
	method := "whole file, unchanged while it was read"
	if c.settings.RequireTrailer != "" {
		method += ", trailer present"
	}
	return sdk.Completeness{Method: method, Findings: findings}, nil
}

// Read implements sdk.Reader. When lines are quarantined, nobody who was not
// found is absent: the quarantined line may be theirs.
func (c *csvSource) Read(ctx context.Context, refs []*connectorv1.ObjectRef) ([]*connectorv1.ReadResult, error) {
	people, findings, err := c.load(ctx)
	if err != nil {
		return nil, err
	}
	byAnchor := make(map[string]*connectorv1.Object, len(people))
	byName := make(map[string]*connectorv1.Object, len(people))
	for _, p := range people {
		byAnchor[p.GetAnchor()], byName[p.GetName().Key(connectorv1.CaseRule_CASE_RULE_EXACT)] = p, p
	}
	results := make([]*connectorv1.ReadResult, len(refs))
	for i, ref := range refs {
		found := byAnchor[ref.GetAnchor()]
		if ref.GetAnchor() == "" {
			found = byName[ref.GetName().Key(connectorv1.CaseRule_CASE_RULE_EXACT)]
		}
		switch {
		case found != nil:
			results[i] = foundResult(found)
		case len(findings) > 0:
			results[i] = problemResult(sdk.NewProblem(sdk.CodeQuarantined, c.alias+": "+c.settings.Path, "find a person",
				"correct the quarantined lines: one may be this person's").WithSaid(fmt.Sprintf("not found, and %d findings in the file", len(findings))))
		default:
			results[i] = absentResult()
		}
	}
	return results, nil
}

func (c *csvSource) load(ctx context.Context) ([]*connectorv1.Object, []*connectorv1.Problem, error) {
	files, err := readStable(ctx, c.alias, []string{c.settings.Path})
	if err != nil {
		return nil, nil, err
	}
	return c.read(files[0].data)
}

func foundResult(o *connectorv1.Object) *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Object{Object: o}}
}

func absentResult() *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Absent{Absent: &connectorv1.Absent{}}}
}

func problemResult(p *sdk.Problem) *connectorv1.ReadResult {
	return &connectorv1.ReadResult{Outcome: &connectorv1.ReadResult_Problem{Problem: p.Proto()}}
}
