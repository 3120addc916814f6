package operatorapi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/approval"
	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/dispatch"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/grant"
	"github.com/reevehq/reeve/controlplane/internal/identity"
	"github.com/reevehq/reeve/controlplane/internal/inventory"
	"github.com/reevehq/reeve/controlplane/internal/planning"
	"github.com/reevehq/reeve/controlplane/internal/policy"
	"github.com/reevehq/reeve/controlplane/internal/policy/policystore"
	"github.com/reevehq/reeve/controlplane/internal/schedule"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// errInvalid is wrapped by errors about the request itself.
var errInvalid = errors.New("request refused")

// errToken is for a page token that no answer of ours carried.
var errToken = fmt.Errorf("%w: page token is not one of ours; begin without one", errInvalid)

// kinds maps the contexts' sentinels to what a client acts on. The first that
// fits counts.
var kinds = []struct {
	err    error
	status codes.Code
	code   string
	remedy string
}{
	{tenant.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve tenant list`"},
	{enrollment.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve agent list TENANT`"},
	{inventory.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve connector list TENANT`"},
	{identity.ErrNotFound, codes.NotFound, "NOT_FOUND", "name an identity by its id, its login or its label"},
	{identity.ErrCaseNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve case list TENANT`"},
	{policystore.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve policy list`"},
	{planning.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve plan list TENANT`"},
	{grant.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve grant list TENANT`"},
	{schedule.ErrNotFound, codes.NotFound, "NOT_FOUND", "list what there is with `reeve schedule list TENANT`"},
	{auditlog.ErrNotFound, codes.NotFound, "NOT_FOUND", "wait for the tenant's first record, or name what the log holds"},
	{dispatch.ErrNotFound, codes.NotFound, "NOT_FOUND", ""},

	{tenant.ErrInvalid, codes.InvalidArgument, "INVALID", ""},
	{enrollment.ErrInvalid, codes.InvalidArgument, "INVALID", ""},
	{inventory.ErrInvalid, codes.InvalidArgument, "INVALID", ""},
	{grant.ErrInvalid, codes.InvalidArgument, "INVALID", ""},
	{schedule.ErrInvalid, codes.InvalidArgument, "INVALID", ""},
	{policy.ErrBundle, codes.InvalidArgument, "POLICY", "correct the bundle and try it offline with `reeve policy test`"},
	{policy.ErrParameters, codes.InvalidArgument, "PARAMETER", ""},
	{policy.ErrCost, codes.FailedPrecondition, "POLICY", "make the rule that is named cheaper, or split the tenant"},
	{policystore.ErrTests, codes.FailedPrecondition, "POLICY_TESTS", "correct the bundle or its tests; run them offline with `reeve policy test`"},
	{identity.ErrAmbiguous, codes.InvalidArgument, "AMBIGUOUS", ""},
	{identity.ErrNotCandidate, codes.InvalidArgument, "INVALID", ""},
	{errInvalid, codes.InvalidArgument, "INVALID", ""},

	{policystore.ErrVersion, codes.AlreadyExists, "EXISTS", ""},
	{tenant.ErrExists, codes.AlreadyExists, "EXISTS", ""},
	{tenant.ErrConflict, codes.FailedPrecondition, "STATE", ""},
	{enrollment.ErrConflict, codes.FailedPrecondition, "STATE", ""},
	{inventory.ErrFingerprint, codes.FailedPrecondition, "FINGERPRINT", "show it again with `reeve source show`, compare it with the client by another channel, and confirm that one"},
	{policystore.ErrUnbound, codes.FailedPrecondition, "NO_POLICY", ""},
	{planning.ErrNothingObserved, codes.FailedPrecondition, "NOTHING_OBSERVED", ""},
	{identity.ErrDecided, codes.FailedPrecondition, "STATE", ""},
	{identity.ErrTaken, codes.FailedPrecondition, "STATE", ""},
	{planning.ErrPhase, codes.FailedPrecondition, "STATE", ""},
	{approval.ErrDigest, codes.FailedPrecondition, "DIGEST", ""},
	{approval.ErrMaker, codes.PermissionDenied, "MAKER", "ask another operator to approve it"},
	{approval.ErrTwice, codes.PermissionDenied, "MAKER", "ask another operator to approve it"},
	{approval.ErrBlocked, codes.FailedPrecondition, "BLOCKED", ""},
}

// problem turns an error into a status with a Problem that a person can act on.
// What it does not know is logged here and answered without its inside.
func (s *Server) problem(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			return withProblem(k.status, &connectorv1.Problem{Code: k.code, Said: err.Error(), Remedy: k.remedy, Severity: connectorv1.Severity_SEVERITY_ERROR})
		}
	}
	s.Logger.Error("operator request failed", "method", method, "error", err)
	return withProblem(codes.Internal, &connectorv1.Problem{
		Code: "INTERNAL", Said: "the control plane failed at this request", Remedy: "see its log; nothing of the request was kept",
		Severity: connectorv1.Severity_SEVERITY_ERROR,
	})
}

func withProblem(code codes.Code, p *connectorv1.Problem) error {
	st, err := status.New(code, p.GetSaid()).WithDetails(p)
	if err != nil {
		return status.Error(code, p.GetSaid())
	}
	return st.Err()
}
