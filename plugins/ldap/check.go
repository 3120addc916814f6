package ldap

import (
	"context"
	"errors"
	"strings"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
)

// Check implements sdk.Checker on a connection of its own. What fails is a
// problem in the answer, not an error.
func (i *Instance) Check(ctx context.Context) (*connectorv1.CheckResponse, error) {
	out := &connectorv1.CheckResponse{}
	s, err := i.connect(ctx)
	if err != nil {
		p := sdk.AsProblem(err, i.settings.URL, "connect")
		// A server that refuses us is a server that was reached.
		out.Reachable = p.Code() != sdk.CodeUnreachable && p.Code() != sdk.CodeTimeLimit && p.Code() != sdk.CodeCancelled
		out.Problems = append(out.Problems, p.Proto())
		return out, nil
	}
	defer s.close()
	stop := context.AfterFunc(ctx, func() { _ = s.raw.Close() })
	defer stop()
	c := &check{Instance: i, session: s, out: out}
	out.Reachable, out.Server = true, s.server.product
	if out.Server == "" {
		out.Server = "an LDAP server that does not say what it is"
	}
	c.whoAmI()
	c.rights()
	c.fingerprint()
	c.abilities()
	return out, nil
}

type check struct {
	*Instance
	session *session
	out     *connectorv1.CheckResponse
}

func (c *check) tell(p *sdk.Problem, severity connectorv1.Severity) {
	c.out.Problems = append(c.out.Problems, p.WithSeverity(severity).Proto())
}

func (c *check) whoAmI() {
	c.out.BoundAs = c.settings.BindDN
	if c.session.server.extension(oidWhoAmI) {
		if who, err := c.session.conn.WhoAmI(nil); err == nil {
			c.out.BoundAs = strings.TrimPrefix(who.AuthzID, "dn:")
		} else {
			c.tell(c.problem(err, c.settings.URL, "ask who we are (RFC 4532)"), connectorv1.Severity_SEVERITY_NOTE)
		}
	}
	if c.out.BoundAs == "" {
		c.out.BoundAs = "anonymous"
	}
}

// rights reads one entry of each type in each base. Writing cannot be tried
// without doing it, and the directory does not say.
func (c *check) rights() {
	for _, t := range c.types {
		for _, base := range t.settings.Bases {
			result, err := c.session.conn.Search(ldap.NewSearchRequest(base, t.scope(), ldap.NeverDerefAliases, 1, 0, false, t.filter(), t.requested(c.Instance), nil))
			if resultCode(err) == ldap.LDAPResultSizeLimitExceeded {
				err = nil // there are more than the one that was asked for
			}
			read := &connectorv1.Right{What: "read " + t.name, Where: base, Allowed: err == nil, Certain: true}
			c.out.Rights = append(c.out.Rights, read)
			switch {
			case err != nil:
				c.tell(c.problem(err, base, "read one "+t.name), connectorv1.Severity_SEVERITY_ERROR)
			case len(result.Entries) == 0:
				// Nothing there and nothing to be seen look the same.
				read.Certain = false
				c.tell(sdk.NewProblem(sdk.CodeNotFound, base, "read one "+t.name, "if there should be some, let "+c.out.BoundAs+" read and search them; check base and filter"), connectorv1.Severity_SEVERITY_NOTE)
			default:
				if _, p := newBuilder(c.Instance).object(t, c.session.server.anchor, lentEntry(result.Entries[0])); p != nil {
					read.Allowed = false
					c.tell(p, connectorv1.Severity_SEVERITY_ERROR)
				}
			}
			c.out.Rights = append(c.out.Rights, &connectorv1.Right{What: "write " + t.name, Where: base})
		}
	}
}

