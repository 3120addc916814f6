package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// ErrBundle is wrapped by every error that says a bundle is not valid.
var ErrBundle = errors.New("policy bundle is not valid")

// ErrParameters is wrapped by every error about parameter values.
var ErrParameters = errors.New("policy parameters are not valid")

// ErrCost is wrapped when a rule costs more than one evaluation, or all rules
// together more than the caller's allowance.
var ErrCost = errors.New("policy costs too much to evaluate")

// ErrEvaluation is wrapped when a rule cannot be evaluated for one identity or
// one source object.
var ErrEvaluation = errors.New("policy cannot be evaluated")

// Position is a place in a bundle's file. Lines and columns count from 1.
type Position struct {
	File         string
	Line, Column int
}

func (p Position) String() string {
	switch {
	case p.File == "":
		return "policy"
	case p.Line == 0:
		return printable(p.File)
	}
	return fmt.Sprintf("%s:%d:%d", printable(p.File), p.Line, p.Column)
}

// Problem is one thing that is wrong with a bundle.
type Problem struct {
	At Position
	// Object it is about, such as `role "staff"`.
	Object string
	// Text says what is wrong.
	Text string
	// Remedy says what to do about it.
	Remedy string
}

func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.At.String())
	b.WriteString(": ")
	if p.Object != "" {
		b.WriteString(printable(p.Object) + ": ")
	}
	b.WriteString(printable(p.Text))
	if p.Remedy != "" {
		b.WriteString("; " + printable(p.Remedy))
	}
	return b.String()
}

// Problems is the error of a bundle: everything that is wrong with it, in the
// order of its files. It wraps ErrBundle.
type Problems []Problem

// problemsShown bounds an error's text; the rest is counted.
const problemsShown = 20

func (p Problems) Error() string {
	lines := make([]string, 0, problemsShown+1)
	for i, problem := range p {
		if i == problemsShown {
			lines = append(lines, fmt.Sprintf("and %d more", len(p)-i))
			break
		}
		lines = append(lines, problem.String())
	}
	return strings.Join(lines, "\n")
}

func (p Problems) Unwrap() error { return ErrBundle }

// err returns p as an error, nil when there is no problem.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	slices.SortStableFunc(p, func(a, b Problem) int {
		if c := strings.Compare(a.At.File, b.At.File); c != 0 {
			return c
		}
		if a.At.Line != b.At.Line {
			return a.At.Line - b.At.Line
		}
		return a.At.Column - b.At.Column
	})
	return p
}

// printable makes text from a directory or a bundle safe for a terminal and a
// log: what is not printable, and what reorders its neighbours, is written as
// its code point.
func printable(s string) string {
	plain := func(r rune) bool { return r == ' ' || unicode.IsPrint(r) && r != unicode.ReplacementChar }
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if plain(r) {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	return b.String()
}

// nearest returns the known word most like got, "" when none is close. It
// serves remedies, so a tie goes to the first known word.
func nearest(got string, known []string) string {
	best, distance := "", max(2, len(got)/3)+1
	for _, word := range known {
		if d := editDistance(got, word); d < distance {
			best, distance = word, d
		}
	}
	return best
}

// maxWord bounds the work of editDistance on names an attacker chose.
const maxWord = 64

func editDistance(a, b string) int {
	if len(a) > maxWord || len(b) > maxWord {
		return maxWord
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}

// didYouMean words the nearest known name, or lists what there is.
func didYouMean(got string, known []string) string {
	if word := nearest(got, known); word != "" {
		return fmt.Sprintf("did you mean %q?", word)
	}
	if len(known) == 0 {
		return "there is none to choose from"
	}
	return "known are " + strings.Join(known, ", ")
}
