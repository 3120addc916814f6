package planted

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// outcome is what one `go test` came to.
type outcome struct {
	passed, failed []string // top-level tests, in the order of their ends
	built, hung    bool
	said           string // the end of what was printed, for errors
}

// goTest runs tests of one package, on the tree at root with overlay laid over it
// unless overlay is empty.
func goTest(ctx context.Context, root, overlay string, t Tests) (outcome, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "-json", "-vet=off", "-ldflags=-s -w", "-count=1", "-timeout=8m", "-run=^("+strings.Join(t.Names, "|")+")$", "./"+t.Package)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if overlay != "" {
		// By the environment, so that the programs that tests build have the bug too.
		cmd.Env = append(cmd.Env, strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay))
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if ctx.Err() != nil {
		return outcome{}, ctx.Err()
	}
	if err != nil && !errors.As(err, &exit) {
		return outcome{}, fmt.Errorf("run go test: %w", err)
	}
	o, readErr := readEvents(&stdout)
	if readErr != nil {
		return outcome{}, readErr
	}
	if o.said == "" {
		o.said = stderr.String()
	}
	if err != nil && len(o.failed) == 0 && len(o.passed) == 0 && stderr.Len() > 0 {
		o.built = false
	}
	return o, nil
}

// readEvents reads what `go test -json` prints (go doc test2json).
func readEvents(stdout *bytes.Buffer) (outcome, error) {
	o := outcome{built: true}
	var said []string
	lines := bufio.NewScanner(stdout)
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output, FailedBuild string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return o, fmt.Errorf("read what go test prints: %w", err)
		}
		top := event.Test != "" && !strings.Contains(event.Test, "/")
		switch {
		case event.Action == "build-fail" || event.FailedBuild != "":
			o.built = false
		case strings.HasPrefix(event.Output, "panic: test timed out"):
			o.hung = true
		case event.Action == "fail" && top:
			o.failed = append(o.failed, event.Test)
		case event.Action == "pass" && top:
			o.passed = append(o.passed, event.Test)
		}
		if event.Output != "" {
			said = append(said, event.Output)
		}
	}
	o.said = strings.Join(said[max(0, len(said)-30):], "")
	return o, lines.Err()
}

// overlay writes the file with the bug, and the JSON that lays it over the one in
// the tree, into dir. It returns the JSON's path.
func overlay(root, dir string, b Bug) (string, error) {
	real := filepath.Join(root, filepath.FromSlash(b.File))
	text, err := os.ReadFile(real)
	if err != nil {
		return "", fmt.Errorf("bug %s: %w: %w", b.Name, ErrDoesNotFit, err)
	}
	planted, err := b.Plant(string(text))
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, b.Name)
	changed, list := filepath.Join(dir, filepath.Base(real)), filepath.Join(dir, "overlay.json")
	encoded, err := json.Marshal(map[string]map[string]string{"Replace": {real: changed}})
	if err != nil {
		return "", err
	}
	return list, errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(changed, []byte(planted), 0o600), os.WriteFile(list, encoded, 0o600))
}

// control runs every test that bugs name with nothing planted. unsound names those
// that did not run and pass.
func control(ctx context.Context, root string, bugs []Bug, say func(format string, args ...any)) (unsound, err error) {
	byPackage := map[string][]string{}
	var packages []string
	for _, b := range bugs {
		for _, t := range b.Tests {
			if byPackage[t.Package] == nil {
				packages = append(packages, t.Package)
			}
			for _, name := range t.Names {
				if !slices.Contains(byPackage[t.Package], name) {
					byPackage[t.Package] = append(byPackage[t.Package], name)
				}
			}
		}
	}
	var errs []error
	for _, p := range packages {
		o, err := goTest(ctx, root, "", Tests{Package: p, Names: byPackage[p]})
		if err != nil {
			return nil, err
		}
		for _, name := range byPackage[p] {
			if !slices.Contains(o.passed, name) {
				errs = append(errs, fmt.Errorf("with nothing planted %s of %s does not pass:\n%s", name, p, o.said))
			}
		}
		say("%-40s %d of %d tests pass with nothing planted\n", p, len(o.passed), len(byPackage[p]))
	}
	return errors.Join(errs...), nil
}
