package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Exit codes. Scripts rely on them: a number never changes its meaning.
const (
	ExitDone        = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitNotFound    = 4
	ExitUnreachable = 5
	ExitConflict    = 6
	ExitUnverified  = 7
	ExitInterrupted = 130
)

// exitCodes is the one place that says what they mean.
var exitCodes = []struct {
	code    int
	word    string
	meaning string
}{
	{ExitDone, "done", "what was asked for was done"},
	{ExitFailed, "failed", "something failed that none of the others says, such as a file that cannot be read or an error inside the control plane"},
	{ExitUsage, "usage", "the command line, or a value in it, is not valid; nothing was done"},
	{ExitRefused, "refused", "policy, guardrails, a right or the state of things is against it, or you answered no; nothing was done. For plan watch: the plan was rejected or refused"},
	{ExitNotFound, "not found", "the tenant, plan or other object does not exist"},
	{ExitUnreachable, "unreachable", "no control plane answers, or it went away in the middle"},
	{ExitConflict, "conflict", "it exists already, or somebody else was faster. For plan watch: the plan has ended, or was superseded, and some of its changes were not applied"},
	{ExitUnverified, "verification failed", "an export or a proof is not sound, a policy bundle is not valid, or one of its tests fails"},
	{ExitInterrupted, "interrupted", "you stopped it; what had been sent goes on"},
}

func exitWord(code int) string {
	for _, e := range exitCodes {
		if e.code == code {
			return e.word
		}
	}
	return "failed"
}

func exitCodesHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes of every command:\n\n")
	for _, e := range exitCodes {
		fmt.Fprintf(&b, "  %3d  %-20s %s\n", e.code, e.word, e.meaning)
	}
	b.WriteString("\nWith -o json the problem on standard error carries the same number as exitCode.")
	return b.String()
}

// outcome ends a command with an exit code when its output has said all there
// is to say.
type outcome int

func (o outcome) Error() string { return exitWord(int(o)) }

// usageError is a mistake in the command line.
type usageError struct{ said, remedy string }

func (e usageError) Error() string { return e.said }

func usagef(format string, args ...any) error { return usageError{said: fmt.Sprintf(format, args...)} }

// exitCode maps an error to the code it ends the program with.
func exitCode(err error) int {
	var o outcome
	var u usageError
	var l localError
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &o):
		return int(o)
	case errors.As(err, &u):
		return ExitUsage
	case errors.As(err, &l):
		return l.exit
	case errors.Is(err, context.Canceled):
		return ExitInterrupted
	}
	st, ok := status.FromError(err)
	if !ok {
		return ExitFailed
	}
	switch problemOf(st).GetCode() {
	case "POLICY", "POLICY_TESTS":
		// The same bundle ends `policy test` and `policy apply` with the same code.
		return ExitUnverified
	}
	switch st.Code() {
	case codes.InvalidArgument, codes.OutOfRange:
		return ExitUsage
	case codes.FailedPrecondition, codes.PermissionDenied, codes.Unauthenticated, codes.ResourceExhausted:
		return ExitRefused
	case codes.NotFound:
		return ExitNotFound
	case codes.Unavailable, codes.DeadlineExceeded:
		return ExitUnreachable
	case codes.AlreadyExists, codes.Aborted:
		return ExitConflict
	case codes.Canceled:
		return ExitInterrupted
	}
	return ExitFailed
}
