package spiffe

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// MaxLength is the greatest length in bytes of a SPIFFE ID, as the SPIFFE-ID
// standard sets it.
const MaxLength = 2048

const scheme = "spiffe://"

var (
	// ErrMalformed means that a string is not a SPIFFE ID of one of our forms
	// in its canonical spelling.
	ErrMalformed = errors.New("not a canonical SPIFFE ID of an agent, operator or control plane")
	// ErrURISAN means that a certificate does not carry exactly one URI SAN.
	ErrURISAN = errors.New("certificate must carry exactly one URI name")
	// ErrName means that a tenant, agent or operator name breaks the grammar
	// that [ValidateName] states.
	ErrName = errors.New("name must be 1 to 63 of a-z, 0-9 and inner hyphens")
	// ErrTrustDomain means that a trust domain name breaks the grammar that
	// [ValidateTrustDomain] states.
	ErrTrustDomain = errors.New("trust domain must be 1 to 255 of a-z, 0-9, '.', '-' and '_'")
)

// ID is the name of one party. The set of implementations is closed: AgentID,
// OperatorID and ControlPlaneID, all comparable values.
type ID interface {
	// String is the canonical URI.
	String() string
	// URL is the canonical URI in the form certificates take.
	URL() *url.URL
	// Domain is the trust domain, without scheme.
	Domain() string
	// Kind tells the three types apart where a type switch is clumsy.
	Kind() Kind
	// Validate reports whether every part keeps to the grammar. IDs that come
	// from Parse always do; those put together by hand may not.
	Validate() error
	sealed()
}

// AgentID names an agent: spiffe://<td>/tenant/<tenant>/agent/<agent>.
type AgentID struct {
	TrustDomain string
	Tenant      string
	Agent       string
}

// OperatorID names one of the MSP's operators: spiffe://<td>/operator/<name>.
type OperatorID struct {
	TrustDomain string
	Name        string
}

// ControlPlaneID names a control plane: spiffe://<td>/control-plane. All its
// replicas bear this one name.
type ControlPlaneID struct {
	TrustDomain string
}

func (id AgentID) String() string {
	return scheme + id.TrustDomain + "/tenant/" + id.Tenant + "/agent/" + id.Agent
}
func (id OperatorID) String() string     { return scheme + id.TrustDomain + "/operator/" + id.Name }
func (id ControlPlaneID) String() string { return scheme + id.TrustDomain + "/control-plane" }

func (id AgentID) URL() *url.URL {
	return uri(id.TrustDomain, "/tenant/"+id.Tenant+"/agent/"+id.Agent)
}
func (id OperatorID) URL() *url.URL     { return uri(id.TrustDomain, "/operator/"+id.Name) }
func (id ControlPlaneID) URL() *url.URL { return uri(id.TrustDomain, "/control-plane") }

func uri(domain, path string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: domain, Path: path}
}

func (id AgentID) Domain() string        { return id.TrustDomain }
func (id OperatorID) Domain() string     { return id.TrustDomain }
func (id ControlPlaneID) Domain() string { return id.TrustDomain }

func (AgentID) Kind() Kind        { return KindAgent }
func (OperatorID) Kind() Kind     { return KindOperator }
func (ControlPlaneID) Kind() Kind { return KindControlPlane }

func (AgentID) sealed()        {}
func (OperatorID) sealed()     {}
func (ControlPlaneID) sealed() {}

func (id AgentID) Validate() error {
	if err := ValidateTrustDomain(id.TrustDomain); err != nil {
		return err
	}
	if err := ValidateName(id.Tenant); err != nil {
		return fmt.Errorf("tenant: %w", err)
	}
	if err := ValidateName(id.Agent); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	return nil
}

func (id OperatorID) Validate() error {
	if err := ValidateTrustDomain(id.TrustDomain); err != nil {
		return err
	}
	if err := ValidateName(id.Name); err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	return nil
}

func (id ControlPlaneID) Validate() error { return ValidateTrustDomain(id.TrustDomain) }

// Parse reads a SPIFFE ID in its canonical form: lower-case scheme and trust
// domain, no port, user, query, fragment, percent-encoding, empty, "." or ".."
// segment and no trailing slash. It returns an error that wraps ErrMalformed
// for everything else, so that Parse(s).String() == s for all s it takes.
func Parse(uri string) (ID, error) {
	if len(uri) > MaxLength {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrMalformed, len(uri), MaxLength)
	}
	rest, ok := strings.CutPrefix(uri, scheme)
	if !ok {
		return nil, fmt.Errorf("%w: %q does not begin with %s", ErrMalformed, uri, scheme)
	}
	parts := strings.Split(rest, "/")
	var id ID
	switch {
	case len(parts) == 2 && parts[1] == "control-plane":
		id = ControlPlaneID{TrustDomain: parts[0]}
	case len(parts) == 3 && parts[1] == "operator":
		id = OperatorID{TrustDomain: parts[0], Name: parts[2]}
	case len(parts) == 5 && parts[1] == "tenant" && parts[3] == "agent":
		id = AgentID{TrustDomain: parts[0], Tenant: parts[2], Agent: parts[4]}
	default:
		return nil, fmt.Errorf("%w: %q", ErrMalformed, uri)
	}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %q: %w", ErrMalformed, uri, err)
	}
	return id, nil
}

// FromCertificate reads the party's name from a certificate's single URI SAN.
// It says nothing about whether the certificate is to be believed: that is
// mtls's work. Errors wrap ErrURISAN or ErrMalformed.
func FromCertificate(cert *x509.Certificate) (ID, error) {
	if cert == nil || len(cert.URIs) != 1 {
		n := 0
		if cert != nil {
			n = len(cert.URIs)
		}
		return nil, fmt.Errorf("%w: it carries %d", ErrURISAN, n)
	}
	return Parse(cert.URIs[0].String())
}

// ValidateName checks a tenant, agent or operator name against
// [a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?, an RFC 1123 label in lower case.
func ValidateName(name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-'
	}
	if !ok {
		return fmt.Errorf("%w: %q", ErrName, clip(name))
	}
	return nil
}

// ValidateTrustDomain checks a trust domain name as section 2.1 of the
// SPIFFE-ID standard has it: lower-case letters, digits, dots, hyphens and
// underscores, at most 255 bytes.
func ValidateTrustDomain(name string) error {
	ok := len(name) >= 1 && len(name) <= 255
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		ok = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_'
	}
	if !ok {
		return fmt.Errorf("%w: %q", ErrTrustDomain, clip(name))
	}
	return nil
}

// clip keeps hostile names from flooding an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}
