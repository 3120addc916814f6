package ldap

import (
	"slices"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// What a server may list in its root DSE.
const (
	oidPaging           = "1.2.840.113556.1.4.319"    // RFC 2696
	oidAssertion        = "1.3.6.1.1.12"              // RFC 4528
	oidPermissiveModify = "1.2.840.113556.1.4.1413"   // MS-ADTS 3.1.1.3.4.1.8
	oidPasswordPolicy   = "1.3.6.1.4.1.42.2.27.8.5.1" // draft-behera-ldap-password-policy
	oidPasswordModify   = "1.3.6.1.4.1.4203.1.11.1"   // RFC 3062
	oidWhoAmI           = "1.3.6.1.4.1.4203.1.11.3"   // RFC 4532
	anchorUUID          = "entryUUID"                 // RFC 4530
	anchorNSUniqueID    = "nsUniqueId"                // 389 Directory Server
	versionAttribute    = "entryCSN"                  // changes with every write of the entry
	lockAttribute       = "pwdAccountLockedTime"      // draft-behera 5.3.3
	lockedForever       = "000001010000Z"             // "locked permanently, only an administrator may unlock"
	anyObject           = "(objectClass=*)"           // matches every entry
	noAttributes        = "1.1"                       // RFC 4511 4.5.1.8
)

// server is what a directory server says of itself.
type server struct {
	product    string
	contexts   []string
	subschema  string
	controls   []string
	extensions []string
	// anchor is the attribute whose value is an object's anchor.
	anchor string
	// versioned tells that entries carry entryCSN.
	versioned bool
}

func (s *server) control(oid string) bool   { return slices.Contains(s.controls, oid) }
func (s *server) extension(oid string) bool { return slices.Contains(s.extensions, oid) }

// asserts reports whether a base state can be asserted with the effect.
func (s *server) asserts() bool { return s.control(oidAssertion) }

func (i *Instance) readServer(c directory) (*server, error) {
	result, err := c.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject,
		[]string{"objectClass", "vendorName", "vendorVersion", "namingContexts", "subschemaSubentry", "supportedControl", "supportedExtension"}, nil))
	if err != nil {
		return nil, i.problem(err, i.settings.URL, "read the root DSE")
	}
	if len(result.Entries) != 1 {
		return nil, sdk.NewProblem(codeUnreadable, i.settings.URL, "read the root DSE",
			"let the bind account read it, on OpenLDAP with olcAccess: to dn.base=\"\" by * read on the frontend database")
	}
	e := result.Entries[0]
	s := &server{
		contexts: e.GetEqualFoldAttributeValues("namingContexts"), subschema: e.GetEqualFoldAttributeValue("subschemaSubentry"),
		controls: e.GetEqualFoldAttributeValues("supportedControl"), extensions: e.GetEqualFoldAttributeValues("supportedExtension"),
		product: strings.TrimSpace(e.GetEqualFoldAttributeValue("vendorName") + " " + e.GetEqualFoldAttributeValue("vendorVersion")),
	}
	if s.product == "" && slices.Contains(e.GetEqualFoldAttributeValues("objectClass"), "OpenLDAProotDSE") {
		s.product = "OpenLDAP"
	}
	return s, i.detect(c, s)
}

// detect finds the anchor attribute on the first base that can be read.
func (i *Instance) detect(c directory, s *server) error {
	s.anchor = i.settings.Anchor
	for _, base := range append(i.bases(), s.contexts...) {
		result, err := c.Search(ldap.NewSearchRequest(base, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject,
			[]string{anchorUUID, anchorNSUniqueID, versionAttribute}, nil))
		if err != nil && !isAnswer(err) {
			return i.problem(err, base, "read the base")
		}
		if err != nil || len(result.Entries) == 0 {
			continue
		}
		e := result.Entries[0]
		s.versioned = s.versioned || e.GetEqualFoldAttributeValue(versionAttribute) != ""
		if s.anchor != "auto" {
			continue
		}
		// A server with nsUniqueId may have entryUUID on newer entries only.
		switch {
		case e.GetEqualFoldAttributeValue(anchorNSUniqueID) != "":
			s.anchor = anchorNSUniqueID
		case e.GetEqualFoldAttributeValue(anchorUUID) != "":
			s.anchor = anchorUUID
		}
	}
	if s.anchor == "auto" {
		// No base can be read: entryUUID is the standard; each entry without it
		// is told by Observe.
		s.anchor = anchorUUID
	}
	return nil
}

