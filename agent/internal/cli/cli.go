package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// DefaultConfig is where packages install agent.yaml.
const DefaultConfig = "/etc/reeve-agent/agent.yaml"

// Streams are what a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads NO_COLOR and TERM.
	Getenv func(string) string
}

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, p Program, args []string, s Streams) int {
	app := &app{program: p, streams: s}
	root := app.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return app.code
	}
	code := exitCode(err)
	if !app.started {
		code = ExitUsage
	}
	app.fail(code, err)
	return code
}

type app struct {
	program Program
	streams Streams
	output  string
	config  string
	// started is set when a command's own code runs: errors before are
	// mistakes in the command line.
	started bool
	code    int
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "reeve-agent",
		Short: "Carries out what policy says in this network, within limits only you set",
		Long: "reeve-agent carries out signed plans in this network's directories, within the\n" +
			"guardrails of agent.yaml, and records every effect.\n\n" +
			"Exit codes: 0 done, 1 failed, 2 wrong usage or agent.yaml, 3 refused,\n" +
			"4 unreachable, 5 done but something needs attention.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if a.output != "text" && a.output != "json" {
				return Usagef("-o %q is not an output; use text or json", a.output)
			}
			a.started = true
			return nil
		},
	}
	root.PersistentFlags().StringVarP(&a.output, "output", "o", "text", "text or json")
	root.PersistentFlags().StringVar(&a.config, "config", DefaultConfig, "the client's agent.yaml")
	root.AddCommand(a.join(), a.run(), a.connector(), a.guardrails(), a.plan(), a.records(),
		a.status(), a.pause(), a.resume(), a.recover(), a.clock(), a.leave(), a.configCommand(), a.version())
	return root
}

// show prints a result as the -o flag says.
func (a *app) show(r text) error {
	if a.output == "json" {
		return a.encode(r)
	}
	r.print(a.printer(a.streams.Out))
	return nil
}

func (a *app) encode(v any) error {
	e := json.NewEncoder(a.streams.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (a *app) printer(w io.Writer) *printer { return &printer{w: w, color: a.colored(w)} }

// colored follows no-color.org: colour only on a terminal, and never when
// NO_COLOR is set to anything.
func (a *app) colored(w io.Writer) bool {
	if a.streams.Getenv("NO_COLOR") != "" || a.streams.Getenv("TERM") == "dumb" {
		return false
	}
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) fail(code int, err error) {
	if a.output == "json" {
		e := json.NewEncoder(a.streams.Err)
		e.SetEscapeHTML(false)
		_ = e.Encode(map[string]any{"error": err.Error(), "kind": exitWord(code), "exit_code": code})
		return
	}
	p := a.printer(a.streams.Err)
	fmt.Fprintf(p.w, "%s %s\n", p.bad("reeve-agent:"), safeLines(err.Error()))
	if code == ExitUsage && !a.started {
		fmt.Fprintln(p.w, "Run reeve-agent --help to see what it can do.")
	}
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return Usagef("%s takes no %s", cmd.CommandPath(), strings.Join(args, " "))
	}
	return nil
}

func atMostOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > 1 {
			return Usagef("%s takes at most one %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

func exactlyOne(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != 1 {
			return Usagef("%s needs one %s", cmd.CommandPath(), what)
		}
		return nil
	}
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
