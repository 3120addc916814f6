package operatorapi

import (
	"context"
	"fmt"
	"net"
	"os/user"
	"runtime/debug"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
)

// Principal is who calls.
type Principal struct {
	// Actor is how records name them: "operator:<name>".
	Actor string
}

type principalKey struct{}

// actor returns the caller's name for records.
func actor(ctx context.Context) string {
	p, _ := ctx.Value(principalKey{}).(Principal)
	return p.Actor
}

// PeerCredentials is a transport for the local socket: who may open the socket
// is the file's mode; who did is asked of the kernel.
type PeerCredentials struct{}

type peerInfo struct {
	credentials.CommonAuthInfo
	user string
}

// AuthType implements credentials.AuthInfo.
func (peerInfo) AuthType() string { return "unix-peer" }

// ServerHandshake implements credentials.TransportCredentials.
func (PeerCredentials) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	uid, err := peerUID(conn)
	if err != nil {
		return nil, nil, fmt.Errorf("ask who opened the operator socket: %w", err)
	}
	name := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(name); err == nil {
		name = u.Username
	}
	return conn, peerInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, user: name}, nil
}

// ClientHandshake implements credentials.TransportCredentials.
func (PeerCredentials) ClientHandshake(_ context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return conn, peerInfo{}, nil
}

// Info implements credentials.TransportCredentials.
func (PeerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "unix-peer"}
}

// Clone implements credentials.TransportCredentials.
func (c PeerCredentials) Clone() credentials.TransportCredentials { return c }

// OverrideServerName implements credentials.TransportCredentials.
func (PeerCredentials) OverrideServerName(string) error { return nil }

// authenticate finds the principal or refuses.
func authenticate(ctx context.Context) (context.Context, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, "nobody knows who calls")
	}
	switch info := p.AuthInfo.(type) {
	case peerInfo:
		return context.WithValue(ctx, principalKey{}, Principal{Actor: "operator:" + info.user}), nil
	case credentials.TLSInfo:
		id, _, err := mtls.PeerOf(info.State)
		if operator, ok := id.(spiffe.OperatorID); err == nil && ok {
			return context.WithValue(ctx, principalKey{}, Principal{Actor: "operator:" + operator.Name}), nil
		}
	}
	return nil, errUnauthenticated
}

var errUnauthenticated = status.Error(codes.Unauthenticated, "the operator API needs an operator's certificate")

// UnaryInterceptor authenticates and maps errors.
func (s *Server) UnaryInterceptor(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return s.unary(ctx, req, info, handler, authenticate)
}

// StreamInterceptor is UnaryInterceptor for streams.
func (s *Server) StreamInterceptor(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	return s.stream(srv, stream, info, handler, authenticate)
}

// who finds the principal of a request, or refuses.
type who func(context.Context) (context.Context, error)

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler, who who) (resp any, err error) {
	if ctx, err = who(ctx); err != nil {
		return nil, err
	}
	defer func() { err = s.problem(ctx, info.FullMethod, err) }()
	defer caught(&err)
	return handler(ctx, req)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler, who who) (err error) {
	ctx, err := who(stream.Context())
	if err != nil {
		return err
	}
	defer func() { err = s.problem(ctx, info.FullMethod, err) }()
	defer caught(&err)
	return handler(srv, authenticated{stream, ctx})
}

// caught turns a panic into an error: one request must not take down what serves
// every tenant.
func caught(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
	}
}

type authenticated struct {
	grpc.ServerStream
	ctx context.Context
}

// Context implements grpc.ServerStream.
func (a authenticated) Context() context.Context { return a.ctx }
