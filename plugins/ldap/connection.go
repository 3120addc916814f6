package ldap

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/reevehq/reeve/plugins/sdk"
)

// idle is how long a connection may rest before a new one is made: firewalls
// forget silent connections, and a request sent into one is of unknown outcome.
const idle = 60 * time.Second

// session is one bound connection.
type session struct {
	conn *ldap.Conn
	// raw is closed to end everything at once; conn.Close waits.
	raw    net.Conn
	server *server
	// spki is the SHA-256 of the certificate's public key, empty without TLS.
	spki string
	// used and active, the requests under way, belong to the session's lane.
	used   time.Time
	active int
}

func (s *session) close() {
	_ = s.raw.Close()
	_ = s.conn.Close()
}

// directory is what greeting a server needs of a connection: *ldap.Conn and
// *searchConn have it.
type directory interface {
	StartTLS(config *tls.Config) error
	TLSConnectionState() (tls.ConnectionState, bool)
	Bind(dn, password string) error
	ExternalBind() error
	Search(request *ldap.SearchRequest) (*ldap.SearchResult, error)
}

// connect dials, makes TLS, binds and reads what the server says of itself.
// Every failure is a *sdk.Problem.
func (i *Instance) connect(ctx context.Context) (*session, error) {
	raw, conn, err := i.dial(ctx)
	if err != nil {
		return nil, err
	}
	_, secure := conn.(*tls.Conn)
	s := &session{raw: raw, conn: ldap.NewConn(conn, secure)}
	s.conn.Start()
	s.conn.SetTimeout(i.settings.timeout)
	if s.server, s.spki, err = i.greet(ctx, raw, s.conn); err != nil {
		s.close()
		return nil, err
	}
	s.used = i.now()
	return s, nil
}

// connectForSearch is connect for a connection that reads answers itself. The
// caller closes raw.
func (i *Instance) connectForSearch(ctx context.Context) (raw net.Conn, c *searchConn, s *server, err error) {
	raw, conn, err := i.dial(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	c = newSearchConn(conn, i.settings.timeout)
	c.bounded = true
	if s, _, err = i.greet(ctx, raw, c); err != nil {
		_ = raw.Close()
		return nil, nil, nil, err
	}
	c.bounded = false
	return raw, c, s, nil
}

// dial returns the connection, and what to speak over: the same, or TLS over it.
func (i *Instance) dial(ctx context.Context) (raw, conn net.Conn, err error) {
	network, address := "tcp", ""
	switch u := i.settings.address; u.Scheme {
	case "ldapi":
		network, address = "unix", u.Path
	default:
		port := u.Port()
		if port == "" {
			port = map[string]string{"ldap": "389", "ldaps": "636"}[u.Scheme]
		}
		address = net.JoinHostPort(u.Hostname(), port)
	}
	dialer := &net.Dialer{Timeout: i.settings.timeout}
	raw, err = dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, nil, i.problem(err, i.settings.URL, "connect")
	}
	if i.settings.address.Scheme != "ldaps" {
		return raw, raw, nil
	}
	secure := tls.Client(raw, i.tlsConfig())
	handshake, cancel := context.WithTimeout(ctx, i.settings.timeout)
	defer cancel()
	if err := secure.HandshakeContext(handshake); err != nil {
		_ = raw.Close()
		return nil, nil, i.tlsProblem(err)
	}
	return raw, secure, nil
}

func (i *Instance) tlsConfig() *tls.Config {
	name := i.settings.ServerName
	if name == "" {
		name = i.settings.address.Hostname()
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, RootCAs: i.settings.roots}
}

func (i *Instance) tlsProblem(err error) *sdk.Problem {
	remedy := "check that the server speaks TLS 1.2 or later on this port"
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	// go-ldap flattens the error of a StartTLS handshake to text.
	switch text := err.Error(); {
	case errors.As(err, &unknown), strings.Contains(text, "unknown authority"):
		remedy = "give the certificate authority that signed the server's certificate as ca_file or ca_pem, and compare its fingerprint out of band"
	case errors.As(err, &host), strings.Contains(text, "certificate is valid for"), strings.Contains(text, "doesn't contain any IP SANs"):
		remedy = "use a name in url that is in the server's certificate, or set server_name"
	case errors.As(err, &invalid), strings.Contains(text, "expired"):
		remedy = "renew the server's certificate, or correct this machine's clock"
	}
	return sdk.NewProblem(sdk.CodeTLSRefused, i.settings.URL, "make a TLS connection", remedy).WithCause(err)
}

