package ca

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/reevehq/reeve/pki/keys"
	"github.com/reevehq/reeve/pki/spiffe"
)

const (
	// DefaultTTL is the lifetime of a certificate issued with a ttl of zero.
	DefaultTTL = time.Hour
	// MaxTTL is the longest lifetime that is issued.
	MaxTTL = 24 * time.Hour
	// Backdate is how far not-before lies in the past, for clocks that run late.
	Backdate = time.Minute

	rootTTL         = 10 * 365 * 24 * time.Hour
	intermediateTTL = 365 * 24 * time.Hour
)

var (
	// ErrRequest means a certificate request that cannot be used.
	ErrRequest = errors.New("unusable certificate request")
	// ErrID means an ID outside the trust domain or not of the wanted grammar.
	ErrID = errors.New("certificate authority cannot issue for this ID")
	// ErrTTL means a negative lifetime or one above MaxTTL.
	ErrTTL = errors.New("certificate lifetime out of range")
	// ErrExpired means that an intermediate must be rotated first.
	ErrExpired = errors.New("intermediate has expired; rotate it")
	// ErrNoRootKey means that the root key is kept elsewhere.
	ErrNoRootKey = errors.New("root key of the certificate authority is not here")
)

// kinds are the kinds of party there is an intermediate for.
var kinds = [...]spiffe.Kind{spiffe.KindControlPlane, spiffe.KindOperator, spiffe.KindAgent}