func (c *check) fingerprint() {
	for _, suffix := range c.holders() {
		c.fact("suffix", suffix)
		result, err := c.session.conn.Search(ldap.NewSearchRequest(suffix, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 0, 0, false, anyObject, []string{c.session.server.anchor}, nil))
		id := ""
		if err == nil && len(result.Entries) == 1 {
			id = result.Entries[0].GetEqualFoldAttributeValue(c.session.server.anchor)
		}
		if id == "" {
			c.tell(c.unreadable(suffix, "without its "+c.session.server.anchor+" the fingerprint says less"), connectorv1.Severity_SEVERITY_NOTE)
			continue
		}
		c.fact(c.session.server.anchor+" of "+suffix, id)
	}
	if c.session.spki != "" {
		c.fact("TLS public key SHA-256", c.session.spki)
	}
}

// holders are the naming contexts that hold the bases, or the bases themselves.
func (c *check) holders() []string {
	var out []string
	for _, base := range c.bases() {
		dn, _ := parseDN(base) // checked with the settings
		at := base
		for _, suffix := range c.session.server.contexts {
			if above, err := parseDN(suffix); err == nil && len(above) > 0 && len(above) <= len(dn) && dnKey(dn[len(dn)-len(above):]) == dnKey(above) {
				at = suffix
			}
		}
		if len(out) == 0 || !strings.EqualFold(out[len(out)-1], at) {
			out = append(out, at)
		}
	}
	return out
}

func (c *check) fact(name, value string) {
	c.out.Fingerprint = append(c.out.Fingerprint, &connectorv1.Fact{Name: name, Value: value})
}

// abilities tells what the server lacks that the settings count on.
func (c *check) abilities() {
	server := c.session.server
	if !server.asserts() || !server.versioned {
		c.tell(sdk.NewProblem(sdk.CodeUnsupported, c.settings.URL, "assert the base state with the effect (RFC 4528 and entryCSN)",
			"nothing to do: base states are read right before each change, which leaves a moment between"), connectorv1.Severity_SEVERITY_NOTE)
	}
	if c.settings.Disable.Method == DisablePPolicy {
		c.ppolicy()
	}
	schema, err := c.readSchema(c.session)
	if err != nil {
		c.tell(sdk.AsProblem(err, c.settings.URL, "read the schema"), connectorv1.Severity_SEVERITY_NOTE)
		return
	}
	for _, t := range c.types {
		for _, a := range t.settings.Attributes {
			if schema[strings.ToLower(baseName(a.Name))] == nil && len(schema) > 0 {
				c.tell(sdk.NewProblem(codeSchema, t.name+" attribute "+a.Name, "find it in the server's schema", "load the schema that has it, or correct its name under attributes"), connectorv1.Severity_SEVERITY_ERROR)
			}
		}
	}
}

// ppolicy looks for a policy under which a lock counts: OpenLDAP's overlay
// ignores pwdAccountLockedTime unless the policy in force has pwdLockout TRUE.
func (c *check) ppolicy() {
	if !c.session.server.control(oidPasswordPolicy) {
		c.tell(sdk.NewProblem(sdk.CodeUnsupported, c.settings.URL, "disable accounts by ppolicy",
			"load the ppolicy overlay on the database, or choose disable.method: attribute"), connectorv1.Severity_SEVERITY_ERROR)
		return
	}
	locks, seen := false, false
	for _, suffix := range c.session.server.contexts {
		result, err := c.session.conn.Search(ldap.NewSearchRequest(suffix, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases, 0, 0, false, "(objectClass=pwdPolicy)", []string{"pwdLockout"}, nil))
		if err != nil && !isAnswer(err) && !errors.Is(err, context.Canceled) {
			c.tell(c.problem(err, suffix, "read password policies"), connectorv1.Severity_SEVERITY_NOTE)
		}
		if result == nil {
			continue
		}
		for _, e := range result.Entries {
			seen = true
			locks = locks || strings.EqualFold(e.GetEqualFoldAttributeValue("pwdLockout"), "TRUE")
		}
	}
	if !locks {
		said := "no password policy can be read"
		if seen {
			said = "no password policy has pwdLockout TRUE"
		}
		c.tell(sdk.NewProblem(sdk.CodeConfig, c.settings.URL, "see whether a locked account is kept out",
			"set pwdLockout: TRUE in the policy in force (olcPPolicyDefault): without it the server lets locked accounts in").WithSaid(said), connectorv1.Severity_SEVERITY_NOTE)
	}
}
