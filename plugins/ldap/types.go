package ldap

import (
	"cmp"
	"slices"
	"strings"

	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// The matching rules as RFC 4519, RFC 2798 and RFC 2307 give them.
const (
	exact      = connectorv1.MatchingRule_MATCHING_RULE_EXACT
	caseIgnore = connectorv1.MatchingRule_MATCHING_RULE_CASE_IGNORE
	caseExact  = connectorv1.MatchingRule_MATCHING_RULE_CASE_EXACT
	integer    = connectorv1.MatchingRule_MATCHING_RULE_INTEGER
	boolean    = connectorv1.MatchingRule_MATCHING_RULE_BOOLEAN
	telephone  = connectorv1.MatchingRule_MATCHING_RULE_TELEPHONE
	reference  = connectorv1.MatchingRule_MATCHING_RULE_REFERENCE
)

// schemaClass is what is fixed about one object class.
type schemaClass struct {
	name string
	kind connectorv1.Kind
	// classes are those a new entry gets.
	classes []string
	naming  string
	// member is the attribute that holds members; memberKey how it names them.
	member, memberKey string
	needsMember       bool
	// must are attributes that every readable entry shows.
	must       []string
	attributes []*connectorv1.AttributeType
}

// schemaClasses are the types the connector can have, in the order in which an
// entry of several classes is claimed.
func schemaClasses() []schemaClass {
	return []schemaClass{
		{
			name: "inetOrgPerson", kind: connectorv1.Kind_KIND_ACCOUNT, naming: "uid", must: []string{"cn", "sn"},
			classes: []string{"top", "person", "organizationalPerson", "inetOrgPerson"},
			attributes: declare(
				"businessCategory", caseIgnore, many, "carLicense", caseIgnore, many, "cn", caseIgnore, many|required,
				"departmentNumber", caseIgnore, many, "description", caseIgnore, many, "displayName", caseIgnore, 0,
				"employeeNumber", caseIgnore, 0, "employeeType", caseIgnore, many,
				"facsimileTelephoneNumber", exact, many, "givenName", caseIgnore, many, "homePhone", telephone, many,
				"homePostalAddress", caseIgnore, many, "initials", caseIgnore, many, "jpegPhoto", exact, many,
				"l", caseIgnore, many, "labeledURI", caseExact, many, "mail", caseIgnore, many, "manager", reference, many,
				"mobile", telephone, many, "o", caseIgnore, many, "objectClass", caseIgnore, many|dangerous,
				"ou", caseIgnore, many, "pager", telephone, many, "physicalDeliveryOfficeName", caseIgnore, many,
				"postOfficeBox", caseIgnore, many, "postalAddress", caseIgnore, many, "postalCode", caseIgnore, many,
				"preferredLanguage", caseIgnore, 0, "roomNumber", caseIgnore, many, "secretary", reference, many,
				"seeAlso", reference, many, "sn", caseIgnore, many|required, "st", caseIgnore, many,
				"street", caseIgnore, many, "telephoneNumber", telephone, many, "title", caseIgnore, many,
				"uid", caseIgnore, many, "userPassword", exact, many|secret),
		},
		group("groupOfNames", "member"),
		group("groupOfUniqueNames", "uniqueMember"),
		{
			name: "posixGroup", kind: connectorv1.Kind_KIND_GROUP, naming: "cn", must: []string{"cn"},
			classes: []string{"top", "posixGroup"}, member: "memberUid", memberKey: uidKeyPrefix,
			attributes: declare("cn", caseIgnore, many|required, "description", caseIgnore, many,
				"gidNumber", integer, dangerous|required, "objectClass", caseIgnore, many|dangerous, "userPassword", exact, many|secret),
		},
	}
}

func group(class, member string) schemaClass {
	return schemaClass{
		name: class, kind: connectorv1.Kind_KIND_GROUP, naming: "cn", must: []string{"cn"},
		classes: []string{"top", class}, member: member, memberKey: dnKeyPrefix, needsMember: true,
		attributes: declare("businessCategory", caseIgnore, many, "cn", caseIgnore, many|required, "description", caseIgnore, many,
			"o", caseIgnore, many, "objectClass", caseIgnore, many|dangerous, "ou", caseIgnore, many, "owner", reference, many,
			"seeAlso", reference, many),
	}
}

// auxiliaryAttributes are those of well-known auxiliary classes; of others the
// settings name the attributes.
func auxiliaryAttributes(class string) []*connectorv1.AttributeType {
	switch strings.ToLower(class) {
	case "posixaccount":
		return declare("gecos", caseIgnore, 0, "gidNumber", integer, dangerous, "homeDirectory", caseExact, dangerous,
			"loginShell", caseExact, dangerous, "uidNumber", integer, dangerous)
	case "shadowaccount":
		return declare("shadowExpire", integer, 0, "shadowFlag", integer, 0, "shadowInactive", integer, 0, "shadowLastChange", integer, 0,
			"shadowMax", integer, 0, "shadowMin", integer, 0, "shadowWarning", integer, 0)
	case "ldappublickey":
		return declare("sshPublicKey", exact, many|dangerous)
	case "posixgroup":
		return declare("gidNumber", integer, dangerous)
	default:
		return nil
	}
}

type flags int

const (
	many flags = 1 << iota
	required
	dangerous
	secret
)

// declare takes triples of name, rule and flags.
func declare(triples ...any) []*connectorv1.AttributeType {
	var out []*connectorv1.AttributeType
	for i := 0; i < len(triples); i += 3 {
		f, _ := triples[i+2].(flags)
		out = append(out, &connectorv1.AttributeType{
			Name: triples[i].(string), Rule: triples[i+1].(connectorv1.MatchingRule), MultiValued: f&many != 0,
			Required: f&required != 0, Dangerous: f&dangerous != 0, Secret: f&secret != 0,
		})
	}
	return out
}

// isSecret reports attributes that hold secrets or what secrets are guessed
// from: they are never read, whatever the settings say.
func isSecret(attribute string) bool {
	switch strings.ToLower(baseName(attribute)) {
	case "userpassword", "authpassword", "unicodepwd", "pwdhistory", "sambantpassword", "sambalmpassword", "sambapasswordhistory",
		"krbprincipalkey", "krb5key", "olcrootpw", "passwordhistory", "ipanthash", "ipatokenotpkey", "nsmultiplexorcredentials":
		return true
	default:
		return false
	}
}

// isDangerous reports attributes by which power is gained, beyond those of the
// tables above.
func isDangerous(attribute string) bool {
	a := strings.ToLower(baseName(attribute))
	switch a {
	case "memberof", "memberurl", "uidnumber", "gidnumber", "loginshell", "homedirectory", "sshpublickey", "objectclass", "aci",
		"entryaci", "authzto", "authzfrom", "saslauthzto", "saslauthzfrom", "pwdpolicysubentry", "usercertificate", "host",
		"authorizedservice", "nisnetgrouptriple", "nsrole", "nsroledn", "altsecurityidentities", "radiusprofiledn", "automountinformation":
		return true
	}
	return strings.HasPrefix(a, "sudo") || strings.HasPrefix(a, "krb") || strings.HasPrefix(a, "olc") || strings.HasPrefix(a, "ipasudo")
}

// baseName is an attribute description without its options (RFC 4512 2.5).
func baseName(attribute string) string {
	base, _, _ := strings.Cut(attribute, ";")
	return base
}

func sortAttributes(list []*connectorv1.AttributeType) {
	slices.SortFunc(list, func(a, b *connectorv1.AttributeType) int { return cmp.Compare(a.GetName(), b.GetName()) })
}

func operations(kind connectorv1.Kind, canDisable bool) []connectorv1.OperationKind {
	ops := []connectorv1.OperationKind{
		connectorv1.OperationKind_OPERATION_KIND_CREATE, connectorv1.OperationKind_OPERATION_KIND_UPDATE,
		connectorv1.OperationKind_OPERATION_KIND_RENAME, connectorv1.OperationKind_OPERATION_KIND_MOVE,
	}
	if kind == connectorv1.Kind_KIND_GROUP {
		return append(ops, connectorv1.OperationKind_OPERATION_KIND_DELETE,
			connectorv1.OperationKind_OPERATION_KIND_ADD_MEMBER, connectorv1.OperationKind_OPERATION_KIND_REMOVE_MEMBER)
	}
	if canDisable {
		ops = append(ops, connectorv1.OperationKind_OPERATION_KIND_ENABLE, connectorv1.OperationKind_OPERATION_KIND_DISABLE)
	}
	return append(ops, connectorv1.OperationKind_OPERATION_KIND_DELETE,
		connectorv1.OperationKind_OPERATION_KIND_SET_CREDENTIAL, connectorv1.OperationKind_OPERATION_KIND_REVOKE_CREDENTIAL)
}

// objectType is a class under an instance's settings.
type objectType struct {
	schemaClass
	settings TypeSettings
	declared *connectorv1.ObjectType
	// byName finds a declared attribute by its name in lower case.
	byName map[string]*connectorv1.AttributeType
	// unmatched are attributes, in lower case, without an equality rule: their
	// values can be replaced but not removed one by one.
	unmatched map[string]bool
}

func newObjectType(c schemaClass, s TypeSettings, d DisableSettings) *objectType {
	t := &objectType{schemaClass: c, settings: s, byName: map[string]*connectorv1.AttributeType{},
		unmatched: map[string]bool{"jpegphoto": true, "facsimiletelephonenumber": true}}
	if s.NamingAttribute != "" {
		t.naming = s.NamingAttribute
	}
	t.classes = append(slices.Clone(c.classes), s.Auxiliary...)
	attributes := c.attributes
	for _, class := range s.Auxiliary {
		attributes = append(attributes, auxiliaryAttributes(class)...)
	}
	for _, a := range attributes {
		t.byName[strings.ToLower(a.GetName())] = a
	}
	for _, extra := range s.Attributes {
		t.byName[strings.ToLower(extra.Name)] = extra.declare(t.byName[strings.ToLower(extra.Name)])
	}
	canDisable := c.kind == connectorv1.Kind_KIND_ACCOUNT && d.Method != DisableNone
	if canDisable && d.Method == DisableAttribute {
		// Its value belongs to enable and disable, so no update may write it.
		key := strings.ToLower(d.Attribute.Name)
		if t.byName[key] == nil {
			t.byName[key] = &connectorv1.AttributeType{Name: d.Attribute.Name, Rule: caseIgnore, MultiValued: true, Dangerous: isDangerous(key)}
		}
		t.byName[key].ReadOnly, t.byName[key].Required = true, false
	}
	t.declared = &connectorv1.ObjectType{
		Name: c.name, Kind: c.kind, Operations: operations(c.kind, canDisable), NamingAttribute: t.naming,
		NeedsMember: c.needsMember, MemberKey: c.memberKey,
	}
	for _, a := range t.byName {
		t.declared.Attributes = append(t.declared.Attributes, a)
	}
	sortAttributes(t.declared.Attributes)
	return t
}

// requested are the attributes to ask of the server, without members.
func (t *objectType) requested(i *Instance) []string {
	names := []string{"entryUUID", "nsUniqueId"}
	for _, a := range t.declared.GetAttributes() {
		if !a.GetSecret() {
			names = append(names, a.GetName())
		}
	}
	if t.kind == connectorv1.Kind_KIND_ACCOUNT && i.settings.Disable.Method == DisablePPolicy {
		names = append(names, lockAttribute)
	}
	return names
}
