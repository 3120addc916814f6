package ldap

import (
	"crypto/x509"
	_ "embed"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

//go:embed settings.schema.json
var settingsSchema string

// Ways to disable an account.
const (
	DisableNone      = "none"
	DisablePPolicy   = "ppolicy"
	DisableAttribute = "attribute"
)

// defaultPlaceholder stands for "nobody" in groups that need a member. No entry
// has this name, so it grants nothing and makes no loop in the group graph, as
// the group's own DN would.
const defaultPlaceholder = "cn=empty-membership-placeholder"

// Settings are an instance's, as in agent.yaml. README.md explains each.
type Settings struct {
	// URL is ldap://HOST[:PORT], ldaps://HOST[:PORT] or ldapi://PATH with the
	// path percent-encoded.
	URL string `json:"url"`
	// StartTLS turns an ldap:// connection into TLS before anything else is said.
	StartTLS bool `json:"start_tls"`
	// CAFile or CAPEM replace the system's certificate authorities.
	CAFile string `json:"ca_file"`
	CAPEM  string `json:"ca_pem"`
	// ServerName is the name to expect in the certificate, URL's host by default.
	ServerName string `json:"server_name"`
	// AllowPlain permits ldap:// without TLS to another machine.
	AllowPlain bool `json:"allow_plain"`
	// BindDN binds with the secret bind_password. Empty binds anonymously, on
	// ldapi:// with SASL EXTERNAL.
	BindDN string `json:"bind_dn"`
	// Types by name: inetOrgPerson, groupOfNames, groupOfUniqueNames, posixGroup.
	Types map[string]TypeSettings `json:"types"`
	// Disable says how an account is disabled; by default it cannot be.
	Disable DisableSettings `json:"disable"`
	// EmptyMember is the DN kept in groups that need a member and have none;
	// "none" refuses to remove the last member.
	EmptyMember string `json:"empty_member"`
	// Anchor is auto (default), entryUUID or nsUniqueId.
	Anchor string `json:"anchor"`
	// PageSize is entries per page, 1 to 10000, 500 by default.
	PageSize int `json:"page_size"`
	// Timeout is how long one answer may take, such as "30s" (the default).
	Timeout string `json:"timeout"`
	// IgnoreReferrals makes parts of the tree that another server holds a note
	// in place of an incomplete read.
	IgnoreReferrals bool `json:"ignore_referrals"`

	timeout time.Duration
	roots   *x509.CertPool
	address *url.URL
}

// TypeSettings say where objects of a type are and what is read of them.
type TypeSettings struct {
	// Bases are the DNs below which objects are.
	Bases []string `json:"bases"`
	// Scope is subtree (default) or one, which is only directly below a base.
	Scope string `json:"scope"`
	// Filter narrows the type (RFC 4515).
	Filter string `json:"filter"`
	// Auxiliary object classes of new entries; the attributes of posixAccount,
	// shadowAccount, ldapPublicKey and posixGroup come with them.
	Auxiliary []string `json:"auxiliary"`
	// NamingAttribute of new objects' RDN: uid for people, cn for groups.
	NamingAttribute string `json:"naming_attribute"`
	// Attributes beyond the type's own.
	Attributes []AttributeSettings `json:"attributes"`
}

// AttributeSettings declare one attribute. What is not given comes from the
// server's schema when it can be reached at the start, else EXACT, multi-valued.
type AttributeSettings struct {
	Name        string `json:"name"`
	Rule        string `json:"rule"`
	MultiValued *bool  `json:"multi_valued"`
	ReadOnly    bool   `json:"read_only"`
	// Dangerous may be set, not taken away from attributes known to be so.
	Dangerous bool `json:"dangerous"`
}

func (a AttributeSettings) declare(known *connectorv1.AttributeType) *connectorv1.AttributeType {
	d := known
	if d == nil {
		d = &connectorv1.AttributeType{Name: a.Name, Rule: exact, MultiValued: true}
	}
	if a.Rule != "" {
		d.Rule = connectorv1.MatchingRule(connectorv1.MatchingRule_value["MATCHING_RULE_"+strings.ToUpper(a.Rule)])
	}
	if a.MultiValued != nil {
		d.MultiValued = *a.MultiValued
	}
	d.ReadOnly = d.ReadOnly || a.ReadOnly
	d.Dangerous = d.Dangerous || a.Dangerous || isDangerous(a.Name)
	return d
}

// DisableSettings say how an account is disabled.
type DisableSettings struct {
	// Method is none (default), ppolicy or attribute.
	Method    string           `json:"method"`
	Attribute DisableAttrValue `json:"attribute"`
}

// DisableAttrValue is the attribute whose value tells whether an account is
// enabled.
type DisableAttrValue struct {
	Name string `json:"name"`
	// Enabled may be empty: the attribute is then not set.
	Enabled  string `json:"enabled"`
	Disabled string `json:"disabled"`
}

func readSettings(s sdk.Settings) (*Settings, error) {
	c := &Settings{PageSize: 500, Timeout: "30s", Anchor: "auto", EmptyMember: defaultPlaceholder}
	if err := s.Decode(c); err != nil {
		return nil, err
	}
	for _, check := range []func(sdk.Settings) *sdk.Problem{c.checkURL, c.checkCA, c.checkTypes, c.checkDisable, c.checkRest} {
		if p := check(s); p != nil {
			return nil, p
		}
	}
	return c, nil
}

func (c *Settings) checkURL(s sdk.Settings) *sdk.Problem {
	if c.URL == "" {
		return s.Problem("url", "is missing", "give the server as ldaps://HOST")
	}
	if path, ok := strings.CutPrefix(c.URL, "ldapi://"); ok {
		decoded, err := url.PathUnescape(path)
		if err != nil || decoded == "" {
			return s.Problem("url", "has no socket path", "write ldapi://%2Frun%2Fslapd%2Fldapi")
		}
		c.address = &url.URL{Scheme: "ldapi", Path: decoded}
		return nil
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Hostname() == "" || u.Scheme != "ldap" && u.Scheme != "ldaps" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
		return s.Problem("url", "is not of the form ldaps://HOST[:PORT]", "correct it in agent.yaml; ldap://, ldaps:// and ldapi:// are known")
	}
	c.address = u
	if u.Scheme == "ldaps" && c.StartTLS {
		return s.Problem("start_tls", "does not go with ldaps://", "leave it out, or use ldap://")
	}
	if u.Scheme == "ldap" && !c.StartTLS && !c.AllowPlain && !isLoopback(u.Hostname()) {
		return s.Problem("url", "would send the bind password in the clear",
			"use ldaps://, or set start_tls: true; allow_plain: true permits it all the same")
	}
	return nil
}

func isLoopback(host string) bool {
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return strings.EqualFold(host, "localhost")
}

func (c *Settings) checkCA(s sdk.Settings) *sdk.Problem {
	pem, setting := []byte(c.CAPEM), "ca_pem"
	if c.CAFile != "" {
		if c.CAPEM != "" {
			return s.Problem("ca_pem", "stands beside ca_file", "give one of the two")
		}
		read, err := os.ReadFile(c.CAFile)
		if err != nil {
			return s.Problem("ca_file", "cannot be read", "check the path and that the agent's user may read it").WithCause(err)
		}
		pem, setting = read, "ca_file"
	}
	if len(pem) == 0 {
		return nil
	}
	c.roots = x509.NewCertPool()
	if !c.roots.AppendCertsFromPEM(pem) {
		return s.Problem(setting, "holds no certificate", "give certificates in PEM form")
	}
	return nil
}

func (c *Settings) checkTypes(s sdk.Settings) *sdk.Problem {
	if len(c.Types) == 0 {
		return s.Problem("types", "is missing", "name at least one type with its bases, such as inetOrgPerson: {bases: [\"ou=people,dc=example,dc=com\"]}")
	}
	known := schemaClasses()
	for typ, t := range c.Types {
		at := "types." + typ
		if !slices.ContainsFunc(known, func(k schemaClass) bool { return k.name == typ }) {
			return s.Problem(at, "is not a type", "use inetOrgPerson, groupOfNames, groupOfUniqueNames or posixGroup")
		}
		if len(t.Bases) == 0 {
			return s.Problem(at+".bases", "is missing", "name the DN below which the objects are")
		}
		for _, base := range t.Bases {
			if dn, err := parseDN(base); err != nil || len(dn) == 0 {
				return s.Problem(at+".bases", fmt.Sprintf("holds %q, which is no DN", base), "escape special characters as in RFC 4514")
			}
		}
		if t.Scope == "" {
			t.Scope = "subtree"
		}
		if t.Scope != "subtree" && t.Scope != "one" {
			return s.Problem(at+".scope", "is unknown", "use subtree or one")
		}
		if t.Filter != "" {
			if _, err := ldap.CompileFilter(t.Filter); err != nil {
				return s.Problem(at+".filter", "is not a filter", "correct it as in RFC 4515, such as (employeeType=staff)").WithCause(err)
			}
		}
		for _, class := range t.Auxiliary {
			if !isDescriptor(class) {
				return s.Problem(at+".auxiliary", fmt.Sprintf("holds %q, which is no class name", class), "name object classes")
			}
		}
		if p := checkAttributes(s, at, t); p != nil {
			return p
		}
		c.Types[typ] = t
	}
	return nil
}

func checkAttributes(s sdk.Settings, at string, t TypeSettings) *sdk.Problem {
	if t.NamingAttribute != "" && !isDescriptor(t.NamingAttribute) {
		return s.Problem(at+".naming_attribute", "is no attribute name", "use a name such as uid or cn")
	}
	for _, a := range t.Attributes {
		setting := at + ".attributes"
		switch rule := connectorv1.MatchingRule_value["MATCHING_RULE_"+strings.ToUpper(a.Rule)]; {
		case !isDescriptor(baseName(a.Name)):
			return s.Problem(setting, fmt.Sprintf("holds %q, which is no attribute name", a.Name), "use a name such as departmentNumber")
		case isSecret(a.Name):
			return s.Problem(setting, fmt.Sprintf("names %s, which holds secrets", a.Name), "leave it out: secrets are never read")
		case a.Rule != "" && rule == 0:
			return s.Problem(setting, fmt.Sprintf("gives %s an unknown rule", a.Name), "use exact, case_ignore, case_exact, integer, boolean, telephone or reference")
		}
	}
	return nil
}

func (c *Settings) checkDisable(s sdk.Settings) *sdk.Problem {
	d := &c.Disable
	switch d.Method {
	case "":
		d.Method = DisableNone
	case DisableNone, DisablePPolicy:
	case DisableAttribute:
		if !isDescriptor(d.Attribute.Name) || d.Attribute.Disabled == "" || d.Attribute.Enabled == d.Attribute.Disabled || isSecret(d.Attribute.Name) {
			return s.Problem("disable.attribute", "does not tell enabled from disabled", "give name, disabled, and another value for enabled (empty for not set)")
		}
	default:
		return s.Problem("disable.method", "is unknown", "use ppolicy, attribute or none")
	}
	return nil
}

func (c *Settings) checkRest(s sdk.Settings) *sdk.Problem {
	var err error
	if c.timeout, err = time.ParseDuration(c.Timeout); err != nil || c.timeout < time.Second || c.timeout > time.Hour {
		return s.Problem("timeout", "is no time between 1s and 1h", "write it as 30s or 2m")
	}
	if c.PageSize < 1 || c.PageSize > 10000 {
		return s.Problem("page_size", "is not between 1 and 10000", "leave it out for 500")
	}
	if c.Anchor != "auto" && c.Anchor != "entryUUID" && c.Anchor != "nsUniqueId" {
		return s.Problem("anchor", "is unknown", "use auto, entryUUID or nsUniqueId")
	}
	if dn, err := parseDN(c.EmptyMember); c.EmptyMember != "none" && (err != nil || len(dn) == 0) {
		return s.Problem("empty_member", "is no DN", "give a DN that no entry has, or none")
	}
	if dn, err := parseDN(c.BindDN); c.BindDN != "" && (err != nil || len(dn) == 0) {
		return s.Problem("bind_dn", "is no DN", "give the bind account's full DN")
	}
	return nil
}
