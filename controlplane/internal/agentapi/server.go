package agentapi

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/reevehq/reeve/controlplane/internal/auditlog"
	"github.com/reevehq/reeve/controlplane/internal/enrollment"
	"github.com/reevehq/reeve/controlplane/internal/tenant"
	"github.com/reevehq/reeve/pki/mtls"
	"github.com/reevehq/reeve/pki/spiffe"
	"github.com/reevehq/reeve/pki/svid"
	agentv1 "github.com/reevehq/reeve/proto/reeve/agent/v1"
)

const (
	// maxMessage bounds one message from an agent in bytes.
	maxMessage = 16 << 20
	// streamWindow is how much of one stream may be on its way unread.
	streamWindow = 1 << 20
	// maxStreams bounds what one connection may have open at once.
	maxStreams = 32
)

// Config is what New needs.
type Config struct {
	// Source is the control plane's own SVID and the roots it believes in.
	Source       svid.Source
	Registry     *Registry
	Enrollment   Enrollment
	Observations Observations
	Orders       Orders
	Records      Records
	Checkpoints  Checkpoints
	Roots        Roots
	// Heartbeat is what agents are asked for, in whole seconds; 0 means 15 s.
	Heartbeat time.Duration
	// Codes gives the status code of an error from a later stage or a sibling,
	// which this package does not import; codes.Unknown leaves it an internal
	// error, whose text goes to the log and not out.
	Codes func(error) codes.Code
	Now   func() time.Time
	Log   *slog.Logger
}

// Server serves agents. It is safe for concurrent use.
type Server struct {
	Config
	grpc *grpc.Server
	bulk tenant.Lanes
}

// New returns a server that is not listening yet.
func New(c Config) *Server {
	if c.Heartbeat < time.Second {
		c.Heartbeat = 15 * time.Second
	}
	s := &Server{Config: c}
	tlsConfig := mtls.ServerConfigOptionalClient(c.Source, onlyAgents, c.Now)
	s.grpc = grpc.NewServer(
		grpc.Creds(watching{credentials.NewTLS(tlsConfig), &c.Registry.connections}),
		grpc.ChainUnaryInterceptor(s.unary),
		grpc.ChainStreamInterceptor(s.stream),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxStreams), grpc.MaxHeaderListSize(16<<10),
		grpc.InitialWindowSize(streamWindow), grpc.InitialConnWindowSize(4*streamWindow),
		// A thousand idle agents must cost little: see the traps in the design.
		grpc.ReadBufferSize(0), grpc.HeaderTableSize(0),
		grpc.ConnectionTimeout(20*time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 2 * time.Minute, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Minute, PermitWithoutStream: true}),
	)
	agentv1.RegisterEnrollmentServiceServer(s.grpc, &enrollmentService{Server: s})
	agentv1.RegisterAgentServiceServer(s.grpc, &agentService{Server: s})
	return s
}

// onlyAgents refuses operators and control planes in the handshake. Whether an
// agent is suspended is said by the first request's status, which can carry a
// sentence.
func onlyAgents(id spiffe.ID, _ *x509.Certificate) error {
	if _, ok := id.(spiffe.AgentID); !ok {
		return fmt.Errorf("%w: only agents connect here", mtls.ErrNotAuthorized)
	}
	return nil
}

// Serve serves agents on the listener until ctx ends; then it cuts all
// connections, which agents take as a reason to dial again.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, s.grpc.Stop)()
	if err := s.grpc.Serve(l); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve agents: %w", err)
	}
	return ctx.Err()
}

type callerKey struct{}

func callerOf(ctx context.Context) (Caller, error) {
	c, ok := ctx.Value(callerKey{}).(Caller)
	if !ok {
		return Caller{}, status.Error(codes.Unauthenticated, "an agent's certificate is needed")
	}
	return c, nil
}

func agentID(ctx context.Context) (spiffe.AgentID, error) {
	id, _, err := mtls.Peer(ctx)
	agent, ok := id.(spiffe.AgentID)
	if err != nil || !ok {
		return spiffe.AgentID{}, status.Error(codes.Unauthenticated, "an agent's certificate is needed")
	}
	return agent, nil
}

// authorize puts the Caller into the context: tenant and agent of the exact name
// in the verified certificate, if that is registered and active.
func (s *Server) authorize(ctx context.Context, method string) (context.Context, error) {
	if strings.HasPrefix(method, "/"+agentv1.EnrollmentService_ServiceDesc.ServiceName+"/") {
		return ctx, nil
	}
	_, leaf, err := mtls.Peer(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "an agent's certificate is needed")
	}
	if !s.Now().Before(leaf.NotAfter) {
		return nil, status.Error(codes.Unauthenticated, "the certificate has expired; re-attest")
	}
	id, err := agentID(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.Enrollment.Authorize(ctx, id)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return context.WithValue(ctx, callerKey{}, Caller{Tenant: a.Tenant, Agent: a.ID, Epoch: a.Epoch, Quarantined: a.Quarantine != ""}), nil
}

func (s *Server) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (_ any, err error) {
	defer s.caught(ctx, info.FullMethod, &err)
	ctx, err = s.authorize(ctx, info.FullMethod)
	if err != nil {
		return nil, err
	}
	return handler(ctx, r)
}

func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	defer s.caught(stream.Context(), info.FullMethod, &err)
	var ctx context.Context
	err = aside(func() (err error) { ctx, err = s.authorize(stream.Context(), info.FullMethod); return err })
	if err != nil {
		return err
	}
	return handler(srv, authorized{stream, ctx})
}

type authorized struct {
	grpc.ServerStream
	ctx context.Context
}

func (a authorized) Context() context.Context { return a.ctx }

// caught turns a panic into an error: one agent's request must not take the
// others down.
func (s *Server) caught(ctx context.Context, method string, err *error) {
	if p := recover(); p != nil {
		s.Log.ErrorContext(ctx, "panic while serving an agent", "method", method, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = status.Error(codes.Internal, "internal error")
	}
}

// fail turns an error into a status. What the agent's side can act on is said;
// the rest is logged here and stays here.
func (s *Server) fail(ctx context.Context, err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	code := codes.Unknown
	for _, known := range []struct {
		err  error
		code codes.Code
	}{
		{context.Canceled, codes.Canceled}, {context.DeadlineExceeded, codes.DeadlineExceeded},
		{enrollment.ErrInvalid, codes.InvalidArgument},
		{enrollment.ErrToken, codes.PermissionDenied}, {enrollment.ErrTokenUsed, codes.PermissionDenied},
		{enrollment.ErrTokenExpired, codes.PermissionDenied}, {enrollment.ErrProof, codes.PermissionDenied},
		{enrollment.ErrClone, codes.PermissionDenied}, {enrollment.ErrSuspended, codes.PermissionDenied},
		{enrollment.ErrRevoked, codes.PermissionDenied}, {enrollment.ErrNotFound, codes.PermissionDenied},
		{enrollment.ErrConflict, codes.FailedPrecondition}, {enrollment.ErrEpoch, codes.FailedPrecondition},
		{auditlog.ErrNotFound, codes.FailedPrecondition},
	} {
		if errors.Is(err, known.err) {
			code = known.code
			break
		}
	}
	if code == codes.Unknown && s.Codes != nil {
		code = s.Codes(err)
	}
	if code == codes.Unknown {
		s.Log.ErrorContext(ctx, "request of an agent failed", "error", err)
		return status.Error(codes.Internal, "the control plane could not do this; its log says why")
	}
	return status.Error(code, err.Error())
}
