package planted

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// Of every enoughOf bugs enough must be caught, and there must be that many.
const enough, enoughOf = 38, 40

// result is what became of one bug.
type result struct {
	bug   Bug
	by    string // the package and the test that failed; empty when none did
	wrong error  // why the entry is none: it does not fit, does not compile or hangs
}

func (r result) String() string {
	switch {
	case r.wrong != nil:
		return "NO BUG"
	case r.by == "":
		return "MISSED"
	}
	return r.by
}

// Run is the program: it returns its exit code. 0 is enough bugs caught, 1 too few
// or an entry that is none, 2 a wrong command line.
func Run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("planted", flag.ContinueOnError)
	flags.SetOutput(stderr)
	only := flags.String("only", "", "plant these `bugs` alone, by name, with commas between them")
	results := flags.String("results", "", "write the table as Markdown into this `file`")
	atOnce := flags.Int("at-once", 1, "plant so many bugs at a time, each in its own overlay")
	list := flags.Bool("list", false, "list the bugs and plant none")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 || *atOnce < 1 {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *only, *results, *atOnce, *list, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, err)
		return 1
	}
	return 0
}

func run(ctx context.Context, only, results string, atOnce int, list bool, stdout, stderr io.Writer) error {
	all, err := Bugs()
	if err != nil {
		return err
	}
	if len(all) < enoughOf {
		return fmt.Errorf("there are %d bugs, and must be %d", len(all), enoughOf)
	}
	if only != "" {
		names := strings.Split(only, ",")
		all = slices.DeleteFunc(all, func(b Bug) bool { return !slices.Contains(names, b.Name) })
		if len(all) != len(names) {
			return fmt.Errorf("not all of %s are bugs; -list lists them", only)
		}
	}
	if list {
		w := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
		for _, b := range all {
			fmt.Fprintf(w, "%s\t%s\n", b.Name, b.Takes)
		}
		return w.Flush()
	}
	top, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return fmt.Errorf("find the top of the repository: %w", err)
	}
	root := strings.TrimSpace(string(top))
	dir, err := os.MkdirTemp("", "reeve-planted")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	say := func(format string, args ...any) { fmt.Fprintf(stderr, format, args...) }
	// What does not fit is told before anything takes its time.
	overlays := make([]string, len(all))
	var misfits []error
	for i, b := range all {
		var err error
		overlays[i], err = overlay(root, dir, b)
		misfits = append(misfits, err)
	}
	if err := errors.Join(misfits...); err != nil {
		return err
	}
	start := time.Now()
	done := make([]result, len(all))
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	var unsound error
	group.Go(func() (err error) {
		unsound, err = control(groupCtx, root, all, say)
		return err
	})
	for i, b := range all {
		group.Go(func() error {
			began := time.Now()
			r, err := try(groupCtx, root, overlays[i], b)
			if err != nil {
				return err
			}
			done[i] = r
			said := fmt.Sprintf("%3d/%d %-36s %6.1fs  %v\n", i+1, len(all), b.Name, time.Since(began).Seconds(), r)
			if r.wrong != nil {
				said += r.wrong.Error() + "\n"
			}
			say("%s", said)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if unsound != nil {
		// What fails without a bug says nothing about bugs.
		return unsound
	}
	return errors.Join(report(done, time.Since(start), atOnce, results, stdout), judge(done))
}

// try plants one bug and runs its tests until one fails.
func try(ctx context.Context, root, overlay string, b Bug) (result, error) {
	for _, t := range b.Tests {
		o, err := goTest(ctx, root, overlay, t)
		switch {
		case err != nil:
			return result{}, err
		case !o.built:
			return result{bug: b, wrong: fmt.Errorf("bug %s does not compile, and so is no bug:\n%s", b.Name, o.said)}, nil
		case o.hung:
			return result{bug: b, wrong: fmt.Errorf("bug %s makes %s hang until its timeout: name a test that fails", b.Name, t.Package)}, nil
		case len(o.failed) > 0:
			return result{bug: b, by: t.Package + " " + o.failed[0]}, nil
		case len(o.passed) < len(t.Names):
			return result{bug: b, wrong: fmt.Errorf("bug %s: not all tests of %s ran, and none failed:\n%s", b.Name, t.Package, o.said)}, nil
		}
	}
	return result{bug: b}, nil
}

func judge(done []result) error {
	caught := 0
	var wrong []string
	for _, r := range done {
		if r.wrong != nil {
			wrong = append(wrong, r.bug.Name)
		} else if r.by != "" {
			caught++
		}
	}
	if len(wrong) > 0 {
		return fmt.Errorf("adapt these entries: %s", strings.Join(wrong, ", "))
	}
	if caught*enoughOf < len(done)*enough {
		return fmt.Errorf("only %d of %d planted bugs were caught; %d of %d must be", caught, len(done), enough, enoughOf)
	}
	return nil
}

// report prints the table, and writes it as Markdown if a file is named.
func report(done []result, took time.Duration, atOnce int, file string, stdout io.Writer) error {
	caught := 0
	var table, md strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	for _, r := range done {
		if r.wrong == nil && r.by != "" {
			caught++
		}
		fmt.Fprintf(w, "%s\t%s\t%v\n", r.bug.Name, r.bug.Takes, r)
		fmt.Fprintf(&md, "| %s | %s | `%s` | %v |\n", r.bug.Name, r.bug.Takes, r.bug.File, r)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	sum := fmt.Sprintf("%d of %d planted bugs caught, in %s", caught, len(done), took.Round(time.Second))
	fmt.Fprintf(stdout, "%s\n%s\n", table.String(), sum)
	if file == "" {
		return nil
	}
	text := fmt.Sprintf(`# Planted bugs

Each line takes one protection away and names the test that failed on it. Made by

    make planted   # with -at-once %d

on %s/%s with %d processors and %s; with nothing planted every named test passed in the same run.

%s.

| bug | takes away | file | caught by |
|---|---|---|---|
%s`, atOnce, runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version(), sum, md.String())
	return os.WriteFile(filepath.Clean(file), []byte(text), 0o644)
}
