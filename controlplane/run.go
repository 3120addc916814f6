package controlplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/reevehq/reeve/controlplane/internal/trust"
	"github.com/reevehq/reeve/pki/ca"
)

// Version of the binary, set at link time.
var Version = "dev"

// Exit codes of reeve-controlplane.
const (
	exitFailed = 1
	exitConfig = 2
)

// Run is the command reeve-controlplane. It returns the exit code: 0 after an
// orderly end, 2 for settings or usage, 1 for anything else.
func Run(args []string, stdout, stderr io.Writer) int { return RunOn(machine(), args, stdout, stderr) }

// RunOn is Run on another clock than the machine's, for tests.
func RunOn(clock Clock, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "reeve-controlplane", Short: "The control plane in the MSP's NOC", SilenceUsage: true, SilenceErrors: true, Version: Version,
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(runCommand(clock, stderr), validateCommand(), requestCommand(clock), operatorCommand(clock))
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "reeve-controlplane:", err)
	if errors.Is(err, ErrConfig) || errors.Is(err, trust.ErrNoRoot) || errors.Is(err, trust.ErrRootKey) || errors.Is(err, trust.ErrNotNamed) || errors.Is(err, trust.ErrNoCA) || errors.Is(err, ca.ErrID) || errors.Is(err, ca.ErrTTL) {
		return exitConfig
	}
	return exitFailed
}

// settings adds the flags and returns what reads file and flags together.
func settings(cmd *cobra.Command) func() (Config, error) {
	given := Default()
	file := cmd.Flags().String("config", "", "YAML file with settings; flags win over it")
	f := cmd.Flags()
	f.StringVar(&given.Data, "data", given.Data, "folder of database, keys and operator socket")
	f.BoolVar(&given.Dev, "dev", false, "make a root document here, keep its key, let makers approve; for trying out")
	f.BoolVar(&given.Solo, "solo", false, "let the maker of a plan approve it; plans say so")
	f.StringVar(&given.TrustDomain, "trust-domain", given.TrustDomain, "SPIFFE trust domain")
	f.StringVar(&given.Listen, "listen", given.Listen, "host:port for agents")
	f.StringVar(&given.Advertise, "advertise", "", "address agents are told (default: --listen)")
	f.StringVar(&given.OperatorListen, "operator-listen", "", "host:port of the operator API over mTLS (default: local socket alone)")
	f.StringVar(&given.Socket, "socket", "", "operator socket (default: operator.sock in --data)")
	f.StringVar(&given.SVIDSource, "svid-source", given.SVIDSource, "builtin or workload-api")
	f.StringVar(&given.WorkloadAPI, "workload-api", "", "address of the SPIFFE Workload API")
	f.DurationVar(&given.Heartbeat, "heartbeat", given.Heartbeat, "heartbeat asked of agents")
	f.StringVar(&given.MSP.ID, "msp", given.MSP.ID, "id of the MSP's own tenant")
	f.StringVar(&given.LogFormat, "log-format", given.LogFormat, "text or json")
	f.StringVar(&given.LogLevel, "log-level", given.LogLevel, "debug, info, warn or error")
	return func() (Config, error) {
		c := given
		if *file != "" {
			c = Default()
			if err := c.ReadFile(*file); err != nil {
				return c, err
			}
			over := map[string]func(){
				"data": func() { c.Data = given.Data }, "dev": func() { c.Dev = given.Dev }, "solo": func() { c.Solo = given.Solo },
				"trust-domain": func() { c.TrustDomain = given.TrustDomain }, "listen": func() { c.Listen = given.Listen },
				"advertise": func() { c.Advertise = given.Advertise }, "operator-listen": func() { c.OperatorListen = given.OperatorListen },
				"socket": func() { c.Socket = given.Socket }, "svid-source": func() { c.SVIDSource = given.SVIDSource },
				"workload-api": func() { c.WorkloadAPI = given.WorkloadAPI }, "heartbeat": func() { c.Heartbeat = given.Heartbeat },
				"msp": func() { c.MSP.ID = given.MSP.ID }, "log-format": func() { c.LogFormat = given.LogFormat },
				"log-level": func() { c.LogLevel = given.LogLevel },
			}
			for name, set := range over {
				if f.Changed(name) {
					set()
				}
			}
		}
		return c, c.Validate()
	}
}

func runCommand(clock Clock, stderr io.Writer) *cobra.Command {
	cmd := &cobra.Command{Use: "run", Short: "Run the control plane", Args: cobra.NoArgs}
	read := settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := read()
		if err != nil {
			return err
		}
		logger, err := newLogger(c, stderr)
		if err != nil {
			return err
		}
		return Serve(cmd.Context(), clock, c, logger, nil)
	}
	return cmd
}

func validateCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "validate", Short: "Check settings without starting", Args: cobra.NoArgs}
	read := settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if _, err := read(); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "settings are valid")
		return nil
	}
	return cmd
}

func requestCommand(clock Clock) *cobra.Command {
	cmd := &cobra.Command{
		Use: "root-request", Short: "Write down what a root document should name, for `reeve root init` to sign", Args: cobra.NoArgs,
	}
	read := settings(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := read()
		if err != nil {
			return err
		}
		request, err := trust.WriteRequest(c.Data, c.TrustDomain, clock.Now)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", request)
		return err
	}
	return cmd
}

func operatorCommand(clock Clock) *cobra.Command {
	var name, out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use: "operator-certificate", Short: "Issue a certificate for an operator, to connect over --operator-listen", Args: cobra.NoArgs,
		Long: "Makes a key and a certificate for an operator and writes them with the CA roots into\n" +
			"--out: NAME.pem, NAME.key (for its owner alone) and ca.pem. It takes the right to read\n" +
			"the data folder, so it is for whoever runs the control plane; the files go to the\n" +
			"operator by a safe way.",
	}
	read := settings(cmd)
	cmd.Flags().StringVar(&name, "name", "", "the operator's name, as records will show it")
	cmd.Flags().StringVar(&out, "out", ".", "folder for the files")
	cmd.Flags().DurationVar(&ttl, "ttl", 12*time.Hour, "how long the certificate lasts, at most 24h")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := read()
		if err != nil {
			return err
		}
		files, err := trust.IssueOperator(c.Data, c.TrustDomain, name, out, ttl, clock.Now)
		if err != nil {
			return err
		}
		server := c.OperatorListen
		if server == "" {
			server = "HOST:PORT"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s until %s\n\nreeve --server %s --cert %s --key %s --ca %s tenant list\n",
			files.ID, files.NotAfter.UTC().Format(time.RFC3339), server, files.Certificate, files.Key, files.CA)
		return err
	}
	return cmd
}
