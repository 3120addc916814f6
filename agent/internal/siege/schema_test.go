package siege

import (
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

const (
	ignoreCase = connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE
	exact      = connectorv1.MatchingRule_MATCHING_RULE_EXACT
	integer    = connectorv1.MatchingRule_MATCHING_RULE_INTEGER
)

var allKinds = func() (out []connectorv1.OperationKind) {
	for k := connectorv1.OperationKind_OPERATION_KIND_CREATE; k <= connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL; k++ {
		out = append(out, k)
	}
	return out
}()

var declared = []*connectorv1.ObjectType{
	{
		Name: "person", Kind: connectorv1.Kind_KIND_ACCOUNT, NamingAttribute: "uid", Operations: allKinds,
		Attributes: []*connectorv1.AttributeType{
			{Name: "cn", Rule: ignoreCase, MultiValued: true}, {Name: "description", Rule: ignoreCase, MultiValued: true},
			{Name: "employeeType", Rule: exact}, {Name: "gidNumber", Rule: integer}, {Name: "loginShell", Rule: exact, Dangerous: true},
			{Name: "mail", Rule: ignoreCase, MultiValued: true},
			{Name: "manager", Rule: connectorv1.MatchingRule_MATCHING_RULE_REFERENCE, MultiValued: true},
			{Name: "memberOf", Rule: exact, MultiValued: true}, {Name: "sshPublicKey", Rule: exact, MultiValued: true}, {Name: "title", Rule: ignoreCase},
			{Name: "uid", Rule: ignoreCase, ReadOnly: true, MultiValued: true}, {Name: "uidNumber", Rule: integer}, {Name: "userPassword", Rule: exact, Secret: true},
			{Name: "vault", Rule: exact, Dangerous: true},
		},
	},
	{
		Name: "group", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", MemberKey: "dn:", Operations: allKinds,
		Attributes: []*connectorv1.AttributeType{{Name: "cn", Rule: ignoreCase, ReadOnly: true, MultiValued: true}, {Name: "description", Rule: ignoreCase, MultiValued: true}, {Name: "managedBy", Rule: exact}},
	},
	{
		Name: "posix", Kind: connectorv1.Kind_KIND_GROUP, NamingAttribute: "cn", MemberKey: "uid:", Operations: allKinds,
		Attributes: []*connectorv1.AttributeType{{Name: "cn", Rule: ignoreCase, ReadOnly: true, MultiValued: true}, {Name: "description", Rule: ignoreCase, MultiValued: true}, {Name: "gidNumber", Rule: integer}},
	},
}
