package sdk

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Codes of problems. PROTOCOL.md says of each when it is used and what the
// agent concludes from it; a connector may add its own in the same style.
const (
	CodeConfig           = "CONFIG"            // settings are wrong
	CodeNotConfigured    = "NOT_CONFIGURED"    // a call before Configure
	CodeUnreachable      = "UNREACHABLE"       // no connection, or it broke
	CodeTLSRefused       = "TLS_REFUSED"       // certificate or protocol refused
	CodeBindRefused      = "BIND_REFUSED"      // the directory refuses our credentials
	CodeNotAllowed       = "NOT_ALLOWED"       // the directory refuses the act to us
	CodeNotFound         = "NOT_FOUND"         // the object is not there
	CodeAlreadyExists    = "ALREADY_EXISTS"    // the name is taken by another object
	CodeConflict         = "CONFLICT"          // an expect did not hold
	CodeInvalidValue     = "INVALID_VALUE"     // the target cannot hold this value or name
	CodeUnknownType      = "UNKNOWN_TYPE"      // object type not declared
	CodeUnknownAttribute = "UNKNOWN_ATTRIBUTE" // attribute not declared
	CodeUnsupported      = "UNSUPPORTED"       // operation or call not declared
	CodeReadOnly         = "READ_ONLY"         // attribute declared read only
	CodeCursorLost       = "CURSOR_LOST"       // the directory does not know the cursor
	CodeSizeLimit        = "SIZE_LIMIT"        // the directory, or a bound of ours, cut the answer
	CodeTimeLimit        = "TIME_LIMIT"        // a deadline passed
	CodeCancelled        = "CANCELLED"         // the caller gave up
	CodeQuarantined      = "QUARANTINED"       // a record was left out because it is unsound
	CodeChanging         = "CHANGING"          // the source changed while it was read
	CodeLocked           = "LOCKED"            // another program holds the target's lock
	CodeDiskFull         = "DISK_FULL"         // the target has no space
	CodeServerError      = "SERVER_ERROR"      // the directory failed in its own words
	CodeConnectorBug     = "CONNECTOR_BUG"     // the connector broke the contract
	CodeLaunchFailed     = "LAUNCH_FAILED"     // the connector's process did not come up
	CodeBinaryChanged    = "BINARY_CHANGED"    // the executable is not the one that was approved
	CodeInternal         = "INTERNAL"          // an error nobody gave a code
)

// Problem is connectorv1.Problem as an error. It crosses the wire as a status
// detail, so the host gets back what the connector made. Problems are
// immutable: the With methods return copies.
type Problem struct {
	wire  *connectorv1.Problem
	cause error
}

// NewProblem returns a problem of severity ERROR. object is what it is about
// (an alias, a DN, a file and line), tried what was attempted, remedy what the
// reader should do about it.
func NewProblem(code, object, tried, remedy string) *Problem {
	return FromProto(&connectorv1.Problem{
		Code: code, Object: object, Tried: tried, Remedy: remedy,
		Severity: connectorv1.Severity_SEVERITY_ERROR,
	})
}

// FromProto wraps a copy of a problem that came over the wire. Its texts are
// cleaned (see Clean); a severity that is not set reads as ERROR.
func FromProto(p *connectorv1.Problem) *Problem {
	severity := p.GetSeverity()
	if severity == connectorv1.Severity_SEVERITY_UNSPECIFIED {
		severity = connectorv1.Severity_SEVERITY_ERROR
	}
	return &Problem{wire: &connectorv1.Problem{
		Code: Clean(p.GetCode()), Object: Clean(p.GetObject()), Tried: Clean(p.GetTried()),
		Said: Clean(p.GetSaid()), Remedy: Clean(p.GetRemedy()), Severity: severity,
	}}
}

// WithSaid returns a copy that carries the other side's own words.
func (p *Problem) WithSaid(said string) *Problem {
	c := p.copy()
	c.wire.Said = Clean(said)
	return c
}

// WithCause returns a copy that unwraps to err and, if nothing was said yet,
// says err's text.
func (p *Problem) WithCause(err error) *Problem {
	c := p.copy()
	c.cause = err
	if c.wire.Said == "" && err != nil {
		c.wire.Said = Clean(err.Error())
	}
	return c
}

// WithSeverity returns a copy of that severity.
func (p *Problem) WithSeverity(s connectorv1.Severity) *Problem {
	c := p.copy()
	c.wire.Severity = s
	return c
}

// Incomplete returns the wire form with severity INCOMPLETE: the finding of an
// observation that left something out.
func (p *Problem) Incomplete() *connectorv1.Problem {
	return p.WithSeverity(connectorv1.Severity_SEVERITY_INCOMPLETE).Proto()
}

func (p *Problem) copy() *Problem {
	return &Problem{wire: proto.CloneOf(p.wire), cause: p.cause}
}

