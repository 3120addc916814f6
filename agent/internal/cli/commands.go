package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

func (a *app) join() *cobra.Command {
	var o JoinOptions
	var tokenFile string
	c := &cobra.Command{
		Use:   "join --token-file FILE|-",
		Short: "Redeem a join token and become an agent of the tenant that invited it",
		Long: "Reads the one-time token from a file or standard input, proves the root document\n" +
			"by its fingerprint, makes the agent's keys and redeems the token. After a lost\n" +
			"answer run the same command again: it goes on where it was.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if tokenFile == "" {
				return Usagef("join needs --token-file FILE, or --token-file - for standard input")
			}
			in := a.streams.In
			if tokenFile != "-" {
				f, err := os.Open(tokenFile)
				if err != nil {
					return Usagef("the token cannot be read: %w", err)
				}
				defer f.Close()
				in = f
			}
			o.Token = io.LimitReader(in, 4096)
			if cmd.Flags().Changed("config") || o.ControlPlane == "" || o.RootSHA256 == "" || o.State == "" {
				o.Config = a.config
			}
			r, err := a.program.Join(cmd.Context(), o)
			if err != nil {
				return err
			}
			return a.show(r)
		},
	}
	f := c.Flags()
	f.StringVar(&tokenFile, "token-file", "", "file with the join token, or - for standard input")
	f.StringVar(&o.ControlPlane, "control-plane", "", "host:port (default: from agent.yaml)")
	f.StringVar(&o.RootSHA256, "root-sha256", "", "fingerprint of the root document (default: from agent.yaml)")
	f.StringVar(&o.State, "state", "", "folder for keys and journal (default: from agent.yaml)")
	f.StringVar(&o.Name, "name", "", "the agent's name as invited; finds mistakes early")
	return c
}

func (a *app) run() *cobra.Command {
	return &cobra.Command{
		Use: "run", Short: "Run the agent", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.program.Run(cmd.Context(), a.config) },
	}
}

func (a *app) connector() *cobra.Command {
	c := &cobra.Command{Use: "connector", Short: "Connectors and what they reach"}
	c.AddCommand(&cobra.Command{
		Use: "check [ALIAS]", Short: "Show what a connector reaches, as whom, and what it could and may write",
		Args: atMostOne("alias"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.program.CheckConnectors(cmd.Context(), a.config, first(args))
			if err != nil {
				return err
			}
			for _, c := range r.Connectors {
				if !c.Reachable {
					a.code = ExitUnreachable
				} else if len(c.Problems) > 0 && a.code == ExitOK {
					a.code = ExitAttention
				}
			}
			return a.show(r)
		},
	}, &cobra.Command{
		Use: "list", Short: "List the built-in connectors", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.show(a.program.Connectors()) },
	}, &cobra.Command{
		Use: "serve NAME", Short: "Serve a built-in connector to the agent that started it", Hidden: true,
		Args: exactlyOne("connector"),
		RunE: func(_ *cobra.Command, args []string) error { return a.program.ServeConnector(args[0]) },
	})
	return c
}

func (a *app) guardrails() *cobra.Command {
	c := &cobra.Command{Use: "guardrails", Short: "The limits you set"}
	c.AddCommand(&cobra.Command{
		Use: "explain [ALIAS]", Short: "Put the guardrails into words", Args: atMostOne("alias"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := a.program.ExplainGuardrails(a.config, first(args))
			if err != nil {
				return err
			}
			return a.show(r)
		},
	})
	return c
}

func (a *app) plan() *cobra.Command {
	c := &cobra.Command{Use: "plan", Short: "Plans that reached this agent"}
	c.AddCommand(&cobra.Command{
		Use: "review PLAN", Short: "Show a plan as this agent reads it, with every refusal", Args: exactlyOne("plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.program.Review(cmd.Context(), a.config, args[0])
			if err != nil {
				return err
			}
			if len(r.Refusals) > 0 {
				a.code = ExitRefused
			}
			return a.show(r)
		},
	}, &cobra.Command{
		Use: "status [PLAN]", Short: "Show how far orders are", Args: atMostOne("plan"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.program.Orders(cmd.Context(), a.config, first(args))
			if err != nil {
				return err
			}
			return a.show(r)
		},
	})
	return c
}

