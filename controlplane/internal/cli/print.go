package cli

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// printer writes text for people. The first error stays, see flush.
type printer struct {
	w     *bufio.Writer
	color bool
	zone  *time.Location
	err   error
	// wrote is set once there is something to keep a distance from.
	wrote bool
}

// printer follows no-color.org: colour only on a terminal, and never when
// NO_COLOR is set to anything.
func (a *app) printer(w io.Writer) *printer {
	color := a.env.IsTerminal(w) && a.env.Getenv("NO_COLOR") == "" && a.env.Getenv("TERM") != "dumb"
	return &printer{w: bufio.NewWriter(w), color: color, zone: a.env.Location}
}

func (p *printer) flush() error {
	if err := p.w.Flush(); p.err == nil {
		p.err = err
	}
	return p.err
}

// styled is text that was cleaned and may carry terminal sequences of ours.
type styled string

func (p *printer) style(sequence, s string) styled {
	if !p.color || s == "" {
		return styled(clean(s))
	}
	return styled("\x1b[" + sequence + "m" + clean(s) + "\x1b[0m")
}

func (p *printer) strong(s string) styled { return p.style("1", s) }
func (p *printer) faint(s string) styled  { return p.style("2", s) }
func (p *printer) good(s string) styled   { return p.style("32", s) }
func (p *printer) warn(s string) styled   { return p.style("33", s) }
func (p *printer) bad(s string) styled    { return p.style("31", s) }

// line prints one line; every string among args is cleaned.
func (p *printer) line(format string, args ...any) {
	for i, arg := range args {
		switch v := arg.(type) {
		case styled:
		case string:
			args[i] = clean(v)
		case error:
			args[i] = clean(v.Error())
		case fmt.Stringer:
			args[i] = clean(v.String())
		}
	}
	text := fmt.Sprintf(format, args...)
	p.wrote = true
	if _, err := p.w.WriteString(strings.TrimRight(text, " ") + "\n"); p.err == nil {
		p.err = err
	}
}

// gap parts what follows from what was printed before.
func (p *printer) gap() {
	if p.wrote {
		p.line("")
	}
}

// lines prints text of several lines, each cleaned, as it stands.
func (p *printer) lines(text string) {
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		p.line("%s", l)
	}
}

// facts prints names and what they have, aligned; what is empty is left out.
func (p *printer) facts(indent string, pairs ...string) {
	width := 0
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			width = max(width, len(pairs[i]))
		}
	}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			p.line("%s%s  %s", styled(indent), p.faint(fmt.Sprintf("%-*s", width, pairs[i])), pairs[i+1])
		}
	}
}

// table prints rows in aligned columns. An empty table prints nothing.
func (p *printer) table(indent string, head []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	var b bytes.Buffer
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range append([][]string{head}, rows...) {
		for i, cell := range row {
			if i > 0 {
				fmt.Fprint(w, "\t")
			}
			fmt.Fprint(w, clean(cell))
		}
		fmt.Fprint(w, "\n")
	}
	_ = w.Flush() // a bytes.Buffer takes everything
	for i, l := range strings.Split(strings.TrimRight(b.String(), "\n"), "\n") {
		if i == 0 {
			p.line("%s%s", styled(indent), p.faint(strings.TrimRight(l, " ")))
			continue
		}
		p.line("%s%s", styled(indent), l)
	}
}

// cut prints what of list goes within limit, 0 for all, and how many are left.
func cut[T any](p *printer, indent string, list []T, limit int, show func(T)) {
	for i, item := range list {
		if limit > 0 && i == limit {
			p.line("%s%s", styled(indent), p.faint(fmt.Sprintf("… and %s more, see --all", number(len(list)-limit))))
			return
		}
		show(item)
	}
}

// time prints a time in the local zone as RFC 3339, "" for none.
func (p *printer) time(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().In(p.zone).Format(time.RFC3339)
}

// number prints a count with its thousands apart.
func number[N int | uint32 | uint64](n N) string {
	digits := fmt.Sprint(n)
	var b strings.Builder
	for i, d := range digits {
		if i > 0 && (len(digits)-i)%3 == 0 {
			b.WriteByte(',')
		}
		b.WriteRune(d)
	}
	return b.String()
}

// count prints a number of things.
func count[N int | uint32 | uint64](n N, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return number(n) + " " + many
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// word turns an enumeration's name into words: PHASE_ENDED is "ended".
func word(name fmt.Stringer, prefix string) string {
	return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name.String(), prefix), "_", " "))
}
