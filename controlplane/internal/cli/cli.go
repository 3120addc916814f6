package cli

import (
	"context"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
)

// Env is the world a command runs in.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// Getenv reads REEVE_SERVER, NO_COLOR and TERM.
	Getenv func(string) string
	// Location is the zone in which times are shown.
	Location *time.Location
	Now      func() time.Time
	After    func(time.Duration) <-chan time.Time
	// IsTerminal tells whether In, Out or Err is one.
	IsTerminal func(stream any) bool
}

// System is the process's own environment.
func System() Env {
	return Env{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Location: time.Local, Now: time.Now, After: time.After,
		IsTerminal: func(stream any) bool {
			f, ok := stream.(*os.File)
			return ok && term.IsTerminal(int(f.Fd()))
		},
	}
}

// Run runs one command line, without the program's name, and returns its exit
// code (see `reeve help exit-codes`). An interrupt ends it.
func Run(ctx context.Context, args []string, env Env) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{env: env, output: outputText}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.Err)
	c, err := root.ExecuteContextC(ctx)
	if a.conn != nil {
		_ = a.conn.Close()
	}
	if err != nil && !a.started {
		// Nothing of ours ran yet: it is the command line that is wrong.
		err = asUsage(err)
		a.command = nameOf(c)
	}
	return a.fail(err)
}

// nameOf is a command's path without the program's name.
func nameOf(c *cobra.Command) string {
	return strings.TrimPrefix(strings.TrimPrefix(c.CommandPath(), "reeve"), " ")
}

func asUsage(err error) error {
	if u, ok := err.(usageError); ok {
		return u
	}
	return usageError{said: err.Error()}
}

const (
	outputText = "text"
	outputJSON = "json"
)

type app struct {
	env Env

	server, output             string
	cert, key, ca, trustDomain string

	// command and object name what runs, for problems.
	command, object string
	started         bool
	conn            *grpc.ClientConn
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "reeve",
		Short: "Take clients on, change their access and let them go again",
		Long: "reeve is what an operator types. It talks to a control plane, except for\n" +
			"`policy test`, `audit verify` and `root`, which need none.\n\n" +
			"The control plane is named by --server, else by $REEVE_SERVER, else it is the first\n" +
			"of these sockets that exists: " + strings.Join(defaultSockets, ", ") + ".\n" +
			"Over a network (host:port) give an operator's certificate: --cert, --key and --ca.\n\n" +
			"Every command takes -o json and then prints the response as one JSON document\n" +
			"(`plan watch`: one a line), and problems as JSON on standard error.\n" +
			"Exit codes are in `reeve help exit-codes`.",
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: a.begin,
		Args:              cobra.ArbitraryArgs,
		RunE:              needsVerb,
	}
	f := root.PersistentFlags()
	f.StringVar(&a.server, "server", "", "control plane: unix:///path or host:port")
	f.StringVarP(&a.output, "output", "o", outputText, "text or json")
	f.StringVar(&a.cert, "cert", "", "operator's certificate chain in PEM, for host:port")
	f.StringVar(&a.key, "key", "", "its private key in PEM")
	f.StringVar(&a.ca, "ca", "", "CA roots of the control plane in PEM")
	f.StringVar(&a.trustDomain, "trust-domain", "", "trust domain of the control plane (default: the certificate's)")
	root.AddCommand(
		a.tenant(), a.agent(), a.connector(), a.source(), a.observe(), a.inventory(), a.identity(), a.cases(),
		a.policy(), a.plan(), a.grant(), a.schedule(), a.audit(), a.rootDocument(), a.version(),
		&cobra.Command{Use: "exit-codes", Short: "What exit codes mean", Long: exitCodesHelp()},
	)
	return root
}

// begin checks what all commands have in common.
func (a *app) begin(c *cobra.Command, args []string) error {
	a.command = nameOf(c)
	a.object = strings.Join(args, " ")
	if a.output != outputText && a.output != outputJSON {
		said := "-o " + a.output + " is no output; use text or json"
		a.output = outputText
		return usageError{said: said}
	}
	if c.HasSubCommands() {
		// It only leads to its verbs: whatever it says is about the command line.
		return nil
	}
	a.started = true
	return nil
}

// noun is a command that only leads to its verbs.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short, Args: cobra.ArbitraryArgs, RunE: needsVerb}
	c.AddCommand(verbs...)
	return c
}

func needsVerb(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		if c.Parent() == nil {
			return c.Help()
		}
		return usageError{said: c.Name() + " needs a verb: " + strings.Join(names(c), ", ")}
	}
	said := args[0] + " is no command of " + c.CommandPath()
	c.SuggestionsMinimumDistance = 2
	if near := c.SuggestionsFor(args[0]); len(near) > 0 {
		return usageError{said: said, remedy: "did you mean `" + c.CommandPath() + " " + near[0] + "`?"}
	}
	return usageError{said: said, remedy: "it has " + strings.Join(names(c), ", ")}
}

func names(c *cobra.Command) []string {
	var list []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			list = append(list, sub.Name())
		}
	}
	return list
}

// takes checks positional arguments against their names in Use; those in
// brackets may be left out.
func takes(c *cobra.Command, args []string) error {
	want := strings.Fields(c.Use)[1:]
	want = slices.DeleteFunc(want, func(w string) bool { return strings.HasPrefix(w, "[-") || strings.HasPrefix(w, "-") })
	needed := slices.IndexFunc(want, func(w string) bool { return strings.HasPrefix(w, "[") })
	if needed < 0 {
		needed = len(want)
	}
	use := "usage: " + c.CommandPath() + " " + strings.Join(want, " ")
	switch {
	case len(args) < needed:
		return usageError{said: want[len(args)] + " is missing", remedy: use}
	case len(args) > len(want):
		return usageError{said: args[len(want)] + " is one argument too many", remedy: use}
	case slices.Contains(args[:needed], ""):
		return usageError{said: want[slices.Index(args, "")] + " is empty", remedy: use}
	}
	return nil
}

func optional(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}