// schemaAttribute is one attributeTypes value of RFC 4512 section 4.1.2.
type schemaAttribute struct {
	names            []string
	sup, equality    string
	single, readOnly bool
}

// readSchema reads the server's subschema, by every name in lower case.
func (i *Instance) readSchema(s *session) (map[string]*schemaAttribute, error) {
	result, err := s.conn.Search(ldap.NewSearchRequest(s.server.subschema, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false,
		"(objectClass=subschema)", []string{"attributeTypes"}, nil))
	if err != nil {
		return nil, i.problem(err, s.server.subschema, "read the schema")
	}
	schema := map[string]*schemaAttribute{}
	for _, e := range result.Entries {
		for _, definition := range e.GetEqualFoldAttributeValues("attributeTypes") {
			a := parseSchemaAttribute(definition)
			for _, n := range a.names {
				schema[strings.ToLower(n)] = a
			}
		}
	}
	return schema, nil
}

func parseSchemaAttribute(definition string) *schemaAttribute {
	a := &schemaAttribute{}
	words := schemaWords(definition)
	next := func(n int) string {
		if n+1 < len(words) {
			return words[n+1]
		}
		return ""
	}
	for n, word := range words {
		switch word {
		case "NAME":
			for m := n + 1; m < len(words); m++ {
				if words[m] == "(" {
					continue
				}
				if words[m][0] != '\'' {
					break
				}
				a.names = append(a.names, strings.Trim(words[m], "'"))
			}
		case "SUP":
			a.sup = next(n)
		case "EQUALITY":
			a.equality = next(n)
		case "SINGLE-VALUE":
			a.single = true
		case "NO-USER-MODIFICATION":
			a.readOnly = true
		}
	}
	return a
}

// schemaWords splits a definition; quoted strings keep their quotes, so that no
// description is taken for a keyword.
func schemaWords(s string) []string {
	var words []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		end := 1
		switch s[0] {
		case '(', ')':
		case '\'':
			if end = strings.IndexByte(s[1:], '\'') + 2; end < 2 {
				end = len(s)
			}
		default:
			if end = strings.IndexAny(s, " ()'\t"); end < 0 {
				end = len(s)
			}
		}
		words, s = append(words, s[:end]), s[end:]
	}
	return words
}

// refine takes over what the server's schema says of the type's attributes.
func (t *objectType) refine(schema map[string]*schemaAttribute) {
	given := map[string]AttributeSettings{}
	for _, a := range t.settings.Attributes {
		given[strings.ToLower(a.Name)] = a
	}
	for key, declared := range t.byName {
		a := schema[baseName(key)]
		if a == nil || declared.GetSecret() {
			continue
		}
		equality := a.equality
		// Bounded, since a schema may inherit in a circle.
		for up, depth := a, 0; equality == "" && up.sup != "" && depth < 16; depth++ {
			if up = schema[strings.ToLower(up.sup)]; up == nil {
				break
			}
			equality = up.equality
		}
		delete(t.unmatched, key)
		if equality == "" {
			t.unmatched[key] = true
		}
		if given[key].Rule == "" {
			declared.Rule = ruleOf(equality)
		}
		if given[key].MultiValued == nil {
			declared.MultiValued = !a.single
		}
		declared.ReadOnly = declared.ReadOnly || a.readOnly
	}
}

func ruleOf(equality string) connectorv1.MatchingRule {
	switch e := strings.ToLower(equality); {
	case strings.HasPrefix(e, "caseignore"), e == "objectidentifiermatch":
		return caseIgnore
	case strings.HasPrefix(e, "caseexact"):
		return caseExact
	case strings.HasPrefix(e, "integer"):
		return integer
	case e == "booleanmatch":
		return boolean
	case e == "telephonenumbermatch":
		return telephone
	case e == "distinguishednamematch":
		return reference
	default:
		return exact
	}
}
