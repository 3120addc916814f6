package planted

import (
	"bufio"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed bugs/*.txt
var bugs embed.FS

// ErrDoesNotFit means that an entry's old lines do not stand in the file exactly
// once: the code has moved on, and the entry must follow.
var ErrDoesNotFit = errors.New("the entry does not fit the code; adapt it")

// Bug is one protection taken away. In the files under bugs it is written as
//
//	bug: journal-fsync
//	takes: the fsync of a commit
//	file: agent/internal/journal/journal.go
//	test: agent/internal/journal TestPowerLossLosesNothingAcknowledged
//	 a line that stands beside it
//	-a line that goes
//	+a line that comes instead
//
// The last lines are a hunk as diff writes it, without numbers. Lines are compared
// without the space around them. Several test lines are tried in turn until one
// fails; one may name several tests of its package. A line that begins with # says
// something to the reader; an entry ends where the next one begins.
type Bug struct {
	Name, Takes, File string
	Tests             []Tests
	Old, New          []string
}

// Tests are top-level tests of one package, by their names.
type Tests struct {
	Package string
	Names   []string
}

// Bugs returns all entries, in the order of their files' names.
func Bugs() ([]Bug, error) {
	names, err := fs.Glob(bugs, "bugs/*.txt")
	if err != nil {
		return nil, err
	}
	var all []Bug
	for _, name := range names {
		text, err := bugs.ReadFile(name)
		if err != nil {
			return nil, err
		}
		some, err := Parse(string(text))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		all = append(all, some...)
	}
	seen := map[string]bool{}
	for _, b := range all {
		if seen[b.Name] {
			return nil, fmt.Errorf("two bugs are named %s", b.Name)
		}
		seen[b.Name] = true
	}
	return all, nil
}

// Parse reads the entries of one file. Errors name the line.
func Parse(text string) ([]Bug, error) {
	var all []Bug
	n := 0
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		n++
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		if value, ok := strings.CutPrefix(line, "bug: "); ok {
			all = append(all, Bug{Name: value})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("line %d: an entry begins with its bug: line", n)
		}
		if err := all[len(all)-1].add(line); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	for _, b := range all {
		if err := b.whole(); err != nil {
			return nil, fmt.Errorf("bug %s: %w", b.Name, err)
		}
	}
	return all, nil
}

func (b *Bug) add(line string) error {
	switch line[0] {
	case ' ':
		b.Old, b.New = append(b.Old, line[1:]), append(b.New, line[1:])
		return nil
	case '-':
		b.Old = append(b.Old, line[1:])
		return nil
	case '+':
		b.New = append(b.New, line[1:])
		return nil
	}
	key, value, _ := strings.Cut(line, ": ")
	switch key {
	case "takes":
		b.Takes = value
	case "file":
		b.File = value
	case "test":
		words := strings.Fields(value)
		if len(words) < 2 {
			return errors.New("a test: line is a package and the names of tests in it")
		}
		b.Tests = append(b.Tests, Tests{Package: words[0], Names: words[1:]})
	default:
		return fmt.Errorf("%q is none of bug:, takes:, file:, test: or a line of a hunk", line)
	}
	return nil
}

func (b *Bug) whole() error {
	switch {
	case b.Takes == "" || b.File == "" || len(b.Tests) == 0:
		return errors.New("it needs takes:, file: and test:")
	case !fs.ValidPath(b.File) || strings.HasSuffix(b.File, "_test.go"):
		return errors.New("file: is a file of the product, from the top of the repository")
	case len(b.Old) == 0 || slices.Equal(b.Old, b.New):
		return errors.New("its hunk takes nothing away")
	}
	return nil
}

// Plant returns the file's text with the bug in it. Errors wrap ErrDoesNotFit.
func (b *Bug) Plant(text string) (string, error) {
	lines := strings.Split(text, "\n")
	at, found := 0, 0
	for i := 0; i+len(b.Old) <= len(lines); i++ {
		if slices.EqualFunc(b.Old, lines[i:i+len(b.Old)], func(old, line string) bool { return strings.TrimSpace(old) == strings.TrimSpace(line) }) {
			at, found = i, found+1
		}
	}
	if found != 1 {
		return "", fmt.Errorf("bug %s: %w: its old lines stand %d times in %s, not once", b.Name, ErrDoesNotFit, found, b.File)
	}
	return strings.Join(slices.Replace(lines, at, at+len(b.Old), b.New...), "\n"), nil
}