// Config is what a CA is made or loaded with.
type Config struct {
	TrustDomain string
	// Rand gives keys and serial numbers; nil means crypto/rand.
	Rand io.Reader
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

func (c *Config) defaults() {
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	if c.Now == nil {
		c.Now = time.Now
	}
}

// CA issues certificates. It is safe for concurrent use if Rand and Now are.
type CA struct {
	cfg     Config
	root    *x509.Certificate
	rootKey ed25519.PrivateKey // nil when kept elsewhere

	mu            sync.RWMutex
	intermediates map[spiffe.Kind]issuer
}

type issuer struct {
	cert *x509.Certificate
	key  ed25519.PrivateKey
}

// Chain is a certificate and what leads from it towards the root, leaf first,
// without the root.
type Chain []*x509.Certificate

// DER is the chain as tls.Certificate holds it.
func (c Chain) DER() [][]byte {
	out := make([][]byte, len(c))
	for i, cert := range c {
		out[i] = cert.Raw
	}
	return out
}

// PEM is the chain in PEM, leaf first.
func (c Chain) PEM() []byte {
	var out []byte
	for _, cert := range c {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return out
}

// New makes a CA with fresh keys, in memory; Save keeps it.
func New(cfg Config) (*CA, error) {
	cfg.defaults()
	if err := usable(cfg.TrustDomain); err != nil {
		return nil, err
	}
	key, err := keys.Generate(cfg.Rand)
	if err != nil {
		return nil, err
	}
	c := &CA{cfg: cfg, rootKey: key, intermediates: map[spiffe.Kind]issuer{}}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "Reeve root of " + clip(cfg.TrustDomain)},
		NotAfter:              cfg.Now().Add(rootTTL),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLen:            1,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if c.root, err = c.create(template, template, key.Public(), key); err != nil {
		return nil, fmt.Errorf("make CA root: %w", err)
	}
	for _, k := range kinds {
		if err := c.Rotate(k); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// usable refuses trust domains that SPIFFE allows but URI name constraints
// cannot express (RFC 5280, 4.2.1.10: no IP addresses, no empty labels).
func usable(trustDomain string) error {
	if err := spiffe.ValidateTrustDomain(trustDomain); err != nil {
		return err
	}
	if _, err := netip.ParseAddr(trustDomain); err == nil || slices.Contains(strings.Split(trustDomain, "."), "") {
		return fmt.Errorf("%w: the built-in CA needs a host name, not %q", spiffe.ErrTrustDomain, trustDomain)
	}
	return nil
}

// clip keeps a subject within X.520's 64 characters.
func clip(s string) string {
	if len(s) > 40 {
		return s[:40]
	}
	return s
}

// Rotate gives one kind a new intermediate with a new key. Certificates below
// the old one stay valid until their end. It needs the root key.
func (c *CA) Rotate(k spiffe.Kind) error {
	if c.rootKey == nil {
		return fmt.Errorf("%w: put root.key back to rotate the %v intermediate", ErrNoRootKey, k)
	}
	policy, err := spiffe.PolicyOID(k)
	if err != nil {
		return err
	}
	key, err := keys.Generate(c.cfg.Rand)
	if err != nil {
		return err
	}
	notAfter := c.cfg.Now().Add(intermediateTTL)
	if notAfter.After(c.root.NotAfter) {
		notAfter = c.root.NotAfter
	}
	cert, err := c.create(&x509.Certificate{
		Subject:                     pkix.Name{CommonName: "Reeve " + k.String() + "s of " + clip(c.cfg.TrustDomain)},
		NotAfter:                    notAfter,
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{usage(k)},
		Policies:                    []x509.OID{policy},
		PermittedURIDomains:         []string{c.cfg.TrustDomain},
		PermittedDNSDomainsCritical: true, // makes the whole name constraint critical
	}, c.root, key.Public(), c.rootKey)
	if err != nil {
		return fmt.Errorf("make %v intermediate: %w", k, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intermediates[k] = issuer{cert, key}
	return nil
}

func usage(k spiffe.Kind) x509.ExtKeyUsage {
	if k == spiffe.KindControlPlane {
		return x509.ExtKeyUsageServerAuth
	}
	return x509.ExtKeyUsageClientAuth
}

// create fills in what all certificates share and signs.
func (c *CA) create(template, parent *x509.Certificate, pub any, key ed25519.PrivateKey) (*x509.Certificate, error) {
	serial := make([]byte, 16)
	if _, err := io.ReadFull(c.cfg.Rand, serial); err != nil {
		return nil, fmt.Errorf("read randomness for a serial number: %w", err)
	}
	serial[0] &= 0x7f // positive in 16 bytes, and with the next line never zero
	serial[15] |= 1
	template.SerialNumber = new(big.Int).SetBytes(serial)
	template.NotBefore = c.cfg.Now().Add(-Backdate)
	der, err := x509.CreateCertificate(c.cfg.Rand, template, parent, pub, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// TrustDomain is the trust domain the CA issues in.
func (c *CA) TrustDomain() string { return c.cfg.TrustDomain }

// HasRootKey reports whether the root key is here, and Rotate possible.
func (c *CA) HasRootKey() bool { return c.rootKey != nil }

// Bundle lists the roots that what this CA issues is verified with.
func (c *CA) Bundle() []*x509.Certificate { return []*x509.Certificate{c.root} }

// BundlePEM is Bundle with one certificate in PEM to a string, as root documents
// take them.
func (c *CA) BundlePEM() []string { return []string{string(Chain{c.root}.PEM())} }

// Pool is Bundle as a pool.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.root)
	return pool
}

// Expiry is the end of the intermediate for k, for warnings ahead of time.
func (c *CA) Expiry(k spiffe.Kind) time.Time {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if is, ok := c.intermediates[k]; ok {
		return is.cert.NotAfter
	}
	return time.Time{}
}

// IssueAgent issues a client certificate for an agent.
//
// It takes from the request (PKCS#10 in DER) its ECDSA P-256 public key, after
// checking that the request is signed with it, and nothing else: names and
// extensions in it are not looked at. The certificate runs from Backdate before
// now until ttl (zero: DefaultTTL) after now, or until its intermediate's end if
// that is sooner. Errors wrap ErrRequest, ErrID, ErrTTL or ErrExpired.
func (c *CA) IssueAgent(csr []byte, id spiffe.AgentID, ttl time.Duration) (Chain, error) {
	return c.issue(csr, id, ttl)
}

// IssueOperator issues a client certificate for an operator, by IssueAgent's rules.
func (c *CA) IssueOperator(csr []byte, id spiffe.OperatorID, ttl time.Duration) (Chain, error) {
	return c.issue(csr, id, ttl)
}

// IssueServer issues a server certificate for a control plane, by IssueAgent's rules.
func (c *CA) IssueServer(csr []byte, id spiffe.ControlPlaneID, ttl time.Duration) (Chain, error) {
	return c.issue(csr, id, ttl)
}

func (c *CA) issue(csr []byte, id spiffe.ID, ttl time.Duration) (Chain, error) {
	if ttl == 0 {
		ttl = DefaultTTL
	}
	if ttl < 0 || ttl > MaxTTL {
		return nil, fmt.Errorf("%w: %v, limit %v", ErrTTL, ttl, MaxTTL)
	}
	if err := id.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrID, err)
	}
	if id.Domain() != c.cfg.TrustDomain {
		return nil, fmt.Errorf("%w: %v is outside of %s", ErrID, id, c.cfg.TrustDomain)
	}
	pub, err := RequestKey(csr)
	if err != nil {
		return nil, err
	}
	k := id.Kind()
	policy, err := spiffe.PolicyOID(k)
	if err != nil {
		return nil, err
	}
	c.mu.RLock()
	by := c.intermediates[k]
	c.mu.RUnlock()
	now := c.cfg.Now()
	if !now.Before(by.cert.NotAfter) {
		return nil, fmt.Errorf("%w: that for %vs ended %s", ErrExpired, k, by.cert.NotAfter.Format(time.RFC3339))
	}
	notAfter := now.Add(ttl)
	if notAfter.After(by.cert.NotAfter) {
		notAfter = by.cert.NotAfter
	}
	leaf, err := c.create(&x509.Certificate{
		NotAfter:              notAfter,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{usage(k)},
		Policies:              []x509.OID{policy},
		URIs:                  []*url.URL{id.URL()},
	}, by.cert, pub, by.key)
	if err != nil {
		return nil, fmt.Errorf("issue for %v: %w", id, err)
	}
	return Chain{leaf, by.cert}, nil
}
