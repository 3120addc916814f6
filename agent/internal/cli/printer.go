package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"unicode"
)

// printer writes words for people. Everything that goes through it is made
// terminal-safe, because names and messages come from directories.
type printer struct {
	w     io.Writer
	color bool
}

const (
	styleBad  = "\x1b[31m"
	styleGood = "\x1b[32m"
	styleBold = "\x1b[1m"
	styleOff  = "\x1b[0m"
)

func (p *printer) style(code, s string) string {
	if !p.color || s == "" {
		return s
	}
	return code + s + styleOff
}

func (p *printer) bold(s string) string { return p.style(styleBold, safe(s)) }
func (p *printer) good(s string) string { return p.style(styleGood, safe(s)) }
func (p *printer) bad(s string) string  { return p.style(styleBad, safe(s)) }

// line prints one line; arguments of type string are made safe.
func (p *printer) line(format string, args ...any) {
	for i, a := range args {
		switch v := a.(type) {
		case styled:
			args[i] = string(v)
		case string:
			args[i] = safe(v)
		case error:
			args[i] = safe(v.Error())
		}
	}
	fmt.Fprintf(p.w, format+"\n", args...)
}

// styled is text that is safe already and may hold colour codes.
type styled string

// table prints rows under a heading, columns aligned; cells are made safe.
func (p *printer) table(heading []string, rows [][]string) {
	w := tabwriter.NewWriter(p.w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, strings.Join(heading, "\t"))
	for _, row := range rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = safe(cell)
			if cells[i] == "" {
				cells[i] = "-"
			}
		}
		fmt.Fprintln(w, strings.Join(cells, "\t"))
	}
	_ = w.Flush() // the writer below reports nothing we could act on
}

// safe removes what could steer a terminal or reorder text on it: control
// characters and Unicode's formatting characters. Line breaks and tabs become
// spaces.
func safe(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r' || r == '\u2028' || r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// safeLines is safe for text that is meant to have several lines.
func safeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = safe(l)
	}
	return strings.Join(lines, "\n")
}
