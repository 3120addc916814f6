package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	connectorv1 "github.com/reevehq/reeve/proto/reeve/connector/v1"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// defaultSockets are looked for in this order when nobody names a server: what
// `reeve-controlplane run --data reeve-data` makes here, and what packages use.
var defaultSockets = []string{"./reeve-data/operator.sock", "/var/lib/reeve/operator.sock"}

// largestMessage bounds one response in bytes: a page of a thousand changes.
const largestMessage = 64 << 20

// services is the operator API.
type services struct {
	tenants    operatorv1.TenantServiceClient
	agents     operatorv1.AgentServiceClient
	connectors operatorv1.ConnectorServiceClient
	inventory  operatorv1.InventoryServiceClient
	identities operatorv1.IdentityServiceClient
	policies   operatorv1.PolicyServiceClient
	plans      operatorv1.PlanServiceClient
	grants     operatorv1.GrantServiceClient
	schedules  operatorv1.ScheduleServiceClient
	audit      operatorv1.AuditServiceClient
}

// run adapts a command that needs the control plane.
func (a *app) run(f func(ctx context.Context, s services, args []string) error) func(*cobra.Command, []string) error {
	return func(c *cobra.Command, args []string) error {
		s, err := a.connect()
		if err != nil {
			return err
		}
		return f(c.Context(), s, args)
	}
}

// connect prepares the connection; it is made with the first request.
func (a *app) connect() (services, error) {
	if a.conn == nil {
		target, creds, err := a.target()
		if err != nil {
			return services{}, err
		}
		a.conn, err = grpc.NewClient(target, grpc.WithTransportCredentials(creds), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(largestMessage)))
		if err != nil {
			return services{}, usagef("--server %s is no address: %v", a.address(), err)
		}
	}
	c := a.conn
	return services{
		tenants: operatorv1.NewTenantServiceClient(c), agents: operatorv1.NewAgentServiceClient(c), connectors: operatorv1.NewConnectorServiceClient(c),
		inventory: operatorv1.NewInventoryServiceClient(c), identities: operatorv1.NewIdentityServiceClient(c), policies: operatorv1.NewPolicyServiceClient(c),
		plans: operatorv1.NewPlanServiceClient(c), grants: operatorv1.NewGrantServiceClient(c), schedules: operatorv1.NewScheduleServiceClient(c),
		audit: operatorv1.NewAuditServiceClient(c),
	}, nil
}

// address is the server as named, or the socket that is there.
func (a *app) address() string {
	if a.server != "" {
		return a.server
	}
	if named := a.env.Getenv("REEVE_SERVER"); named != "" {
		return named
	}
	for _, path := range defaultSockets {
		if _, err := os.Stat(path); err == nil || errors.Is(err, fs.ErrPermission) {
			return "unix:" + path
		}
	}
	return "unix:" + defaultSockets[len(defaultSockets)-1]
}

// socket returns the path of a local address.
func socket(address string) (path string, ok bool) {
	if strings.HasPrefix(address, "/") || strings.HasPrefix(address, "./") {
		return address, true
	}
	path, ok = strings.CutPrefix(address, "unix:")
	return strings.TrimPrefix(path, "//"), ok
}

func (a *app) target() (string, credentials.TransportCredentials, error) {
	address := a.address()
	if path, ok := socket(address); ok {
		abs, err := filepath.Abs(path)
		if err != nil {
			return "", nil, fmt.Errorf("find the socket %s: %w", path, err)
		}
		// Who may open the socket is its mode's to say, and the server asks the
		// kernel who did.
		return "unix://" + abs, insecure.NewCredentials(), nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return "", nil, usageError{said: "--server " + address + " is neither unix:///path nor host:port", remedy: "name a socket as unix:///path, or a network address with its port"}
	}
	for _, f := range []struct{ flag, value string }{{"--cert", a.cert}, {"--key", a.key}, {"--ca", a.ca}} {
		if f.value == "" {
			return "", nil, usageError{said: f.flag + " is missing: over a network both sides prove who they are", remedy: "give an operator's certificate with --cert, --key and --ca, or use the local socket"}
		}
	}
	source, err := a.certificate()
	if err != nil {
		return "", nil, err
	}
	server := spiffe.ControlPlaneID{TrustDomain: a.trustDomain}
	if server.TrustDomain == "" {
		id, err := spiffe.FromCertificate(source.cert.Leaf)
		if err != nil {
			return "", nil, badFile(a.cert, err, "use a certificate that was issued to an operator, or name the trust domain with --trust-domain")
		}
		server.TrustDomain = id.Domain()
	}
	if err := server.Validate(); err != nil {
		return "", nil, usagef("--trust-domain %s: %v", a.trustDomain, err)
	}
	return "dns:///" + address, credentials.NewTLS(mtls.ClientConfig(source, server, a.env.Now)), nil
}

