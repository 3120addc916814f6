package enroll

import (
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/plugins/sdk"
)

var (
	// ErrRefused means that the control plane answered and said no; its own
	// words follow.
	ErrRefused = errors.New("the control plane refused")
	// ErrToken means that it refused the join token.
	ErrToken = errors.New("the join token was refused")
)

// refused turns a call's error into one of the sentinels with words for people.
func refused(err error, tried string) error {
	st := status.Convert(err)
	said := sdk.Clean(st.Message())
	if p := sdk.AsProblem(err, "", tried); p.Code() != sdk.CodeInternal && p.Proto().GetRemedy() != "" && len(st.Details()) > 0 {
		said = p.Error()
	}
	switch st.Code() {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return fmt.Errorf("%w: %s: %s; the same command can be run again", ErrUnreachable, tried, said)
	default:
		return fmt.Errorf("%w: %s: %s", ErrRefused, tried, said)
	}
}

// tokenRefused is refused for Enroll, where most refusals are about the token.
func tokenRefused(err error) error {
	switch status.Code(err) {
	case codes.Unauthenticated, codes.PermissionDenied, codes.NotFound, codes.AlreadyExists, codes.FailedPrecondition:
		return fmt.Errorf("%w: %w; a token works once, within its time, for the agent it was made for: ask the MSP for a new one (reeve agent invite)",
			ErrToken, refused(err, "join"))
	}
	return refused(err, "join")
}
