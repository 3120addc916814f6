package flatfile

import (
	"bytes"
	"slices"
	"strings"
)

// table is a file of lines that is never changed: an edit returns a new one.
// Lines keep their bytes; whether the last one ends with a newline is a
// property of the file, so that what is added and removed again leaves no
// trace.
type table struct {
	lines    []string
	unclosed bool
	// nis is set for files in which + and - begin compatibility entries.
	nis bool
}

func parseTable(data []byte, nis bool) *table {
	t := &table{nis: nis}
	if len(data) == 0 {
		return t
	}
	t.unclosed = !bytes.HasSuffix(data, []byte("\n"))
	t.lines = strings.Split(strings.TrimSuffix(string(data), "\n"), "\n")
	return t
}

func (t *table) bytes() []byte {
	if len(t.lines) == 0 {
		return nil
	}
	text := strings.Join(t.lines, "\n")
	if !t.unclosed {
		text += "\n"
	}
	return []byte(text)
}

// skipped reports lines that hold no entry: blank ones, comments and the
// compatibility entries of NIS.
func (t *table) skipped(line string) bool {
	return strings.TrimSpace(line) == "" || line[0] == '#' || t.nis && (line[0] == '+' || line[0] == '-')
}

// find returns the places of the entries of that name.
func (t *table) find(name string) []int {
	var at []int
	for i, line := range t.lines {
		if !t.skipped(line) && strings.HasPrefix(line, name) && strings.HasPrefix(line[len(name):], ":") {
			at = append(at, i)
		}
	}
	return at
}

func (t *table) with(lines []string) *table {
	return &table{lines: lines, unclosed: t.unclosed, nis: t.nis}
}

func (t *table) replace(i int, line string) *table {
	if t.lines[i] == line {
		return t
	}
	lines := slices.Clone(t.lines)
	lines[i] = line
	return t.with(lines)
}

func (t *table) remove(i int) *table {
	return t.with(slices.Delete(slices.Clone(t.lines), i, i+1))
}

// add puts the line last, but before the entries of NIS: those end the local
// part of the file.
func (t *table) add(line string) *table {
	at := len(t.lines)
	if nis := slices.IndexFunc(t.lines, func(l string) bool { return strings.HasPrefix(l, "+") }); t.nis && nis >= 0 {
		at = nis
	}
	return t.with(slices.Insert(slices.Clone(t.lines), at, line))
}

func (t *table) equal(o *table) bool { return t == o || slices.Equal(t.lines, o.lines) }

// list edits the members of a group in place, leaving every byte that is not
// the member's. Words are separated by any white space when separator is " ".
type list struct{ text, separator string }

func (l list) split() []string {
	if l.separator == " " {
		return strings.FieldsFunc(l.text, whiteSpace)
	}
	var members []string
	for m := range strings.SplitSeq(l.text, l.separator) {
		if m = strings.TrimSpace(m); m != "" {
			members = append(members, m)
		}
	}
	return members
}

func (l list) add(member string) string {
	switch {
	case slices.Contains(l.split(), member):
		return l.text
	case l.text == "":
		return member
	default:
		return l.text + l.separator + member
	}
}

// whiteSpace is what Apache takes for it (apr_isspace in the C locale). Other
// spaces of Unicode do not end a word there, and are longer than a byte.
func whiteSpace(r rune) bool { return r == ' ' || '\t' <= r && r <= '\r' }

// remove takes the member out wherever it stands, with one separator each.
func (l list) remove(member string) string {
	separates, word := func(r rune) bool { return string(r) == l.separator }, strings.TrimSpace
	if l.separator == " " {
		separates, word = whiteSpace, func(s string) string { return s }
	}
	text := l.text
	for from := 0; from <= len(text); {
		to := len(text)
		if next := strings.IndexFunc(text[from:], separates); next >= 0 {
			to = from + next
		}
		switch {
		case word(text[from:to]) != member:
			from = to + 1
		case from > 0:
			// Separators are single bytes: the one before goes.
			text = text[:from-1] + text[to:]
		case to < len(text):
			text = text[to+1:]
		default:
			return ""
		}
	}
	return text
}