// fileSource is an operator's certificate from files: a command is over before
// it would have to be renewed.
type fileSource struct {
	path  string
	cert  *tls.Certificate
	roots *x509.CertPool
	now   func() time.Time
}

var _ svid.Source = fileSource{}

// Current implements svid.Source.
func (s fileSource) Current() (*tls.Certificate, error) {
	if end := s.cert.Leaf.NotAfter; s.now().After(end) {
		return nil, fmt.Errorf("%w: %s, at %s", svid.ErrExpired, s.path, end.UTC().Format(time.RFC3339))
	}
	return s.cert, nil
}

// Roots implements svid.Source.
func (s fileSource) Roots() *x509.CertPool { return s.roots }

// Updated implements svid.Source: files are read once.
func (s fileSource) Updated() <-chan struct{} { return nil }

// Close implements svid.Source.
func (s fileSource) Close() error { return nil }

func (a *app) certificate() (fileSource, error) {
	cert, err := tls.LoadX509KeyPair(a.cert, a.key)
	if err != nil {
		return fileSource{}, badFile(a.cert+", "+a.key, err, "name an operator's certificate chain and its key, both in PEM, with --cert and --key")
	}
	pem, err := os.ReadFile(a.ca)
	if err != nil {
		return fileSource{}, badFile(a.ca, err, "name the CA roots with --ca")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fileSource{}, badFile(a.ca, errors.New("it holds no certificate in PEM"), "name the CA roots with --ca")
	}
	return fileSource{path: a.cert, cert: &cert, roots: roots, now: a.env.Now}, nil
}

// badFile is a file of this machine that cannot be used.
func badFile(path string, err error, remedy string) error {
	said := err.Error()
	var p *fs.PathError
	if errors.As(err, &p) {
		said = p.Err.Error()
	}
	return local(ExitFailed, "FILE", path, "", said, remedy)
}

// unreachable says what to do when no control plane answers.
func (a *app) unreachable(said string) *connectorv1.Problem {
	address := a.address()
	p := &connectorv1.Problem{Code: "UNREACHABLE", Object: address, Said: said, Severity: connectorv1.Severity_SEVERITY_ERROR}
	// What gRPC puts round the reason says nothing to a person.
	if _, reason, ok := strings.Cut(said, "Error while dialing: "); ok {
		p.Said = strings.TrimSuffix(reason, `"`)
	}
	_, isSocket := socket(address)
	switch {
	case strings.Contains(said, "permission denied"):
		p.Remedy = "this user may not open the socket: ask for membership in its group, see `ls -l` on it"
	case strings.Contains(said, "handshake") || strings.Contains(said, "tls:"):
		p.Remedy = "check that --cert and --key are an operator's and have not expired, and that --ca and --trust-domain are the control plane's"
	case strings.Contains(said, "error reading from server") || strings.Contains(said, "EOF") || strings.Contains(said, "closing"):
		p.Remedy = "the connection broke after the request was sent: look at how things are before you repeat it"
	case isSocket:
		p.Remedy = "start one with `reeve-controlplane run --data DIR`, or name its socket with --server unix:///DIR/operator.sock or REEVE_SERVER"
	default:
		p.Remedy = "check the address in --server or REEVE_SERVER and that the control plane runs; if it does, it may not accept the certificate in --cert"
	}
	return p
}
