package cli

import (
	"context"
	"encoding/json"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// localError is a problem that arose on this machine.
type localError struct {
	problem *connectorv1.Problem
	exit    int
}

func (e localError) Error() string { return e.problem.GetSaid() }

// local returns an error about an object of this machine.
func local(exit int, code, object, tried, said, remedy string) error {
	return localError{exit: exit, problem: &connectorv1.Problem{
		Code: code, Object: object, Tried: tried, Said: said, Remedy: remedy, Severity: connectorv1.Severity_SEVERITY_ERROR,
	}}
}

// problemOf returns the Problem that a status carries, nil when it has none.
func problemOf(st *status.Status) *connectorv1.Problem {
	for _, d := range st.Details() {
		if p, ok := d.(*connectorv1.Problem); ok {
			return p
		}
	}
	return nil
}

// remedies are for problems that the server states without one.
var remedies = map[string]string{
	"DIGEST":           "show the plan again and approve the digest you see",
	"BLOCKED":          "see refusals and findings with `reeve plan show PLAN`",
	"NO_POLICY":        "bind one with `reeve policy bind TENANT NAME`",
	"NOTHING_OBSERVED": "see what is connected with `reeve connector list TENANT` and ask for a snapshot with `reeve observe TENANT`",
	"EXISTS":           "list what there is, or choose another name or version",
	"INVALID":          "correct the value; --help says what it may be",
	"AMBIGUOUS":        "name one of them by its id",
	"PARAMETER":        "see the bundle's parameters and give them with -p NAME=VALUE",
}

// problem returns what is wrong, for people and programs. tried and object stand
// in where the other side left them out.
func (a *app) problem(err error) *connectorv1.Problem {
	p := &connectorv1.Problem{Code: "FAILED", Said: err.Error(), Severity: connectorv1.Severity_SEVERITY_ERROR}
	var u usageError
	var l localError
	if st, ok := status.FromError(err); ok {
		p.Said = st.Message()
		switch sent := problemOf(st); {
		case sent != nil:
			p = proto.CloneOf(sent)
		case st.Code() == codes.Unavailable || st.Code() == codes.DeadlineExceeded:
			p = a.unreachable(st.Message())
		case st.Code() == codes.Unimplemented:
			p.Code, p.Remedy = "UNIMPLEMENTED", "the control plane is older than this reeve: upgrade it, or use the reeve of its version"
		case st.Code() == codes.Unauthenticated:
			p.Code, p.Remedy = "UNAUTHENTICATED", "name an operator's certificate with --cert, --key and --ca"
		case st.Code() == codes.Canceled:
			p.Code, p.Said, p.Remedy = "INTERRUPTED", "stopped here; what had been sent goes on", "look at how things are before you repeat it"
		case st.Code() != codes.Unknown:
			p.Code = strings.ToUpper(st.Code().String())
		}
	}
	switch {
	case errors.Is(err, context.Canceled):
		p.Code, p.Said, p.Remedy = "INTERRUPTED", "stopped here", "run it again"
	case errors.As(err, &u):
		p.Code, p.Said, p.Remedy = "USAGE", u.said, u.remedy
		if p.Remedy == "" {
			p.Remedy = "see `" + strings.TrimSpace("reeve "+a.command) + " --help`"
		}
	case errors.As(err, &l):
		p = proto.CloneOf(l.problem)
	}
	if p.GetTried() == "" {
		p.Tried = a.command
	}
	if p.GetObject() == "" && p.GetCode() != "USAGE" {
		p.Object = a.object
	}
	if p.GetRemedy() == "" {
		p.Remedy = remedies[p.GetCode()]
	}
	return p
}

// fail tells the person or the program at the other end of standard error.
func (a *app) fail(err error) int {
	code := exitCode(err)
	var silent outcome
	if err == nil || errors.As(err, &silent) {
		return code
	}
	p := a.problem(err)
	if a.output == outputJSON {
		raw, _ := protojson.Marshal(p)
		doc, _ := json.Marshal(map[string]any{"problem": json.RawMessage(raw), "kind": exitWord(code), "exitCode": code})
		_, _ = a.env.Err.Write(append(operatorv1.VisibleJSON(doc), '\n'))
		return code
	}
	out := a.printer(a.env.Err)
	tried := p.GetTried()
	if tried != "" {
		tried += ": "
	}
	out.line("%s %s%s (%s)", out.bad("reeve:"), tried, exitWord(code), p.GetCode())
	for _, part := range []struct{ name, text string }{{"object", p.GetObject()}, {"said", p.GetSaid()}, {"remedy", p.GetRemedy()}} {
		for i, text := range strings.Split(strings.TrimRight(part.text, "\n"), "\n") {
			switch {
			case text == "":
			case i == 0:
				out.line("  %-7s %s", part.name, text)
			default:
				out.line("  %-7s %s", "", text)
			}
		}
	}
	_ = out.flush() // there is nowhere left to say that saying failed
	return code
}