func spki(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	sum := sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// greet does StartTLS, bind and the reading of the root DSE within the timeout.
// Closing raw is left to the caller.
func (i *Instance) greet(ctx context.Context, raw net.Conn, c directory) (s *server, key string, err error) {
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	// go-ldap has no deadline for the TLS handshake of StartTLS.
	_ = raw.SetDeadline(i.now().Add(i.settings.timeout))
	if s, err = i.introduce(c); err != nil {
		if ctx.Err() != nil {
			err = i.problem(ctx.Err(), i.settings.URL, "connect")
		}
		return nil, "", err
	}
	_ = raw.SetDeadline(time.Time{})
	if state, ok := c.TLSConnectionState(); ok {
		key = spki(state)
	}
	return s, key, nil
}

func (i *Instance) introduce(c directory) (*server, error) {
	if i.settings.StartTLS {
		if err := c.StartTLS(i.tlsConfig()); err != nil {
			if isAnswer(err) {
				return nil, sdk.NewProblem(sdk.CodeTLSRefused, i.settings.URL, "StartTLS", "enable TLS on the server, or use ldaps://").WithSaid(said(err)).WithCause(err)
			}
			return nil, i.tlsProblem(err)
		}
	}
	tried, err := "bind", error(nil)
	switch {
	case i.settings.BindDN != "":
		tried = "bind as " + i.settings.BindDN
		err = c.Bind(i.settings.BindDN, i.password)
	case i.settings.address.Scheme == "ldapi":
		tried = "bind with SASL EXTERNAL"
		err = c.ExternalBind()
	}
	if err != nil {
		return nil, i.problem(err, i.settings.URL, tried)
	}
	return i.readServer(c)
}

// lane is a connection that callers share, one after another or at once, and
// that is made anew when it broke or rested too long.
type lane struct {
	mu      sync.Mutex
	session *session
}

func (l *lane) get(ctx context.Context, i *Instance) (*session, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.session; s != nil {
		if !s.conn.IsClosing() && (s.active > 0 || i.now().Sub(s.used) < idle) {
			s.active++
			return s, nil
		}
		l.session = nil
		s.close()
	}
	s, err := i.connect(ctx)
	if err != nil {
		return nil, err
	}
	l.session = s
	s.active++
	return s, nil
}

// put gives back what get lent.
func (l *lane) put(s *session, i *Instance) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s.active--
	s.used = i.now()
}

// drop ends the session unless another one took its place already.
func (l *lane) drop(s *session) {
	l.mu.Lock()
	if l.session == s {
		l.session = nil
	}
	l.mu.Unlock()
	s.close()
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.session != nil {
		l.session.close()
		l.session = nil
	}
}

// attempts bounds how often a request that was not sent is tried on a new
// connection.
const attempts = 3

// do runs one request on the lane. What was certainly not sent is tried again;
// an error that wraps errNotSent means that the server saw nothing. Once sent,
// a request is waited for up to the timeout whatever becomes of ctx, since its
// effect cannot be called back.
func (i *Instance) do(ctx context.Context, l *lane, request func(*session) error) error {
	for attempt := 1; ; attempt++ {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
		s, err := l.get(ctx, i)
		if err != nil {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
		err = request(s)
		l.put(s, i)
		if err != nil && !isAnswer(err) {
			l.drop(s)
		}
		if !wasNotSent(err) {
			return err
		}
		if attempt == attempts {
			return fmt.Errorf("%w: %w", errNotSent, err)
		}
	}
}

// ask is do for requests that change nothing: they may be sent again after a
// connection broke.
func (i *Instance) ask(ctx context.Context, l *lane, request func(*session) error) error {
	err := i.do(ctx, l, request)
	if err != nil && !isAnswer(err) && !errors.Is(err, errNotSent) && !strings.Contains(err.Error(), "connection timed out") {
		return i.do(ctx, l, request)
	}
	return err
}
