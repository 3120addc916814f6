package ldap

import (
	"context"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

const passwordAttribute = "userPassword"

// setCredential sets the password with RFC 3062, so that the server hashes it
// and its password policy has its say. A server without that extension gets the
// attribute replaced and is trusted to hash it.
func (b *batch) setCredential(ctx context.Context, t *target) error {
	c := t.op.GetSetCredential()
	if err := checkCredentialKind(t, c.GetKind()); err != nil {
		return err
	}
	if len(c.GetSecret()) == 0 {
		return sdk.NewProblem(sdk.CodeInvalidValue, displayDN(t.entry.DN), "set the password", "the agent must make the secret first")
	}
	err := b.do(ctx, &b.writing, func(s *session) error {
		if s.server.extension(oidPasswordModify) {
			_, err := s.conn.PasswordModify(ldap.NewPasswordModifyRequest(t.entry.DN, "", string(c.GetSecret())))
			return err
		}
		request := ldap.NewModifyRequest(t.entry.DN, t.controls(s.server))
		request.Replace(passwordAttribute, []string{string(c.GetSecret())})
		return s.conn.Modify(request)
	})
	if code := resultCode(err); code == ldap.LDAPResultConstraintViolation {
		return sdk.NewProblem(sdk.CodeInvalidValue, displayDN(t.entry.DN), "set the password",
			"fit length and kind of generated passwords to the directory's password policy").WithSaid(said(err)).WithCause(err)
	}
	if err == nil {
		err = b.keepDisabled(ctx, t)
	}
	return err
}

// keepDisabled locks a disabled account again: OpenLDAP's ppolicy overlay takes
// every lock away with a new password. In between, a moment, only the new
// password would let anybody in.
func (b *batch) keepDisabled(ctx context.Context, t *target) error {
	if b.settings.Disable.Method != DisablePPolicy || b.enablement(t.entry.GetEqualFoldAttributeValues) != connectorv1.Enablement_ENABLEMENT_DISABLED {
		return nil
	}
	now := *t
	now.atomic = false
	err := b.modify(ctx, &now, []ldap.Change{change(ldap.AddAttribute, lockAttribute, lockedForever)})
	if err == nil || resultCode(err) == ldap.LDAPResultAttributeOrValueExists {
		return nil
	}
	return unknownError{sdk.NewProblem(sdk.CodeServerError, displayDN(t.entry.DN), "lock the account again after its password was set",
		"disable the account: the password is set, and the directory's password policy may have unlocked it").WithSaid(said(err)).WithCause(err)}
}

// revokeCredential removes every password the entry has.
func (b *batch) revokeCredential(ctx context.Context, t *target) error {
	if err := checkCredentialKind(t, t.op.GetRevokeCredential().GetKind()); err != nil {
		return err
	}
	err := b.modify(ctx, t, []ldap.Change{change(ldap.DeleteAttribute, passwordAttribute)})
	switch resultCode(err) {
	case ldap.LDAPResultNoSuchAttribute:
		return nil
	case ldap.LDAPResultSuccess:
		return b.keepDisabled(ctx, t)
	}
	return err
}

func checkCredentialKind(t *target, kind string) error {
	if kind == "password" {
		return nil
	}
	return sdk.NewProblem(sdk.CodeUnsupported, displayDN(t.entry.DN), (&connectorv1.Operation{Action: t.op.GetAction()}).Kind().Word()+" of kind "+sdk.Clean(kind), "use kind password")
}
