package guardrails

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// dangerous are attributes that grant power by themselves in the directories we
// know, whatever a connector declares of them. Memberships are among them: they
// change by add_member, under its own rules, and not by writing attributes.
var dangerous = []string{
	// memberships and what replaces them
	"member", "uniqueMember", "memberUid", "memberOf", "primaryGroupID", "nisNetgroupTriple", "dynamicURL", "memberURL",
	// who one is taken for
	"sIDHistory", "objectSid", "msDS-KeyCredentialLink", "altSecurityIdentities", "userPrincipalName", "krbPrincipalName", "krbPrincipalAliases",
	"userCertificate", "sshPublicKey", "ipaSshPubKey", "authorizedKeys", "authorized_keys",
	// delegation and services
	"servicePrincipalName", "userAccountControl", "msDS-AllowedToDelegateTo", "msDS-AllowedToActOnBehalfOfOtherIdentity", "msDS-SupportedEncryptionTypes",
	// permissions on the directory
	"nTSecurityDescriptor", "aci", "olcAccess", "adminCount", "managedBy", "pwdPolicySubentry", "nsRoleDN", "objectClass",
	// hosts
	"sudoUser", "sudoHost", "sudoCommand", "sudoRunAs", "sudoRunAsUser", "sudoRunAsGroup", "sudoOption", "sudoRole",
	"loginShell", "shell", "homeDirectory", "home", "unixHomeDirectory", "scriptPath", "msTSInitialProgram", "profilePath",
	// secrets
	"userPassword", "unicodePwd", "sambaNTPassword", "sambaLMPassword", "krbPrincipalKey", "dBCSPwd",
}

// rootNumbers are attributes of which only the value 0 grants power.
var rootNumbers = []string{"uidNumber", "gidNumber", "uid_number", "gid_number"}

// DangerousAttribute reports whether the attribute can grant power by itself in
// any directory, whatever its value.
// Options such as ";binary" (RFC 4512 2.5) do not make it another one.
func DangerousAttribute(name string) bool {
	name, _, _ = strings.Cut(name, ";")
	return containsFold(dangerous, name)
}

func (g *Guardrails) allowsDangerous(name string) bool { return containsFold(g.Dangerous, name) }

func containsFold(list []string, name string) bool {
	return slices.ContainsFunc(list, func(s string) bool { return strings.EqualFold(s, name) })
}

// danger says what is dangerous about writing these values, or nothing.
func (c *Checker) danger(declared *connectorv1.AttributeType, name string, values [][]byte) string {
	if bare, _, _ := strings.Cut(name, ";"); containsFold(rootNumbers, bare) {
		for _, v := range values {
			// What is no plain number may still read as 0 to whoever uses it.
			n := connectorv1.Canonical(connectorv1.MatchingRule_MATCHING_RULE_INTEGER, v)
			if bytes.Equal(n, []byte("0")) || !plainNumber(n) {
				return fmt.Sprintf("%s may become 0", clean(name))
			}
		}
		return ""
	}
	if DangerousAttribute(name) || declared.GetDangerous() {
		return fmt.Sprintf("%s would be written", clean(name))
	}
	return ""
}

// plainNumber reports whether v is a number that no system of 32-bit ids cuts
// down to another one; the greatest of them stands for nobody (chown(2)).
func plainNumber(v []byte) bool {
	n, err := strconv.ParseUint(string(v), 10, 32)
	return err == nil && n < math.MaxUint32
}
