package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// shell types commands as a user would and shows them.
type shell struct {
	ctx  context.Context
	bin  string
	dir  string
	env  []string
	out  io.Writer
	runs []*exec.Cmd
	// last is what the last command printed.
	last bytes.Buffer
}

// say prints a sentence of the story.
func (s *shell) say(format string, args ...any) {
	fmt.Fprintf(s.out, "\n%s\n", fmt.Sprintf(format, args...))
}

// chapter begins a part of the story.
func (s *shell) chapter(n int, title string) {
	line := fmt.Sprintf("%d. %s", n, title)
	fmt.Fprintf(s.out, "\n\n%s\n%s\n", line, strings.Repeat("=", len(line)))
}

func (s *shell) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(s.ctx, filepath.Join(s.bin, name), args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), s.env...)
	return cmd
}

// typed prints a command line as the reader would type it.
func (s *shell) typed(name string, args ...string) {
	shown := make([]string, 0, len(args))
	for _, a := range args {
		if strings.ContainsAny(a, " \"'$") {
			a = "'" + a + "'"
		}
		shown = append(shown, a)
	}
	fmt.Fprintf(s.out, "\n  $ %s %s\n", name, strings.Join(shown, " "))
}

// run types a command and shows what it prints. It fails when the command does.
func (s *shell) run(name string, args ...string) error {
	code, err := s.try(name, args...)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s %s: exit code %d", name, strings.Join(args, " "), code)
	}
	return err
}

// try is run for a command that may be refused; it returns the exit code.
func (s *shell) try(name string, args ...string) (int, error) {
	s.typed(name, args...)
	cmd := s.command(name, args...)
	s.last.Reset()
	w := io.MultiWriter(&indent{w: s.out}, &s.last)
	cmd.Stdout, cmd.Stderr = w, w
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode(), nil
	}
	return 0, err
}

// ask runs a command with -o json and decodes its answer; it is not shown.
func (s *shell) ask(into any, name string, args ...string) error {
	cmd := s.command(name, append(args, "-o", "json")...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, stderr.String())
	}
	return json.Unmarshal(stdout.Bytes(), into)
}

// start runs a server in the background, its log in a file.
func (s *shell) start(logFile, name string, args ...string) error {
	s.typed(name, append(args, "&")...)
	log, err := os.Create(filepath.Join(s.dir, logFile))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := s.command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Start(); err != nil {
		return err
	}
	s.runs = append(s.runs, cmd)
	return nil
}

// stop ends the server started last under that name.
func (s *shell) stop(cmd *exec.Cmd) error {
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	_ = cmd.Wait()
	return nil
}

// stopAll ends what still runs, the newest first.
func (s *shell) stopAll() {
	for i := len(s.runs) - 1; i >= 0; i-- {
		if s.runs[i].ProcessState == nil {
			_ = s.stop(s.runs[i])
		}
	}
}

// until waits for something that another process does.
func (s *shell) until(what string, limit time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		ok, err := done()
		if ok {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %s in vain until %s (last error: %v); see the logs in %s", limit, what, err, s.dir)
		}
		select {
		case <-s.ctx.Done():
			return s.ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// indent sets output apart from the story.
type indent struct {
	w    io.Writer
	open bool
}

// Write implements io.Writer.
func (i *indent) Write(p []byte) (int, error) {
	for _, line := range bytes.SplitAfter(p, []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		if !i.open {
			if _, err := io.WriteString(i.w, "    "); err != nil {
				return 0, err
			}
		}
		if _, err := i.w.Write(line); err != nil {
			return 0, err
		}
		i.open = line[len(line)-1] != '\n'
	}
	return len(p), nil
}
