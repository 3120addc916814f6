package ldap

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
)

// Codes of this connector's own, beside the SDK's.
const (
	// codeReferral: the object, or a part of the tree, is on another server.
	codeReferral = "REFERRAL"
	// codeSchema: the server's schema does not allow the entry to be so.
	codeSchema = "SCHEMA_REFUSED"
	// codePagingLost: the server stopped answering in pages before the end.
	codePagingLost = "PAGING_LOST"
	// codeUnreadable: an entry is there and the bind account may not read it.
	codeUnreadable = "UNREADABLE"
)

// errNotSent is wrapped by errors after which the server has seen nothing of
// the request.
var errNotSent = errors.New("not sent")

// resultCode returns the LDAP result code of err, 0 for nil and
// ldap.ErrorNetwork for what is no answer of the server.
func resultCode(err error) uint16 {
	if err == nil {
		return ldap.LDAPResultSuccess
	}
	var e *ldap.Error
	if errors.As(err, &e) {
		return e.ResultCode
	}
	return ldap.ErrorNetwork
}

// isAnswer reports whether the server answered the request with err. All else,
// go-ldap's own codes from 200 up among it, leaves open what happened.
func isAnswer(err error) bool {
	code := resultCode(err)
	return code < ldap.ErrorNetwork || code == ldap.LDAPResultSyncRefreshRequired
}

// wasNotSent reports whether go-ldap refused to send because the connection was
// closed already. It has this text for that case only.
func wasNotSent(err error) bool {
	if errors.Is(err, errNotSent) {
		return true
	}
	var e *ldap.Error
	return errors.As(err, &e) && e.ResultCode == ldap.ErrorNetwork && e.Err != nil && e.Err.Error() == "ldap: connection closed"
}

// problem makes a sentence with a remedy from what the server answered or what
// became of the connection. object and tried are cleaned by the SDK.
func (i *Instance) problem(err error, object, tried string) *sdk.Problem {
	var p *sdk.Problem
	if errors.As(err, &p) {
		return p
	}
	code, remedy := i.remedy(resultCode(err), object)
	switch {
	case errors.Is(err, context.Canceled):
		code, remedy = sdk.CodeCancelled, "run it again if it was not meant to be cancelled"
	case errors.Is(err, context.DeadlineExceeded), strings.Contains(err.Error(), "connection timed out"):
		code, remedy = sdk.CodeTimeLimit, "see whether the server is overloaded, or raise timeout in the connector's settings"
	case strings.Contains(err.Error(), "greater than maximum"):
		code, remedy = sdk.CodeSizeLimit, fmt.Sprintf("narrow the filter or the attributes: the server sent an element of more than %d bytes", maxElement)
	}
	return sdk.NewProblem(code, object, tried, remedy).WithSaid(said(err)).WithCause(err)
}

// said is the server's own message, with the code's name.
func said(err error) string {
	var e *ldap.Error
	if !errors.As(err, &e) || e.ResultCode >= ldap.ErrorNetwork {
		return err.Error()
	}
	text := fmt.Sprintf("result code %d, %s", e.ResultCode, ldap.LDAPResultCodeMap[e.ResultCode])
	if e.Err != nil && e.Err.Error() != "" {
		text += ": " + e.Err.Error()
	}
	return text
}

func (i *Instance) remedy(code uint16, object string) (sdkCode, remedy string) {
	who := i.settings.BindDN
	if who == "" {
		who = "the anonymous user"
	}
	switch code {
	case ldap.LDAPResultTimeLimitExceeded:
		return sdk.CodeTimeLimit, "index the filter's attributes on the server, or raise its time limit for " + who
	case ldap.LDAPResultSizeLimitExceeded, ldap.LDAPResultAdminLimitExceeded:
		return sdk.CodeSizeLimit, fmt.Sprintf("raise the server's limit for %s, on OpenLDAP with olcLimits: dn.exact=%q size=unlimited", who, i.settings.BindDN)
	case ldap.LDAPResultStrongAuthRequired, ldap.LDAPResultConfidentialityRequired:
		return sdk.CodeTLSRefused, "the server wants encryption: use ldaps:// or start_tls: true"
	case ldap.LDAPResultReferral, ldap.LDAPResultAffectsMultipleDSAs:
		return codeReferral, "point url at the server that holds " + object + " and may write it, not at a replica"
	case ldap.LDAPResultUndefinedAttributeType, ldap.LDAPResultObjectClassViolation, ldap.LDAPResultObjectClassModsProhibited:
		return codeSchema, "give the entry what its object classes require and nothing they do not allow, or list the class under auxiliary"
	case ldap.LDAPResultNamingViolation, ldap.LDAPResultNotAllowedOnRDN:
		return sdk.CodeInvalidValue, "a value of the entry's own name is changed with rename, not with update"
	case ldap.LDAPResultConstraintViolation, ldap.LDAPResultInvalidAttributeSyntax, ldap.LDAPResultInvalidDNSyntax, ldap.LDAPResultInappropriateMatching:
		return sdk.CodeInvalidValue, "correct the value in the policy's mapping or the account's parameters"
	case ldap.LDAPResultNoSuchAttribute, ldap.LDAPResultAttributeOrValueExists, ldap.LDAPResultAssertionFailed:
		return sdk.CodeConflict, "somebody else changed it meanwhile: read it again and plan again"
	case ldap.LDAPResultNoSuchObject:
		return sdk.CodeNotFound, "check that it, and what is above it, exists and that " + who + " may see it"
	case ldap.LDAPResultInvalidCredentials, ldap.LDAPResultInappropriateAuthentication:
		return sdk.CodeBindRefused, "check bind_dn and the secret bind_password, and that the account is not locked"
	case ldap.LDAPResultInsufficientAccessRights:
		return sdk.CodeNotAllowed, fmt.Sprintf("grant it to %s in the directory's access rules (the connector's page has the rules to paste)", who)
	case ldap.LDAPResultBusy, ldap.LDAPResultUnavailable:
		return sdk.CodeUnreachable, "the server is busy or shutting down: try again later"
	case ldap.LDAPResultUnwillingToPerform:
		return sdk.CodeNotAllowed, "the server refuses by its own settings: see whether it is read-only or what its overlays forbid"
	case ldap.LDAPResultNotAllowedOnNonLeaf:
		return sdk.CodeNotAllowed, "there are entries below it: move or delete them first"
	case ldap.LDAPResultEntryAlreadyExists:
		return sdk.CodeAlreadyExists, "choose another name, or adopt the entry that has it"
	case ldap.LDAPResultUnavailableCriticalExtension, ldap.LDAPResultProtocolError:
		return sdk.CodeUnsupported, "the server does not support this request"
	case ldap.ErrorNetwork:
		return sdk.CodeUnreachable, "check that the server is up and that a firewall lets " + i.settings.URL + " through"
	default:
		return sdk.CodeServerError, "see the directory server's log"
	}
}