func (a *app) records() *cobra.Command {
	var q RecordQuery
	c := &cobra.Command{
		Use: "records", Short: "Show the agent's own records", Args: noArgs,
		Long: "Shows the records in the agent's journal, oldest first. With -o json each record\nis one line.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.program.Records(cmd.Context(), a.config, q, func(r RecordLine) error {
				if a.output == "json" {
					line, err := json.Marshal(r)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintf(a.streams.Out, "%s\n", bytes.TrimSpace(line))
					return err
				}
				r.print(a.printer(a.streams.Out))
				return nil
			})
		},
	}
	c.Flags().BoolVar(&q.Follow, "tail", false, "go on with new records until interrupted")
	c.Flags().IntVarP(&q.Last, "last", "n", 0, "only the newest N; 0 shows all")
	return c
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show how the agent is", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.program.Status(cmd.Context(), a.config)
			if err != nil {
				return err
			}
			if r.Fork != "" || r.Quarantined != "" {
				a.code = ExitAttention
			}
			return a.show(r)
		},
	}
}

func (a *app) pause() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "pause", Short: "Run no order until resumed; timed removals go on", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.local(func(ctx context.Context) (*Acknowledged, error) {
				return a.program.Pause(ctx, a.config, reason)
			}, cmd)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}

func (a *app) resume() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "Run orders again", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.local(func(ctx context.Context) (*Acknowledged, error) { return a.program.Resume(ctx, a.config) }, cmd)
		},
	}
}

func (a *app) recover() *cobra.Command {
	return &cobra.Command{
		Use: "recover", Short: "Confirm that this journal is the one to go on from", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.local(func(ctx context.Context) (*Acknowledged, error) { return a.program.Recover(ctx, a.config) }, cmd)
		},
	}
}

func (a *app) clock() *cobra.Command {
	c := &cobra.Command{Use: "clock", Short: "The agent's clock"}
	c.AddCommand(&cobra.Command{
		Use: "accept", Short: "Take the clock as right after a jump, and admit orders again", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.local(func(ctx context.Context) (*Acknowledged, error) { return a.program.AcceptClock(ctx, a.config) }, cmd)
		},
	})
	return c
}

func (a *app) local(do func(context.Context) (*Acknowledged, error), cmd *cobra.Command) error {
	r, err := do(cmd.Context())
	if err != nil {
		return err
	}
	return a.show(r)
}

func (a *app) leave() *cobra.Command {
	var dryRun, yes bool
	c := &cobra.Command{
		Use: "leave", Short: "Undo what the MSP caused, without any control plane", Args: noArgs,
		Long: "Takes back what plans changed for the MSP's own sake, from the receipts in the\n" +
			"journal, leaves what the client caused, and lists what stays behind. It asks\n" +
			"nobody. Afterwards the agent runs no order any more.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !dryRun && !yes {
				return Usagef("leave cannot be taken back: see what it would do with --dry-run, then give --yes")
			}
			r, err := a.program.Leave(cmd.Context(), a.config, dryRun)
			if err != nil {
				return err
			}
			if len(r.Failed) > 0 {
				a.code = ExitAttention
			}
			return a.show(r)
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only show what would be undone")
	c.Flags().BoolVar(&yes, "yes", false, "do it")
	return c
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "agent.yaml"}
	c.AddCommand(&cobra.Command{
		Use: "validate", Short: "Check agent.yaml and change nothing", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.program.Validate(cmd.Context(), a.config)
			if err != nil {
				return err
			}
			return a.show(r)
		},
	})
	return c
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return a.show(a.program.Version()) },
	}
}
