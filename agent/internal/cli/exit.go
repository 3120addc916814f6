package cli

import (
	"context"
	"errors"
	"fmt"
)

// Exit codes; scripts rely on them.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitRefused     = 3
	ExitUnreachable = 4
	ExitAttention   = 5
)

// Failure is an error with the exit code it leads to.
type Failure struct {
	Code int
	Err  error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Fail gives err an exit code; nil stays nil. The innermost code counts, since
// it was given where most was known.
func Fail(code int, err error) error {
	if err == nil {
		return nil
	}
	var f *Failure
	if errors.As(err, &f) {
		return err
	}
	return &Failure{Code: code, Err: err}
}

// Usagef is a mistake in the command line.
func Usagef(format string, args ...any) error {
	return &Failure{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// exitCode returns the code that err leads to.
func exitCode(err error) int {
	var f *Failure
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &f):
		return f.Code
	case errors.Is(err, context.Canceled):
		return ExitFailed
	default:
		return ExitFailed
	}
}

func exitWord(code int) string {
	switch code {
	case ExitUsage:
		return "usage"
	case ExitRefused:
		return "refused"
	case ExitUnreachable:
		return "unreachable"
	case ExitAttention:
		return "attention"
	}
	return "failed"
}

// Code returns the exit code that err leads to.
func Code(err error) int { return exitCode(err) }
