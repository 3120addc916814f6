package operatorapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	operatorv1 "github.com/reevehq/reeve/proto/reeve/operator/v1"
)

// ServeTLS serves gRPC and REST on one address over mTLS, to operators of the own
// trust domain, until ctx ends. REST is translated and handed to an in-memory
// connection of its own, so both go through the same interceptors.
func (s *Server) ServeTLS(ctx context.Context, address string, source svid.Source) error {
	config := mtls.ServerConfig(source, s.operatorsOnly, s.Now)
	config.NextProtos = []string{"h2", "http/1.1"}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for operators: %w", err)
	}
	defer listener.Close()

	rpc := grpc.NewServer(grpc.UnaryInterceptor(s.UnaryInterceptor), grpc.StreamInterceptor(s.StreamInterceptor))
	s.Register(rpc)
	inside := newPipe()
	defer inside.Close()
	translated := grpc.NewServer(grpc.UnaryInterceptor(s.restUnary), grpc.StreamInterceptor(s.restStream))
	s.Register(translated)
	go translated.Serve(inside) //nolint:errcheck // it ends when the pipe is closed
	defer translated.Stop()
	rest, err := s.gateway(ctx, inside)
	if err != nil {
		return err
	}
	server := &http.Server{
		TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
				rpc.ServeHTTP(w, r)
				return
			}
			rest.ServeHTTP(w, r)
		}),
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

func (s *Server) operatorsOnly(id spiffe.ID, _ *x509.Certificate) error {
	operator, ok := id.(spiffe.OperatorID)
	if !ok || operator.TrustDomain != s.TrustDomain {
		return fmt.Errorf("%w: only operators of %s connect here", mtls.ErrNotAuthorized, s.TrustDomain)
	}
	return nil
}

// operatorHeader carries a principal from the REST side to the services behind
// it. Both ends are in this process: what a client sends under that name is
// dropped.
const operatorHeader = "reeve-operator"

func (s *Server) gateway(ctx context.Context, inside *pipe) (http.Handler, error) {
	conn, err := grpc.NewClient("passthrough:///inside", grpc.WithContextDialer(inside.Dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		// What comes is this process's own answer, of a size that it chose.
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)))
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { conn.Close() })
	mux := runtime.NewServeMux(
		runtime.WithMarshalerOption(runtime.MIMEWildcard, restJSON()),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(_ context.Context, r *http.Request) metadata.MD {
			id, _, err := mtls.PeerOf(*r.TLS)
			if operator, ok := id.(spiffe.OperatorID); err == nil && ok {
				return metadata.Pairs(operatorHeader, operator.Name)
			}
			return nil
		}),
	)
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		operatorv1.RegisterTenantServiceHandler, operatorv1.RegisterAgentServiceHandler, operatorv1.RegisterConnectorServiceHandler,
		operatorv1.RegisterInventoryServiceHandler, operatorv1.RegisterIdentityServiceHandler, operatorv1.RegisterPolicyServiceHandler,
		operatorv1.RegisterPlanServiceHandler, operatorv1.RegisterGrantServiceHandler, operatorv1.RegisterScheduleServiceHandler,
		operatorv1.RegisterAuditServiceHandler,
	} {
		if err := register(ctx, mux, conn); err != nil {
			return nil, err
		}
	}
	return mux, nil
}

func restPrincipal(ctx context.Context) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	names := md.Get(operatorHeader)
	if len(names) != 1 || names[0] == "" {
		return nil, errUnauthenticated
	}
	return context.WithValue(ctx, principalKey{}, Principal{Actor: "operator:" + names[0]}), nil
}

func (s *Server) restUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return s.unary(ctx, req, info, handler, restPrincipal)
}

func (s *Server) restStream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return s.stream(srv, stream, info, handler, restPrincipal)
}

// pipe is a listener whose connections never leave the process.
type pipe struct {
	conns chan net.Conn
	done  chan struct{}
}

func newPipe() *pipe { return &pipe{conns: make(chan net.Conn), done: make(chan struct{})} }

// Dial connects to the pipe's listener.
func (p *pipe) Dial(ctx context.Context, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p *pipe) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p *pipe) Close() error {
	select {
	case <-p.done:
	default:
		close(p.done)
	}
	return nil
}

// Addr implements net.Listener.
func (p *pipe) Addr() net.Addr { return &net.UnixAddr{Name: "inside", Net: "unix"} }