// Proto returns a copy in wire form.
func (p *Problem) Proto() *connectorv1.Problem { return proto.CloneOf(p.wire) }

// Code returns the problem's code, such as BIND_REFUSED.
func (p *Problem) Code() string { return p.wire.GetCode() }

// Unwrap returns the cause, nil if there is none.
func (p *Problem) Unwrap() error { return p.cause }

// Error is one line: object, what was tried, what was said, the remedy.
func (p *Problem) Error() string {
	var parts []string
	for _, s := range []string{p.wire.GetObject(), p.wire.GetTried(), p.wire.GetSaid()} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	text := strings.Join(parts, ": ") + " (" + p.wire.GetCode() + ")"
	if r := p.wire.GetRemedy(); r != "" {
		text += "; " + r
	}
	return text
}

// Is reports whether target is a *Problem of the same code, so that
// errors.Is(err, sdk.NewProblem(code, "", "", "")) asks for a code.
func (p *Problem) Is(target error) bool {
	t, ok := target.(*Problem)
	return ok && t.Code() == p.Code()
}

// GRPCStatus lets grpc carry the problem as a status detail.
func (p *Problem) GRPCStatus() *status.Status {
	st := status.New(grpcCode(p.Code()), p.Error())
	if detailed, err := st.WithDetails(p.Proto()); err == nil {
		return detailed
	}
	return st
}

func grpcCode(code string) codes.Code {
	switch code {
	case CodeConfig, CodeInvalidValue, CodeUnknownAttribute, CodeUnknownType:
		return codes.InvalidArgument
	case CodeNotConfigured:
		return codes.FailedPrecondition
	case CodeUnreachable:
		return codes.Unavailable
	case CodeBindRefused, CodeTLSRefused:
		return codes.Unauthenticated
	case CodeNotAllowed, CodeReadOnly:
		return codes.PermissionDenied
	case CodeNotFound:
		return codes.NotFound
	case CodeUnsupported:
		return codes.Unimplemented
	case CodeCursorLost:
		return codes.OutOfRange
	case CodeSizeLimit, CodeDiskFull:
		return codes.ResourceExhausted
	case CodeTimeLimit:
		return codes.DeadlineExceeded
	case CodeCancelled:
		return codes.Canceled
	case CodeConflict, CodeChanging, CodeLocked:
		return codes.Aborted
	case CodeAlreadyExists:
		return codes.AlreadyExists
	default:
		return codes.Internal
	}
}

// AsProblem makes any error a problem: the *Problem in its chain or in its gRPC
// status details, else one made from what is known of it. object and tried
// stand in where the error does not tell. It returns nil for nil.
func AsProblem(err error, object, tried string) *Problem {
	if err == nil {
		return nil
	}
	var p *Problem
	if errors.As(err, &p) {
		return p
	}
	if st, ok := status.FromError(err); ok {
		for _, d := range st.Details() {
			if wire, ok := d.(*connectorv1.Problem); ok {
				return FromProto(wire)
			}
		}
	}
	code, remedy := CodeInternal, "report it to the connector's author with the agent's log"
	switch {
	case errors.Is(err, context.Canceled), status.Code(err) == codes.Canceled:
		code, remedy = CodeCancelled, "run it again if it was not meant to be cancelled"
	case errors.Is(err, context.DeadlineExceeded), status.Code(err) == codes.DeadlineExceeded:
		code, remedy = CodeTimeLimit, "see whether the directory is slow, or allow more time"
	case status.Code(err) == codes.Unavailable:
		code, remedy = CodeUnreachable, "the connector's process is gone; the agent starts it again"
	case status.Code(err) == codes.ResourceExhausted:
		code, remedy = CodeSizeLimit, "the connector sent a message above the agent's limit; report it to its author"
	case status.Code(err) == codes.Unimplemented:
		code, remedy = CodeUnsupported, "the connector does not have this ability"
	}
	said := err.Error()
	if st, ok := status.FromError(err); ok {
		said = st.Message()
	}
	return NewProblem(code, object, tried, remedy).WithSaid(said).WithCause(err)
}

// HasCode reports whether err is, or carries, a problem of that code.
func HasCode(err error, code string) bool {
	return err != nil && AsProblem(err, "", "").Code() == code
}

// maxText bounds a problem's text in bytes: what a directory says is its own
// to choose.
const maxText = 4096

// Clean makes untrusted text safe to carry to terminals and logs: line breaks
// and tabs become spaces, other control and bidirectional formatting characters
// go, octets that are not UTF-8 become U+FFFD, and what is longer than 4 KiB is
// cut.
func Clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n', r == '\t', r == '\r', r == '\u2028', r == '\u2029':
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r):
			return -1
		default:
			return r
		}
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= maxText {
		return s
	}
	cut := maxText - len("…")
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
