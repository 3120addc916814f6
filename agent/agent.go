package agent

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/reevehq/reeve/agent/internal/admission"
	"github.com/reevehq/reeve/agent/internal/cli"
	"github.com/reevehq/reeve/agent/internal/config"
	"github.com/reevehq/reeve/agent/internal/enroll"
	"github.com/reevehq/reeve/agent/internal/executor"
	"github.com/reevehq/reeve/agent/internal/guardrails"
	"github.com/reevehq/reeve/agent/internal/journal"
	"github.com/reevehq/reeve/agent/internal/localapi"
	"github.com/reevehq/reeve/agent/internal/secrets"
	"github.com/reevehq/reeve/agent/internal/statedir"
	"github.com/reevehq/reeve/pki/dsse"
	"github.com/reevehq/reeve/pki/jointoken"
	"github.com/reevehq/reeve/pki/root"
)

// Run runs reeve-agent with the given arguments on the process's own streams and
// returns its exit code (package cli lists them).
func Run(args []string) int { return RunOn(machine(), args) }

// RunOn is Run on another clock than the machine's, for tests.
func RunOn(clock Clock, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &program{clock: clock, getenv: os.Getenv, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	return cli.Main(ctx, p, args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv})
}

// program implements cli.Program.
type program struct {
	clock  Clock
	getenv func(string) string
	log    *slog.Logger
}

var _ cli.Program = (*program)(nil)

func (p *program) now() time.Time { return p.clock.Now() }

// version is what the build was made from; a release sets it by -ldflags -X.
var version = ""

// Version names this build.
func (p *program) Version() *cli.Version {
	return &cli.Version{Version: buildVersion(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
}

func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "0.0.0-dev"
}

// coded gives an error the exit code that its kind leads to.
func coded(err error) error {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	var refused *admission.Refused
	var crossed *localapi.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &crossed):
		return cli.Fail(crossed.Code, err)
	case is(config.ErrInvalid, guardrails.ErrInvalid, secrets.ErrReference, secrets.ErrRecipient, jointoken.ErrMalformed, statedir.ErrOpen):
		return cli.Fail(cli.ExitUsage, err)
	case is(enroll.ErrUnreachable, localapi.ErrNotRunning, executor.ErrUnreachable, admission.ErrDirectory):
		return cli.Fail(cli.ExitUnreachable, err)
	case errors.As(err, &refused),
		is(enroll.ErrRefused, enroll.ErrToken, enroll.ErrServer, enroll.ErrAnswer, statedir.ErrNotJoined, statedir.ErrLocked, journal.ErrLocked,
			root.ErrPin, root.ErrExpired, root.ErrFork, root.ErrOlder, root.ErrSkipped, root.ErrChanged, root.ErrInvalid, dsse.ErrSignature, executor.ErrPaused):
		return cli.Fail(cli.ExitRefused, err)
	}
	return err
}
